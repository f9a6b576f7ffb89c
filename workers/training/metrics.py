"""How good scores are (R16), each figure with its 95 % interval; small sets have wide ones, and say so.

With more than two classes the six figures are those of the flag classes against the rest; `by_class` gives the others.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Truth = NDArray[np.bool_]  # (N,): has the class that is looked for
Scores = NDArray[np.float64]  # (N,): 0-1

Z = NormalDist().inv_cdf(0.975)
RESAMPLES = 2000


@dataclass(frozen=True)
class Figure:
    """A figure between 0 and 1 with its 95 % interval."""

    value: float
    low: float
    high: float


def evaluate(truth: Truth, scores: Scores, threshold: float) -> dict[str, Figure]:
    """Judge scores against the truth: score >= threshold is flagged.

    Shares have exact (Clopper-Pearson) intervals, AUC DeLong's on the logit scale, F1 a bootstrap one. A figure
    that the data cannot give (no positives, say) is left out.
    """
    flagged = scores >= threshold
    hits, misses = int(np.sum(flagged & truth)), int(np.sum(~flagged & truth))
    alarms, passes = int(np.sum(flagged & ~truth)), int(np.sum(~flagged & ~truth))
    shares = {
        "sensitivity": (hits, hits + misses),
        "specificity": (passes, passes + alarms),
        "accuracy": (hits + passes, len(scores)),
        "precision": (hits, hits + alarms),
    }
    figures = {name: share(part, whole) for name, (part, whole) in shares.items() if whole}
    if hits + misses:
        figures["f1"] = f1(truth, flagged)
    if hits + misses and alarms + passes:
        figures["auc"] = auc(truth, scores)
    return figures


def share(part: int, whole: int) -> Figure:
    """`part` of `whole`, with its exact interval (Clopper and Pearson 1934)."""
    low = 0.0 if part == 0 else _root(lambda p: _at_least(part, whole, p) - 0.025)
    high = 1.0 if part == whole else _root(lambda p: _at_least(part + 1, whole, p) - 0.975)
    return Figure(part / whole, low, high)


def lower_bound(part: int, whole: int) -> float:
    """What a share of `part` of `whole` is at least, with 95 % certainty: the exact one-sided bound."""
    return 0.0 if part == 0 else _root(lambda p: _at_least(part, whole, p) - 0.05)


def _at_least(successes: int, trials: int, chance: float) -> float:
    """Probability of so many successes or more in a binomial experiment; `chance` strictly between 0 and 1."""
    k = np.arange(successes, trials + 1)
    choose = [math.lgamma(trials + 1) - math.lgamma(i + 1) - math.lgamma(trials - i + 1) for i in k.tolist()]
    return float(np.exp(np.array(choose) + k * math.log(chance) + (trials - k) * math.log1p(-chance)).sum())


def _root(rising: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


def auc(truth: Truth, scores: Scores) -> Figure:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    Interval: DeLong, DeLong and Clarke-Pearson 1988, on the logit scale so that it stays below 1.
    """
    positive, negative = np.sort(scores[truth]), np.sort(scores[~truth])
    above = _share_below(negative, positive)
    below = 1 - _share_below(positive, negative)
    area = float(above.mean())
    if area in (0.0, 1.0) or min(len(positive), len(negative)) < 2:
        return Figure(area, *_hanley_bounds(area, len(positive), len(negative)))
    error = math.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))
    logit, spread = math.log(area / (1 - area)), Z * error / (area * (1 - area))
    return Figure(area, 1 / (1 + math.exp(spread - logit)), 1 / (1 + math.exp(-spread - logit)))


def _share_below(ordered: Scores, values: Scores) -> Scores:
    """For each value, the share of `ordered` that is smaller, equal ones counting half."""
    left, right = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return (left + right) / 2 / len(ordered)


def _hanley_bounds(area: float, positives: int, negatives: int) -> tuple[float, float]:
    """A perfect order shows no spread; bound it like a share of the smaller class (conservative)."""
    few = min(positives, negatives)
    bounds = share(round(area * few), few)
    return bounds.low, bounds.high


