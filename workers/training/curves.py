"""Curves and tables of a report (R16), JSON-able and small: ROC, precision-recall, calibration, thresholds, scores.

Everywhere score >= threshold is flagged, and with more than two classes the flag classes stand against the rest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.training import metrics
from workers.training.metrics import Scores, Truth

Labels = NDArray[np.int64]  # (N,): counts into the classes
Table = dict[str, Any]  # JSON-able

MOST_POINTS = 200
BINS = 10  # of a calibration diagram
BARS = 20  # of a score histogram
# How many of those screened are ill. Our own assumption (the paper names none): a parameter wherever it counts.
PREVALENCE = 0.02
SENSITIVITIES = (0.99, 0.975, 0.95, 0.90, 0.80)
SPECIFICITIES = (0.90, 0.95, 0.99)


def tables(
    labels: Labels,
    class_scores: NDArray[np.floating],
    classes: Sequence[str],
    flag_classes: Sequence[str],
    threshold: float,
    *,
    prevalence: float = PREVALENCE,
) -> Table:
    """Give the report's `roc`, `precision_recall`, `confusion`, `histogram`, `thresholds`, `prevalence` and, with
    more than two classes, `per_class`, from labels (N,) and class scores (N, C). Curves that need images of both
    kinds are left out where one is missing."""
    truth, scores = flags(labels, class_scores, classes, flag_classes)
    found: Table = {
        "confusion": confusion(labels, classes, scores >= threshold),
        "histogram": histogram(labels, classes, scores),
    }
    if len(classes) > 2:
        found["per_class"] = per_class(labels, class_scores, classes)
    if truth.any() and not truth.all():
        found |= {
            "roc": roc(truth, scores),
            "precision_recall": precision_recall(truth, scores),
            "thresholds": thresholds(truth, scores, threshold, prevalence=prevalence),
            "prevalence": prevalence,
        }
    return found


def flags(
    labels: Labels, class_scores: NDArray[np.floating], classes: Sequence[str], flag_classes: Sequence[str]
) -> tuple[Truth, Scores]:
    """Truth (N,) and scores (N,) over the flag classes, as screening sums them."""
    wanted = np.array([name in flag_classes for name in classes])
    scores = np.minimum(class_scores[:, wanted].sum(axis=1).astype(np.float64), 1.0)
    return wanted[labels], scores


def roc(truth: Truth, scores: Scores) -> Table:
    """False alarms (share of negatives flagged) and sensitivity, from no image flagged to all; at most 200 points."""
    cuts, hits, alarms = _counts(truth, scores)
    kept = _thinned(alarms / alarms[-1], hits / hits[-1])
    return {
        "false_alarms": _rounded((alarms / alarms[-1])[kept]),
        "sensitivity": _rounded((hits / hits[-1])[kept]),
        "thresholds": _rounded(cuts[kept]),
    }


def precision_recall(truth: Truth, scores: Scores) -> Table:
    """Precision against sensitivity (recall), and the average precision: the mean of precision over the steps of
    recall, without interpolation. It depends on the share of positives, which stands beside it."""
    _, hits, alarms = _counts(truth, scores)
    recall, precision = hits[1:] / hits[-1], hits[1:] / (hits[1:] + alarms[1:])
    average = float((np.diff(recall, prepend=0.0) * precision).sum())
    kept = _thinned(recall, precision)
    return {
        "recall": _rounded(recall[kept]),
        "precision": _rounded(precision[kept]),
        "average_precision": average,
        "positives": float(truth.mean()),
    }


def confusion(labels: Labels, classes: Sequence[str], flagged: Truth) -> Table:
    """How many images of each class were flagged; rows are the truth."""
    counts = [[int(np.sum((labels == i) & (flagged == side))) for side in (False, True)] for i in range(len(classes))]
    return {"rows": list(classes), "columns": ["not flagged", "flagged"], "counts": counts}


def per_class(labels: Labels, class_scores: NDArray[np.floating], classes: Sequence[str]) -> Table:
    """The likeliest class against the true one: their table, each class's figures, and the mean over classes."""
    said = class_scores.argmax(axis=1)
    counts = [[int(np.sum((labels == i) & (said == j))) for j in range(len(classes))] for i in range(len(classes))]
    return {
        "confusion": {"rows": list(classes), "columns": list(classes), "counts": counts},
        **{key: metrics.as_json(figures) for key, figures in metrics.by_class(labels, said, classes).items()},
    }


def calibration(truth: Truth, before: Scores, after: Scores, temperature: float) -> Table:
    """Calibration diagram and expected calibration error (ECE) before and after temperature scaling, on one set."""
    return {
        "temperature": temperature,
        "before": bins(truth, before),
        "after": bins(truth, after),
        "ece_before": calibration_error(truth, before),
        "ece_after": calibration_error(truth, after),
    }


def bins(truth: Truth, scores: Scores) -> list[Table]:
    """Ten equal bins of score: how many images, their mean score, the share of positives with its interval; those
    without images are left out."""
    return [
        {
            "low": place / BINS,
            "high": (place + 1) / BINS,
            "images": int(inside.sum()),
            "mean_score": float(scores[inside].mean()),
            "positives": asdict(metrics.share(int(truth[inside].sum()), int(inside.sum()))),
        }
        for place, inside in _binned(scores)
    ]


