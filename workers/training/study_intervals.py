"""Intervals for figures measured several times on overlapping draws of one set of images.

Two, because they answer two questions. *Over the repeats*: how far would the mean move with other splits of these
images? Student's t, with the variance enlarged for overlapping training sets (Nadeau and Bengio 2003): an image is in
four of five training sets, so five repeats are not five experiments. *Over the images*: how far would it move with
other test images? A bootstrap that draws images, each with all its test scores; counting every test as an image of its
own would make the interval too narrow.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.training.metrics import Figure, Z

RESAMPLES = 1000
# 97.5 % points of Student's t for 1, 2, ... degrees of freedom; beyond, the normal one is close enough.
T: tuple[float, ...] = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
)
T += (2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tested:
    """One repeat: which images were tested (N,), as numbers below some count; whether each is positive; its score."""

    images: NDArray[np.int64]
    truth: NDArray[np.bool_]
    scores: Floats


def over_repeats(values: Sequence[float], *, tested: int = 0, trained: int = 1, most: float = 1.0) -> Figure:
    """Give the mean of a figure over repeats with its 95 % t-interval, kept within 0 to `most`.

    `tested` / `trained` is the enlargement for repeated splits of one set; leave them out for independent draws.
    One repeat shows no spread: its interval is 0 to `most`.
    """
    count = len(values)
    mean = float(np.mean(values))
    if count < 2:
        return Figure(mean, 0.0, most)
    error = float(np.std(values, ddof=1)) * math.sqrt(1 / count + tested / trained)
    margin = (T[count - 2] if count - 2 < len(T) else Z) * error
    return Figure(mean, max(0.0, mean - margin), min(most, mean + margin))


def over_images(repeats: Sequence[Tested], threshold: float, *, seed: int = 1) -> dict[str, Figure]:
    """Give the mean of each figure over repeats with its 95 % percentile interval over drawn images."""
    count = 1 + max(int(repeat.images.max()) for repeat in repeats)
    present = np.zeros(count)
    for repeat in repeats:
        present[repeat.images] = 1
    chances = present / present.sum()
    drawn = np.random.default_rng(seed).multinomial(int(present.sum()), chances, RESAMPLES).astype(np.float64)
    means = _means(repeats, np.ones((1, count)), threshold)
    spreads = _means(repeats, drawn, threshold)
    bounds = {name: np.nanquantile(values, [0.025, 0.975]) for name, values in spreads.items()}
    return {name: Figure(float(means[name][0]), *map(float, bounds[name])) for name in means}


def figures(repeat: Tested, threshold: float) -> dict[str, float]:
    """Give the six figures of R16 for one repeat."""
    counted = _weighted(repeat, np.ones((1, 1 + int(repeat.images.max()))), threshold)
    return {name: float(values[0]) for name, values in counted.items()}


def _means(repeats: Sequence[Tested], weights: Floats, threshold: float) -> dict[str, Floats]:
    each = [_weighted(repeat, weights, threshold) for repeat in repeats]
    return {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}


def _weighted(repeat: Tested, weights: Floats, threshold: float) -> dict[str, Floats]:
    """Give the figures where image i counts weights[:, i] times: (W,) each, nan where a resample has no such image."""
    weights = weights[:, repeat.images]
    flagged = repeat.scores >= threshold
    hits, misses = (weights[:, repeat.truth & side].sum(axis=1) for side in (flagged, ~flagged))
    alarms, passes = (weights[:, ~repeat.truth & side].sum(axis=1) for side in (flagged, ~flagged))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "accuracy": (hits + passes) / weights.sum(axis=1),
            "sensitivity": hits / (hits + misses),
            "specificity": passes / (passes + alarms),
            # Nobody flagged: no precision, so it and F1 count as 0 rather than as missing.
            "precision": hits / np.maximum(hits + alarms, 1e-9),
            "f1": 2 * hits / np.maximum(2 * hits + misses + alarms, 1e-9),
            "auc": _areas(repeat, weights) / ((hits + misses) * (passes + alarms)),
        }


def _areas(repeat: Tested, weights: Floats) -> Floats:
    """Sum over pairs of a positive and a negative: 1 where the positive scores higher, a half where equal."""
    positive, negative = repeat.scores[repeat.truth], repeat.scores[~repeat.truth]
    order = np.argsort(negative, kind="stable")
    below = np.concatenate(
        [np.zeros((len(weights), 1)), np.cumsum(weights[:, ~repeat.truth][:, order], axis=1)], axis=1
    )
    left, right = (np.searchsorted(negative[order], positive, side) for side in ("left", "right"))
    halves: Floats = (below[:, left] + below[:, right]) / 2
    summed: Floats = (halves * weights[:, repeat.truth]).sum(axis=1)
    return summed


def power_law(sizes: Sequence[int], errors: Sequence[float]) -> Callable[[float], float] | None:
    """Fit error = a * size ** -b by least squares on logarithms; None where fewer than three errors are above 0 or
    they do not fall."""
    kept = [(size, error) for size, error in zip(sizes, errors, strict=True) if error > 0]
    if len(kept) < 3:
        return None
    slope, intercept = np.polyfit(np.log([size for size, _ in kept]), np.log([error for _, error in kept]), 1)
    return (lambda size: float(np.exp(intercept) * size**slope)) if slope < 0 else None
