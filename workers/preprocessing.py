"""From a grey picture to what a network sees: cut the border, keep the proportions, resize (paper 3.3).

Training and scoring both call `prepare`: a model is never served through other eyes than it trained with.
`VERSION` is part of every trained model and outcome: raise it when any pixel of any output could change.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from db.errors import UnreadableImage
from db.words import Reason

VERSION = "1"
# The same from pictures that were decoded at a fraction of their size (workers/reduced.py): other pixels, if only just.
REDUCED = f"{VERSION}-reduced"

Grey8 = NDArray[np.uint8]  # H x W, 0-255, bone white
Pixels = NDArray[np.uint8]  # S x S, 0-255: the model's input
Mode = Literal["paper", "exact"]

# Lines looked at in one go. Borders are narrow: reading all of a 9-megapixel scan to find 20 lines is waste.
STRIP = 16
# A square smaller than this shows no lung; enlarging it would only invent pixels.
LEAST_SIDE = 64
# Input whose darkest and brightest percent differ by less is an empty plate (letters on it are under 1 %).
LEAST_CONTRAST = 8


class Box(NamedTuple):
    """A rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int


class Removed(NamedTuple):
    """Border lines on each side (R4)."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class Border:
    """What counts as border (R1, R2). The paper leaves the values open; these are ours.

    A line is border when at least `line_threshold` (0-1) of its pixels are `black_level` (0-255) or darker.
    Extension: so is one of which at least `white_threshold` is `white_level` or brighter, for scans cut out
    of a white page; nearly the whole line, as bone or an overexposed belly hardly ever is from edge to edge
    (and where it is, it shows nothing). Above 1 switches this off.
    A side is done after `clean_lines` clean lines in a row. Where less than `least_kept` (0-1) of the rows
    (or of the columns) would remain, none of them are cut: a dark scan must not be cut to nothing.
    """

    black_level: int = 20
    line_threshold: float = 0.90
    # Paper 3.3.3 says 2 to 4: a marker printed on the border survives one clean line.
    clean_lines: int = 3
    white_level: int = 250
    white_threshold: float = 0.99
    least_kept: float = 0.10


@dataclass(frozen=True)
class Evidence:
    """What was cut, for the reader's panel; lines and pixels of the image as read."""

    height: int
    width: int
    top: int
    bottom: int
    left: int
    right: int
    crop: Box  # the square that was resized
    input_size: int
    display: dict[str, Any] | None = None  # how the review copy is to be shown (images/display.py), for the viewer
    preprocessing: str = VERSION  # or REDUCED


DEFAULT_BORDER = Border()


def versions(reduce: Collection[str]) -> frozenset[str]:
    """The versions that preparing may give where these codecs decode at a reduced size."""
    return frozenset({VERSION, REDUCED} if reduce else {VERSION})


def find_border(grey: Grey8, border: Border = DEFAULT_BORDER) -> Removed:
    """Count the border lines on each side of an H x W picture (R1, R2).

    Rows first, their shares taken over the full width; then columns, over the rows that remain: otherwise a
    black band above and below would push every column over the threshold and cut into the chest.
    """
    top, bottom = _cut_axis(grey, border)
    left, right = _cut_axis(grey[top : len(grey) - bottom].T, border)
    return Removed(top, bottom, left, right)


def _cut_axis(lines: Grey8, border: Border) -> tuple[int, int]:
    first = _count_inward(lines, border)
    last = _count_inward(lines[first:][::-1], border)
    kept = len(lines) - first - last
    return (first, last) if kept > 0 and kept >= border.least_kept * len(lines) else (0, 0)


def _count_inward(lines: Grey8, border: Border) -> int:
    """Lines to remove from the first on: up to the last border line that comes before enough clean ones."""
    removed = 0
    for start, is_border in _strips(lines, border):
        for line in (start + np.flatnonzero(is_border)).tolist():
            if line - removed >= border.clean_lines:
                return removed
            removed = line + 1
        if start + len(is_border) - removed >= border.clean_lines:
            return removed
    return removed


