"""What a report says in plain sentences, for readers who came for the answer; each figure with its interval."""

from collections.abc import Iterator, Mapping
from typing import Any

from workers.training import curves

Report = Mapping[str, Any]
FEW = 100  # images of a kind: fewer leave intervals so wide that a sentence must say so
HELD_BACK = "held-back images"
MEANINGS = {
    "sensitivity": "of the images with {flag}: the share that it flags",
    "specificity": "of the images without {flag}: the share that it leaves unflagged",
    "accuracy": "of all images: the share that it sorts rightly",
    "precision": "of the flagged images: the share with {flag} (lower where fewer people are ill)",
    "f1": "sensitivity and precision in one figure (harmonic mean)",
    "auc": "how often an image with {flag} scores higher than one without",
}


def summary(report: Report, flag: str) -> list[str]:
    """Sentences for the top of the page; `flag` names what is looked for."""
    return [*report.get("warnings", ()), *_judged(report, flag), *_screened(report, flag), *_standing(report)]


def flag_words(report: Report, classes: list[str]) -> str:
    """Name what is looked for: the flag classes, else every class but the first."""
    return " or ".join(report.get("data", {}).get("flag_classes") or classes[1:]) or "a finding"


def judged(report: Report) -> tuple[str, Report]:
    """Say which images the page's curves and tables are of, and give their figures: those that the report names,
    else the held-back tenth, else validation."""
    if report.get("judged"):
        return str(report.get("judged_on", "images")), report["judged"]
    for key, words in (("held_back", HELD_BACK), ("validation", "validation images")):
        if report.get(key):
            return words, report[key]
    return "", {}


def _judged(report: Report, flag: str) -> Iterator[str]:
    kind, figures = judged(report)
    if found := figures.get("sensitivity"):
        yield f"Of 100 images with {flag} it flags {_of_100(found)}."
    if found := figures.get("specificity"):
        wrong = {"value": 1 - found["value"], "low": 1 - found["high"], "high": 1 - found["low"]}
        yield f"Of 100 images without {flag} it flags {_of_100(wrong)} for nothing."
    if found := figures.get("auc"):
        yield (
            f"Of 100 pairs, one image with {flag} and one without, it gives the first the higher score in "
            f"{_of_100(found)} (AUC {found['value']:.3f})."
        )
    if kind:
        yield _where(kind, figures.get("images"))
    if few := {name: images for name, images in _counts(report).items() if images < FEW}:
        named = ", ".join(f"{count} of class {name}" for name, count in few.items())
        yield f"It was judged on few images ({named}): read the intervals, not the figures alone."


def _where(kind: str, images: int | None) -> str:
    measured = f"Measured on {images:,} {kind}" if images else f"Measured on {kind}"
    if "validation" in kind:
        return f"{measured}. Validation images also chose the best epoch and the threshold: expect less of new ones."
    if kind == HELD_BACK:
        return f"{measured}: none of them trained the model or chose its threshold."
    return f"{measured}."


def _counts(report: Report) -> Mapping[str, int]:
    """Images of each class among those judged."""
    table = report.get("confusion", {"rows": [], "counts": []})
    return dict(zip(table["rows"], map(sum, table["counts"]), strict=True))


def _screened(report: Report, flag: str) -> Iterator[str]:
    _, figures = judged(report)
    if "sensitivity" not in figures or "specificity" not in figures:
        return
    prevalence = float(report.get("prevalence", curves.PREVALENCE))
    ill = 1000 * prevalence
    missed, most_missed = (ill * (1 - figures["sensitivity"][bound]) for bound in ("value", "low"))
    flagged = ill - missed + (1000 - ill) * (1 - figures["specificity"]["value"])
    yield (
        f"If {ill:.3g} of 1,000 people screened had {flag} (an assumption: put your own figure in its place), it would "
        f"flag about {flagged:.0f} of the 1,000 and miss about {missed:.1f} of the {ill:.3g} (it may be as many as "
        f"{most_missed:.1f})."
    )


def _standing(report: Report) -> Iterator[str]:
    if verdict := report.get("audit", {}).get("verdict"):
        yield f"Shortcut audit: {verdict}"
    yield "Research software: the machine flags, a physician decides."


def _of_100(figure: Mapping[str, float]) -> str:
    return f"{100 * figure['value']:.0f} ({100 * figure['low']:.0f} to {100 * figure['high']:.0f})"