def f1(truth: Truth, flagged: Truth) -> Figure:
    """Harmonic mean of precision and sensitivity; percentile bootstrap over images, fixed seed."""
    counts = np.array([np.sum(truth & flagged), np.sum(truth ^ flagged), np.sum(~truth & ~flagged)])
    drawn = np.random.default_rng(1).multinomial(counts.sum(), counts / counts.sum(), RESAMPLES)
    low, high = np.quantile(_f1(drawn), [0.025, 0.975])
    return Figure(float(_f1(counts[None])[0]), float(low), float(high))


def _f1(counts: NDArray[np.int64]) -> Scores:
    """From rows of (hits, mistakes, passes): 2 hits / (2 hits + mistakes)."""
    shares: Scores = 2 * counts[:, 0] / np.maximum(2 * counts[:, 0] + counts[:, 1], 1)
    return shares


def sensitive_threshold(truth: Truth, scores: Scores, sensitivity: float = 0.95) -> float:
    """Give the highest threshold whose sensitivity's lower 95 % bound (`lower_bound`) is at least `sensitivity`.

    It lies half-way to the next lower score, so that rounding moves nobody across. Raises ValueError where the
    positives are too few for that bound at any threshold.
    """
    positive = np.sort(scores[truth])
    count = len(positive)
    allowed = [missed for missed in range(count) if lower_bound(count - missed, count) >= sensitivity]
    if not allowed:
        raise ValueError(f"{count} positives cannot show a sensitivity of {sensitivity} with 95 % certainty")
    lowest_kept = positive[max(allowed)]
    lower = scores[scores < lowest_kept]
    return float((lowest_kept + (lower.max() if len(lower) else 0.0)) / 2)


def by_class(
    labels: NDArray[np.int64], said: NDArray[np.int64], classes: Sequence[str]
) -> dict[str, dict[str, Figure]]:
    """Judge the likeliest class (N,) against the true one (N,), class by class.

    Gives `recall` and `precision` of each class (exact intervals; left out where nothing was to be found or said),
    and under `mean`: `accuracy` over images, `recall` and `f1` as plain means over the classes that have images
    (macro; bootstrap within each class, fixed seed).
    """
    counts = np.array([[np.sum((labels == i) & (said == j)) for j in range(len(classes))] for i in range(len(classes))])
    right = np.diag(counts)
    present = counts[counts.sum(axis=1) > 0]
    where = np.flatnonzero(counts.sum(axis=1) > 0)
    rng = np.random.default_rng(1)
    drawn = np.stack([rng.multinomial(row.sum(), row / row.sum(), RESAMPLES) for row in present], axis=1)
    return {
        "recall": _shares(classes, right, counts.sum(axis=1)),
        "precision": _shares(classes, right, counts.sum(axis=0)),
        "mean": {
            "accuracy": share(int(right.sum()), int(counts.sum())),
            "recall": _bootstrapped(_macro_recall(present[None], where), _macro_recall(drawn, where)),
            "f1": _bootstrapped(_macro_f1(present[None], where), _macro_f1(drawn, where)),
        },
    }


def _shares(classes: Sequence[str], parts: NDArray[np.int64], wholes: NDArray[np.int64]) -> dict[str, Figure]:
    rows = zip(classes, parts.tolist(), wholes.tolist(), strict=True)
    return {name: share(part, whole) for name, part, whole in rows if whole}


def _bootstrapped(value: Scores, drawn: Scores) -> Figure:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Figure(float(value[0]), float(low), float(high))


def _macro_recall(counts: NDArray[np.int64], where: NDArray[np.int64]) -> Scores:
    """(R, P, C) tables of the P classes with images, at `where` among the C: mean recall (R,)."""
    right = counts[:, np.arange(len(where)), where]
    means: Scores = (right / counts.sum(axis=2)).mean(axis=1)
    return means


def _macro_f1(counts: NDArray[np.int64], where: NDArray[np.int64]) -> Scores:
    right = counts[:, np.arange(len(where)), where]
    means: Scores = (2 * right / (counts.sum(axis=2) + counts.sum(axis=1)[:, where])).mean(axis=1)
    return means


def as_json(figures: Mapping[str, Figure]) -> dict[str, dict[str, float]]:
    """Figures as {"value", "low", "high"}."""
    return {name: asdict(figure) for name, figure in figures.items()}
