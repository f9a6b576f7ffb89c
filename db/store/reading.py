"""What people ask: totals, reports, one scan, workers."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.errors import Unknown
from db.schema import Batch, Outcome, Review, Scan, Site, TrainedModel, Worker
from db.store.connection import Database, epoch_now, now
from db.store.heartbeats import PREPARES, WORKER_GONE_SECONDS
from db.store.scoring import current_outcome
from db.words import Kind, Stage, Verdict


@dataclass(frozen=True)
class Totals:
    """A batch in numbers. `found` is counted apart from the others, so that their sum proves something."""

    batch: int
    site: str
    model: str
    found: int
    scored: int
    flagged: int
    rejected: int
    failed: int
    waiting: int
    reasons: dict[str, int]
    seconds: float
    images_per_second: float
    sealed: bool
    submitted_at: datetime

    @property
    def adds_up(self) -> bool:
        """Whether found = scored + rejected + failed + waiting: a scan with two outcomes counts twice on the right."""
        return self.found == self.scored + self.rejected + self.failed + self.waiting

    @property
    def is_done(self) -> bool:
        return self.sealed and self.waiting == 0

    @property
    def seconds_left(self) -> float | None:
        """How long what waits takes at the rate so far; None where nothing waits or there is nothing to go by."""
        ended = self.found - self.waiting
        return self.waiting * self.seconds / ended if self.waiting and ended and self.seconds else None

    def as_json(self) -> dict[str, Any]:
        """The shape that the design promises."""
        return {k: v for k, v in asdict(self).items() if k not in ("sealed", "submitted_at")}


@dataclass(frozen=True)
class ScanLine:
    """One scan in a report; `path` may hold surrogate escapes. The fields after `outcome` are None while it waits."""

    path: str
    outcome: str
    reason: str | None
    detail: str | None
    score: float | None
    threshold: float | None
    flagged: bool | None
    model: str
    engine: str | None
    precision: str | None
    seconds: float | None


@dataclass(frozen=True)
class ScanView:
    """Everything that the scan page shows."""

    scan_id: int
    key: str
    path: str
    site: str
    batch: int
    root: str
    patient: str | None
    study: str | None
    age: float | None
    tags: dict[str, Any]
    submitted_at: datetime
    model_id: int
    model: str
    weights_sha256: str
    outcome: Outcome | None


@dataclass(frozen=True)
class ReviewView:
    """What a reader said of a scan; `saw_score`, `saw_others`: whether the machine's score and other readers' verdicts
    were before them then."""

    id: int
    reader: str
    stage: Stage
    verdict: Verdict
    findings: tuple[str, ...]
    note: str
    at: datetime
    saw_score: bool
    saw_others: bool

    @classmethod
    def of(cls, row: Review, reader: str) -> "ReviewView":
        """A row with its reader's name."""
        said = Stage(row.stage), Verdict(row.verdict), tuple(row.findings or ())
        return cls(row.id, reader, *said, row.note, row.at, row.saw_score, row.saw_others)


@dataclass(frozen=True)
class WorkerView:
    """A worker as its heartbeat tells; `silent` is seconds since the last one."""

    name: str
    host: str
    device: str
    pid: int
    doing: str
    scans: int
    silent: float
    stopped: bool

    @property
    def alive(self) -> bool:
        return not self.stopped and self.silent < WORKER_GONE_SECONDS

    @property
    def scores(self) -> bool:
        """False for one that only fills the prepared cache."""
        return self.device != PREPARES


def totals(db: Database, batch_id: int) -> Totals:
    """A batch in numbers. Raises Unknown."""
    with db.reading() as session:
        return _totals(session, batch_id)


def batches(
    db: Database, *, site_ids: set[int] | None = None, batch_ids: set[int] | None = None, limit: int = 50
) -> list[Totals]:
    """The newest batches first, of these sites or of all, and of these ids or of any."""
    with db.reading() as session:
        wanted = select(Batch.id).order_by(Batch.id.desc()).limit(limit)
        if site_ids is not None:
            wanted = wanted.where(Batch.site_id.in_(site_ids))
        if batch_ids is not None:
            wanted = wanted.where(Batch.id.in_(batch_ids))
        return [_totals(session, batch_id) for batch_id in session.scalars(wanted).all()]


def report_lines(db: Database, batch_id: int) -> Iterator[ScanLine]:
    """Every scan of a batch in order of its path."""
    with db.reading() as session:
        batch = session.get_one(Batch, batch_id)
        model = _model_label(session, batch.trained_model_id)
        joined = select(Scan.path, Outcome).outerjoin(Outcome, current_outcome(batch.trained_model_id))
        rows = session.execute(joined.where(Scan.batch_id == batch_id).order_by(Scan.path))
        for path, outcome in rows.yield_per(1000):
            yield _line(path, outcome, model)


