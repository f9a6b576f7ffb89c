"""Plots of a report as inline SVG: text stays text, colours are the page's own, so that light, dark and print work.

Every plot takes a part of the report (JSON) and gives one <svg> element with a title and a description.
"""

import html
import io
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Part = Mapping[str, Any]
Corner = Literal["upper left", "lower left", "lower right"]  # where the legend is in nobody's way

# Stand-ins that matplotlib draws with; each becomes a colour of the page's style sheet.
INK, MUTED, LINE, SURFACE = "#110101", "#110202", "#110303", "#110404"
SERIES = ("#110511", "#110512", "#110513", "#110514", "#110515", "#110516")
_COLOURS = {INK: "--ink", MUTED: "--muted", LINE: "--line", SURFACE: "--surface"} | {
    colour: f"--series-{place}" for place, colour in enumerate(SERIES)
}
DASHES = ("-", "--", "-.", ":")  # so that series are told apart without colour
LONGEST_NAME = 32

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nightread",
    "text.parse_math": False,  # a class may be named "$x"
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


def roc(curve: Part, point: tuple[float, float] | None = None) -> str:
    """ROC curve; `point` is the operating point as (false alarms, sensitivity)."""
    with _drawing("roc", "ROC curve", "Sensitivity against false alarms; the table below has its points.") as drawn:
        axes = drawn.axes((4.6, 4.2))
        axes.plot([0, 1], [0, 1], ":", color=MUTED, linewidth=1.2, label="by chance")
        axes.plot(curve["false_alarms"], curve["sensitivity"], color=SERIES[0], label="this model")
        _mark(axes, point)
        _unit_square(axes, "false alarms (1 - specificity)", "sensitivity", "lower right")
    return drawn.svg


def precision_recall(curve: Part, point: tuple[float, float] | None = None) -> str:
    """Precision against sensitivity; `point` is the operating point as (sensitivity, precision)."""
    with _drawing("pr", "Precision-recall curve", "Precision against sensitivity at every threshold.") as drawn:
        axes = drawn.axes((4.6, 4.2))
        axes.axhline(curve["positives"], linestyle=":", color=MUTED, linewidth=1.2, label="by chance")
        axes.plot(curve["recall"], curve["precision"], color=SERIES[0], label="this model")
        _mark(axes, point)
        _unit_square(axes, "sensitivity (recall)", "precision", "lower left")
    return drawn.svg


def calibration(part: Part) -> str:
    """Calibration diagram before and after temperature scaling: the larger a point, the more images."""
    described = "Share of positives against the mean score of ten bins, before and after temperature scaling."
    with _drawing("calibration", "Calibration diagram", described) as drawn:
        axes = drawn.axes((4.6, 4.2))
        axes.plot([0, 1], [0, 1], ":", color=MUTED, linewidth=1.2, label="as it should be", zorder=1)
        for place, side in enumerate(("before", "after")):
            if part.get(side):
                _bins(axes, part[side], f"{side} temperature scaling", place)
        _unit_square(axes, "mean score", "share of positives", "upper left")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)  # above: whiskers are everywhere
    return drawn.svg


def _bins(axes: Axes, bins: Sequence[Part], label: str, place: int) -> None:
    """Points as large as their bins; joining them would make much of bins with three images."""
    across = [one["mean_score"] for one in bins]
    up = [one["positives"]["value"] for one in bins]
    reach = [(one["positives"]["low"], one["positives"]["high"]) for one in bins]
    most = max(one["images"] for one in bins)
    sizes = [12 + 90 * one["images"] / most for one in bins]
    colour = SERIES[1 - place]
    axes.vlines(across, *zip(*reach, strict=True), color=colour, linewidth=1, linestyle=("--", "-")[place])
    face = ("none", colour)[place]
    axes.scatter(across, up, sizes, facecolors=face, edgecolors=colour, marker="os"[place], label=label, zorder=3)


def history(epochs: Sequence[Part]) -> str:
    """Accuracy and loss of training and validation by epoch (the paper's Figures 14 to 16)."""
    described = "Accuracy and loss on training and validation images after each epoch; the table below has the values."
    with _drawing("history", "Accuracy and loss while training", described) as drawn:
        for axes, key, name in zip(
            drawn.panels((8.6, 3.4), 2), ("accuracy", "loss"), ("accuracy", "loss (cross-entropy)"), strict=True
        ):
            _stages(axes, epochs)
            _lines(axes, epochs, key)
            axes.set(xlabel="epoch", title=name)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if axes.get_legend_handles_labels()[0]:
                axes.legend()
    return drawn.svg


