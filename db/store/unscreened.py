"""What could not be screened: rejected and failed scans that name a patient, and scans whose final verdict is "needs
repeat". Each is open until somebody acknowledges it with a note, or until it is resolved: a failed one when it was sent
again and scored; a rejected one or a repeat when a later scan of the same patient at the site was scored, a rejected
one also when another scan of the same patient and study was (a lateral view beside its frontal one). A second copy of a
scan of the same patient that was scored, or still waits for a worker, is no scan of its own: counted apart.

Nobody falls through: a scan's standing is derived from what is on record, never stored, and is exactly one of these.

Cost: everything here goes by two small partial indexes (what was not scored; what is to be repeated), never by the
scored scans: what could not be screened is looked at row by row, newest first, until a page is full."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, and_, case, exists, func, literal, literal_column, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.expression import FunctionElement

from db.errors import Refused, Unknown
from db.schema import Acknowledgement, Batch, Entry, Outcome, Scan, Site
from db.store import recovery
from db.store.audit import record
from db.store.connection import Database, now
from db.words import Kind, State, Verdict

NOTE_CHARACTERS = 3, 2_000
# Written out, as the partial indexes have them: SQLite knows them again by their text.
_SCORED: ColumnElement[str] = literal_column("'scored'")
_REPEAT: ColumnElement[str] = literal_column("'repeat'")


class _unindexed(FunctionElement[int]):
    """A column whose index would lead SQLite through every scan: a sum is in no index. PostgreSQL counts first."""

    type = BigInteger()
    inherit_cache = True


@compiles(_unindexed)
def _as_it_is(element: Any, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


@compiles(_unindexed, "sqlite")
def _as_a_sum(element: Any, compiler: Any, **kw: Any) -> str:
    return f"({compiler.process(element.clauses, **kw)} + 0)"


class Standing(StrEnum):
    """What became of a scan that could not be screened."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    DUPLICATE = "duplicate"


class Action(StrEnum):
    """What somebody did about one."""

    ACKNOWLEDGED = "acknowledged"
    SENT_AGAIN = "sent_again"


@dataclass(frozen=True)
class Unscreened:
    """A scan that could not be screened. `kind` is rejected, failed or repeat; `path` may hold surrogate escapes; the
    last three are None where nobody acknowledged it."""

    scan_id: int
    key: str
    path: str
    site: str
    batch: int
    patient: str | None
    study: str | None
    age: float | None
    kind: str
    reason: str | None
    detail: str | None
    at: datetime
    standing: Standing
    by: str | None = None
    note: str | None = None
    noted_at: datetime | None = None


def page(
    db: Database,
    *,
    site_ids: set[int],
    standing: Standing = Standing.OPEN,
    after: int | None = None,
    limit: int = 50,
) -> list[Unscreened]:
    """Scans of these sites that stand so, newest first; `after` is the scan id of the last one of the page before."""
    found: list[Unscreened] = []
    is_open = standing == Standing.OPEN
    with db.reading() as session:
        for (columns, stands), place in zip(
            _both(site_ids, is_open=is_open), (Outcome.scan_id, Entry.scan_id), strict=True
        ):
            wanted = columns.where(stands == standing)
            if after is not None:
                wanted = wanted.where(place < after)
            found += [_view(row) for row in session.execute(wanted.order_by(place.desc()).limit(limit))]
        newest = sorted(found, key=lambda one: -one.scan_id)[:limit]
        return [_with_note(session, one) for one in newest] if standing == Standing.ACKNOWLEDGED else newest


def counts(db: Database, *, site_ids: set[int]) -> dict[Standing, int]:
    """How many scans of these sites stand how. Looks at everything that could not be screened."""
    totals = dict.fromkeys(Standing, 0)
    with db.reading() as session:
        for columns, stands in _both(site_ids):
            grouped = columns.with_only_columns(stands, func.count()).group_by(stands)
            for standing, count in session.execute(grouped):
                totals[Standing(standing)] += count
    return totals