def flagged_lines(db: Database, batch_id: int, *, limit: int) -> list[ScanLine]:
    """The flagged scans of a batch, worst first."""
    with db.reading() as session:
        batch = session.get_one(Batch, batch_id)
        model = _model_label(session, batch.trained_model_id)
        joined = select(Scan.path, Outcome).join(Outcome, current_outcome(batch.trained_model_id))
        flagged = joined.where(Scan.batch_id == batch_id, Outcome.flagged.is_(True))
        rows = session.execute(flagged.order_by(Outcome.score.desc(), Scan.id).limit(limit))
        return [_line(path, outcome, model) for path, outcome in rows]


def scan(db: Database, key: str, *, site_ids: set[int]) -> ScanView:
    """One scan by its key. Raises Unknown, also when it belongs to another site."""
    with db.reading() as session:
        found = session.execute(
            select(Scan, Batch, Site.name)
            .join(Batch, Scan.batch_id == Batch.id)
            .join(Site, Batch.site_id == Site.id)
            .where(Scan.key == key, Site.id.in_(site_ids))
        ).one_or_none()
        if found is None:
            raise Unknown("no such scan")
        row, batch, site = found
        model = session.get_one(TrainedModel, batch.trained_model_id)
        outcome = session.scalar(select(Outcome).join(Scan, current_outcome(model.id)).where(Scan.id == row.id))
        session.expunge_all()
        return ScanView(
            scan_id=row.id,
            key=row.key,
            path=row.path,
            site=site,
            batch=batch.id,
            root=batch.root,
            patient=row.patient,
            study=row.study,
            age=row.age,
            tags=row.tags or {},
            submitted_at=batch.submitted_at,
            model_id=model.id,
            model=f"{model.name} {model.version}",
            weights_sha256=model.weights_sha256,
            outcome=outcome,
        )


def workers(db: Database) -> list[WorkerView]:
    """Every worker that ever beat here and has not been cleared, by name."""
    with db.reading() as session:
        rows = session.execute(select(Worker, epoch_now() - Worker.beat).order_by(Worker.name))
        return [
            WorkerView(w.name, w.host, w.device, w.pid, w.doing, w.scans, float(silent), w.stopped_at is not None)
            for w, silent in rows
        ]


def printable(path: str) -> str:
    """A path as text that any terminal and page can show: undecodable bytes and control characters escaped."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _totals(session: Session, batch_id: int) -> Totals:
    batch = session.get(Batch, batch_id)
    if batch is None:
        raise Unknown(f"no batch {batch_id}: `nightread status` lists them")
    scans = select(func.count()).select_from(Scan).where(Scan.batch_id == batch_id).scalar_subquery()
    # One statement: PostgreSQL gives each its own moment, and a batch may just be growing.
    counts = session.execute(
        select(Outcome.kind, Outcome.reason, Outcome.flagged, func.count(), func.max(Outcome.at), scans)
        .select_from(Scan)
        .outerjoin(Outcome, current_outcome(batch.trained_model_id))
        .where(Scan.batch_id == batch_id)
        .group_by(Outcome.kind, Outcome.reason, Outcome.flagged)
    ).all()
    kinds: Counter[str | None] = Counter()  # None: no outcome yet
    for kind, _, _, count, _, _ in counts:
        kinds[kind] += count
    found = counts[0][-1] if counts else 0
    waiting = kinds[None]
    last = now() if waiting or not counts else max(at for *_, at, _ in counts)
    seconds = max((last - batch.submitted_at).total_seconds(), 0.0) if counts or waiting else 0.0
    return Totals(
        batch=batch_id,
        site=session.get_one(Site, batch.site_id).name,
        model=_model_label(session, batch.trained_model_id),
        found=found,
        scored=kinds[Kind.SCORED],
        flagged=sum(count for _, _, flagged, count, _, _ in counts if flagged),
        rejected=kinds[Kind.REJECTED],
        failed=kinds[Kind.FAILED],
        waiting=waiting,
        reasons={reason: count for _, reason, _, count, _, _ in sorted(counts, key=str) if reason},
        seconds=round(seconds, 3),
        images_per_second=round(kinds[Kind.SCORED] / seconds, 2) if seconds else 0.0,
        sealed=batch.sealed_at is not None,
        submitted_at=batch.submitted_at,
    )


def _model_label(session: Session, model_id: int) -> str:
    model = session.get_one(TrainedModel, model_id)
    return f"{model.name} {model.version}"


def _line(path: str, outcome: Outcome | None, model: str) -> ScanLine:
    if outcome is None:
        return ScanLine(path, "waiting", None, None, None, None, None, model, None, None, None)
    return ScanLine(
        path=path,
        outcome=outcome.kind,
        reason=outcome.reason,
        detail=outcome.detail,
        score=outcome.score,
        threshold=outcome.threshold,
        flagged=outcome.flagged,
        model=model,
        engine=outcome.engine,
        precision=outcome.precision,
        seconds=outcome.seconds,
    )