def _lines(axes: Axes, epochs: Sequence[Part], key: str) -> None:
    for place, (prefix, label) in enumerate((("", "training"), ("val_", "validation"))):
        found = [(n, e[prefix + key]) for n, e in enumerate(epochs, 1) if e.get(prefix + key) is not None]
        if found:
            numbers, values = zip(*found, strict=True)
            marker = "os"[place] if len(found) <= 30 else ""
            style: dict[str, Any] = {
                "linestyle": DASHES[place],
                "marker": marker,
                "markersize": 4,
                "color": SERIES[place],
            }
            axes.plot(numbers, values, label=label, **style)


def _stages(axes: Axes, epochs: Sequence[Part]) -> None:
    """A thin line where one stage ends and the next begins."""
    for number, (before, after) in enumerate(itertools.pairwise(epochs), 1):
        if before.get("stage") != after.get("stage"):
            axes.axvline(number + 0.5, color=MUTED, linewidth=1, linestyle=":")


def histogram(part: Part, threshold: float | None = None) -> str:
    """Images of each class by score, one panel a class, with the threshold."""
    described = "How many images of each class have which score, with the threshold; the table below has the counts."
    rows = part["counts"]
    with _drawing("scores", "Scores of each class", described) as drawn:
        panels = drawn.panels((8.6, 0.9 + 1.35 * len(rows)), len(rows), stacked=True)
        for place, (axes, row) in enumerate(zip(panels, rows, strict=True)):
            axes.stairs(row["images"], part["edges"], fill=True, color=SERIES[place % len(SERIES)], alpha=0.85)
            axes.set_title(_short(row["class"]), loc="left")
            axes.set(ylabel="images", xlim=(0, 1))
            axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            if threshold is not None:
                axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--")
        if threshold is not None:
            panels[0].annotate(
                f"threshold {threshold:.3f}", (threshold, 1), (4, 2), ("data", "axes fraction"), "offset points"
            )
        panels[-1].set_xlabel("score")
    return drawn.svg


def _mark(axes: Axes, point: tuple[float, float] | None) -> None:
    if point is not None:
        style: dict[str, Any] = {"marker": "o", "markersize": 8, "markeredgecolor": SURFACE, "color": SERIES[1]}
        axes.plot(*point, linestyle="", zorder=5, label="at the threshold in use", **style)


def _unit_square(axes: Axes, across: str, up: str, place: Corner) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=across, ylabel=up, aspect="equal")
    axes.legend(loc=place, handletextpad=0.6)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


class _Drawn:
    """A figure on its way to one <svg> element."""

    def __init__(self) -> None:
        self.figure = Figure(layout="constrained")
        self.svg = ""

    def axes(self, inches: tuple[float, float]) -> Axes:
        return self.panels(inches, 1)[0]

    def panels(self, inches: tuple[float, float], count: int, *, stacked: bool = False) -> list[Axes]:
        self.figure.set_size_inches(*inches)
        rows, columns = (count, 1) if stacked else (1, count)
        return list(self.figure.subplots(rows, columns, sharex=stacked, squeeze=False).flat)


@contextmanager
def _drawing(name: str, title: str, description: str) -> Iterator[_Drawn]:
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # class names in scripts that matplotlib's font lacks
        drawn = _Drawn()
        yield drawn
        out = io.StringIO()
        drawn.figure.savefig(out, format="svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.06)
    drawn.svg = _inline(out.getvalue(), name, title, description)


def _inline(svg: str, name: str, title: str, description: str) -> str:
    """Only the element, with ids of its own, the page's colours and font, and words for those who cannot see it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for stand_in, variable in _COLOURS.items():
        svg = svg.replace(stand_in, f"var({variable})")
    words = f"<title>{html.escape(title)}</title><desc>{html.escape(description)}</desc>"
    opening = re.sub(r"<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf'<svg class="plot" role="img" \1>{words}', svg, count=1)
    return opening.replace(' xlink:href="', ' href="')
