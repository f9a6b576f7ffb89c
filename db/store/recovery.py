"""What was lost with a worker is taken back; what failed may be tried again, on record.

Who is to blame is decided here. A worker names the scan in hand (the breadcrumb) only after it scored the golden image
as it should be: it vouches for itself. A scan has failed once VOUCHERS such workers were lost with it in hand. However
often a worker is killed from outside before it named a scan, no scan is blamed for that."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import and_, func, or_, select, text, update
from sqlalchemy.orm import Session

from db.schema import Batch, Chunk, Outcome, Scan, Worker
from db.store.audit import record
from db.store.connection import Database, epoch_now, now
from db.store.heartbeats import WORKER_GONE_SECONDS
from db.store.scoring import Failed, current_outcome, generations_of, let_go, outcome_of, waiting_scans
from db.words import Cause, Kind

TRIES = 3  # losses of a chunk of which no breadcrumb tells, before it is cut in half
VOUCHERS = 2  # sound workers lost with a scan in hand, before it has failed
HANG_SECONDS = 30.0  # beyond its lease, a process that still beats: a stalled database or host is back by then
AT_ONCE = 200  # chunks a transaction: nobody waits long for the write lock
AGAIN = 64  # scans in a chunk of those that are looked at again
SOON = 5  # their priority, at least: somebody may be ill; after what is urgent, before what is routine
RETRIED = "batch_retried"  # on the audit record: the certificate and the auditor count by it
SWEEP_LOCK = 0x7377656570  # advisory lock of PostgreSQL: one sweep takes back at a time ("sweep")


@dataclass(frozen=True)
class Swept:
    """What one sweep did, in chunks."""

    freed: int = 0
    split: int = 0
    failed: int = 0

    @property
    def chunks(self) -> int:
        return self.freed + self.split + self.failed

    def __add__(self, other: "Swept") -> "Swept":
        return Swept(self.freed + other.freed, self.split + other.split, self.failed + other.failed)


def free_expired(db: Database) -> Swept:
    """Take back the chunks whose lease ran out. The scan that the breadcrumb names is set apart; one that is alone
    has failed when VOUCHERS sound workers were lost with it; a chunk that was lost TRIES times without a breadcrumb is
    cut in half. While another sweep is at it, this one leaves it to that."""
    swept = Swept()
    while True:
        with db.writing() as session:
            chunks = _expired(session) if _is_alone(db, session) else []
            done = sum((_take_back(session, chunk) for chunk in chunks), Swept())
        swept += done
        if done.chunks < AT_ONCE:
            return swept


def retry_failed(db: Database, batch_id: int, *, by: str) -> int:
    """Let a batch's failed scans wait again under the next generation, on record; how many there were."""
    with db.writing() as session:
        batch = session.get_one(Batch, batch_id, with_for_update={"key_share": True})
        failed = session.scalars(
            select(Scan)
            .join(Outcome, current_outcome(batch.trained_model_id))
            .where(Scan.batch_id == batch_id, Outcome.kind == Kind.FAILED)
            .order_by(Scan.id)
        ).all()
        for start in range(0, len(failed), 16):
            _rewait(session, batch, failed[start : start + 16])
        if failed:
            record(session, by, RETRIED, f"batch {batch_id}", {"scans": len(failed)})
        return len(failed)


def retry_scan(session: Session, scan: Scan, *, by: str) -> bool:
    """Let one failed scan wait again under the next generation, on record, inside a running transaction; False where
    it did not fail."""
    batch = session.get_one(Batch, scan.batch_id, with_for_update={"key_share": True})
    outcome = select(Outcome.kind).join(Scan, current_outcome(batch.trained_model_id)).where(Scan.id == scan.id)
    if session.scalar(outcome) != Kind.FAILED:
        return False
    _rewait(session, batch, [scan])
    record(session, by, RETRIED, f"batch {batch.id}", {"scans": 1})
    return True


def look_again(session: Session, trained_model_id: int, threshold: float, *, by: str) -> int:
    """Let those scans of a model wait again whose score, by the first of two stages, does not stand under this
    threshold: under the next generation, on record, inside the transaction that sets it. How many there are."""
    before = func.coalesce(Chunk.priority, 0)
    columns = select(Scan.batch_id, before, Scan.id).outerjoin(Chunk, Chunk.id == Scan.chunk_id)
    doubted = _in_question(columns, trained_model_id, threshold).order_by(Scan.batch_id, before, Scan.id)
    rows = [tuple(row) for row in session.execute(doubted)]
    for (batch_id, priority), same in groupby(rows, key=lambda row: row[:2]):
        chunk = {"batch_id": batch_id, "trained_model_id": trained_model_id, "priority": max(priority, SOON)}
        _wait_again(session, chunk, [scan_id for *_, scan_id in same])
    for batch_id, count in sorted(Counter(batch_id for batch_id, *_ in rows).items()):
        why = f"int8 alone had cleared them, and the threshold is {threshold:g} now"
        record(session, by, RETRIED, f"batch {batch_id}", {"scans": count, "why": why})
    return len(rows)


def count_in_question(session: Session, trained_model_id: int, threshold: float) -> int:
    """How many scans `look_again` would let wait again."""
    counted = _in_question(select(func.count()).select_from(Scan), trained_model_id, threshold)
    return session.scalar(counted) or 0


