"""Thresholds: appended, the newest rules; a new one recomputes what is flagged from the stored scores.

Every flag is a float32 decision, also after the threshold was lowered: what the first of two stages alone had cleared,
and the new threshold calls in question, is neither flagged nor cleared by its score. It waits again, is looked at next
(before what is routine), and its batch says that it waits until then."""

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from db.schema import Batch, Outcome, Scan, Threshold, TrainedModel
from db.store import enlisting, recovery
from db.store.audit import record
from db.store.connection import Database, now
from db.store.models import ruling_threshold
from db.store.scoring import current_outcome
from db.words import Kind

NIGHT = timedelta(hours=24)  # batches submitted within this time before the newest one belong to its night


@dataclass(frozen=True)
class ThresholdView:
    """An operating point as it was set."""

    value: float
    why: str
    by: str
    at: datetime


@dataclass(frozen=True)
class Recomputed:
    """What a new threshold changed, from the stored scores alone."""

    before: float
    outcomes: int  # scored, of this model
    newly_flagged: int
    no_longer_flagged: int
    looked_again: int = 0  # neither: they wait until float32 has looked, and nobody is told anything of them before


@dataclass(frozen=True)
class LastNight:
    """The scores, lowest first, that a model gave to its last night's batches."""

    batches: list[int]
    scores: list[float]


def history(db: Database, model_id: int) -> list[ThresholdView]:
    """Every threshold that a model had, in order; the last one rules."""
    with db.reading() as session:
        rows = session.scalars(select(Threshold).where(Threshold.trained_model_id == model_id).order_by(Threshold.id))
        return [ThresholdView(row.value, row.why, row.by, row.at) for row in rows]


def last_night(db: Database, model_id: int) -> LastNight:
    """What a model scored in its last night; empty for one that was never used."""
    with db.reading() as session:
        newest = session.scalar(select(func.max(Batch.submitted_at)).where(Batch.trained_model_id == model_id))
        if newest is None:
            return LastNight([], [])
        mine = Batch.trained_model_id == model_id, Batch.submitted_at > newest - NIGHT
        batches = list(session.scalars(select(Batch.id).where(*mine).order_by(Batch.id)))
        joined = select(Outcome.score).join(Scan, current_outcome(model_id))
        scored = joined.where(Scan.batch_id.in_(batches), Outcome.kind == Kind.SCORED)
        return LastNight(
            batches, [score for score in session.scalars(scored.order_by(Outcome.score)) if score is not None]
        )


def looked_again(db: Database, model_id: int, value: float) -> int:
    """How many scans a threshold would let wait until float32 has looked at them, too."""
    with db.reading() as session:
        return recovery.count_in_question(session, model_id, value)


def set_threshold(db: Database, model_id: int, value: float, *, why: str, by: str) -> Recomputed:
    """Append a threshold (0 to 1) and recompute `flagged` of every stored outcome of the model and its worklist, in one
    recorded transaction; scans whose stored score does not stand under it wait again (ring for them). Nothing happens
    where that threshold rules already."""
    with db.writing() as session:
        # Workers hold this row while they complete a chunk: none completes between the reading and the writing.
        session.execute(select(TrainedModel.id).where(TrainedModel.id == model_id).with_for_update())
        before = ruling_threshold(session, model_id)
        done = _recompute(session, model_id, value, before=before)
        if value != before:
            session.add(Threshold(trained_model_id=model_id, value=value, why=why, by=by, at=now()))
            done = replace(done, looked_again=recovery.look_again(session, model_id, value, by=by))
            detail: dict[str, Any] = {"value": value, "why": why, **asdict(done)}
            record(session, by, "threshold_set", f"model {model_id}", detail)
        return done


def _recompute(session: Session, model_id: int, value: float, *, before: float) -> Recomputed:
    scored = Outcome.trained_model_id == model_id, Outcome.kind == Kind.SCORED
    stands = or_(Outcome.holds_from.is_(None), and_(Outcome.holds_from <= value, Outcome.score < value))
    is_flagged, should_be = Outcome.flagged.is_(True), Outcome.score >= value
    counted = select(
        func.count(),
        func.count().filter(~is_flagged & should_be & stands),
        func.count().filter(is_flagged & ~should_be & stands),
    )
    current = counted.select_from(Outcome).join(Scan, current_outcome(model_id))
    total, newly, no_longer = session.execute(current.where(*scored)).one()
    if value != before:
        # An outcome that does not stand keeps what was so when it was made: its scan waits for another.
        changed = update(Outcome).where(*scored, stands).values(flagged=should_be, threshold=value)
        session.execute(changed.execution_options(synchronize_session=False))
        enlisting.reconsider(session, model_id)
    return Recomputed(before, total, newly, no_longer)
