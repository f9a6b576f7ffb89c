"""The plots of the studies, as SVG that two equal runs write alike. No image of a patient is in them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.rcParams.update({"svg.hashsalt": "nightread", "svg.fonttype": "none", "font.size": 9})
OURS, PAPER, FAINT = "#1f5fa8", "#c0392b", "#9bb7d6"


def table(path: Path, rows: Sequence[Mapping[str, Any]], title: str, figures: Sequence[str]) -> None:
    """Ours with intervals over the repeats beside the paper's crosses: one panel a figure, one line a row."""
    figure = Figure(figsize=(2.1 * len(figures), 0.9 + 0.6 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(figures), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, figures, strict=True):
        for height, row in enumerate(rows):
            ours, paper = row.get("over_repeats", {}).get(name), row.get("paper", {}).get(name)
            if ours:
                _whisker(panel, ours, height)
            if paper is not None:
                panel.plot([paper], [height + 0.2], "x", color=PAPER)
        panel.set_title(name)
        panel.set_yticks(range(len(rows)), [row["architecture"] for row in rows])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.grid(axis="x", alpha=0.3)
    figure.suptitle(f"{title} (dots: ours with 95 % interval; crosses: the paper)")
    _save(figure, path)


def _whisker(panel: Axes, ours: Mapping[str, float], height: float) -> None:
    value, low, high = ours["value"], ours["low"], ours["high"]
    panel.errorbar([value], [height], xerr=[[value - low], [high - value]], fmt="o", color=OURS, capsize=3)


def training_curves(path: Path, histories: Sequence[Sequence[Mapping[str, float]]], title: str) -> None:
    """Accuracy and loss by epoch (Figures 14 to 16): the first draw strong, the others faint."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for panel, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for history in reversed(histories):
            first = history is histories[0]
            epochs = range(1, len(history) + 1)
            style = {"linewidth": 1.8, "alpha": 1.0} if first else {"linewidth": 0.7, "alpha": 0.3}
            for key, colour, said in ((name, OURS, "training"), (f"val_{name}", PAPER, "verification")):
                values = [epoch[key] for epoch in history]
                panel.plot(epochs, values, color=colour, label=said if first else None, **style)
        panel.set(xlabel="epoch", title=name)
        panel.grid(alpha=0.3)
        panel.legend()
    figure.suptitle(title)
    _save(figure, path)


def learning_curve(path: Path, curves: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> None:
    """Accuracy and AUC on the test images against the number of training images; bars: 95 % over the draws."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for panel, name in zip(figure.subplots(1, 2), ("accuracy", "auc"), strict=True):
        for colour, (label, points) in zip((OURS, PAPER, "#2d8a4e", "#8250a8"), curves.items(), strict=False):
            values = [point[name]["value"] for point in points]
            below = [point[name]["value"] - point[name]["low"] for point in points]
            above = [point[name]["high"] - point[name]["value"] for point in points]
            sizes = [point["training"] for point in points]
            panel.errorbar(sizes, values, yerr=[below, above], fmt="o-", color=colour, capsize=3, label=label)
        ticks = sorted({point["training"] for points in curves.values() for point in points})
        panel.set(xscale="log", xlabel="training images", title=name)
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend()
    figure.suptitle(title)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
