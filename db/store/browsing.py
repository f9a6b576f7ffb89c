"""What the web pages of batches ask: the newest ones, one of them, how far they are read, what is listed of them, the
files that could not be screened."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, func, select

from db.errors import Unknown
from db.schema import Batch, Entry, Outcome, Scan
from db.store.connection import Database
from db.store.listing import is_seen
from db.store.people import UserView
from db.store.reading import Totals, totals
from db.store.scoring import current_outcome
from db.words import Kind, State

OPEN = (State.UNREAD, State.SECOND, State.ARBITER)


@dataclass(frozen=True)
class BatchView:
    """A batch with the folder it came from; `root` may hold surrogate escapes."""

    totals: Totals
    root: str


@dataclass(frozen=True)
class UnscreenedFile:
    """A rejected or failed file; `path` may hold surrogate escapes."""

    scan_id: int
    path: str
    kind: str
    reason: str | None
    detail: str | None


@dataclass(frozen=True)
class ListedScan:
    """A scan of a batch that is to be read, or was. Score, threshold and `flagged` are None where they are hidden from
    who asks, and `verdict` while it is not final."""

    key: str
    path: str
    patient: str | None
    age: float | None
    score: float | None
    threshold: float | None
    flagged: bool | None
    verdict: str | None


@dataclass(frozen=True)
class ReadSoFar:
    """How many of a batch's listed scans are read, of how many. While `is_blind`, how many the model flagged would
    tell drawn ones from flagged ones."""

    read: int = 0
    listed: int = 0
    is_blind: bool = False


def newest_batch(db: Database, *, site_ids: set[int]) -> int | None:
    """The newest batch of these sites."""
    with db.reading() as session:
        return session.scalar(select(func.max(Batch.id)).where(Batch.site_id.in_(site_ids)))


def roots(db: Database, batch_ids: set[int]) -> dict[int, str]:
    """The folders that these batches came from."""
    with db.reading() as session:
        rows = session.execute(select(Batch.id, Batch.root).where(Batch.id.in_(batch_ids)))
        return {row.id: row.root for row in rows}


def batch(db: Database, batch_id: int, *, site_ids: set[int]) -> BatchView:
    """One batch in numbers. Raises Unknown, also when it belongs to another site."""
    with db.reading() as session:
        root = session.scalar(select(Batch.root).where(Batch.id == batch_id, Batch.site_id.in_(site_ids)))
    if root is None:
        raise Unknown("no such batch")
    return BatchView(totals(db, batch_id), root)


def newest_batches(db: Database, *, site_ids: set[int], before: int | None, limit: int) -> list[int]:
    """The ids of the newest batches of these sites, `before` one."""
    newest = select(Batch.id).where(Batch.site_id.in_(site_ids)).order_by(Batch.id.desc()).limit(limit)
    with db.reading() as session:
        return list(session.scalars(newest if before is None else newest.where(Batch.id < before)))


def read_so_far(db: Database, batch_ids: set[int]) -> dict[int, ReadSoFar]:
    """How far these batches are read."""
    mine = Entry.batch_id.in_(batch_ids)
    counted = select(Entry.batch_id, Entry.state, func.count()).where(mine).group_by(Entry.batch_id, Entry.state)
    blind = select(Entry.batch_id).where(mine, Entry.state.in_(OPEN), Entry.blind).distinct()
    with db.reading() as session:
        states: dict[int, dict[str, int]] = {batch_id: {} for batch_id in batch_ids}
        for batch_id, state, count in session.execute(counted):
            states[batch_id][state] = count
        hidden = set(session.scalars(blind))
    return {
        batch_id: ReadSoFar(
            read=of.get(State.DONE, 0),
            listed=sum(count for state, count in of.items() if state != State.WITHDRAWN),
            is_blind=batch_id in hidden,
        )
        for batch_id, of in states.items()
    }


def unscreened(
    db: Database, batch_id: int, *, reason: str | None = None, after: int, limit: int
) -> list[UnscreenedFile]:
    """Rejected and failed files of a batch in the order found, of one reason or of any; `after` is the scan id of the
    last one seen."""
    with db.reading() as session:
        model_id = session.get_one(Batch, batch_id).trained_model_id
        columns = select(Scan.id, Scan.path, Outcome.kind, Outcome.reason, Outcome.detail)
        ended = columns.join(Outcome, current_outcome(model_id)).where(
            Scan.batch_id == batch_id, Scan.id > after, Outcome.kind != Kind.SCORED
        )
        if reason is not None:
            ended = ended.where(Outcome.reason == reason)
        return [UnscreenedFile(*row) for row in session.execute(ended.order_by(Scan.id).limit(limit))]


def listed(db: Database, batch_id: int, *, me: UserView, limit: int) -> list[ListedScan]:
    """The scans of a batch that are to be read, or were: first those whose score `me` may see, worst first; then the
    others, flagged and drawn ones alike, in random order."""
    with db.reading() as session:
        model_id = session.get_one(Batch, batch_id).trained_model_id
        sees = is_seen(me)
        verdict = case((Entry.state == State.DONE, Entry.verdict))
        columns: Any = select(
            Scan.key, Scan.path, Scan.patient, Scan.age, Entry.score, Outcome.threshold, Outcome.flagged, verdict, sees
        )
        found = (
            columns.select_from(Entry)
            .join(Scan, Scan.id == Entry.scan_id)
            .outerjoin(Outcome, current_outcome(model_id))
            .where(Entry.batch_id == batch_id, Entry.trained_model_id == model_id, Entry.state != State.WITHDRAWN)
            .order_by(case((sees, 0), else_=1), case((sees, Entry.score), else_=Entry.rank).desc(), Entry.id.desc())
        )
        return [_listed(row) for row in session.execute(found.limit(limit))]


def _listed(row: Any) -> ListedScan:
    key, path, patient, age, score, threshold, flagged, verdict, sees = row
    if not sees:
        score = threshold = flagged = None
    return ListedScan(key, path, patient, age, score, threshold, flagged, verdict)
