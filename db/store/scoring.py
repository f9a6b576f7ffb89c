"""The ledger of the night: chunks are claimed on a lease, completed once, and never lost.

A claim is one committed UPDATE with a random token; completing inserts outcomes only where the token still
matches. Time is the database's. Redis is not consulted: a message only wakes a worker."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Select, and_, delete, exists, func, select, update
from sqlalchemy.orm import Session

from db.schema import Batch, Chunk, Outcome, Scan, Worker
from db.store.audit import record
from db.store.connection import Database, epoch_now, now
from db.store.models import held_threshold
from db.words import Cause, Kind, Reason

TRIES = 3  # claims of a scan that is alone in its chunk before it is given up
WORKER_GONE_SECONDS = 30.0  # without a heartbeat


@dataclass(frozen=True)
class WaitingScan:
    """A scan to be scored; `path` is relative to `root`, `age` in years where it is known."""

    id: int
    key: str
    root: str
    path: str
    sha256: str | None
    age: float | None


@dataclass(frozen=True)
class Claim:
    """A chunk in a worker's hand; `scans` are those of it that still wait."""

    chunk_id: int
    token: str
    batch_id: int
    trained_model_id: int
    attempts: int  # 1 the first time; above 1 a worker was lost with it, so go one scan at a time
    scans: tuple[WaitingScan, ...]


@dataclass(frozen=True)
class Scored:
    """A probability (0 to 1) with what made it; `seconds` is the scan's share of the work."""

    scan_id: int
    score: float
    class_scores: dict[str, float]
    evidence: dict[str, Any]
    engine: str
    precision: str
    device: str
    seconds: float


@dataclass(frozen=True)
class Rejected:
    """Something about the file: trying again would not help."""

    scan_id: int
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Failed:
    """Our machinery gave up on this scan."""

    scan_id: int
    cause: Cause
    detail: str


Result = Scored | Rejected | Failed


@dataclass(frozen=True)
class Swept:
    """What one sweep did."""

    freed: int = 0
    split: int = 0
    failed: int = 0


def most_urgent_model(
    db: Database, *, not_batches: Collection[int] = (), not_models: Collection[int] = ()
) -> int | None:
    """The trained model of the chunk to be claimed next; None when nothing waits, but for what is left alone."""
    with db.reading() as session:
        others = _claimable(not_batches).where(Chunk.trained_model_id.not_in(not_models))
        return session.scalar(others.with_only_columns(Chunk.trained_model_id))