def _strips(lines: Grey8, border: Border) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    for start in range(0, len(lines), STRIP):
        strip = lines[start : start + STRIP]
        # A true division: 27 / 30 equals 0.9, while 0.9 * 30 may not equal 27.
        black = np.count_nonzero(strip <= border.black_level, axis=1) / strip.shape[1]
        white = np.count_nonzero(strip >= border.white_level, axis=1) / strip.shape[1]
        yield start, (black >= border.line_threshold) | (white >= border.white_threshold)


def largest_centred_box(height: int, width: int, ratio_w: int, ratio_h: int) -> Box:
    """Fit the largest box of shape `ratio_w`:`ratio_h` into height x width (R3), to the whole pixel below.

    Where the margin is odd, the extra line goes at the bottom or on the right.
    """
    if height * ratio_w <= width * ratio_h:
        box_height, box_width = height, height * ratio_w // ratio_h
    else:
        box_height, box_width = width * ratio_h // ratio_w, width
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def equal_proportion(height: int, width: int, removed: Removed, mode: Mode = "exact") -> Box:
    """Crop what the border cut left of height x width back to the proportions it came with (R5, R6).

    `paper` is the literal rule: D = rows removed - columns removed; D > 0 takes D // 2 columns from the left
    and the rest (one more when D is odd) from the right; D < 0 takes rows likewise, the odd one from the
    bottom. Both sides so lose the same number of lines, which keeps the ratio of square pictures only.
    `exact` keeps the ratio of every picture, to the pixel.
    Raises UnreadableImage(too_small) if nothing is left.
    """
    rows, columns = removed.top + removed.bottom, removed.left + removed.right
    inner_height, inner_width = height - rows, width - columns
    if mode == "exact":
        box = largest_centred_box(inner_height, inner_width, width, height)
    else:
        fewer_columns, fewer_rows = max(rows - columns, 0), max(columns - rows, 0)
        box = Box(fewer_rows // 2, fewer_columns // 2, inner_height - fewer_rows, inner_width - fewer_columns)
    if box.height < 1 or box.width < 1:
        raise UnreadableImage(Reason.TOO_SMALL, f"nothing of {width} x {height} is left inside the border")
    return Box(removed.top + box.top, removed.left + box.left, box.height, box.width)


def prepare(image: Grey8, size: int, border: Border = DEFAULT_BORDER, mode: Mode = "exact") -> tuple[Pixels, Evidence]:
    """Cut the border, keep the proportions, cut the largest square and resize it to size x size (R1 to R7).

    Shrinks with INTER_AREA (every pixel read counts) and enlarges with INTER_LINEAR.
    Raises UnreadableImage: too_small where the square has under 64 pixels a side, blank where 98 % of its
    pixels are nearly the same grey, or are as black as a border.
    """
    height, width = image.shape
    removed = find_border(image, border)
    kept = equal_proportion(height, width, removed, mode)
    square = largest_centred_box(kept.height, kept.width, 1, 1)
    crop = Box(kept.top + square.top, kept.left + square.left, square.height, square.width)
    if crop.height < LEAST_SIDE:
        raise UnreadableImage(Reason.TOO_SMALL, f"{crop.height} pixels a side, {LEAST_SIDE} needed")
    pixels = _resize(image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width], size)
    _refuse_blank(pixels, border)
    return pixels, Evidence(height, width, *removed, crop=crop, input_size=size)


def _resize(square: Grey8, size: int) -> Pixels:
    if len(square) == size:
        return np.ascontiguousarray(square)
    how = cv2.INTER_AREA if len(square) > size else cv2.INTER_LINEAR
    return cv2.resize(square, (size, size), interpolation=how).astype(np.uint8, copy=False)


def _refuse_blank(pixels: Pixels, border: Border) -> None:
    darkest, brightest = grey_range(pixels)
    if brightest <= border.black_level or brightest - darkest < LEAST_CONTRAST:
        raise UnreadableImage(Reason.BLANK, f"99 % of the picture is between grey {darkest} and {brightest}")


def grey_range(pixels: Pixels) -> tuple[int, int]:
    """The grey levels (0-255) of the darkest and the brightest pixel but for one percent at either end."""
    counts = cv2.calcHist([pixels], [0], None, [256], [0, 256]).ravel()
    up_to = np.cumsum(counts, dtype=np.float64) / pixels.size
    darkest, brightest = np.searchsorted(up_to, [0.01, 0.99]).tolist()
    return darkest, brightest
