"""The morning certificate of a batch: counted anew from SQL, scan by scan, with one digest over all outcomes
(canonical.py says over what)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from itertools import groupby
from typing import Any

from sqlalchemy import Row, Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from db.errors import Unknown
from db.schema import AuditEvent, Batch, Chunk, Outcome, Scan, Site, Threshold, TrainedModel
from db.store import canonical
from db.store.audit import record
from db.store.connection import Database, now
from db.store.models import ruling_threshold
from db.store.problems import Problem, Problems, What
from db.store.reading import printable
from db.store.scoring import current_outcome, is_in_question
from db.words import Cause, Kind, Reason

STREAMED = 1000  # rows that are in memory at once
CERTIFIED, REFUSED, SEALED = "batch_certified", "batch_not_certified", "batch_sealed"  # on the audit record
CLOSE = 1e-6  # a score is the sum of its flag classes, added up in 32 bits
REASONS = {Kind.REJECTED: frozenset(map(str, Reason)), Kind.FAILED: frozenset(map(str, Cause))}


@dataclass(frozen=True)
class Earlier:
    """The last time that this batch's certificate held, from the audit record."""

    digest: str
    at: datetime


@dataclass(frozen=True)
class Certificate:
    """What a batch came to, and what does not add up; `holds` only where that is nothing. `digest` covers all outcomes,
    `scores` the same but for thresholds and flags, which a new threshold changes."""

    batch: int
    site: str
    model: str
    found: int
    scored: int
    flagged: int
    rejected: int
    failed: int
    waiting: int
    sealed: bool
    digest: str
    scores: str
    at: datetime
    version: str
    earlier: Earlier | None
    problems: tuple[Problem, ...]

    @property
    def holds(self) -> bool:
        return not self.problems

    def also(self, problems: Sequence[Problem]) -> "Certificate":
        """The same with what else was found wrong."""
        return replace(self, problems=(*self.problems, *problems))

    def counts(self) -> dict[str, int]:
        """The numbers that must add up, and how many are flagged."""
        return {name: getattr(self, name) for name in ("found", "scored", "flagged", "rejected", "failed", "waiting")}

    def as_json(self) -> dict[str, Any]:
        """The shape of `certify --json`, and of "certificate" in a report."""
        named = {name: getattr(self, name) for name in ("batch", "site", "model", "sealed", "digest", "version")}
        earlier = None if self.earlier is None else {"digest": self.earlier.digest, "at": self.earlier.at.isoformat()}
        problems = [problem.as_json() for problem in self.problems]
        made = {"form": canonical.FORM, "at": self.at.isoformat(), "earlier": earlier, "problems": problems}
        return {"holds": self.holds, **named, **self.counts(), **made}


def certify(db: Database, batch_id: int) -> Certificate:
    """Count a batch anew, look at each of its scans and outcomes, all as of one moment. Raises Unknown."""
    with db.reading() as session:
        if not db.is_sqlite:  # one snapshot for all that follows; SQLite's transactions always are
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        batch = session.get(Batch, batch_id)
        if batch is None:
            raise Unknown(f"no batch {batch_id}: `nightread status` lists them")
        return _certify(session, batch)


def put_on_record(db: Database, certificate: Certificate, *, files: int | None, by: str) -> None:
    """Append the certificate, or that it does not hold, to the audit record. `files` is how many were looked at."""
    problems = {str(problem.what): problem.count for problem in certificate.problems}
    made = {name: getattr(certificate, name) for name in ("digest", "scores", "version")}
    with db.writing() as session:
        action = CERTIFIED if certificate.holds else REFUSED
        detail = {"form": canonical.FORM, "files": files, **made, **certificate.counts()}
        named = {"problems": problems} if problems else {}
        record(session, by, action, f"batch {certificate.batch}", detail | named)


