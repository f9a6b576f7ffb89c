"""What a DICOM header says of how its samples are to be shown and what they mean, for the readers' copy.

Nothing here refuses a picture: a field that makes no sense is passed over, and what the samples in use tell is left.
Sources: DICOM PS3.3 C.7.6.3 (pixels), C.11.1 (modality LUT), C.11.2 (VOI LUT), 10.7.1 (spacing), C.8.7.5 (projection).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut, apply_voi

from workers.images.display import (
    CALIBRATED,
    DETECTOR,
    LONGEST_NAME,
    LONGEST_UNIT,
    MOST_WINDOWS,
    Display,
    Window,
    is_slope,
    is_spacing,
    is_window,
    number,
    text,
)
from workers.images.levels import Counts, Table, significant_bits

Values = NDArray[np.float64]
T = TypeVar("T")
# What hostile or merely odd data sets were seen to raise; RecursionError is a RuntimeError.
FAILURES = (
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError, EOFError, OSError),
    *(struct.error, cv2.error),
)
_MOST_MAGNIFICATION = 3.0
_SLICES = {"CT", "MR", "PT"}  # no projections: their pixels lie in the patient


@dataclass(frozen=True)
class Scale:
    """A whole number (`steps`) for each stored value; a step means `slope` x step + `intercept` in `unit`."""

    steps: NDArray[np.int64]
    slope: float = 1.0
    intercept: float = 0.0
    unit: str = ""

    def means(self) -> Values:
        """What each stored value means."""
        return np.asarray(self.slope * self.steps + self.intercept, np.float64)


def copy_levels(
    inputs: NDArray[np.int64], counts: Counts, padding: NDArray[np.bool_], shown: Values, data_set: Dataset
) -> tuple[Table, Display]:
    """The sample of the readers' copy for each stored value of `inputs` (counted from 0, bone white, after the
    modality LUT, losslessly; padding is 0), and how to show these. `counts`: how often each comes; `shown` (0-1): how
    bright the header wants it. Raises nothing of what a header can bring about."""
    scale = _told(lambda: _scale(inputs, data_set)) or Scale(inputs)
    used = (counts > 0) & ~padding if ((counts > 0) & ~padding).any() else counts > 0
    floor, top = min(int(scale.steps[used].min()), 0), int(scale.steps[used].max())
    bits = max((top - floor).bit_length(), 1)
    ceiling = floor + 2**bits - 1
    is_white_zero = data_set.PhotometricInterpretation == "MONOCHROME1"
    if _falls(scale.steps[used], shown[used], otherwise=is_white_zero):
        samples, slope, intercept = ceiling - scale.steps, -scale.slope, scale.intercept + scale.slope * ceiling
    else:
        samples, slope, intercept = scale.steps - floor, scale.slope, scale.intercept + scale.slope * floor
    samples = np.where(padding, 0, samples).clip(0, 2**bits - 1)
    display = Display(bits, *_range(samples[used], counts[used]), slope=slope, intercept=intercept, unit=scale.unit)
    display = _with_windows(display, _windows(data_set, scale.means()[used]), samples[used])
    spacing, kind = spacing_of(data_set)
    display = replace(display, spacing=spacing, spacing_kind=kind, inverted=is_white_zero)
    return samples.astype(np.uint8 if bits <= 8 else np.uint16), display


def _told(ask: Callable[[], T]) -> T | None:
    """What a header says; None where asking fails."""
    try:
        return ask()
    except FAILURES:
        return None


def _scale(inputs: NDArray[np.int64], data_set: Dataset) -> Scale:
    """Stored values after the modality LUT: a table's entries, or a slope and an intercept beside the stored values."""
    if data_set.get("ModalityLUTSequence"):
        steps = np.asarray(apply_modality_lut(inputs, data_set)).astype(np.int64)
        return Scale(steps, unit=_unit(data_set.ModalityLUTSequence[0], "ModalityLUTType"))
    slope = number(data_set.get("RescaleSlope"), largest=1e4)
    intercept = number(data_set.get("RescaleIntercept"), largest=1e8)
    if slope is None or intercept is None or not is_slope(slope):
        return Scale(inputs)
    return Scale(inputs, slope, intercept, _unit(data_set, "RescaleType"))


def _unit(data_set: Dataset, name: str) -> str:
    unit = text(_told(lambda: data_set.get(name)), LONGEST_UNIT)
    return "" if unit == "US" else unit  # unspecified


def _falls(steps: NDArray[np.int64], shown: Values, *, otherwise: bool) -> bool:
    """Whether the header wants the highest values darkest."""
    low, high = float(shown[steps.argmin()]), float(shown[steps.argmax()])
    return low > high if low != high else otherwise


def _range(samples: NDArray[np.int64], counts: Counts) -> tuple[float, float]:
    """From the lowest to the highest sample in use, without burned-in letters."""
    by_sample = np.bincount(samples, weights=counts).astype(np.int64)
    low, high = int(samples.min()), min(int(samples.max()), 2 ** significant_bits(by_sample) - 1)
    return float(low), float(max(high, low + 1))