def open_count(db: Database, *, site_ids: set[int], most: int = 100) -> int:
    """How many scans of these sites are open; `most` where there are as many or more."""
    total = 0
    with db.reading() as session:
        for columns, stands in _both(site_ids, is_open=True):
            wanted = columns.with_only_columns(Scan.id).where(stands == Standing.OPEN).limit(most - total)
            total += session.scalar(select(func.count()).select_from(wanted.subquery())) or 0
    return total


def acknowledge(db: Database, key: str, *, site_ids: set[int], by: str, note: str) -> None:
    """Take note of an open scan, on record. Raises Unknown for one that is not open at these sites, Refused without a
    note."""
    least, most = NOTE_CHARACTERS
    with db.writing() as session:
        scan = _locked(session, key, site_ids)
        if not least <= len(note) <= most:
            raise Refused(f"A note has {least} to {most:,} characters.")
        _append(session, scan, Action.ACKNOWLEDGED, by=by, note=note)


def send_again(db: Database, key: str, *, site_ids: set[int], by: str) -> None:
    """Let an open scan that failed wait again, on record; the sweep rings for it. Raises Unknown for one that is not
    open at these sites, Refused for one that did not fail."""
    with db.writing() as session:
        scan = _locked(session, key, site_ids)
        _append(session, scan, Action.SENT_AGAIN, by=by, note="")
        if not recovery.retry_scan(session, scan, by=by):
            raise Refused("only a failed scan can be sent again: the image of this one has to be taken or sent anew")


def _locked(session: Session, key: str, site_ids: set[int]) -> Scan:
    scan = session.scalar(select(Scan).where(Scan.key == key).with_for_update())
    if scan is not None:
        for columns, stands in _both(site_ids):
            if session.execute(columns.where(stands == Standing.OPEN, Scan.id == scan.id)).first():
                return scan
    raise Unknown("no such scan is open")


def _append(session: Session, scan: Scan, action: Action, *, by: str, note: str) -> None:
    session.add(Acknowledgement(scan_id=scan.id, generation=scan.generation, action=action, by=by, note=note, at=now()))
    record(session, by, f"unscreened_{action}", f"scan {scan.id}", {"generation": scan.generation})


def _view(row: Any) -> Unscreened:
    fields = dict(zip(Unscreened.__dataclass_fields__, row, strict=False))  # all but who acknowledged it
    return Unscreened(**fields | {"standing": Standing(row[-1])})


def _with_note(session: Session, one: Unscreened) -> Unscreened:
    same = (Acknowledgement.scan_id == one.scan_id, Acknowledgement.action == Action.ACKNOWLEDGED)
    newest = session.scalar(select(Acknowledgement).where(*same).order_by(Acknowledgement.id.desc()).limit(1))
    if newest is None:
        return one
    fields = {name: getattr(one, name) for name in Unscreened.__dataclass_fields__}
    return Unscreened(**fields | {"by": newest.by, "note": newest.note, "noted_at": newest.at})


def _both(site_ids: set[int], *, is_open: bool = False) -> tuple[tuple[Select[Any], ColumnElement[str]], ...]:
    """What was not scored, and what is to be repeated: each with how it stands. For the open ones alone (`is_open`),
    what is acknowledged is sorted out at once, before the scans are looked at."""
    columns, stands = _unscreened(site_ids)
    return (columns.where(~_outcome_is_acknowledged()) if is_open else columns, stands), _repeats(site_ids)


