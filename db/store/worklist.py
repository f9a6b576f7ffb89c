"""The worklist: flagged scans that nobody has read, worst first. A list is one trained model's: the scores of two
models are on no common scale."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, select, tuple_

from db.schema import Activation, Batch, Outcome, Review, Scan, Site, TrainedModel
from db.store.connection import Database


@dataclass(frozen=True)
class WorklistItem:
    """A flagged scan that nobody has read yet."""

    scan_id: int
    key: str
    path: str
    site: str
    batch: int
    patient: str | None
    age: float | None
    score: float
    threshold: float
    submitted_at: datetime


@dataclass(frozen=True)
class UnreadScan:
    """A flagged and unread scan's file: `path` is relative to `root`."""

    key: str
    root: str
    path: str
    sha256: str | None


@dataclass(frozen=True)
class ModelToRead:
    """A trained model with flagged and unread scans, and how many."""

    model_id: int
    name: str
    version: str
    unread: int

    @property
    def label(self) -> str:
        return f"{self.name} {self.version}"


def page(
    db: Database, *, site_ids: set[int], model_id: int, after: tuple[float, int] | None = None, limit: int = 50
) -> list[WorklistItem]:
    """What a model flagged at these sites and nobody has read, worst first; `after` is the score and scan id of the
    last item of the page before (keyset paging: a page costs the same however deep it lies)."""
    with db.reading() as session:
        columns = select(
            Scan.id,
            Scan.key,
            Scan.path,
            Site.name,
            Scan.batch_id,
            Scan.patient,
            Scan.age,
            Outcome.score,
            Outcome.threshold,
            Batch.submitted_at,
        )
        query = _unread(columns, site_ids).where(Outcome.trained_model_id == model_id)
        if after is not None:
            query = query.where(tuple_(Outcome.score, Scan.id) < tuple_(*after))
        query = query.order_by(Outcome.score.desc(), Scan.id.desc()).limit(limit)
        return [WorklistItem(*row) for row in session.execute(query)]


def unread(db: Database, *, site_ids: set[int], model_id: int) -> int:
    """How many scans that a model flagged at these sites nobody has read yet."""
    with db.reading() as session:
        mine = _unread(select(func.count()), site_ids).where(Outcome.trained_model_id == model_id)
        return session.scalar(mine) or 0


def models_to_read(db: Database, *, site_ids: set[int]) -> list[ModelToRead]:
    """The trained models with something to read: the active one first, then those with the newest batches."""
    with db.reading() as session:
        active = session.scalar(select(Activation.trained_model_id).order_by(Activation.id.desc()).limit(1))
        columns = select(Outcome.trained_model_id, func.count(), func.max(Batch.id))
        counted = session.execute(_unread(columns, site_ids).group_by(Outcome.trained_model_id)).all()
        named = select(TrainedModel.name, TrainedModel.version)
        found = []
        for model_id, count, _ in sorted(counted, key=lambda row: (row[0] == active, row[2]), reverse=True):
            name, version = session.execute(named.where(TrainedModel.id == model_id)).one()
            found.append(ModelToRead(model_id, name, version, count))
        return found


def unread_everywhere(db: Database, model_id: int) -> list[UnreadScan]:
    """What a model flagged at any site and nobody has read, worst first."""
    with db.reading() as session:
        columns = select(Scan.key, Batch.root, Scan.path, Scan.sha256)
        query = _unread(columns, None).where(Outcome.trained_model_id == model_id)
        return [UnreadScan(*row) for row in session.execute(query.order_by(Outcome.score.desc(), Scan.id.desc()))]


def _unread(query: Any, site_ids: set[int] | None) -> Any:
    flagged = (
        query.select_from(Outcome)
        .join(Scan, and_(Scan.id == Outcome.scan_id, Scan.generation == Outcome.generation))
        .join(Batch, and_(Batch.id == Scan.batch_id, Batch.trained_model_id == Outcome.trained_model_id))
        .join(Site, Site.id == Batch.site_id)
        .where(Outcome.flagged.is_(True), _nobody_read())
    )
    return flagged if site_ids is None else flagged.where(Site.id.in_(site_ids))


def _nobody_read() -> ColumnElement[bool]:
    return ~exists().where(Review.scan_id == Scan.id)
