"""Prepare a picture that was decoded at a fraction of its size: preprocessing version "1-reduced".

What the model sees is the same square of the picture, averaged over the same areas, from samples that its codec had
averaged before. Whatever could come out differently for another reason than that is left to the whole picture.
"""

import numpy as np
from numpy.typing import NDArray

from workers import images, preprocessing
from workers.images import Grey8, Image, Limits, NotReduced, Plan, to_grey8
from workers.preprocessing import Border, Evidence, Mode, Pixels, Removed

# The shorter side that is left, in input sizes. At 4 each pixel of the input still is an average over sixteen or more,
# and shows little of which filter shrank the picture before.
OVERSIZE = 4
MOST = 2  # times smaller a side: the parity of further reduction is not measured
# How far a border may be from being one and still send a picture to be decoded whole: in grey levels, and in shares of
# a line. A line that the codec averaged with its neighbours differs by less.
_NEAR_LEVEL, _NEAR_SHARE = 12, 0.10
_NEAR_CONTRAST = 4  # grey levels by which a picture must be further from blank


def prepare(
    data: bytes, limits: Limits, size: int, codecs: tuple[str, ...], border: Border, mode: Mode
) -> tuple[Image, Pixels, Evidence]:
    """Read a file and prepare it to size x size. The evidence is in pixels of the whole picture.

    Raises NotReduced where the file has no reduced form, or it takes the whole picture to tell: small ones, ones with
    a border to cut or nearly one (it is found to a line, not to two), and nearly blank ones. Raises UnreadableImage.
    """
    found = images.read_reduced(data, limits, Plan(OVERSIZE * size, codecs, MOST))
    grey = to_grey8(found.image)
    _require_no_border(grey, border, found.factor)
    kept = preprocessing.equal_proportion(found.height, found.width, Removed(0, 0, 0, 0), mode)
    crop = preprocessing.largest_centred_box(kept.height, kept.width, 1, 1)
    samples = found.image.samples
    rows = averages(samples, (crop.top + found.ahead) / found.factor, crop.height / found.factor, size)
    square = averages(rows.T, (crop.left + found.ahead) / found.factor, crop.width / found.factor, size).T
    pixels = np.rint(square * (255 / np.iinfo(samples.dtype).max)).astype(np.uint8)
    _require_contrast(pixels, border)
    evidence = Evidence(found.height, found.width, 0, 0, 0, 0, crop, size, preprocessing=preprocessing.REDUCED)
    return found.image, pixels, evidence


def averages(lines: NDArray[np.generic], start: float, length: float, count: int) -> NDArray[np.float64]:
    """The averages of N x W `lines` over `count` equal stretches from `start` on, `length` in all: `count` x W. A line
    counts as far as it lies inside; beyond the ends there is nothing."""
    sums = np.zeros((len(lines) + 1, lines.shape[1]))
    np.cumsum(lines, axis=0, out=sums[1:])
    edges = np.clip(start + np.arange(count + 1) * (length / count), 0, len(lines))
    whole = np.minimum(edges.astype(np.int64), len(lines) - 1)
    upto = sums[whole] + (edges - whole)[:, None] * lines[whole]
    return np.asarray(np.diff(upto, axis=0) / np.diff(edges)[:, None])


def _require_no_border(grey: Grey8, border: Border, factor: int) -> None:
    """A picture has a border where one of the first few lines of a side is."""
    lines = -(-border.clean_lines // factor) + 1
    for side in (grey[:lines], grey[-lines:], grey[:, :lines].T, grey[:, -lines:].T):
        black = np.count_nonzero(side <= border.black_level + _NEAR_LEVEL, axis=1) / side.shape[1]
        white = np.count_nonzero(side >= border.white_level - _NEAR_LEVEL, axis=1) / side.shape[1]
        near = (black >= border.line_threshold - _NEAR_SHARE) | (white >= border.white_threshold - _NEAR_SHARE)
        if near.any():
            raise NotReduced("border")


def _require_contrast(pixels: Pixels, border: Border) -> None:
    darkest, brightest = preprocessing.grey_range(pixels)
    least = preprocessing.LEAST_CONTRAST + _NEAR_CONTRAST
    if brightest <= border.black_level + _NEAR_CONTRAST or brightest - darkest < least:
        raise NotReduced("blank")
