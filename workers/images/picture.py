"""One kind of picture inside the house, whatever file it came from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from db.errors import UnreadableImage
from db.words import Reason
from workers.images import png
from workers.images.display import Display

N = TypeVar("N", bound=np.generic)
Grey8 = NDArray[np.uint8]  # H x W, 0-255, bone white
MOST_PIXEL_BYTES = 4  # of a decoded pixel of the largest picture allowed; codecs hold it twice: below 1 GiB in all
Samples = NDArray[np.unsignedinteger]  # H x W; uint8 0-255 or uint16 0-65535


@dataclass(frozen=True)
class Limits:
    """The largest file and picture to open, and the smallest picture worth screening; checked before decoding."""

    max_bytes: int = 256 * 2**20
    max_pixels: int = 64_000_000
    min_side: int = 64


class Frame(NamedTuple):
    """What a file's header promises: pixels as stored, the EXIF orientation (1-8) in which to show them, whether 0 is
    white, and the bits that a pixel takes when decoded."""

    height: int
    width: int
    orientation: int = 1
    from_white: bool = False
    depth: int = 8


@dataclass(frozen=True)
class Image:
    """A grey picture, upright and bone white: H x W, uint8 or uint16. As the model's path has it, it fills its type
    (0-255, 0-65535); as readers have it, its samples are the file's own, to be shown as `display` says.

    `bits` (1-16) is how many the source used; `source` the reader's name.
    """

    samples: Samples
    bits: int
    source: str
    display: Display | None = None


def check(frame: Frame, limits: Limits) -> None:
    """Raise UnreadableImage (too_large, too_small, unreadable) on what the header alone tells."""
    size = f"{frame.width} x {frame.height} pixels"
    if frame.height < 1 or frame.width < 1:
        raise UnreadableImage(Reason.UNREADABLE, f"its header says {size}")
    if frame.height * frame.width > limits.max_pixels:
        raise UnreadableImage(Reason.TOO_LARGE, f"{size}, at most {limits.max_pixels:,} are read")
    if frame.height * frame.width * frame.depth > 8 * MOST_PIXEL_BYTES * limits.max_pixels:
        raise UnreadableImage(Reason.TOO_LARGE, f"{size} of {frame.depth} bits: more memory than a decoder may use")
    if min(frame.height, frame.width) < limits.min_side:
        raise UnreadableImage(Reason.TOO_SMALL, f"{size}, at least {limits.min_side} a side are needed")


_AT_ONCE = 2**18  # samples: what is worked out of them stays in the processor's cache


def slices(samples: NDArray[Any], at_once: int) -> Iterator[NDArray[Any]]:
    """The rows of H x W samples, about so many samples at a time, without copying them."""
    rows = max(at_once // max(samples.shape[1], 1), 1)
    return (samples[at : at + rows] for at in range(0, len(samples), rows))


def by_rows(function: Callable[[NDArray[Any]], NDArray[Any]], samples: NDArray[Any], kind: type[N]) -> NDArray[N]:
    """What a function gives for H x W samples, some rows at a time, to spare memory and time."""
    out = np.empty(samples.shape[:2], kind)
    at = 0
    for rows in slices(samples, _AT_ONCE):
        out[at : at + len(rows)] = function(rows)
        at += len(rows)
    return out


def to_grey(colours: Samples) -> Samples:
    """H x W (x 1, 3 BGR or 4 BGRA) to H x W. Transparent means black, unless all of it is transparent."""
    if colours.ndim == 2:
        return colours
    if colours.shape[2] == 1:
        return colours[:, :, 0]
    if colours.shape[2] == 3:
        return np.asarray(cv2.cvtColor(colours, cv2.COLOR_BGR2GRAY), dtype=colours.dtype)
    opaque = np.iinfo(colours.dtype).max
    alpha = colours[:, :, 3]
    if not alpha.any() or alpha.min() == opaque:
        return np.asarray(cv2.cvtColor(colours, cv2.COLOR_BGRA2GRAY), dtype=colours.dtype)
    return by_rows(
        lambda rows: np.rint(cv2.cvtColor(rows, cv2.COLOR_BGRA2GRAY) * (rows[:, :, 3] / opaque)),
        colours,
        colours.dtype.type,
    )


def turn(samples: Samples, orientation: int) -> Samples:
    """Apply EXIF orientation 1-8; a file that asks for another is shown as it is."""
    if orientation in (5, 6, 7, 8):
        samples = samples.T
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)


def to_grey8(image: Image) -> Grey8:
    """The picture in 256 grey levels: what preprocessing starts from, for training and scoring alike."""
    if image.samples.dtype == np.uint8:
        return image.samples.astype(np.uint8, copy=False)
    return cv2.convertScaleAbs(image.samples, alpha=1 / 257).astype(np.uint8, copy=False)


def as_png(image: Image) -> bytes:
    """The review copy: lossless grey PNG in the 8 or 16 bits of `samples`, without any metadata."""
    return png.encode(image.samples)
