"""What lies beside a scan: earlier ones of the same patient, and other views of the same study.

A patient's identifier is one site's: at another site the same one may be somebody else, so these come last and say
where they are from. What is hidden of an entry (db/store/entries.py) is hidden here, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import ColumnElement, false, select

from db.files import derived_path
from db.schema import Batch, Entry, Outcome, Scan, Site
from db.store import entries
from db.store.connection import Database
from db.store.decisions import READ
from db.store.people import UserView
from db.store.reading import ScanView
from db.store.scoring import current_outcome
from db.words import Kind, Reason, Role, State, Verdict

MOST = 20
# Of the newest with the same identifier: some devices write one for everybody.
LOOKED_AT = 500


@dataclass(frozen=True)
class Related:
    """Another scan, as one person may see it; `path` may hold surrogate escapes. `taken` is the date in its header.

    `kind` is None while it waits. `flagged` is None where that is hidden (`is_hidden`) or does not apply; `state` is
    that of its entry, None where it is on no list; `verdict` is there once that is done. `has_picture`: a review copy
    is kept here.
    """

    scan_id: int
    key: str
    path: str
    site: str
    is_same_site: bool
    batch: int
    submitted_at: datetime
    taken: date | None
    view: str | None
    kind: Kind | None
    reason: str | None
    flagged: bool | None
    is_hidden: bool
    state: State | None
    verdict: Verdict | None
    has_picture: bool


@dataclass(frozen=True)
class _Found:
    """The rows behind one."""

    scan: Scan
    batch: Batch
    site: str
    outcome: Outcome | None
    entry_id: int | None

    @property
    def taken(self) -> date | None:
        return _date(self.scan.tags or {})


def earlier(db: Database, scan: ScanView, *, me: UserView, limit: int = MOST) -> list[Related]:
    """Earlier scans of the same patient at the sites that `me` may see: this one's site first, then newest first.

    Earlier by the headers' dates where both have one, else by submission. Copies of one content are shown once, and
    what belongs to the same study is left to `same_study`. Empty where the scan names no patient.
    """
    if not scan.patient:
        return []
    not_study = [Scan.study.is_distinct_from(scan.study)] if scan.study else []
    taken = _date(scan.tags)

    def is_earlier(other: _Found) -> bool:
        if taken and other.taken and other.taken != taken:
            return other.taken < taken
        return other.scan.id < scan.scan_id

    found = filter(is_earlier, _found(db, scan, me, Scan.patient == scan.patient, *not_study))
    return _shown(db, found, scan, me, limit)


def same_study(db: Database, scan: ScanView, *, me: UserView, limit: int = MOST) -> list[Related]:
    """Other scans of the same study (and patient) at the sites that `me` may see: this one's site first, then newest
    first. Empty where the scan names no study."""
    if not scan.study:
        return []
    patient = Scan.patient.is_not_distinct_from(scan.patient)
    return _shown(db, _found(db, scan, me, Scan.study == scan.study, patient), scan, me, limit)


def _found(
    db: Database, scan: ScanView, me: UserView, same: ColumnElement[bool], *others: ColumnElement[bool]
) -> list[_Found]:
    newest = select(Scan.id).where(same).order_by(Scan.id.desc()).limit(LOOKED_AT).subquery()
    joined = (
        select(Scan, Batch, Site.name, Outcome, Entry.id)
        .join(newest, newest.c.id == Scan.id)
        .join(Batch, Batch.id == Scan.batch_id)
        .join(Site, Site.id == Batch.site_id)
        .outerjoin(Outcome, current_outcome(Batch.trained_model_id))
        .outerjoin(Entry, Entry.scan_id == Scan.id)
        .where(Scan.id != scan.scan_id, *others, Batch.site_id.in_(me.site_ids))
    )
    if me.role not in READ:  # an admin sees no more than the batch that they opened for this scan
        joined = joined.where(Batch.id == scan.batch if me.role == Role.ADMIN else false())
    with db.reading() as session:
        rows = [_Found(*row) for row in session.execute(joined)]
        session.expunge_all()
    return [row for row in rows if row.outcome is None or row.outcome.reason != Reason.DUPLICATE]


def _shown(db: Database, found: Iterable[_Found], scan: ScanView, me: UserView, limit: int) -> list[Related]:
    def order(row: _Found) -> tuple[bool, date, int]:
        return row.site == scan.site, row.taken or row.batch.submitted_at.date(), row.scan.id

    return [_view(db, row, scan, me) for row in sorted(found, key=order, reverse=True)[: min(limit, MOST)]]


def _date(tags: dict[str, Any]) -> date | None:
    """The day on which a scan was taken, as its header says (workers.images.Tags)."""
    try:
        return datetime.fromisoformat(str(tags.get("imaged") or tags.get("study_date") or "")).date()
    except ValueError:
        return None


def _view(db: Database, row: _Found, scan: ScanView, me: UserView) -> Related:
    outcome, view = row.outcome, (row.scan.tags or {}).get("view")
    entry = entries.entry(db, row.scan.id, me=me) if row.entry_id is not None else None
    is_hidden = entry is not None and not entry.sees_score
    return Related(
        scan_id=row.scan.id,
        key=row.scan.key,
        path=row.scan.path,
        site=row.site,
        is_same_site=row.site == scan.site,
        batch=row.batch.id,
        submitted_at=row.batch.submitted_at,
        taken=row.taken,
        view=view if isinstance(view, str) else None,
        kind=Kind(outcome.kind) if outcome else None,
        reason=outcome.reason if outcome else None,
        flagged=outcome.flagged if outcome and not is_hidden else None,
        is_hidden=is_hidden,
        state=entry.state if entry else None,
        verdict=entry.verdict if entry and entry.state == State.DONE else None,
        has_picture=derived_path(db.config.derived, row.scan.key, "image").is_file(),
    )
