"""Scores that need not be computed twice: what was computed of the same pixels, or of the same content, and stands.

Asked across sites and registrations of the same weights: only numbers are given, nothing of whose they were."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from db.schema import Outcome, Scan
from db.store.bulk import among
from db.store.connection import Database
from db.store.models import ruling_threshold
from db.store.scoring import Made, is_in_question
from db.words import Kind

FIELDS = (
    *("id", "kind", "score", "class_scores", "evidence", "engine", "precision", "device", "detail", "holds_from"),
    *("pixels_sha256", "preprocessing", "recipe", "reused_from"),
)

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Standing:
    """An outcome that stands under the threshold that rules: `kind` is scored, and then it is cleared, or rejected,
    and then the model had turned it away. `outcome_id` is where it was computed."""

    outcome_id: int
    kind: Kind
    score: float
    class_scores: dict[str, float]
    evidence: dict[str, Any]
    engine: str
    precision: str
    device: str
    detail: str
    holds_from: float | None
    made: Made


def of_pixels(
    db: Database, model_id: int, digests: Collection[str], *, recipes: Collection[str]
) -> dict[tuple[str, str], Standing]:
    """What stands of these model's inputs (by SHA-256) for a worker of these recipes, under the threshold that rules
    for its model; by digest and version of the preprocessing."""
    with db.reading() as session:
        same = Outcome.reused_from.is_(None), among(session, Outcome.pixels_sha256, list(digests))
        newest = select(func.max(Outcome.id)).where(*same, Outcome.recipe.in_(recipes))
        alike = newest.group_by(Outcome.pixels_sha256, Outcome.preprocessing, Outcome.recipe)
        rows = _rows(session, alike)
        return _standing(session, model_id, (((row.pixels_sha256, row.preprocessing), row) for row in rows))


def of_content(
    db: Database, model_id: int, digests: Collection[str], *, recipes: Collection[str], versions: Collection[str]
) -> dict[str, Standing]:
    """What stands of files of these contents (by SHA-256) for a worker of these recipes and versions of the
    preprocessing, under the threshold that rules for its model."""
    with db.reading() as session:
        joined = select(func.max(Outcome.id)).select_from(Scan).join(Outcome, Outcome.scan_id == Scan.id)
        same = among(session, Scan.sha256, list(digests)), Outcome.recipe.in_(recipes)
        newest = joined.where(*same, Outcome.preprocessing.in_(versions))
        rows = _rows(session, newest.group_by(Scan.sha256, Outcome.preprocessing, Outcome.recipe))
        return _standing(session, model_id, ((row.sha256, row) for row in rows))


def _rows(session: Session, ids: Select[Any]) -> list[Row[Any]]:
    columns = select(*(getattr(Outcome, name) for name in FIELDS), Scan.sha256)
    return list(session.execute(columns.join(Scan, Scan.id == Outcome.scan_id).where(Outcome.id.in_(ids))))


def _standing(session: Session, model_id: int, found: Iterable[tuple[Key, Row[Any]]]) -> dict[Key, Standing]:
    """Of several outcomes the exact one, then the newest; nothing where any of them would be flagged: its reader needs
    pictures."""
    threshold = ruling_threshold(session, model_id)
    several: dict[Key, list[Row[Any]]] = defaultdict(list)
    for key, row in found:
        several[key].append(row)
    standing: dict[Key, Standing] = {}
    for key, rows in several.items():
        if any(row.kind == Kind.SCORED and row.score >= threshold for row in rows):
            continue
        best = min(rows, key=lambda row: (row.holds_from is not None, -row.id))
        if not is_in_question(best.score, best.holds_from, threshold):
            standing[key] = _view(best)
    return standing


def _view(row: Row[Any]) -> Standing:
    return Standing(
        outcome_id=row.reused_from or row.id,
        kind=Kind(row.kind),
        score=row.score or 0.0,
        class_scores=row.class_scores or {},
        evidence=row.evidence or {},
        engine=row.engine or "",
        precision=row.precision or "",
        device=row.device or "",
        detail=row.detail or "",
        holds_from=row.holds_from,
        made=Made(row.pixels_sha256, row.preprocessing, row.recipe),
    )
