"""The ledger of the night: chunks are claimed on a lease and completed once; what is lost, `recovery` takes back.

A claim is one committed UPDATE with a random token; completing inserts outcomes only where the token still
matches. Time is the database's. Redis is not consulted: a message only wakes a worker."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, and_, case, exists, func, select, update
from sqlalchemy.orm import Session

from db.schema import Batch, Chunk, Outcome, Scan, Site
from db.store import enlisting
from db.store.connection import Database, epoch_now, now
from db.store.models import held_threshold
from db.words import PROTOCOL, Cause, Kind, Reason

NOBODY = 0  # a breadcrumb between two scans: who dies now blames none
_random = secrets.SystemRandom()


@dataclass(frozen=True)
class WaitingScan:
    """A scan to be scored; `path` is relative to `root`, `age` in years where it is known. `sample_share` is the
    probability (0 to 1) with which its site has it drawn for reading should it be cleared; its lot is cast when it is
    claimed, once, whatever its score will be."""

    id: int
    key: str
    root: str
    path: str
    sha256: str | None
    age: float | None
    sample_share: float = 0.0
    lot: float = field(default_factory=_random.random)

    @property
    def drawn(self) -> float | None:
        """The share with which it was drawn for reading, should it be cleared; None: it was not. Drawn whatever its
        score: which threshold rules is only known when the chunk is completed."""
        return self.sample_share if self.lot < self.sample_share else None

    def is_younger_than(self, years: float) -> bool:
        """Whether the patient's age is known, and below."""
        return self.age is not None and self.age < years


@dataclass(frozen=True)
class Claim:
    """A chunk in a worker's hand; `scans` are those of it that still wait."""

    chunk_id: int
    token: str
    batch_id: int
    trained_model_id: int
    attempts: int  # 1 the first time; above 1 a worker was lost with it: prove sound, then go one scan at a time
    scans: tuple[WaitingScan, ...]


@dataclass(frozen=True)
class Made:
    """What a result came of: SHA-256 (in hex) of the model's input, S x S uint8; the version of the preprocessing that
    made it; SHA-256 over all else that it depends on (workers/reuse.py)."""

    pixels_sha256: str
    preprocessing: str
    recipe: str


@dataclass(frozen=True)
class Scored:
    """A probability (0 to 1) with what made it; `seconds` is the scan's share of the work. `share` is the probability
    with which it was drawn for reading even if it is cleared; None: it was not. Under a threshold below `holds_from` it
    would have been looked at again at float32, so there it does not stand. `reused_from` is the outcome whose numbers
    these are, where nothing was computed: there are no pictures then."""

    scan_id: int
    score: float
    class_scores: dict[str, float]
    evidence: dict[str, Any]
    engine: str
    precision: str
    device: str
    seconds: float
    share: float | None = None
    holds_from: float | None = None
    made: Made | None = None
    reused_from: int | None = None


@dataclass(frozen=True)
class Rejected:
    """Something about the file: trying again would not help. What the model turned away says what it came of."""

    scan_id: int
    reason: Reason
    detail: str
    made: Made | None = None
    reused_from: int | None = None


@dataclass(frozen=True)
class Failed:
    """Our machinery gave up on this scan."""

    scan_id: int
    cause: Cause
    detail: str


Result = Scored | Rejected | Failed


def most_urgent_model(
    db: Database, *, not_batches: Collection[int] = (), not_models: Collection[int] = ()
) -> int | None:
    """The trained model of the chunk to be claimed next; None when nothing waits, but for what is left alone."""
    with db.reading() as session:
        others = _claimable(not_batches).where(Chunk.trained_model_id.not_in(not_models))
        return session.scalar(others.with_only_columns(Chunk.trained_model_id))


def claim_chunk(
    db: Database,
    worker: str,
    *,
    trained_model_id: int,
    lease_seconds: float,
    not_batches: Collection[int] = (),
    pid: int | None = None,
) -> Claim | None:
    """Take the most urgent waiting chunk of a trained model; None when there is none. `not_batches` are left
    alone: their root does not answer just now. `pid` tells the worker's process from one that follows it."""
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
                pid=pid,
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
        return Claim(chunk_id, token, batch_id, trained_model_id, attempts, waiting_scans(session, chunk_id))


def renew(db: Database, claim: Claim, *, lease_seconds: float, breadcrumb: int | None = None) -> bool:
    """Extend the lease after progress; False when the claim was lost. `breadcrumb` is the scan taken in hand next, or
    NOBODY: only a worker that scored the golden image since it claimed this chunk may write one, because a scan that
    it names and is then lost with is blamed."""
    values: dict[str, Any] = {"lease_until": epoch_now() + lease_seconds}
    if breadcrumb is not None:
        values["breadcrumb"] = breadcrumb
    with db.writing() as session:
        changed = session.execute(update(Chunk).where(*_held(claim)).values(values))
        return _rowcount(changed) == 1