def _unscreened(site_ids: set[int]) -> tuple[Select[Any], ColumnElement[str]]:
    """Rejected and failed scans with a patient, and how each stands."""
    stands = case(
        (_is_acknowledged(), Standing.ACKNOWLEDGED.value),
        (and_(Outcome.reason == "duplicate", _first_copy()), Standing.DUPLICATE.value),
        (and_(Outcome.kind == Kind.REJECTED, _scored_since(_or_in_the_study)), Standing.RESOLVED.value),
        else_=Standing.OPEN.value,
    )
    ended = (
        _columns(Outcome.kind, Outcome.reason, Outcome.detail, Outcome.at, stands)
        .select_from(Outcome)
        .join(Scan, and_(Scan.id == _unindexed(Outcome.scan_id), Scan.generation == Outcome.generation))
        .join(Batch, and_(Batch.id == Scan.batch_id, Batch.trained_model_id == Outcome.trained_model_id))
        .join(Site, Site.id == _unindexed(Batch.site_id))
    )
    here = _unindexed(Batch.site_id).in_(site_ids)
    return ended.where(Outcome.kind != _SCORED, Scan.patient.is_not(None), here), stands


def _repeats(site_ids: set[int]) -> tuple[Select[Any], ColumnElement[str]]:
    """Scans whose image is to be taken again, and how each stands."""
    stands = case(
        (_is_acknowledged(Acknowledgement.at >= Entry.decided_at), Standing.ACKNOWLEDGED.value),
        (_scored_since(lambda later: later.id > Scan.id), Standing.RESOLVED.value),
        else_=Standing.OPEN.value,
    )
    nothing = literal(None)
    read = (
        _columns(literal(Verdict.REPEAT.value), nothing, nothing, Entry.decided_at, stands)
        .select_from(Entry)
        .join(Scan, Scan.id == Entry.scan_id)
        .join(Batch, and_(Batch.id == Scan.batch_id, Batch.trained_model_id == Entry.trained_model_id))
        .join(Site, Site.id == Batch.site_id)
    )
    return read.where(Entry.verdict == _REPEAT, Entry.state == State.DONE, Entry.site_id.in_(site_ids)), stands


def _columns(*ending: Any) -> Select[Any]:
    """The fields of an Unscreened up to its standing."""
    return select(Scan.id, Scan.key, Scan.path, Site.name, Scan.batch_id, Scan.patient, Scan.study, Scan.age, *ending)


def _is_acknowledged(*further: ColumnElement[bool]) -> ColumnElement[bool]:
    same = (Acknowledgement.scan_id == Scan.id, Acknowledgement.generation == Scan.generation)
    return exists().where(*same, Acknowledgement.action == Action.ACKNOWLEDGED, *further)


def _outcome_is_acknowledged() -> ColumnElement[bool]:
    same = (Acknowledgement.scan_id == Outcome.scan_id, Acknowledgement.generation == Outcome.generation)
    return exists().where(*same, Acknowledgement.action == Action.ACKNOWLEDGED)


def _or_in_the_study(later: Any) -> ColumnElement[bool]:
    return or_(later.id > Scan.id, later.study == Scan.study)


def _scored_since(is_meant: Any) -> ColumnElement[bool]:
    """Whether another scan of the patient at the site was scored."""
    later, its_batch, its_outcome = aliased(Scan), aliased(Batch), aliased(Outcome)
    return (
        exists()
        .where(later.patient == Scan.patient, later.id != Scan.id, is_meant(later))
        .where(its_batch.id == later.batch_id, its_batch.site_id == Batch.site_id)
        .where(its_outcome.scan_id == later.id, its_outcome.trained_model_id == its_batch.trained_model_id)
        .where(its_outcome.generation == later.generation, its_outcome.kind == Kind.SCORED)
    )


def _first_copy() -> ColumnElement[bool]:
    """Whether the same content of the same patient (or of nobody named) was scored at the site, or still waits."""
    first, its_batch, its_outcome = aliased(Scan), aliased(Batch), aliased(Outcome)
    same = (its_outcome.scan_id == first.id, its_outcome.trained_model_id == its_batch.trained_model_id)
    ended_otherwise = exists().where(*same, its_outcome.generation == first.generation, its_outcome.kind != Kind.SCORED)
    return (
        exists()
        .where(first.sha256 == Scan.sha256, first.id != Scan.id)
        .where(or_(first.patient == Scan.patient, first.patient.is_(None)))
        .where(its_batch.id == first.batch_id, its_batch.site_id == Batch.site_id, ~ended_otherwise)
    )