def _certify(session: Session, batch: Batch) -> Certificate:
    model = session.get_one(TrainedModel, batch.trained_model_id)
    lowest = session.scalars(select(func.min(Threshold.value)).where(Threshold.trained_model_id == model.id)).one()
    seen = _Seen(model, ruling_threshold(session, model.id), lowest)
    for rows in _outcomes(session, batch.id):
        seen.look(rows)
    digest, at = seen.digest.hexdigest(), now()
    earlier = _earlier(session, batch.id)
    _check_counts(session, batch, seen)
    scores = seen.scores.hexdigest()
    if earlier is not None and not _is_explained(session, batch, earlier, digest, scores):
        seen.problems.add(What.ALTERED, f"on {earlier.at:%Y-%m-%d %H:%M} UTC: {earlier.detail['digest']}")
    kinds = {kind.value: seen.kinds[kind] for kind in Kind}
    return Certificate(
        batch=batch.id,
        site=session.get_one(Site, batch.site_id).name,
        model=f"{model.name} {model.version}",
        **{"found": seen.found, "flagged": seen.flagged, "waiting": seen.waiting, **kinds},
        sealed=batch.sealed_at is not None,
        digest=digest,
        scores=scores,
        at=at,
        version=version("nightread"),
        earlier=None if earlier is None else Earlier(earlier.detail["digest"], earlier.at),
        problems=seen.problems.found(),
    )


class _Seen:
    """What the walk over a batch's scans has seen so far: little, however many there are."""

    def __init__(self, model: TrainedModel, threshold: float, lowest: float) -> None:
        self.digest, self.scores = canonical.begun(), canonical.begun()
        self.kinds: Counter[str] = Counter()
        self.found = self.flagged = self.waiting = 0
        self.problems = Problems()
        self._model_id, self._threshold, self._lowest = model.id, threshold, lowest
        self._model = [model.name, model.version, model.weights_sha256]
        self._flag_classes = list(model.flag_classes)

    def look(self, rows: list[Row[Any]]) -> None:
        """One scan with all its outcomes; a row without one where it has none."""
        name = printable(rows[0].path)
        outcomes = [row for row in rows if row.kind is not None]
        own = [row for row in outcomes if row.trained_model_id == self._model_id]
        current = [row for row in own if row.generation == row.scan_generation]
        self.found += 1
        self.waiting += not current
        for what, is_so in (
            (What.WAITING, not current),
            (What.DOUBLED, len(current) > 1),
            (What.FOREIGN, len(own) < len(outcomes)),
            (What.AHEAD, any(row.generation > row.scan_generation for row in own)),
            (What.HISTORY, not _is_whole_history(own, self._lowest)),
        ):
            if is_so:
                self.problems.add(what, name)
        for row in current:
            self._count(name, row)
        for row in current or rows[:1]:
            outcome = row if current else None
            self.digest.update(canonical.line(outcome, row, self._model))
            self.scores.update(canonical.line(outcome, row, self._model, with_flag=False))

    def _count(self, name: str, row: Row[Any]) -> None:
        self.kinds[row.kind] += 1
        self.flagged += bool(row.flagged)
        if row.kind != Kind.SCORED:
            if row.reason not in REASONS.get(row.kind, ()):
                self.problems.add(What.REASON, name)
            return
        if row.threshold != self._threshold:
            self.problems.add(What.THRESHOLD, name)
        if row.threshold is None or row.flagged != (row.score >= row.threshold):
            self.problems.add(What.FLAG, name)
        scores = row.class_scores or {}
        given = [scores[name] for name in self._flag_classes if name in scores]
        if len(given) == len(self._flag_classes) and abs(sum(given) - row.score) > CLOSE:
            self.problems.add(What.SCORE, name)


