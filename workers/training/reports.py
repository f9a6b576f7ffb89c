"""A report as one HTML file that needs nothing else: no request leaves it, and nothing in it is trusted.

`page` takes the dict that `report.json` holds; a section whose key is missing is not there. File and class names
may be anybody's: every text is made printable and escaped, and a content policy in the page forbids all requests.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup

from workers.preprocessing import Pixels
from workers.trained_models import TrainedModel
from workers.training import curves, plots, report_words
from workers.training.examples import Examples
from workers.training.metrics import Scores, Truth

Report = Mapping[str, Any]
SIX = ("sensitivity", "specificity", "accuracy", "precision", "f1", "auc")
THUMBNAIL = 160  # pixels a side
MISTAKES = 12
LISTED = 100  # excluded files that the page names; report.json has them all
# Keys with a section of their own; whatever else a report holds is listed as it is.
SECTIONS = frozenset(
    (
        "made_by",
        "data",
        "images",
        "parameters",
        "history",
        "threshold",
        "validation",
        "held_back",
        "judged",
        "judged_on",
        "warnings",
        "calibration",
        "thresholds",
        "roc",
        "precision_recall",
        "confusion",
        "histogram",
        "gate",
        "audit",
        "limits",
        "prevalence",
        "per_class",
        "rejected",
    )
)
AUDITED = {
    "model": "the model itself",
    "frame": "probe: the outer frame alone",
    "thumbnail": "probe: an 8 x 8 thumbnail",
    "file": "probe: bytes, width, height and format of the file",
    "frame_blanked": "the model, with the frame blanked",
    "lungs_blanked": "the model, with the lungs blanked",
}


@dataclass(frozen=True)
class Mistake:
    """An image on the wrong side of the threshold; `label` is its true class."""

    path: str
    label: str
    score: float
    pixels: Pixels


def worst(
    examples: Examples, truth: Truth, scores: Scores, threshold: float, classes: Sequence[str], count: int = MISTAKES
) -> list[Mistake]:
    """Give the images farthest on the wrong side of the threshold, worst first."""
    wrong = np.flatnonzero((scores >= threshold) != truth)
    # As a share of the way that was possible on that side, so that a low threshold does not hide the misses.
    far = np.where(truth, (threshold - scores) / max(threshold, 1e-9), (scores - threshold) / max(1 - threshold, 1e-9))
    ordered = wrong[np.argsort(-far[wrong], kind="stable")][:count]
    return [
        Mistake(str(examples.paths[i]), classes[examples.labels[i]], float(scores[i]), examples.pixels[i])
        for i in ordered
    ]


def write(file: Path, report: Report, *, model: TrainedModel | None = None, mistakes: Sequence[Mistake] = ()) -> None:
    """Write the page. `mistakes` are real pictures: leave them out of what is passed on."""
    file.write_text(page(report, model=model, mistakes=mistakes), "utf-8")


def page(report: Report, *, model: TrainedModel | None = None, mistakes: Sequence[Mistake] = ()) -> str:
    """Give the page's HTML; every section whose key the report lacks is absent."""
    shown: Report = _printable(report)
    classes = _classes(shown, model)
    flag = " or ".join(map(_shown, model.flag_classes)) if model else report_words.flag_words(shown, classes)
    kind, figures = report_words.judged(shown)
    sides = _sides(shown)
    return _template().render(
        report=shown,
        model=_model_facts(model),
        title=_shown(f"{model.name} {model.version}") if model else "Trained model",
        flag=flag,
        summary=report_words.summary(shown, flag),
        kind=kind,
        sides=sides,
        six=list(_six(sides, flag)),
        plots={name: Markup(svg) for name, svg in _plots(shown, figures).items()},  # noqa: S704 (escaped by plots)  # nosec B704
        epochs=epochs(shown.get("history")),
        mistakes=[_thumbnail(mistake) for mistake in mistakes],
        audited=[(words, shown["audit"][key]) for key, words in AUDITED.items() if shown.get("audit", {}).get(key)],
        made_by=_made_by(shown),
        gate=list(_flat(shown.get("gate", {}))),
        others={key: list(_flat(value)) for key, value in shown.items() if key not in SECTIONS},
        listed=LISTED,
    )


def epochs(history: Any) -> list[Report]:
    """Every epoch of a history in order, whether it is a list of epochs, of stages, or {"stages": either}."""
    if isinstance(history, Mapping):
        return [history] if "epoch" in history else epochs(history.get("stages"))
    return [epoch for part in history or () for epoch in epochs(part)]