def _in_question(scans: Any, trained_model_id: int, threshold: float) -> Any:
    """Those whose outcome is in question under a threshold: as `scoring.is_in_question`, in SQL."""
    doubts = and_(Outcome.holds_from.is_not(None), or_(Outcome.holds_from > threshold, Outcome.score >= threshold))
    of_model = scans.join(Batch, Batch.id == Scan.batch_id).where(Batch.trained_model_id == trained_model_id)
    return of_model.join(Outcome, current_outcome(trained_model_id)).where(Outcome.kind == Kind.SCORED, doubts)


def _wait_again(session: Session, chunk: dict[str, int], scan_ids: Sequence[int]) -> None:
    """Chunks like `chunk` for these scans, at their next generation."""
    for start in range(0, len(scan_ids), AGAIN):
        new = Chunk(**chunk)
        session.add(new)
        session.flush()
        these = update(Scan).where(Scan.id.in_(scan_ids[start : start + AGAIN]))
        values = {"generation": Scan.generation + 1, "chunk_id": new.id}
        session.execute(these.values(values).execution_options(synchronize_session=False))


def _is_alone(db: Database, session: Session) -> bool:
    """Whether no other sweep takes back just now. On SQLite the write lock (BEGIN IMMEDIATE) sees to that; on
    PostgreSQL an advisory lock that ends with the transaction: sweeps that run at once would wait for each other's
    rows in turn, and the skipped ones would only be taken back later."""
    if db.is_sqlite:
        return True
    return bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": SWEEP_LOCK}))


def _expired(session: Session) -> Sequence[Chunk]:
    expired = select(Chunk).where(Chunk.completed_at.is_(None), Chunk.lease_until < epoch_now())
    return session.scalars(expired.order_by(Chunk.id).limit(AT_ONCE).with_for_update(skip_locked=True)).all()


def _take_back(session: Session, chunk: Chunk) -> Swept:
    scans = [scan.id for scan in waiting_scans(session, chunk.id)]
    suspect = chunk.breadcrumb
    if scans == [suspect]:
        return _blame(session, chunk, scans[0])
    let_go(chunk)
    if not scans:
        chunk.completed_at = now()
    elif suspect in scans:
        _set_apart(session, chunk, [suspect], attempts=chunk.attempts, vouched=1)
        chunk.attempts -= 1  # the others are not blamed
        return Swept(split=1)
    elif len(scans) > 1 and chunk.attempts >= TRIES:
        _set_apart(session, chunk, scans[len(scans) // 2 :], attempts=1, vouched=0)
        chunk.attempts = 1
        return Swept(split=1)
    return Swept(freed=1)


def _blame(session: Session, chunk: Chunk, scan_id: int) -> Swept:
    """A scan that is alone was lost in the hand of a worker that had proved sound."""
    if chunk.vouched + 1 < VOUCHERS:
        chunk.vouched += 1
        let_go(chunk)
        return Swept(freed=1)
    is_alive = _is_alive(session, chunk)
    if is_alive is None:
        return Swept()  # a later sweep will know
    chunk.vouched += 1
    _give_up(session, chunk, scan_id, is_alive=is_alive)
    return Swept(failed=1)


def _is_alive(session: Session, chunk: Chunk) -> bool | None:
    """What became of the process that claimed. It is dead where it is silent, or another beats under its name; it
    hangs where it still beats long after its lease was over; None while neither is known, and it may complete."""
    silent = (epoch_now() - Worker.beat).label("silent")
    last = session.execute(select(Worker.pid, Worker.beat, silent).where(Worker.name == chunk.worker)).one_or_none()
    if last is None or last.pid != chunk.pid or last.silent > WORKER_GONE_SECONDS:
        return False
    return True if last.beat > (chunk.lease_until or 0.0) + HANG_SECONDS else None


def _give_up(session: Session, chunk: Chunk, scan_id: int, *, is_alive: bool) -> None:
    cause = Cause.TIMED_OUT if is_alive else Cause.WORKER_DIED
    detail = f"{chunk.vouched} workers that had scored the golden image were lost with this scan alone in hand"
    failed = Failed(scan_id, cause, f"{detail}; claimed {chunk.attempts} times")
    generation = generations_of(session, chunk.id)[scan_id]
    session.add(outcome_of(failed, chunk.trained_model_id, 0.0, generation))
    let_go(chunk)
    chunk.completed_at = now()


def _set_apart(session: Session, chunk: Chunk, scan_ids: Sequence[int], *, attempts: int, vouched: int) -> None:
    apart = Chunk(
        batch_id=chunk.batch_id,
        trained_model_id=chunk.trained_model_id,
        priority=chunk.priority,
        attempts=attempts,
        vouched=vouched,
    )
    session.add(apart)
    session.flush()
    session.execute(update(Scan).where(Scan.id.in_(scan_ids)).values(chunk_id=apart.id))


def _rewait(session: Session, batch: Batch, scans: Sequence[Scan]) -> None:
    """A small chunk of its own for scans that failed before, as urgent as before: they shall trouble few others."""
    before = select(func.max(Chunk.priority)).where(Chunk.id.in_([scan.chunk_id for scan in scans]))
    priority = session.scalar(before) or 0
    chunk = Chunk(batch_id=batch.id, trained_model_id=batch.trained_model_id, priority=priority)
    session.add(chunk)
    session.flush()
    for scan in scans:
        scan.generation += 1
        scan.chunk_id = chunk.id
