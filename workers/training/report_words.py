"""What a report says in plain sentences, for readers who came for the answer; each figure with its interval."""

from collections.abc import Iterator, Mapping
from typing import Any

from workers.training import curves

Report = Mapping[str, Any]
FEW = 100  # images of a kind: fewer leave intervals so wide that a sentence must say so
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
    return [*_judged(report, flag), *_screened(report, flag), *_standing(report)]


def flag_words(report: Report, classes: list[str]) -> str:
    """Name what is looked for: the flag classes, else every class but the first."""
    return " or ".join(report.get("data", {}).get("flag_classes") or classes[1:]) or "a finding"


def judged(report: Report) -> tuple[str, Report]:
    """Say which set the page's figures come from, and give them: the held-back tenth where it was measured."""
    for key, words in (("held_back", "held back"), ("evaluated", "evaluated"), ("validation", "validation")):
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
        yield _where(report, kind, figures)
    few = {k: n for k, n in _counts(report, kind).items() if n < FEW}
    if few:
        named = ", ".join(f"{count} of class {name}" for name, count in few.items())
        yield f"It was judged on few images ({named}): read the intervals, not the figures alone."


def _where(report: Report, kind: str, figures: Report) -> str:
    images = figures.get("images") or sum(_counts(report, kind).values())
    count = f"{images:,} " if images else ""
    if kind == "held back":
        return f"Measured on {count}images that were held back: none of them trained the model or chose its threshold."
    if kind == "validation":
        return (
            f"Measured on {count}validation images, which also chose the best epoch and the threshold: expect "
            "somewhat less of new images."
        )
    return f"Measured on {count}images given to `nightread evaluate`; brackets hold 95 % intervals."


def _counts(report: Report, kind: str) -> Mapping[str, int]:
    side = kind.replace(" ", "_")
    counts: Mapping[str, int] = report.get("data", {}).get("counts", {}).get(side, {})
    return counts


def _screened(report: Report, flag: str) -> Iterator[str]:
    _, figures = judged(report)
    if "sensitivity" not in figures or "specificity" not in figures:
        return
    prevalence = float(report.get("prevalence", curves.PREVALENCE))
    ill = 1000 * prevalence
    missed = ill * (1 - figures["sensitivity"]["value"])
    flagged = ill - missed + (1000 - ill) * (1 - figures["specificity"]["value"])
    yield (
        f"If {ill:.3g} of 1,000 people screened had {flag} (an assumption: put your own figure in its place), it would "
        f"flag about {flagged:.0f} of the 1,000 and miss about {missed:.1f} of the {ill:.3g}."
    )


def _standing(report: Report) -> Iterator[str]:
    if verdict := report.get("audit", {}).get("verdict"):
        yield f"Shortcut audit: {verdict}"
    yield "Research software: the machine flags, a physician decides."


def _of_100(figure: Mapping[str, float]) -> str:
    return f"{100 * figure['value']:.0f} ({100 * figure['low']:.0f} to {100 * figure['high']:.0f})"
