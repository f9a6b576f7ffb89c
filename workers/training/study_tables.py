"""Tables 4 and 5: the same images and splits for every architecture, base frozen, with and without augmentation (R17).

`images` of each class are drawn once; `repeats` times they are split 80 to 20 anew, a head is trained on the 80 and
tested on the 20, never augmented. Sources whose weights are not here leave a row that says so.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from db.errors import DataRefused
from workers.training import data, study_draws, study_intervals, study_output, study_paper, study_plots
from workers.training.bases import Base, WeightsUnavailable
from workers.training.examples import Examples
from workers.training.study_draws import Indices, Pool
from workers.training.study_heads import Features, features, fit, scores
from workers.training.study_intervals import Tested
from workers.training.study_protocol import THRESHOLD, Protocol, Say

Loaders = Mapping[str, Callable[[], Base]]  # architecture -> what loads its base

SHOWN = ("accuracy", "sensitivity", "specificity", "f1", "auc")  # the paper's columns
OF_PROTOCOL = (
    "The paper leaves optimiser, epochs, batch size and learning rate of this experiment open: ours are in the results "
    "file. The threshold is 0.5. Both sides of every split hold the classes in equal numbers."
)


def run(number: int, pool: Pool, loaders: Loaders, protocol: Protocol, say: Say) -> dict[str, Any]:
    """Run Table 4 (no augmentation) or 5. Raises DataRefused where the data do not have two classes."""
    if len(pool.classes) != 2:
        raise DataRefused(f"tables 4 and 5 are of two classes, the data have {', '.join(pool.classes)}: use --classes")
    rng = np.random.default_rng(protocol.seed)
    chosen = study_draws.balanced(pool.examples.labels, min(protocol.images, pool.per_class()), rng)
    drawn = data.take(pool.examples, chosen)
    splits = [study_draws.eighty_twenty(drawn.labels, rng) for _ in range(protocol.repeats)]
    paper = study_paper.TABLE_4 if number == 4 else study_paper.TABLE_5
    rows = []
    for architecture, loader in loaders.items():
        row: dict[str, Any] = {"architecture": architecture, "paper": paper.get(architecture, {})}
        try:
            row |= _row(loader(), drawn, splits, protocol, say)
        except WeightsUnavailable as error:
            say(str(error))
            row |= {"weights": f"weights not available: {error}"}
        rows.append(row)
    images = {"drawn": len(drawn), "of_each_class": len(drawn) // 2, "sha256": study_draws.digest(drawn)}
    return {"study": f"table{number}", "images": images, "rows": rows}


def _row(
    base: Base, drawn: Examples, splits: Sequence[tuple[Indices, Indices]], protocol: Protocol, say: Say
) -> dict[str, Any]:
    start = time.monotonic()
    say(f"{base.architecture}: features of {len(drawn)} images ({base.label})")
    known = features(base, drawn, protocol, protocol.copies, say)
    extracted = time.monotonic()
    repeats = []
    for number, (trained, tested) in enumerate(splits):
        repeats.append(_repeat(base, known, drawn, trained, tested, protocol))
        accuracy = study_intervals.figures(repeats[-1], THRESHOLD)["accuracy"]
        say(f"{base.architecture}: split {number + 1} of {len(splits)}, accuracy {accuracy:.4f}")
    seconds = {"features": extracted - start, "heads": time.monotonic() - extracted}
    return {
        "weights": base.label,
        "weights_sha256": base.sha256,
        **_figures(repeats, len(splits[0][0])),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }


def _repeat(
    base: Base, known: Features, drawn: Examples, trained: Indices, tested: Indices, protocol: Protocol
) -> Tested:
    head = fit(known, drawn.labels, trained, protocol, classes=2)
    return Tested(tested, drawn.labels[tested] == 1, scores(head, known.plain[tested])[:, -1])


def _figures(repeats: Sequence[Tested], trained: int) -> dict[str, Any]:
    each = [study_intervals.figures(repeat, THRESHOLD) for repeat in repeats]
    tested = len(repeats[0].images)
    spread = {
        name: study_intervals.over_repeats([one[name] for one in each], tested=tested, trained=trained)
        for name in study_paper.FIGURES
    }
    pooled = study_intervals.over_images(repeats, THRESHOLD)
    return {
        "trained": trained,
        "tested": tested,
        "repeats": [{name: round(value, 4) for name, value in one.items()} for one in each],
        "over_repeats": {name: study_output.plain(figure) for name, figure in spread.items()},
        "over_images": {name: study_output.plain(figure) for name, figure in pooled.items()},
    }


def page(result: Mapping[str, Any]) -> str:
    """The study as Markdown: ours under the paper's figures, both kinds of interval, the seconds."""
    number = int(result["study"][-1])
    lines = [line for row in result["rows"] for line in _lines(row)]
    head = (
        "architecture",
        "base weights",
        "figures",
        *(name.replace("f1", "F1").replace("auc", "AUC") for name in SHOWN),
    )
    errors = study_paper.ERRORS_4 if number == 4 else study_paper.ERRORS_5
    copies = result["made_by"]["protocol"]["copies"]
    how = f"{copies} augmented copies of each training image" if copies else "no augmentation"
    return study_output.document(
        f"Table {number}: {result['images']['of_each_class']} images of each class, frozen base, {how}",
        result,
        [study_output.markdown_table(head, lines), f"![plot]({result['study']}.svg)", _seconds(result["rows"])],
        [study_output.INTERVALS, OF_PROTOCOL, *result.get("notes", ()), *errors],
    )


def _lines(row: Mapping[str, Any]) -> list[list[str]]:
    paper = [_printed(row["paper"].get(name), name) for name in SHOWN]
    lines = [[row["architecture"], "ImageNet", "paper", *paper]]
    if "over_repeats" not in row:
        return [*lines, ["", row["weights"], "ours", *["-"] * len(SHOWN)]]
    for number, (key, said) in enumerate(
        (("over_repeats", "ours, over repeats"), ("over_images", "ours, over images"))
    ):
        weights = row["weights"] if number == 0 else ""
        lines.append(["", weights, said, *(_shown(row[key][name], name) for name in SHOWN)])
    return lines


def _printed(value: float | None, name: str) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if name in {"f1", "auc"} else f"{100 * value:.2f}"


def _shown(figure: Mapping[str, float], name: str) -> str:
    return study_output.fraction(figure) if name in {"f1", "auc"} else study_output.percent(figure)


def _seconds(rows: Sequence[Mapping[str, Any]]) -> str:
    measured = [row for row in rows if "seconds" in row]
    lines = [[r["architecture"], *(f"{r['seconds'][part]:,.0f}" for part in ("features", "heads"))] for r in measured]
    return study_output.markdown_table(("architecture", "seconds for features", "seconds for heads"), lines)


def plots(folder: Path, result: Mapping[str, Any]) -> None:
    """Write one plot of the whole table."""
    number = result["study"][-1]
    study_plots.table(folder / f"{result['study']}.svg", result["rows"], f"Table {number}", SHOWN)