def complete_chunk(db: Database, claim: Claim, results: Sequence[Result]) -> bool:
    """Write the outcomes, and the worklist entries of what is to be read, in one transaction, only where the claim
    still holds. Scans of the chunk without a result go back to waiting, at no cost to their attempts. False when the
    claim was lost (nothing is written)."""
    with db.writing() as session:
        chunk = session.scalar(select(Chunk).where(*_held(claim)).with_for_update())
        if chunk is None:
            return False
        threshold = held_threshold(session, claim.trained_model_id)
        results = [result for result in results if _stands(result, threshold)]
        generations = generations_of(session, claim.chunk_id)
        outcomes = [
            outcome_of(result, claim.trained_model_id, threshold, generations[result.scan_id]) for result in results
        ]
        session.add_all(outcomes)
        drawn = {result.scan_id: result.share for result in results if isinstance(result, Scored)}
        enlisting.enlist(session, claim.batch_id, outcomes, drawn)
        let_go(chunk)
        if len(results) == len(claim.scans):
            chunk.completed_at = now()
        else:
            chunk.attempts -= 1
        return True


def _stands(result: Result, threshold: float) -> bool:
    """False for a score that a threshold set meanwhile calls in question, or flags though there are no pictures: the
    scan waits again."""
    if not isinstance(result, Scored):
        return True
    lacks_pictures = result.reused_from is not None and result.score >= threshold
    return not lacks_pictures and not is_in_question(result.score, result.holds_from, threshold)


def is_in_question(score: float, holds_from: float | None, threshold: float) -> bool:
    """Whether the second of two stages has to look again at what the first gave this score, under this threshold."""
    return holds_from is not None and (threshold < holds_from or score >= threshold)


def waiting_chunks(db: Database) -> int:
    """Chunks that nobody holds: what the sweep rings for."""
    with db.reading() as session:
        waiting = select(func.count()).where(Chunk.completed_at.is_(None), Chunk.token.is_(None))
        return session.scalar(waiting) or 0


def let_go(chunk: Chunk) -> None:
    """Nobody holds the chunk any more."""
    chunk.token = chunk.worker = chunk.pid = chunk.lease_until = chunk.breadcrumb = None


def current_outcome(trained_model_id: Any) -> Any:
    """The join of a scan with its outcome by a model at the scan's own generation."""
    return and_(
        Outcome.scan_id == Scan.id,
        Outcome.trained_model_id == trained_model_id,
        Outcome.generation == Scan.generation,
    )


def _claimable(not_batches: Collection[int]) -> Select[Chunk]:
    waiting = select(Chunk).where(Chunk.completed_at.is_(None), Chunk.token.is_(None), Chunk.protocol <= PROTOCOL)
    if not_batches:
        waiting = waiting.where(Chunk.batch_id.not_in(not_batches))
    return waiting.order_by(Chunk.priority.desc(), Chunk.id).limit(1)


def _held(claim: Claim) -> tuple[Any, ...]:
    return Chunk.id == claim.chunk_id, Chunk.token == claim.token, Chunk.completed_at.is_(None)


def _rowcount(result: Any) -> int:
    return int(result.rowcount)


def waiting_scans(session: Session, chunk_id: int) -> tuple[WaitingScan, ...]:
    """The scans of a chunk that have no outcome yet, inside a running transaction."""
    # Looked at again, a scan is not drawn again: the estimates count on one chance each.
    was_scored = exists().where(Outcome.scan_id == Scan.id, Outcome.kind == Kind.SCORED)
    share = case((and_(Scan.generation > 0, was_scored), 0.0), else_=Site.sample_share)
    columns = select(Scan.id, Scan.key, Batch.root, Scan.path, Scan.sha256, Scan.age, share)
    joined = columns.join(Batch, Scan.batch_id == Batch.id).join(Site, Batch.site_id == Site.id)
    rows = session.execute(joined.where(*_waits(chunk_id)).order_by(Scan.id))
    return tuple(WaitingScan(*row) for row in rows)


def _waits(chunk_id: int) -> tuple[Any, ...]:
    model = select(Chunk.trained_model_id).where(Chunk.id == chunk_id).scalar_subquery()
    return Scan.chunk_id == chunk_id, ~exists().where(current_outcome(model))


def generations_of(session: Session, chunk_id: int) -> dict[int, int]:
    """The generation of each scan of a chunk."""
    rows = session.execute(select(Scan.id, Scan.generation).where(Scan.chunk_id == chunk_id))
    return {row.id: row.generation for row in rows}


def outcome_of(result: Result, model_id: int, threshold: float, generation: int) -> Outcome:
    """The row of a result."""
    row = Outcome(scan_id=result.scan_id, trained_model_id=model_id, generation=generation, at=now())
    match result:
        case Scored():
            row.kind, row.score, row.class_scores = Kind.SCORED, result.score, result.class_scores
            row.threshold, row.flagged = threshold, result.score >= threshold
            row.evidence, row.seconds = result.evidence, result.seconds
            row.engine, row.precision, row.device = result.engine, result.precision, result.device
            row.holds_from = result.holds_from
        case Rejected():
            row.kind, row.reason, row.detail = Kind.REJECTED, result.reason, result.detail
        case Failed():
            row.kind, row.reason, row.detail = Kind.FAILED, result.cause, result.detail
    if not isinstance(result, Failed) and result.made is not None:
        row.pixels_sha256, row.preprocessing = result.made.pixels_sha256, result.made.preprocessing
        row.recipe, row.reused_from = result.made.recipe, result.reused_from
    return row
