"""The numbers beside a review copy: how its samples are shown first, and what they mean. In bounds, whatever a file
says.

`Display.as_json` is what an outcome's evidence keeps under "display" and a page hands to its viewer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_WINDOWS = 8
LONGEST_NAME, LONGEST_UNIT = 40, 16
_LARGEST = 1e9  # of any number that a header gives
_SMALLEST_SLOPE = 1e-9
_SPACING_MM = 0.001, 10.0
CALIBRATED, DETECTOR = "calibrated", "detector"


@dataclass(frozen=True)
class Window:
    """A range of samples to show from black to white; `name` as its header explains it, "" where it does not."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Display:
    """How a review copy is to be shown. `bits` (1-16): how many its samples use; `low` to `high`: the window to begin
    with, in samples, as are the header's own `windows`. A sample means `slope` x sample + `intercept` in `unit`.

    `spacing` (mm between rows, between columns) is measured in the patient ("calibrated") or only where the detector
    was ("detector"), behind a patient who is smaller than their shadow. `inverted`: the file counts from white
    (MONOCHROME1); the copy does not.
    """

    bits: int
    low: float
    high: float
    windows: tuple[Window, ...] = ()
    slope: float = 1.0
    intercept: float = 0.0
    unit: str = ""
    spacing: tuple[float, float] | None = None
    spacing_kind: str | None = None
    inverted: bool = False

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, without what is not a number."""
        windows = [{"name": one.name, "low": one.low, "high": one.high} for one in self.windows]
        spacing = list(self.spacing) if self.spacing else None
        return {**vars(self), "windows": windows, "spacing": spacing}


def number(value: object, *, largest: float = _LARGEST) -> float | None:
    """A finite number of a size that means something; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and abs(found) <= largest else None


def text(value: object, longest: int) -> str:
    """A foreign text on one line: only what can be printed, cut short."""
    words = " ".join(str(value or "")[: 4 * longest].split())
    return "".join(c for c in words if c.isprintable())[:longest].strip()


def is_window(low: float | None, high: float | None) -> bool:
    """Whether there is anything between the two."""
    return low is not None and high is not None and low < high


def is_slope(slope: float | None) -> bool:
    """Whether samples can be told apart by what they mean."""
    return slope is not None and abs(slope) >= _SMALLEST_SLOPE


def is_spacing(millimetres: float | None) -> bool:
    """Whether pixels of an X-ray can be so far apart."""
    return millimetres is not None and _SPACING_MM[0] <= millimetres <= _SPACING_MM[1]


def checked(said: object) -> dict[str, Any] | None:
    """A display as JSON that came from a decoder, which a hostile file may have taken over: the same where it is one,
    in bounds; None where it is not."""
    try:
        return _read(said).as_json() if isinstance(said, Mapping) else None
    except (TypeError, KeyError, ValueError):
        return None


def _read(said: Mapping[str, Any]) -> Display:
    """Raises TypeError, KeyError, ValueError."""
    windows = [_window(one) for one in said["windows"][:MOST_WINDOWS]]
    first, spacing, kind = _window({**said, "name": ""}), said["spacing"], said["spacing_kind"]
    bits, slope, intercept = said["bits"], number(said["slope"]), number(said["intercept"])
    _require(type(bits) is int and 1 <= bits <= 16 and type(said["inverted"]) is bool)
    _require(slope is not None and is_slope(slope) and intercept is not None)
    if spacing is not None:
        rows, columns = (number(one) for one in spacing)
        _require(is_spacing(rows) and is_spacing(columns) and kind in (CALIBRATED, DETECTOR))
        spacing = (rows, columns)
    return Display(
        bits=bits,
        low=first.low,
        high=first.high,
        windows=tuple(windows),
        slope=slope or 1.0,
        intercept=intercept or 0.0,
        unit=text(said["unit"], LONGEST_UNIT),
        spacing=spacing,
        spacing_kind=kind if spacing else None,
        inverted=said["inverted"],
    )


def _window(said: Mapping[str, Any]) -> Window:
    low, high = number(said["low"]), number(said["high"])
    _require(is_window(low, high))
    return Window(text(said["name"], LONGEST_NAME), low or 0.0, high or 0.0)


def _require(is_so: bool) -> None:
    if not is_so:
        raise ValueError("not a display")