def calibration_error(truth: Truth, scores: Scores) -> float:
    """Mean distance between score and share of positives over the ten bins, by images (Guo et al. 2017)."""
    gaps = [abs(float(scores[i].mean()) - float(truth[i].mean())) * float(i.sum()) for _, i in _binned(scores)]
    return sum(gaps) / max(len(scores), 1)


def histogram(labels: Labels, classes: Sequence[str], scores: Scores) -> Table:
    """Images of each class by score, in 20 equal bins."""
    edges = np.linspace(0, 1, BARS + 1)
    counted = [np.histogram(scores[labels == i], edges)[0].tolist() for i in range(len(classes))]
    return {
        "edges": _rounded(edges),
        "counts": [{"class": n, "images": c} for n, c in zip(classes, counted, strict=True)],
    }


def thresholds(truth: Truth, scores: Scores, in_use: float, *, prevalence: float = PREVALENCE) -> list[Table]:
    """A table to choose an operating point from, lowest threshold first.

    Rows: the threshold in use, one half, the highest that keep each of SENSITIVITIES, and the lowest that reach
    each of SPECIFICITIES on these images. `prevalence` is the assumed share of ill people among those screened.
    """
    rows: dict[tuple[int, int], Table] = {}
    for threshold, why in _candidates(truth, scores, in_use):
        flagged = scores >= threshold
        key = int((flagged & truth).sum()), int((flagged & ~truth).sum())
        if key in rows:
            rows[key]["why"] += f"; {why}"
            rows[key]["in_use"] |= threshold == in_use
        else:
            rows[key] = _row(truth, flagged, prevalence) | {
                "threshold": threshold,
                "in_use": threshold == in_use,
                "why": why,
            }
    return sorted(rows.values(), key=lambda row: float(row["threshold"]))


def _candidates(truth: Truth, scores: Scores, in_use: float) -> Iterator[tuple[float, str]]:
    yield in_use, "in use"
    yield 0.5, "one half"
    positive, negative = np.sort(scores[truth])[::-1], np.sort(scores[~truth])
    for wanted in SENSITIVITIES:
        kept = int(np.ceil(wanted * len(positive) - 1e-9))
        yield _below(scores, float(positive[kept - 1])), f"sensitivity at least {wanted:g} here"
    for wanted in SPECIFICITIES:
        passed = int(np.ceil(wanted * len(negative) - 1e-9))
        yield _above(scores, float(negative[passed - 1])), f"specificity at least {wanted:g} here"


def _below(scores: Scores, kept: float) -> float:
    """Half-way from a score that is flagged to the next lower one, so that rounding moves nobody across."""
    lower = scores[scores < kept]
    return float((kept + (lower.max() if len(lower) else 0.0)) / 2)


def _above(scores: Scores, passed: float) -> float:
    """Half-way from a score that is not flagged to the next higher one."""
    higher = scores[scores > passed]
    return float((passed + (higher.min() if len(higher) else 1.0)) / 2)


def _row(truth: Truth, flagged: Truth, prevalence: float) -> Table:
    sensitivity = metrics.share(int((flagged & truth).sum()), int(truth.sum()))
    specificity = metrics.share(int((~flagged & ~truth).sum()), int((~truth).sum()))
    ill, well = 1000 * prevalence, 1000 * (1 - prevalence)
    return {
        "sensitivity": asdict(sensitivity),
        "specificity": asdict(specificity),
        "flagged_per_1000": ill * sensitivity.value + well * (1 - specificity.value),
        "missed_per_1000": ill * (1 - sensitivity.value),
    }


def _binned(scores: Scores) -> Iterator[tuple[int, Truth]]:
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    for place in range(BINS):
        inside = places == place
        if inside.any():
            yield place, inside


def _counts(truth: Truth, scores: Scores) -> tuple[Scores, NDArray[np.int64], NDArray[np.int64]]:
    """For falling thresholds, beginning above every score: positives and negatives at or above each."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of each run of equal scores
    hits, seen = np.cumsum(truth[order])[last], last + 1
    first = np.zeros(1, np.int64)
    cuts = np.concatenate([[max(1.0, float(ordered[0]) + 1e-6)], ordered[last]])
    return cuts, np.concatenate([first, hits]), np.concatenate([first, seen - hits])


def _thinned(across: Scores, up: Scores) -> NDArray[np.int64]:
    """Indices of at most MOST_POINTS points, evenly spread along the curve, with its corners and both ends."""
    if len(across) <= MOST_POINTS:
        return np.arange(len(across))
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(across)) + np.abs(np.diff(up)))])
    marks = np.linspace(0, way[-1], MOST_POINTS)
    chosen = np.unique(np.append(np.searchsorted(way, marks)[: MOST_POINTS - 1], len(across) - 1))
    return chosen.astype(np.int64)


def _rounded(values: NDArray[np.floating]) -> list[float]:
    return [round(float(value), 5) for value in values]
