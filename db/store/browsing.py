"""What the web pages of batches ask: one batch, its flagged scans, the files that could not be screened."""

from dataclasses import dataclass

from sqlalchemy import func, select

from db.errors import Unknown
from db.schema import Batch, Outcome, Review, Scan
from db.store.connection import Database
from db.store.reading import Totals, totals
from db.store.scoring import current_outcome
from db.words import Kind


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
class FlaggedScan:
    """A flagged scan of a batch with its newest verdict, None while nobody has read it."""

    key: str
    path: str
    patient: str | None
    age: float | None
    score: float
    threshold: float
    verdict: str | None


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


def unscreened(db: Database, batch_id: int, *, after: int, limit: int) -> list[UnscreenedFile]:
    """Rejected and failed files of a batch in the order found; `after` is the scan id of the last one seen."""
    with db.reading() as session:
        model_id = session.get_one(Batch, batch_id).trained_model_id
        columns = select(Scan.id, Scan.path, Outcome.kind, Outcome.reason, Outcome.detail)
        ended = columns.join(Outcome, current_outcome(model_id)).where(
            Scan.batch_id == batch_id, Scan.id > after, Outcome.kind != Kind.SCORED
        )
        return [UnscreenedFile(*row) for row in session.execute(ended.order_by(Scan.id).limit(limit))]


def flagged(db: Database, batch_id: int, *, limit: int) -> list[FlaggedScan]:
    """The flagged scans of a batch, worst first, read or not."""
    newest = select(Review.verdict).where(Review.scan_id == Scan.id).order_by(Review.id.desc()).limit(1)
    with db.reading() as session:
        model_id = session.get_one(Batch, batch_id).trained_model_id
        columns = select(
            Scan.key,
            Scan.path,
            Scan.patient,
            Scan.age,
            Outcome.score,
            Outcome.threshold,
            newest.correlate(Scan).scalar_subquery(),
        )
        found = columns.join(Outcome, current_outcome(model_id)).where(
            Scan.batch_id == batch_id, Outcome.flagged.is_(True)
        )
        rows = session.execute(found.order_by(Outcome.score.desc(), Scan.id.desc()).limit(limit))
        return [FlaggedScan(*row) for row in rows]
