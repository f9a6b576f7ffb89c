"""The grey levels of a decoded picture: what the model's path makes of them, and what a reader's copy keeps.

The model sees every picture stretched over 8 or 16 bits, through the window that its header asks for. A reader gets
the samples themselves, losslessly, and windows them on the screen.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from workers.images.display import Display
from workers.images.picture import Image, Samples, slices

Table = NDArray[np.unsignedinteger]  # one uint8 or uint16 for each place
Counts = NDArray[np.int64]  # how many pixels are at each place


@dataclass(frozen=True)
class Levels:
    """H x W uint8 or uint16 `places`, upright, and two tables to look each of them up in (None: the places themselves
    are meant): `seen` by the model, `copied` for readers. `bits` (1-16) is how many the source used."""

    places: Samples
    seen: Table | None
    copied: Table | None
    bits: int
    source: str
    display: Display

    def for_model(self) -> Image:
        """The picture that fills its type, bone white, through the window of its header."""
        return Image(_look_up(self.places, self.seen), self.bits, self.source, self.display)

    def for_readers(self) -> Image:
        """The picture's own samples, bone white, before any window."""
        return Image(_look_up(self.places, self.copied), self.display.bits, self.source, self.display)


def _look_up(places: Samples, table: Table | None) -> Samples:
    if table is None:
        return places
    whole = np.zeros(np.iinfo(places.dtype).max + 1, table.dtype)  # as OpenCV wants it; three times as fast as NumPy
    whole[: len(table)] = table
    return np.asarray(cv2.LUT(places, whole), table.dtype)


def count(places: Samples) -> Counts:
    """How often each of 256 or 65,536 places comes: some rows at a time, because OpenCV counts in float32."""
    size = 256 if places.dtype == np.uint8 else 65536
    counts = np.zeros(size, np.int64)
    for rows in slices(places, 2**22):
        counts += cv2.calcHist([np.ascontiguousarray(rows)], [0], None, [size], [0, size]).ravel().astype(np.int64)
    return counts


def significant_bits(counts: Counts, *, first: int = 0) -> int:
    """How many of 16 bits the samples really use: the next power of two above the brightest. The first place stands
    for the sample `first`.

    Burned-in letters at full white do not count: where 99 % of the samples need two bits fewer, those decide.
    """
    brightest = first + int(counts.nonzero()[0][-1])
    most = first + int(np.searchsorted(np.cumsum(counts), 0.99 * int(counts.sum())))
    bits = brightest.bit_length()
    return max(most.bit_length() if most.bit_length() <= bits - 2 else bits, 1)


def of_raster(grey: Samples, source: str, *, from_white: bool = False) -> Levels:
    """The levels of H x W grey samples, uint8 or uint16; `from_white`: 0 is white."""
    return _eight(grey, source, from_white) if grey.dtype == np.uint8 else _sixteen(grey, source, from_white)


def _eight(grey: Samples, source: str, from_white: bool) -> Levels:
    table: Table | None = np.arange(256)[::-1].astype(np.uint8) if from_white else None
    used = np.flatnonzero(count(grey)[table] if from_white else count(grey))
    low, high = int(used[0]), int(used[-1])
    return Levels(grey, table, table, 8, source, Display(8, low, max(high, low + 1)))


def _sixteen(grey: Samples, source: str, from_white: bool) -> Levels:
    counts = count(grey)
    seen = copied = np.arange(65536)
    if from_white:
        brightest, highest = 2 ** significant_bits(counts) - 1, 2 ** int(counts.nonzero()[0][-1]).bit_length() - 1
        seen, copied = brightest - np.minimum(seen, brightest), highest - np.minimum(copied, highest)
    table, bits = stretch(_counts_by(seen, counts))
    display = over_what_is_used(_counts_by(copied, counts))
    own: Table | None = copied.clip(0, 255).astype(np.uint8) if display.bits <= 8 else None
    if own is None and from_white:
        own = copied.astype(np.uint16)
    return Levels(grey, table[seen], own, bits, source, display)


def _counts_by(values: NDArray[np.int64], counts: Counts) -> Counts:
    """How often each of 65,536 values comes, given the value of each place."""
    return np.bincount(values, weights=counts, minlength=65536).astype(np.int64)  # exact up to 2^53


def over_what_is_used(counts: Counts) -> Display:
    """A display that begins with the window over all samples in use but burned-in letters."""
    used = np.flatnonzero(counts)
    low, high = int(used[0]), int(used[-1])
    window = min(high, 2 ** significant_bits(counts) - 1)
    return Display(max(high.bit_length(), 1), low, max(window, low + 1))


def stretch(counts: Counts) -> tuple[Table, int]:
    """A table that stretches the significant bits over the whole type, and how many these are: 12 bits in a 16-bit
    file must not come out near black."""
    bits = significant_bits(counts)
    if bits <= 8:
        return np.minimum(np.arange(65536), 255).astype(np.uint8), 8
    highest = 2**bits - 1
    return np.rint(np.minimum(np.arange(65536), highest) * 65535 / highest).astype(np.uint16), bits
