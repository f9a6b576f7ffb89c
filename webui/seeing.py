"""What a reader may see of an outcome. Templates get this and never the outcome itself: what is hidden is not there."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from db.schema import Outcome
from db.words import Kind


@dataclass(frozen=True)
class Seen:
    """An outcome as one person may see it. Where it `is_hidden`, everything that tells a flagged scan from one drawn
    of the cleared is None: the two look alike."""

    kind: str
    reason: str | None
    at: datetime
    engine: str | None
    precision: str | None
    device: str | None
    evidence: dict[str, Any] | None  # what preprocessing cut
    display: dict[str, Any] | None  # how the picture is shown at first
    is_hidden: bool
    score: float | None = None
    threshold: float | None = None
    flagged: bool | None = None
    class_scores: dict[str, float] | None = None

    @property
    def is_scored(self) -> bool:
        return self.kind == Kind.SCORED


def seen(outcome: Outcome | None, *, hides_score: bool) -> Seen | None:
    """The outcome as it may be seen; None while the scan waits."""
    if outcome is None:
        return None
    evidence = dict(outcome.evidence or {})
    display = evidence.pop("display", None)
    return Seen(
        kind=outcome.kind,
        reason=outcome.reason,
        at=outcome.at,
        engine=outcome.engine,
        precision=outcome.precision,
        device=outcome.device,
        evidence=evidence or None,
        display=display,
        is_hidden=hides_score,
        **({} if hides_score else _telling(outcome)),
    )


def _telling(outcome: Outcome) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in ("score", "threshold", "flagged", "class_scores")}
