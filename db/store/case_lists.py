"""Lists of cases: where they stand, newest first, as far as one user may know it. `cases.Known` says the same of one
case in Python; a test holds the two against each other."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, false, func, not_, or_, select, text, true
from sqlalchemy.orm import aliased

from db.schema import Batch, CaseStep, Chunk, Entry, Outcome, Review, Scan, Site
from db.store.cases import OPEN, READ_AS, CaseState, Known
from db.store.connection import Database
from db.store.people import UserView
from db.store.scoring import current_outcome
from db.words import Kind, LabResult, Role, State, Step, Verdict

MOST_FOUND = 50  # cases of a search
END = (Step.CLOSED, Step.REOPENED)
Laboratory, Ended = aliased(CaseStep), aliased(CaseStep)


@dataclass(frozen=True)
class CaseLine:
    """A case in a list. `path` may hold surrogate escapes."""

    scan_id: int
    key: str
    path: str
    patient: str | None
    study: str | None
    site: str
    zone: str
    batch: int
    submitted_at: datetime
    state: CaseState
    verdict: str | None
    laboratory: str | None
    laboratory_at: datetime | None
    is_discrepant: bool


def page(
    db: Database,
    *,
    me: UserView,
    state: CaseState | None = None,
    is_discrepant: bool = False,
    site_id: int | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[CaseLine]:
    """Cases of my sites, the newest scan first: all, those in a state, or those where the laboratory is at odds with
    reader or machine and that are still open. `before` is the scan id of the last line of the page before."""
    wanted = _lines(db, me, me.site_ids if site_id is None else me.site_ids & {site_id})
    if is_discrepant:
        wanted = wanted.where(_is_discrepant(), Scan.id.in_(_few(CaseState.LABORATORY)))
    elif state is not None:
        wanted = wanted.where(_stands(db, state, me))
        wanted = wanted.where(Scan.id.in_(_few(state))) if state in RARE else wanted
    if before is not None:
        wanted = wanted.where(Scan.id < before)
    return _fetch(db, wanted.order_by(Scan.id.desc()).limit(limit), me)


def search(db: Database, typed: str, *, me: UserView) -> list[CaseLine]:
    """The newest cases of my sites whose patient or study is `typed` or begins with it, or whose file is `typed`."""
    if not typed:
        return []
    begins = (column.startswith(typed, autoescape=True) for column in (Scan.patient, Scan.study))
    same = or_(*begins, Scan.path == typed)
    return _fetch(db, _lines(db, me, me.site_ids).where(same).order_by(Scan.id.desc()).limit(MOST_FOUND), me)


def discrepancies(db: Database, *, me: UserView, most: int = 100) -> int:
    """How many open cases the laboratory is at odds with, at most `most`."""
    return len(page(db, me=me, is_discrepant=True, limit=most))


def _lines(db: Database, me: UserView, site_ids: Collection[int]) -> Select[Any]:
    batch_id = Scan.batch_id + 0 if db.is_sqlite else Scan.batch_id  # by batch, SQLite would sort all of a site's scans
    columns = select(Scan, Batch.id, Batch.submitted_at, Site.name, Site.time_zone, Outcome.kind, Entry, _hidden(me))
    return (
        columns.add_columns(Laboratory.result, Laboratory.at, Ended.step)
        .join(Batch, batch_id == Batch.id)
        .join(Site, Batch.site_id == Site.id)
        .outerjoin(Outcome, current_outcome(Batch.trained_model_id))
        .outerjoin(Entry, and_(Entry.scan_id == Scan.id, Entry.trained_model_id == Batch.trained_model_id))
        .outerjoin(Laboratory, Laboratory.id == _newest(Step.LABORATORY))
        .outerjoin(Ended, Ended.id == _newest(*END))
        .where(Batch.site_id.in_(site_ids))
    )


def _newest(*steps: Step) -> Any:
    newest = select(func.max(CaseStep.id)).where(CaseStep.scan_id == Scan.id, CaseStep.step.in_(steps))
    return newest.correlate(Scan).scalar_subquery()


def _fetch(db: Database, wanted: Select[Any], me: UserView) -> list[CaseLine]:
    with db.reading() as session:
        return [_line(me, *row) for row in session.execute(wanted)]


def _line(
    me: UserView,
    scan: Scan,
    batch: int,
    submitted_at: datetime,
    site: str,
    zone: str,
    kind: str | None,
    entry: Entry | None,
    is_hidden: bool,
    laboratory: str | None,
    laboratory_at: datetime | None,
    ended: str | None,
) -> CaseLine:
    tells = not is_hidden  # of laboratory and closing
    known = Known(
        kind=kind,
        entry=entry.state if entry else None,
        verdict=entry.verdict if entry and entry.state == State.DONE else None,
        laboratory=laboratory if tells else None,
        is_closed=tells and ended == Step.CLOSED,
    )
    return CaseLine(
        scan_id=scan.id,
        key=scan.key,
        path=scan.path,
        patient=scan.patient,
        study=scan.study,
        site=site,
        zone=zone,
        batch=batch,
        submitted_at=submitted_at,
        state=known.state,
        verdict=known.verdict,
        laboratory=known.laboratory,
        laboratory_at=laboratory_at if tells else None,
        is_discrepant=known.is_discrepant,
    )


def _hidden(me: UserView) -> ColumnElement[bool]:
    """Whether laboratory and closing are kept from this user until they have read the scan."""
    if me.role == Role.CENTRE:
        return false()
    has_read = exists().where(Review.scan_id == Scan.id, Review.reader_id == me.id)
    arbitrates = Entry.state == State.ARBITER if me.role == Role.ARBITER else false()
    return and_(_entry_state().in_(OPEN), Entry.blind.is_(True), not_(has_read), not_(arbitrates))


RARE = (CaseState.WAITING, CaseState.UNSCREENED, CaseState.TO_READ, CaseState.LABORATORY, CaseState.CLOSED)


def _few(state: CaseState) -> Select[int]:
    """The few scans that may stand in one of RARE, for the database to begin with, instead of with all there are."""
    if state == CaseState.WAITING:
        open_chunks = select(Chunk.id).where(Chunk.completed_at.is_(None))
        return select(Scan.id).where(Scan.chunk_id.in_(open_chunks))
    if state == CaseState.UNSCREENED:  # in the words of its index, ix_outcomes_unscreened
        return select(Outcome.scan_id).where(text("outcomes.kind <> 'scored'"))
    if state == CaseState.TO_READ:
        return select(Entry.scan_id).where(Entry.state.in_(OPEN))
    steps = END if state == CaseState.CLOSED else (Step.LABORATORY,)
    return select(CaseStep.scan_id).where(CaseStep.step.in_(steps))


def _entry_state() -> ColumnElement[str]:
    return func.coalesce(Entry.state, "")


def _stands(db: Database, state: CaseState, me: UserView) -> ColumnElement[bool]:
    is_closed = and_(func.coalesce(Ended.step, "") == Step.CLOSED, not_(_hidden(me)))
    is_open, has_result = _entry_state().in_(OPEN), Laboratory.id.is_not(None)
    if state == CaseState.CLOSED:
        return is_closed
    if state == CaseState.TO_READ:
        return and_(is_open, not_(is_closed))
    if state == CaseState.LABORATORY:
        return and_(has_result, not_(is_open), not_(is_closed))
    return and_(_without_laboratory(db, state), not_(has_result), not_(is_closed))


def _without_laboratory(db: Database, state: CaseState) -> ColumnElement[bool]:
    kind = (
        func.coalesce(Outcome.kind, "") if db.is_sqlite else Outcome.kind
    )  # SQLite would sort every outcome of a kind
    verdicts = {stands: verdict for verdict, stands in READ_AS.items()}
    if state in verdicts:
        return and_(Entry.state == State.DONE, Entry.verdict == verdicts[state])
    on_no_list = _entry_state().in_(["", State.WITHDRAWN])
    kinds = {
        CaseState.WAITING: Outcome.kind.is_(None),
        CaseState.CLEARED: kind == Kind.SCORED,
        CaseState.UNSCREENED: Outcome.kind.in_([Kind.REJECTED, Kind.FAILED]),
    }
    return and_(on_no_list, kinds.get(state, true()))


def _is_discrepant() -> ColumnElement[bool]:
    is_closed = func.coalesce(Ended.step, "") == Step.CLOSED
    dismissed = and_(Entry.state == State.DONE, Entry.verdict == Verdict.DISMISS)
    cleared = and_(_entry_state().in_(["", State.WITHDRAWN]), Outcome.kind == Kind.SCORED)
    return and_(Laboratory.result == LabResult.POSITIVE, or_(dismissed, cleared), not_(is_closed))