def _check_counts(session: Session, batch: Batch, seen: _Seen) -> None:
    """Hold what the walk counted against questions that count by themselves, and against the count at sealing."""
    mine = Scan.batch_id == batch.id
    found = session.scalar(select(func.count()).select_from(Scan).where(mine)) or 0
    joined = select(Outcome.kind, func.count()).join(Scan, current_outcome(batch.trained_model_id))
    kinds = {row[0]: row[1] for row in session.execute(joined.where(mine).group_by(Outcome.kind))}
    ended = exists().where(current_outcome(batch.trained_model_id))
    waiting = session.scalar(select(func.count()).select_from(Scan).where(mine, ~ended)) or 0
    if found != sum(kinds.values()) + waiting:
        parts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        seen.problems.add(What.SUM, f"{found:,} found, but {parts or 'no outcome'}, {waiting:,} waiting")
    if (found, waiting, kinds) != (seen.found, seen.waiting, dict(seen.kinds)):
        seen.problems.add(What.COUNTS, f"{found:,} and {seen.found:,} found")
    open_chunks = select(func.count()).where(Chunk.batch_id == batch.id, Chunk.completed_at.is_(None))
    if count := session.scalar(open_chunks):
        seen.problems.add(What.OPEN, f"{count:,} of them", count=count)
    if batch.sealed_at is None:
        seen.problems.add(What.UNSEALED)
    at_sealing = session.scalar(_events(batch.id, SEALED).with_only_columns(AuditEvent.detail))
    if at_sealing is not None and at_sealing["found"] != found:
        seen.problems.add(What.LOST, f"{at_sealing['found']:,} then, {found:,} now")


def _outcomes(session: Session, batch_id: int) -> Iterator[list[Row[Any]]]:
    """Each scan with every outcome that it ever had, in the order of the paths' bytes (memcmp in both databases),
    streamed: one question, because a page a question is slow where PostgreSQL has no statistics yet."""
    scan = (getattr(Scan, name) for name in ("id", "path", "size", "sha256"))
    outcome = (getattr(Outcome, name) for name in ("trained_model_id", "generation", "kind", "reason", "score"))
    names = ("threshold", "flagged", "class_scores", "engine", "precision", "holds_from")
    more = (getattr(Outcome, name) for name in names)
    columns = select(*scan, Scan.generation.label("scan_generation"), *outcome, *more)
    joined = columns.outerjoin(Outcome, Outcome.scan_id == Scan.id).where(Scan.batch_id == batch_id)
    ordered = joined.order_by(Scan.path, Outcome.id).execution_options(yield_per=STREAMED)
    rows: Iterable[Row[Any]] = session.execute(ordered)
    for _, same in groupby(rows, key=lambda row: row.id):
        yield list(same)


def _is_whole_history(own: list[Row[Any]], lowest: float) -> bool:
    """Whether each generation before the scan's own has its outcome, and that had failed, or was in question under the
    lowest threshold that the model ever had: nothing else is tried again."""
    if not own:
        return True  # it waits, and that is said
    before = [row for row in own if row.generation < row.scan_generation]
    generations = [row.generation for row in before]
    return generations == list(range(own[0].scan_generation)) and all(_may_be_retried(row, lowest) for row in before)


def _may_be_retried(row: Row[Any], lowest: float) -> bool:
    is_scored = row.kind == Kind.SCORED
    return row.kind == Kind.FAILED or (is_scored and is_in_question(row.score, row.holds_from, lowest))


def _events(batch_id: int, *actions: str) -> Select[Any]:
    about = AuditEvent.action.in_(actions), AuditEvent.object == f"batch {batch_id}"
    return select(AuditEvent).where(*about).order_by(AuditEvent.id.desc()).limit(1)


def _earlier(session: Session, batch_id: int) -> AuditEvent | None:
    found: AuditEvent | None = session.scalar(_events(batch_id, CERTIFIED))
    return found if found is None or found.detail["form"] == canonical.FORM else None


def _is_explained(session: Session, batch: Batch, earlier: AuditEvent, digest: str, scores: str) -> bool:
    """Whether the digests are those of an earlier certificate, or something on record since then changed them: a new
    threshold (which leaves the scores as they were), or a retry."""
    if digest == earlier.detail["digest"]:
        return True
    changes = [and_(AuditEvent.action == "batch_retried", AuditEvent.object == f"batch {batch.id}")]
    if scores == earlier.detail["scores"]:
        about = AuditEvent.object == f"model {batch.trained_model_id}"
        changes.append(and_(AuditEvent.action == "threshold_set", about))
    later = select(AuditEvent.id).where(AuditEvent.id > earlier.id, or_(*changes))
    return session.scalar(later.limit(1)) is not None