def claim_chunk(
    db: Database, worker: str, *, trained_model_id: int, lease_seconds: float, not_batches: Collection[int] = ()
) -> Claim | None:
    """Take the most urgent waiting chunk of a trained model; None when there is none. `not_batches` are left
    alone: their root does not answer just now."""
    token = secrets.token_hex(16)
    with db.writing() as session:
        next_one = _claimable(not_batches).where(Chunk.trained_model_id == trained_model_id)
        next_one = next_one.with_only_columns(Chunk.id)
        if not db.is_sqlite:
            next_one = next_one.with_for_update(skip_locked=True)
        claimed = session.execute(
            update(Chunk)
            .where(Chunk.id == next_one.scalar_subquery())
            .values(
                token=token,
                worker=worker,
                attempts=Chunk.attempts + 1,
                breadcrumb=None,
                lease_until=epoch_now() + lease_seconds,
            )
            .returning(Chunk.id, Chunk.batch_id, Chunk.attempts)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if claimed is None:
            return None
        chunk_id, batch_id, attempts = claimed
        return Claim(chunk_id, token, batch_id, trained_model_id, attempts, _waiting_scans(session, chunk_id))


def renew(db: Database, claim: Claim, *, lease_seconds: float, breadcrumb: int | None = None) -> bool:
    """Extend the lease after progress, with the scan in hand as breadcrumb; False when the claim was lost."""
    values: dict[str, Any] = {"lease_until": epoch_now() + lease_seconds}
    if breadcrumb is not None:
        values["breadcrumb"] = breadcrumb
    with db.writing() as session:
        changed = session.execute(update(Chunk).where(*_held(claim)).values(values))
        return _rowcount(changed) == 1


def complete_chunk(db: Database, claim: Claim, results: Sequence[Result]) -> bool:
    """Write the outcomes in one transaction, only where the claim still holds. Scans of the chunk without a
    result go back to waiting, at no cost to their attempts. False when the claim was lost (nothing is written)."""
    with db.writing() as session:
        chunk = session.scalar(select(Chunk).where(*_held(claim)).with_for_update())
        if chunk is None:
            return False
        threshold = held_threshold(session, claim.trained_model_id)
        generations = _generations(session, claim.chunk_id)
        session.add_all(
            _outcome(result, claim.trained_model_id, threshold, generations[result.scan_id]) for result in results
        )
        chunk.token = chunk.worker = chunk.lease_until = chunk.breadcrumb = None
        if len(results) == len(claim.scans):
            chunk.completed_at = now()
        else:
            chunk.attempts -= 1
        return True


def free_expired(db: Database) -> Swept:
    """Take back the chunks whose lease ran out. The scan that the breadcrumb names is set apart; a chunk that
    was lost twice without a breadcrumb is cut in half; a scan alone that was lost TRIES times has failed."""
    swept = Swept()
    with db.writing() as session:
        expired = select(Chunk).where(Chunk.completed_at.is_(None), Chunk.lease_until < epoch_now())
        for chunk in session.scalars(expired.with_for_update(skip_locked=True)).all():
            swept = _take_back(session, chunk, swept)
    return swept


def waiting_chunks(db: Database) -> int:
    """Chunks that nobody holds: what the sweep rings for."""
    with db.reading() as session:
        waiting = select(func.count()).where(Chunk.completed_at.is_(None), Chunk.token.is_(None))
        return session.scalar(waiting) or 0


def retry_failed(db: Database, batch_id: int, *, by: str) -> int:
    """Let a batch's failed scans wait again under the next generation, on record; how many there were."""
    with db.writing() as session:
        batch = session.get_one(Batch, batch_id, with_for_update=True)
        failed = session.scalars(
            select(Scan)
            .join(Outcome, current_outcome(batch.trained_model_id))
            .where(Scan.batch_id == batch_id, Outcome.kind == Kind.FAILED)
        ).all()
        for start in range(0, len(failed), 16):
            _rewait(session, batch, failed[start : start + 16])
        if failed:
            record(session, by, "batch_retried", f"batch {batch_id}", {"scans": len(failed)})
        return len(failed)


def beat(db: Database, *, name: str, host: str, device: str, pid: int, doing: str, scans: int) -> None:
    """Write a worker's heartbeat; its first one makes its row."""
    with db.writing() as session:
        worker = session.get(Worker, name)
        if worker is None or worker.pid != pid:
            session.execute(delete(Worker).where(Worker.name == name))
            session.add(Worker(name=name, host=host, device=device, pid=pid, started_at=now(), beat=0, doing=""))
            session.flush()
        values = {"beat": epoch_now(), "doing": doing, "scans": scans, "stopped_at": None}
        session.execute(update(Worker).where(Worker.name == name).values(values))


def worker_stopped(db: Database, name: str) -> None:
    """Note that a worker ended in good order."""
    with db.writing() as session:
        session.execute(update(Worker).where(Worker.name == name).values(stopped_at=now(), doing=""))


def current_outcome(trained_model_id: Any) -> Any:
    """The join of a scan with its outcome by a model at the scan's own generation."""
    return and_(
        Outcome.scan_id == Scan.id,
        Outcome.trained_model_id == trained_model_id,
        Outcome.generation == Scan.generation,
    )


def _claimable(not_batches: Collection[int]) -> Select[Chunk]:
    waiting = select(Chunk).where(Chunk.completed_at.is_(None), Chunk.token.is_(None))
    if not_batches:
        waiting = waiting.where(Chunk.batch_id.not_in(not_batches))
    return waiting.order_by(Chunk.priority.desc(), Chunk.id).limit(1)


def _held(claim: Claim) -> tuple[Any, ...]:
    return Chunk.id == claim.chunk_id, Chunk.token == claim.token, Chunk.completed_at.is_(None)


def _rowcount(result: Any) -> int:
    return int(result.rowcount)


def _waiting_scans(session: Session, chunk_id: int) -> tuple[WaitingScan, ...]:
    columns = select(Scan.id, Scan.key, Batch.root, Scan.path, Scan.sha256, Scan.age)
    rows = session.execute(columns.join(Batch).where(*_waits(chunk_id)).order_by(Scan.id))
    return tuple(WaitingScan(*row) for row in rows)


def _waits(chunk_id: int) -> tuple[Any, ...]:
    model = select(Chunk.trained_model_id).where(Chunk.id == chunk_id).scalar_subquery()
    return Scan.chunk_id == chunk_id, ~exists().where(current_outcome(model))


def _generations(session: Session, chunk_id: int) -> dict[int, int]:
    rows = session.execute(select(Scan.id, Scan.generation).where(Scan.chunk_id == chunk_id))
    return {row.id: row.generation for row in rows}


def _outcome(result: Result, model_id: int, threshold: float, generation: int) -> Outcome:
    row = Outcome(scan_id=result.scan_id, trained_model_id=model_id, generation=generation, at=now())
    match result:
        case Scored():
            row.kind, row.score, row.class_scores = Kind.SCORED, result.score, result.class_scores
            row.threshold, row.flagged = threshold, result.score >= threshold
            row.evidence, row.seconds = result.evidence, result.seconds
            row.engine, row.precision, row.device = result.engine, result.precision, result.device
        case Rejected():
            row.kind, row.reason, row.detail = Kind.REJECTED, result.reason, result.detail
        case Failed():
            row.kind, row.reason, row.detail = Kind.FAILED, result.cause, result.detail
    return row


def _take_back(session: Session, chunk: Chunk, swept: Swept) -> Swept:
    scans = [scan.id for scan in _waiting_scans(session, chunk.id)]
    suspect, worker = chunk.breadcrumb, chunk.worker
    chunk.token = chunk.worker = chunk.lease_until = chunk.breadcrumb = None
    if not scans:
        chunk.completed_at = now()
    elif len(scans) == 1 and chunk.attempts >= TRIES:
        _give_up(session, chunk, scans[0], worker)
        return replace(swept, failed=swept.failed + 1)
    elif suspect in scans and len(scans) > 1:
        _set_apart(session, chunk, [suspect], attempts=chunk.attempts)
        chunk.attempts -= 1  # the others are not blamed
        return replace(swept, split=swept.split + 1)
    elif len(scans) > 1 and chunk.attempts >= TRIES:
        _set_apart(session, chunk, scans[len(scans) // 2 :], attempts=1)
        chunk.attempts = 1
        return replace(swept, split=swept.split + 1)
    return replace(swept, freed=swept.freed + 1)


def _set_apart(session: Session, chunk: Chunk, scan_ids: Sequence[int], *, attempts: int) -> Chunk:
    apart = Chunk(
        batch_id=chunk.batch_id,
        trained_model_id=chunk.trained_model_id,
        priority=chunk.priority,
        attempts=attempts,
    )
    session.add(apart)
    session.flush()
    session.execute(update(Scan).where(Scan.id.in_(scan_ids)).values(chunk_id=apart.id))
    return apart


def _give_up(session: Session, chunk: Chunk, scan_id: int, worker: str | None) -> None:
    alive = select(Worker.beat > epoch_now() - WORKER_GONE_SECONDS).where(Worker.name == worker)
    cause = Cause.TIMED_OUT if session.scalar(alive) else Cause.WORKER_DIED
    failed = Failed(scan_id, cause, f"given up after {chunk.attempts} workers")
    generation = _generations(session, chunk.id)[scan_id]
    session.add(_outcome(failed, chunk.trained_model_id, 0.0, generation))
    chunk.completed_at = now()


def _rewait(session: Session, batch: Batch, scans: Sequence[Scan]) -> None:
    """A small chunk of its own for scans that failed before, so that they trouble few others."""
    chunk = Chunk(batch_id=batch.id, trained_model_id=batch.trained_model_id, priority=0)
    session.add(chunk)
    session.flush()
    for scan in scans:
        scan.generation += 1
        scan.chunk_id = chunk.id
