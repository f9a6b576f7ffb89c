"""How much more would more images help: test accuracy and AUC against the number of training images, repeated draws.

One test set for all, drawn first; training sets are balanced, of independent draws, and those of one draw contain each
other. The sentence at the end says what a doubling brought and, by a power law, what the next would bring.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from db.errors import DataRefused
from workers.training import data, metrics, study_draws, study_intervals, study_output, study_plots
from workers.training.bases import Base
from workers.training.study_draws import Indices, Labels, Pool
from workers.training.study_heads import Scores, features, fit, scores
from workers.training.study_protocol import Protocol, Say
from workers.training.study_small import right

SIZES = (20, 40, 60, 80, 100, 200, 400)
TESTED = 1000
NOTE = (
    "Means over independent draws of the training images with 95 % t-intervals; one test set for all, whose own chance "
    "(about 2 points of accuracy either way at 1,000 images) moves the whole curve together."
)


def run(
    pool: Pool, bases: Sequence[Base], protocol: Protocol, say: Say, sizes: Sequence[int] = SIZES
) -> dict[str, Any]:
    """Measure every base at every size that the data allow. Raises DataRefused where they allow fewer than three."""
    rng = np.random.default_rng(protocol.seed)
    classes, count = len(pool.classes), len(pool.examples)
    possible = [size for size in sizes if size // classes <= pool.per_class() // 2 and size // classes >= 2]
    if len(possible) < 3:
        raise DataRefused(
            f"{count} usable images allow fewer than three training sizes of {', '.join(map(str, sizes))}"
        )
    most = max(possible) // classes
    tested = study_draws.balanced(pool.examples.labels, min(TESTED // classes, pool.per_class() - most), rng)
    draws = [
        study_draws.balanced(pool.examples.labels, most, rng, without=tested.tolist()) for _ in range(protocol.repeats)
    ]
    curves = [_curve(pool, base, tested, draws, possible, protocol, say) for base in bases]
    images = {"tested": len(tested), "sha256": study_draws.digest(data.take(pool.examples, tested))}
    return {"study": "learning-curve", "images": images, "curves": curves}


def _curve(
    pool: Pool,
    base: Base,
    tested: Indices,
    draws: Sequence[Indices],
    sizes: Sequence[int],
    protocol: Protocol,
    say: Say,
) -> dict[str, Any]:
    used = np.unique(np.concatenate(draws))
    say(f"{base.architecture}: features of {len(tested)} test and {len(used)} training images ({base.label})")
    judged = features(base, data.take(pool.examples, tested), protocol, 0, say)
    known = features(base, data.take(pool.examples, used), protocol, protocol.copies, say)
    labels, truth, classes = pool.examples.labels[used], pool.examples.labels[tested], len(pool.classes)
    points = []
    for size in sizes:
        chosen = [np.searchsorted(used, draw[: size // classes * classes]) for draw in draws]
        heads = [fit(known, labels, one, protocol, classes=classes) for one in chosen]
        points.append(_point(size, [scores(head, judged.plain) for head in heads], truth))
        say(f"{base.architecture}, {size} training images: accuracy {points[-1]['accuracy']['value']:.4f}")
    return {
        "architecture": base.architecture,
        "weights": base.label,
        "weights_sha256": base.sha256,
        "points": points,
        "reading": reading(points),
    }


def _point(size: int, given: Sequence[Scores], truth: Labels) -> dict[str, Any]:
    measured = {
        "accuracy": [float(right(one, truth).mean()) for one in given],
        "auc": [_area(one, truth) for one in given],
    }
    return {
        "training": size,
        **{name: study_output.plain(study_intervals.over_repeats(values)) for name, values in measured.items()},
        "draws": {name: [round(value, 4) for value in values] for name, values in measured.items()},
    }


def _area(given: Scores, truth: Labels) -> float:
    """AUC; with more than two classes the mean of each class against the rest."""
    if given.shape[1] == 1:
        return metrics.auc(truth == 1, given[:, 0]).value
    return float(np.mean([metrics.auc(truth == label, column).value for label, column in enumerate(given.T)]))


def reading(points: Sequence[Mapping[str, Any]]) -> str:
    """One sentence or two: what the last doubling brought, and what the next would."""
    last, before = points[-1], max(points[:-1], key=lambda point: -abs(point["training"] * 2 - points[-1]["training"]))
    gains = np.subtract(last["draws"]["accuracy"], before["draws"]["accuracy"])
    gain = _gain(gains.tolist())
    said = (
        f"From {before['training']} to {last['training']} training images accuracy rose by {100 * gain[0]:.1f} points "
        f"(95 % interval {100 * gain[1]:.1f} to {100 * gain[2]:.1f}, over draws)"
    )
    if gain[1] <= 0:
        return f"{said}: these draws do not show that more images help."
    law = study_intervals.power_law([p["training"] for p in points], [1 - p["accuracy"]["value"] for p in points])
    if law is None:
        return f"{said}; the curve is too irregular to say what more would bring."
    doubled = 2 * int(last["training"])
    return (
        f"{said}. A power law through the curve puts {doubled} images at {100 * (1 - law(doubled)):.1f} % and "
        f"{5 * doubled} at {100 * (1 - law(5 * doubled)):.1f} % (now {100 * last['accuracy']['value']:.1f} %): an "
        f"extrapolation, not a measurement."
    )


def _gain(gains: Sequence[float]) -> tuple[float, float, float]:
    """Mean of paired gains with its t-interval; `over_repeats` works on 0 to 1, so they are halved and moved there."""
    figure = study_intervals.over_repeats([(gain + 1) / 2 for gain in gains])
    return 2 * figure.value - 1, 2 * figure.low - 1, 2 * figure.high - 1


def page(result: Mapping[str, Any]) -> str:
    """The study as Markdown: one line a size, one column pair a base, and what the curve says."""
    tables = []
    for curve in result["curves"]:
        lines = [
            [str(p["training"]), study_output.percent(p["accuracy"]), study_output.fraction(p["auc"])]
            for p in curve["points"]
        ]
        tables.append(f"## {curve['architecture']}\n\nWeights of the base: {curve['weights']}.")
        tables.append(study_output.markdown_table(("training images", "test accuracy %", "test AUC"), lines))
        tables.append(curve["reading"])
    return study_output.document(
        f"Learning curve: frozen base, {result['images']['tested']:,} test images, balanced",
        result,
        [*tables, "![learning curve](learning-curve.svg)"],
        [NOTE, *result.get("notes", ())],
    )


def plots(folder: Path, result: Mapping[str, Any]) -> None:
    """Write the curves of all bases in one plot."""
    curves = {f"{curve['architecture']}: {curve['weights']}"[:60]: curve["points"] for curve in result["curves"]}
    title = f"Frozen base, {result['images']['tested']:,} test images"
    study_plots.learning_curve(folder / "learning-curve.svg", curves, title)
