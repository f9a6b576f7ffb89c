"""Two stages: int8 looks at every image, float32 at each that may be flagged or turned away.

So every flag, and every picture that is no chest X-ray, is a float32 decision. What the first stage lets go by scores
so low, and lies so near to chest X-rays, that float32 went no further from int8 on any validation image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

LEAST, MOST = 0.01, 0.99  # thresholds for which the margin was measured; beyond them float32 looks at everything


@dataclass(frozen=True)
class Margin:
    """How far the first stage may fall short: of a score in log-odds (the same at every threshold, where differences
    of probabilities grow towards 0.5), of a distance from chest X-rays as a share of it."""

    log_odds: float
    distance: float


class Prediction(Protocol):
    """What the stages agree on."""

    @property
    def score(self) -> float: ...
    @property
    def distance(self) -> float: ...


class Stage(Protocol):
    """A Scorer, as far as it matters here."""

    @property
    def model(self) -> Any: ...
    @property
    def gate_limit(self) -> float: ...
    def describe(self) -> dict[str, str]: ...
    def predict(self, pixels: NDArray[np.uint8]) -> Sequence[Any]: ...


S = TypeVar("S", bound=Stage)


@dataclass(frozen=True)
class TwoStage(Generic[S]):
    """A fast scorer and an exact one of the same trained model."""

    first: S
    second: S
    margin: Margin

    @property
    def model(self) -> Any:
        """The trained model, the same for both."""
        return self.second.model

    @property
    def gate_limit(self) -> float:
        """The distance up to which a picture counts as a chest X-ray."""
        return self.second.gate_limit

    def describe(self) -> dict[str, str]:
        """Name what decides: the second stage."""
        return self.second.describe()

    def predict(self, pixels: NDArray[np.uint8], *, threshold: float) -> list[Any]:
        """Score N images, (N, S, S) uint8; each prediction says which stage made it, and one of the second what the
        first had said. Raises as the stages do."""
        fast = self.first.predict(pixels)
        holds = holds_from(np.array([one.score for one in fast]), self.margin)
        found = [
            replace(one, made_by=self.first.describe(), holds_from=float(least))
            for one, least in zip(fast, holds, strict=True)
        ]
        scores, distances = (np.array([getattr(one, name) for one in found]) for name in ("score", "distance"))
        again = np.flatnonzero(needs_second(scores, distances, threshold, self.gate_limit, self.margin))
        if len(again):
            for place, exact in zip(again, self.second.predict(pixels[again]), strict=True):
                told = {"made_by": self.second.describe(), "first_score": found[place].score}
                found[place] = replace(exact, **told)
        return found


def needs_second(
    scores: NDArray[np.floating],
    distances: NDArray[np.floating],
    threshold: float,
    limit: float,
    margin: Margin,
) -> NDArray[np.bool_]:
    """Which of N images, by what the first stage says of them, float32 must look at."""
    if not LEAST <= threshold <= MOST:
        return np.ones(len(scores), np.bool_)
    may_flag = log_odds(scores) >= log_odds(np.array(threshold)) - margin.log_odds
    may_be_another = distances >= limit * (1 - margin.distance)
    either: NDArray[np.bool_] = may_flag | may_be_another | ~np.isfinite(distances)
    return either


def holds_from(scores: NDArray[np.floating], margin: Margin) -> NDArray[np.float64]:
    """The least threshold under which scores (N,) of the first stage stand: below it float32 would look again."""
    least: NDArray[np.float64] = 1 / (1 + np.exp(-log_odds(scores) - margin.log_odds))
    return np.maximum(least, LEAST)


def log_odds(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """log(p / (1 - p)), finite also at 0 and 1."""
    kept = np.clip(scores.astype(np.float64), 1e-9, 1 - 1e-9)
    odds: NDArray[np.float64] = np.log(kept) - np.log1p(-kept)
    return odds


def stages(scorer: Any) -> tuple[Any, ...]:
    """Each scorer that has to be proved: both of two stages, or the one there is."""
    return (scorer.first, scorer.second) if isinstance(scorer, TwoStage) else (scorer,)