def _classes(report: Report, model: TrainedModel | None) -> list[str]:
    if model:
        return [_shown(name) for name in model.classes]
    return list(report.get("data", {}).get("classes", ()))


def _plots(report: Report, figures: Report) -> dict[str, str]:
    """Every plot that the report has data for."""
    sensitivity, specificity, precision = (figures.get(k, {}).get("value") for k in (*SIX[:2], "precision"))
    at = {
        "roc": None if None in (sensitivity, specificity) else (1 - specificity, sensitivity),
        "precision_recall": None if None in (sensitivity, precision) else (sensitivity, precision),
    }
    drawn = {key: getattr(plots, key)(report[key], at[key]) for key in at if report.get(key)}
    if report.get("calibration", {}).get("after"):
        drawn["calibration"] = plots.calibration(report["calibration"])
    if found := epochs(report.get("history")):
        drawn["history"] = plots.history(found)
    if report.get("histogram"):
        drawn["histogram"] = plots.histogram(report["histogram"], report.get("threshold", {}).get("value"))
    return drawn


def _sides(report: Report) -> list[tuple[str, Report]]:
    """The sets with figures, each once, under its name; the one that judges comes first."""
    named = {"judged": report.get("judged_on", "judged"), "held_back": "held back", "validation": "validation"}
    found: list[tuple[str, Report]] = []
    for key in ("held_back", "validation", "judged"):
        if report.get(key) and report[key] not in [figures for _, figures in found]:
            found.append((named[key], report[key]))
    return sorted(found, key=lambda side: side[1] != report_words.judged(report)[1])


def _six(sides: Sequence[tuple[str, Report]], flag: str) -> Iterator[tuple[str, str, list[Any]]]:
    """Rows of (name, meaning, figure on each set that was measured)."""
    for name in SIX:
        if any(name in figures for _, figures in sides):
            yield name, report_words.MEANINGS[name].format(flag=flag), [figures.get(name) for _, figures in sides]


def _made_by(report: Report) -> list[tuple[str, Any]]:
    """Command, seed, versions and hashes, flattened; an early report's plain sentence is its command."""
    made = report.get("made_by", {})
    return list(_flat({"command": made} if isinstance(made, str) else made))


def _model_facts(model: TrainedModel | None) -> list[tuple[str, Any]]:
    if model is None:
        return []
    facts = {
        "architecture": f"{model.architecture}, head {model.head}",
        "classes": ", ".join(model.classes),
        "flags": ", ".join(model.flag_classes),
        "input": f"{model.input_size} x {model.input_size} pixels, preprocessing {model.preprocessing.version}",
        "intended use": model.intended_use.summary,
        "least age": f"{model.intended_use.minimum_age} years",
        "weights sha256": model.weights.sha256,
    }
    return [(name, _shown(text)) for name, text in facts.items()]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Rows of (path of keys, figure or plain value) of nested dicts and lists."""
    if is_figure(value) or not isinstance(value, Mapping | list | tuple):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}: {key}" if name else str(key))
    elif all(not isinstance(inner, Mapping | list | tuple) for inner in value):
        yield name, ", ".join(map(str, value))
    else:
        for number, inner in enumerate(value, 1):
            yield from _flat(inner, f"{name} {number}")


def is_figure(value: Any) -> bool:
    """Whether this is a figure with its interval."""
    return isinstance(value, Mapping) and {"value", "low", "high"} <= value.keys()


def _thumbnail(mistake: Mistake) -> dict[str, Any]:
    small = cv2.resize(mistake.pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".png", small)
    return {
        "path": _shown(mistake.path),
        "label": _shown(mistake.label),
        "score": mistake.score,
        "source": f"data:image/png;base64,{base64.b64encode(encoded.tobytes()).decode()}",
    }


def _printable(value: Any) -> Any:
    """The same report with every text, keys too, made printable."""
    if isinstance(value, Mapping):
        return {_shown(str(key)): _printable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(inner) for inner in value]
    return _shown(value) if isinstance(value, str) else value


def _shown(text: str) -> str:
    """Undecodable bytes, control and direction characters as escapes, so that a name cannot dress up as another."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in str(text))


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": _percent, "number": _number, "share": lambda x: min(max(float(x), 0.0), 1.0)}
    environment.tests["figure"] = is_figure
    environment.globals |= {"PREVALENCE": curves.PREVALENCE}
    return environment.get_template("report.html")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _number(value: Any) -> str:
    """Plain numbers for people: thousands apart, four digits that count."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
