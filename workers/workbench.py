"""The workbench of a threshold: what the report and the last night's scores say of it, and one to propose."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from db.errors import Refused
from db.store.models import ModelView
from db.store.thresholds import LastNight

DIGITS = range(2, 13)  # of a proposed threshold: as few as do


@dataclass(frozen=True)
class Figure:
    """A share with its 95 % interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """A threshold with its figures from the report and what it would have flagged in the last night."""

    threshold: float
    sensitivity: Figure
    specificity: Figure
    flagged_per_1000: float | None
    flagged_last_night: int


@dataclass(frozen=True)
class Proposal:
    """A threshold that does what was asked for, and how that was found out."""

    value: float
    why: str


def rows(model: ModelView, night: LastNight) -> list[Row]:
    """The report's table of thresholds, lowest first; empty where the report has none."""
    return sorted(_rows(model.report, night), key=lambda row: row.threshold)


def flagged(night: LastNight, threshold: float) -> int:
    """How many of the last night's scans that threshold flags."""
    return len(night.scores) - bisect_left(night.scores, threshold)


def for_sensitivity(model: ModelView, night: LastNight, wanted: float) -> Proposal:
    """The highest threshold of the report that keeps a sensitivity. Raises Refused where none does."""
    table = rows(model, night)
    if not table:
        raise Refused(f"the report of {model.label} has no table of thresholds: name one with --set, or a --capacity")
    kept = [row for row in table if row.sensitivity.value >= wanted]
    if not kept:
        best = max(row.sensitivity.value for row in table)
        raise Refused(
            f"no threshold in the report of {model.label} keeps sensitivity {wanted:g}; the best is {best:.3f}"
        )
    said = f"sensitivity {written(kept[-1].sensitivity)} in its report; at least {wanted:g} was asked for"
    return Proposal(kept[-1].threshold, said)


def for_capacity(night: LastNight, wanted: int) -> Proposal:
    """The lowest threshold that would have flagged no more than `wanted` scans in the last night. Raises Refused
    where there is no such threshold, or nothing to go by."""
    scores = night.scores
    if len(scores) <= wanted:
        raise Refused(
            f"the last night had {len(scores):,} scored scans: that tells nothing of a capacity of {wanted:,}"
        )
    first_left_out = scores[len(scores) - 1 - wanted]
    higher = bisect_right(scores, first_left_out)
    if first_left_out >= 1.0:
        raise Refused(
            f"{len(scores) - bisect_left(scores, 1.0):,} scans of the last night score 1: no threshold parts them"
        )
    value = _between(first_left_out, scores[higher] if higher < len(scores) else 1.0)
    count = flagged(night, value)
    return Proposal(
        value, f"{count:,} of the last night's {len(scores):,} scans flagged; at most {wanted:,} were asked for"
    )


def written(figure: Figure) -> str:
    """A share with its interval, for people."""
    interval = f" ({figure.low:.3f}–{figure.high:.3f})" if figure.low is not None and figure.high is not None else ""
    return f"{figure.value:.3f}{interval}"


def figure(given: Any) -> Figure | None:
    """A figure of a report, a bare number or one with an interval; None for anything else."""
    fields = given if isinstance(given, dict) else {"value": given}
    value, low, high = (_number(fields.get(name)) for name in ("value", "low", "high"))
    return None if value is None else Figure(value, low, high)


def _rows(report: dict[str, Any], night: LastNight) -> Iterator[Row]:
    table = report.get("thresholds")
    for line in table if isinstance(table, list) else []:
        fields = line if isinstance(line, dict) else {}
        threshold = _number(fields.get("threshold"))
        sensitivity, specificity = (figure(fields.get(name)) for name in ("sensitivity", "specificity"))
        if threshold is not None and 0 <= threshold <= 1 and sensitivity and specificity:
            per_1000 = _number(fields.get("flagged_per_1000"))
            yield Row(threshold, sensitivity, specificity, per_1000, flagged(night, threshold))


def _number(given: Any) -> float | None:
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    return float(given) if is_number and math.isfinite(given) else None


def _between(low: float, high: float) -> float:
    """The shortest number above `low` and not above `high`."""
    middle = low + (high - low) / 2
    for digits in DIGITS:
        if low < round(middle, digits) <= high:
            return round(middle, digits)
    return high
