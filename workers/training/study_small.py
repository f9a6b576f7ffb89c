"""The small-sample study (R20, R21): frozen base, 100, 80 and 60 training images, two test sets, Figures 14 to 16.

The test images are drawn first, as the collection mixes them, 2762 where the data allow; no training image is among
them. The larger test set contains the smaller one, as 1381 + 2762 images would leave too few to train on. The 80
training images are 80 of the 100, the 60 of the 80, so that the size alone differs. Of each training set 80 % train and
20 % verify; nothing is picked by the verification set.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from db.errors import DataRefused
from workers.training import data, metrics, study_draws, study_intervals, study_output, study_paper, study_plots
from workers.training.bases import Base
from workers.training.study_draws import Indices, Labels, Pool
from workers.training.study_heads import Features, Head, Scores, features, fit, scores
from workers.training.study_protocol import THRESHOLD, Protocol, Say

SIZES = (100, 80, 60)
LEAST_TESTED = 20
NOTE = (
    "Loss and accuracy: means over independent draws of the training images with their 95 % t-interval; the first "
    "draw's accuracy with its exact interval over the test images. Curves: the first draw strong, the others faint."
)
CONSTANT = "A constant answer always names the class that is more common in the test set."


def run(pool: Pool, base: Base, protocol: Protocol, say: Say, sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """Train `repeats` times on each size. Raises DataRefused where the data are too few."""
    rng = np.random.default_rng(protocol.seed)
    classes, need = len(pool.classes), max(sizes) // len(pool.classes)
    spare = max(0, pool.per_class() - need)
    kept = study_draws.balanced(pool.examples.labels, need + min(need, spare // 2), rng)
    tested = rng.permutation(np.setdiff1d(np.arange(len(pool.examples)), kept))[: max(study_paper.TEST_SIZES)]
    if len(tested) < LEAST_TESTED:
        raise DataRefused(f"{len(pool.examples)} usable images: training on {max(sizes)} leaves too few to test on")
    tests = (len(tested) // 2, len(tested))
    draws = [
        study_draws.balanced(pool.examples.labels, need, rng, without=tested.tolist()) for _ in range(protocol.repeats)
    ]
    used = np.unique(np.concatenate(draws))
    say(f"{base.architecture}: features of {len(tested)} test and {len(used)} training images ({base.label})")
    judged = features(base, data.take(pool.examples, tested), protocol, 0, say)
    known = features(base, data.take(pool.examples, used), protocol, protocol.copies, say)
    runs = []
    for size in sizes:
        chosen = [np.searchsorted(used, draw[: size // classes * classes]) for draw in draws]
        heads = [
            _once(base, known, pool.examples.labels[used], one, protocol, number, classes)
            for number, one in enumerate(chosen)
        ]
        runs.append(_summary(size, heads, judged, pool.examples.labels[tested], tests))
        say(f"{size} training images: test accuracy {runs[-1]['tests'][-1]['accuracy']['value']:.4f}")
    return {
        "study": "small-sample",
        "images": {"tested": list(tests), "sha256": study_draws.digest(data.take(pool.examples, tested))},
        "architecture": base.architecture,
        "weights": base.label,
        "weights_sha256": base.sha256,
        "runs": runs,
    }


def _once(
    base: Base, known: Features, labels: Labels, chosen: Indices, protocol: Protocol, number: int, classes: int
) -> Head:
    rng = np.random.default_rng((protocol.seed, len(chosen), number))
    trained, verified = study_draws.eighty_twenty(labels[chosen], rng)
    return fit(known, labels, chosen[trained], protocol, classes=classes, verified=chosen[verified])


def _summary(size: int, heads: Sequence[Head], judged: Features, truth: Labels, tests: Sequence[int]) -> dict[str, Any]:
    given = [scores(head, judged.plain) for head in heads]
    return {
        "training": size,
        "histories": [head.history for head in heads],
        "tests": [_tested(given, truth, count) | {"paper": _paper(size, place)} for place, count in enumerate(tests)],
    }


def _tested(given: Sequence[Scores], truth: Labels, count: int) -> dict[str, Any]:
    """Loss and accuracy on the first `count` test images: means over the draws, and the first draw's own interval."""
    hits = np.stack([right(one[:count], truth[:count]) for one in given])
    losses = [_loss(one[:count], truth[:count]) for one in given]
    most_common = int(np.bincount(truth[:count]).max())
    return {
        "tested": count,
        "loss": study_output.plain(study_intervals.over_repeats(losses, most=float("inf"))),
        "accuracy": study_output.plain(study_intervals.over_repeats(hits.mean(axis=1).tolist())),
        "first_draw_accuracy": study_output.plain(metrics.share(int(hits[0].sum()), count)),
        "constant_answer": round(most_common / count, 4),
        "draws": [
            {"loss": round(a, 4), "accuracy": round(float(b.mean()), 4)} for a, b in zip(losses, hits, strict=True)
        ],
    }


def right(given: Scores, truth: Labels) -> NDArray[np.bool_]:
    answered = given[:, 0] >= THRESHOLD if given.shape[1] == 1 else given.argmax(axis=1)
    return np.asarray(answered == truth)


def _loss(given: Scores, truth: Labels) -> float:
    """Cross-entropy, natural logarithm, as Keras computes it."""
    chance = (
        np.where(truth == 1, given[:, 0], 1 - given[:, 0])
        if given.shape[1] == 1
        else given[np.arange(len(truth)), truth]
    )
    return float(-np.log(np.clip(chance, 1e-7, 1)).mean())


def _paper(size: int, place: int) -> dict[str, float]:
    printed = [line for line in study_paper.TABLE_7 if line.training == size]
    return (
        {"tested": printed[place].tested, "loss": printed[place].loss, "accuracy": printed[place].accuracy}
        if printed
        else {}
    )


def page(result: Mapping[str, Any]) -> str:
    """The study as Markdown: Table 7, ours beside the paper's, with a constant answer's accuracy."""
    lines = [_line(run, test) for run in result["runs"] for test in run["tests"]]
    head = ("training images", "test images", "loss", "accuracy %", "accuracy % of draw 1", "a constant answer %",
            "paper: test images", "paper: loss", "paper: accuracy %")  # fmt: skip
    plots = [f"![{run['training']} images](small-sample-{run['training']}.svg)" for run in result["runs"]]
    return study_output.document(
        f"Table 7 and Figures 14 to 16: {result['architecture']}, frozen base, few training images",
        result,
        [f"Weights of the base: {result['weights']}.", study_output.markdown_table(head, lines), *plots],
        [NOTE, CONSTANT, *result.get("notes", ()), *study_paper.ERRORS_7],
    )


def _line(run: Mapping[str, Any], test: Mapping[str, Any]) -> list[str]:
    paper = test["paper"]
    printed = [f"{paper['tested']}", f"{paper['loss']:.3f}", f"{100 * paper['accuracy']:.2f}"] if paper else ["-"] * 3
    shown = [study_output.percent(test[name]) for name in ("accuracy", "first_draw_accuracy")]
    constant = f"{100 * test['constant_answer']:.1f}"
    return [str(run["training"]), str(test["tested"]), study_output.fraction(test["loss"]), *shown, constant, *printed]


def plots(folder: Path, result: Mapping[str, Any]) -> None:
    """Write Figures 14 to 16."""
    for run in result["runs"]:
        figure = study_paper.CURVES_OF.get(run["training"], "Like Figure 14")
        title = f"{figure}: {result['architecture']}, {run['training']} images, 80 % training, 20 % verification"
        study_plots.training_curves(folder / f"small-sample-{run['training']}.svg", run["histories"], title)
