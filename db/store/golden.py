"""What each trained model gives for the golden image: remembered when it first ran in good health."""

from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db.schema import GoldenScore, TrainedModel
from db.store.audit import record
from db.store.connection import Database, now


@dataclass(frozen=True)
class Golden:
    """What a trained model said of the golden image: probability 0 to 1, distance from chest X-rays."""

    score: float
    distance: float


def remembered(db: Database, trained_model_id: int, *, engine: str, precision: str) -> Golden | None:
    """What a model gave on this engine at this precision in good health; None when it never ran there."""
    with db.reading() as session:
        return _known(session, trained_model_id, engine, precision)


def remember(db: Database, trained_model_id: int, *, engine: str, precision: str, seen: Golden, worker: str) -> Golden:
    """Keep what was seen, unless another worker was first; what is kept."""
    with db.writing() as session:
        session.get_one(TrainedModel, trained_model_id, with_for_update=True)  # two workers that are first at once
        known = _known(session, trained_model_id, engine, precision)
        if known is None:
            where = {"trained_model_id": trained_model_id, "engine": engine, "precision": precision}
            session.add(GoldenScore(**where, score=seen.score, distance=seen.distance, worker=worker, at=now()))
        return known or seen


def forget(db: Database, trained_model_id: int, *, by: str) -> int:
    """Let the next sound worker say anew what the golden image gives, on record: for the case that a broken device
    was the first. How many scores were forgotten."""
    with db.writing() as session:
        mine = delete(GoldenScore).where(GoldenScore.trained_model_id == trained_model_id)
        count = len(session.scalars(mine.returning(GoldenScore.engine)).all())
        record(session, by, "golden_forgotten", f"model {trained_model_id}", {"scores": count})
        return count


def _known(session: Session, trained_model_id: int, engine: str, precision: str) -> Golden | None:
    kept = select(GoldenScore.score, GoldenScore.distance).where(
        GoldenScore.trained_model_id == trained_model_id,
        GoldenScore.engine == engine,
        GoldenScore.precision == precision,
    )
    row = session.execute(kept).one_or_none()
    return None if row is None else Golden(row.score, row.distance)