def _with_windows(display: Display, windows: list[Window], samples: NDArray[np.int64]) -> Display:
    """With the windows, given in what samples mean, that show any difference between the samples in use; the first of
    them is the one to begin with."""
    lowest, highest = float(samples.min()), float(samples.max())
    kept: list[Window] = []
    for one in windows:
        ends = sorted((end - display.intercept) / display.slope for end in (one.low, one.high))
        low, high = (number(end) for end in ends)
        if low is not None and high is not None and is_window(low, high) and low < highest and high > lowest:
            kept.append(Window(one.name, low, high))
    if kept:
        display = replace(display, low=kept[0].low, high=kept[0].high)
    return replace(display, windows=tuple(kept[:MOST_WINDOWS]))


def _windows(data_set: Dataset, values: Values) -> list[Window]:
    """The header's VOI LUTs, each as the window that comes nearest to it, and its windows, in what samples mean."""
    tables = _told(lambda: len(data_set.get("VOILUTSequence") or ())) or 0
    found = [_told(partial(_table_window, data_set, values, at)) for at in range(min(tables, MOST_WINDOWS))]
    return [one for one in found if one is not None] + (_told(lambda: _plain_windows(data_set)) or [])


def _table_window(data_set: Dataset, values: Values, at: int) -> Window | None:
    """Through the points where a VOI LUT is a twentieth from black and from white."""
    item = data_set.VOILUTSequence[at]
    order = np.argsort(values, kind="stable")
    values = values[order]
    looked_up = np.asarray(apply_voi(np.rint(values).astype(np.int64), data_set, at), np.float64)
    bright = looked_up / (2.0 ** int(item.LUTDescriptor[2]) - 1)
    if bright[0] > bright[-1]:
        bright = 1 - bright
    below, above = np.flatnonzero(bright <= 0.05), np.flatnonzero(bright >= 0.95)
    first, last = (int(below[-1]) if len(below) else 0), (int(above[0]) if len(above) else len(bright) - 1)
    steepness = (bright[last] - bright[first]) / (values[last] - values[first]) if first < last else 0.0
    if not steepness > 0:
        return None
    low = float(values[first] - bright[first] / steepness)
    return Window(text(item.get("LUTExplanation"), LONGEST_NAME), low, low + 1 / float(steepness))


def _plain_windows(data_set: Dataset) -> list[Window]:
    function = str(data_set.get("VOILUTFunction") or "LINEAR")
    centres, widths = (_several(data_set.get(name)) for name in ("WindowCenter", "WindowWidth"))
    names = _told(lambda: _several(data_set.get("WindowCenterWidthExplanation"))) or []
    found = []
    for at, (centre, width) in enumerate(zip(map(number, centres), map(number, widths), strict=False)):
        if at == MOST_WINDOWS:
            break
        if centre is None or width is None or width < 1:
            continue
        if function not in ("SIGMOID", "LINEAR_EXACT"):  # PS3.3 C.11.2.1.2: 2^n values, not their ends
            centre, width = centre - 0.5, max(width - 1, 1e-3)
        name = text(names[at], LONGEST_NAME) if at < len(names) else ""
        found.append(Window(name, centre - width / 2, centre + width / 2))
    return found


def _several(value: object) -> list[object]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, MultiValue | list) else [value]


def spacing_of(data_set: Dataset) -> tuple[tuple[float, float] | None, str | None]:
    """The millimetres between rows and columns, and whether they are measured in the patient or at the detector.

    PixelSpacing is calibrated where its type says so, or where it differs from ImagerPixelSpacing, which is always the
    detector's (PS3.3 10.7.1.3), or in a slice; the detector's, divided by the stated magnification, is an estimate in
    the patient, too.
    """
    stated, imager = _pair(data_set, "PixelSpacing"), _pair(data_set, "ImagerPixelSpacing")
    is_patients = _told(lambda: data_set.get("PixelSpacingCalibrationType")) in ("GEOMETRY", "FIDUCIAL")
    is_patients = is_patients or (not imager and _told(lambda: data_set.get("Modality")) in _SLICES)
    if stated and (is_patients or (imager and not np.allclose(stated, imager, rtol=1e-4, atol=0))):
        return stated, CALIBRATED
    at_detector = imager or stated
    magnified = number(_told(lambda: data_set.get("EstimatedRadiographicMagnificationFactor")))
    if imager and magnified is not None and 1 <= magnified <= _MOST_MAGNIFICATION:
        return (imager[0] / magnified, imager[1] / magnified), CALIBRATED
    return at_detector, DETECTOR if at_detector else None


def _pair(data_set: Dataset, name: str) -> tuple[float, float] | None:
    found = [number(one) for one in _told(lambda: _several(data_set.get(name))) or []]
    if len(found) != 2 or not all(is_spacing(one) for one in found):
        return None
    return (found[0] or 0.0, found[1] or 0.0)
