"""Draw where a picture raised the score: an overlay that lies over the image as read, to a fraction of its pixels."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from workers.images import png
from workers.preprocessing import Evidence

Heat = NDArray[np.float32]  # h x w of the last map, 0-1: how much each place raised the score

# A heat map has 7 x 7 places: more pixels than this on the longest side would only cost storage.
LONGEST_SIDE = 1024
OPACITY = 0.6
SHADES = 48  # more cannot be told apart; plain areas compress to less than half the bytes
_SHARPNESS = -0.5  # of the cubic (Keys 1981): straight slopes stay straight; with OpenCV's -0.75 they do not


class Grid(NamedTuple):
    """Where the places of the last map lie in the model's input, in its pixels: the middle of the first one, counted
    from the edge, and the step from one to the next."""

    first: float
    step: float


def heatmap_png(heat: Heat, evidence: Evidence, grid: Grid | None = None) -> bytes:
    """Draw a heat map as a PNG with transparency that lies exactly over the image as read (and its review copy).

    Each place is drawn where the middle of what it sees lies, as `grid` says; without one, places are spread evenly.
    It has that image's shape, shrunk in proportion where the longest side would pass LONGEST_SIDE, so that a page
    that stretches both to one rectangle needs no arithmetic. Outside the square the model saw it is transparent; a
    pixel that the square's edge cuts is as transparent as it lies outside, so that the edge is where it was, too.
    """
    shrink = min(1.0, LONGEST_SIDE / max(evidence.height, evidence.width))
    top, left, height, width = evidence.crop
    rows, columns = (grid or _evenly(places, evidence.input_size) for places in heat.shape)
    down, above = _axis(_shrunk(evidence.height, shrink), evidence.height, top, height)
    across, beside = _axis(_shrunk(evidence.width, shrink), evidence.width, left, width)
    size = evidence.input_size
    values = _weights(down * size, rows, heat.shape[0]) @ heat @ _weights(across * size, columns, heat.shape[1]).T
    return _encode((np.clip(values, 0, 1) * np.outer(above, beside)).astype(np.float32))


def _evenly(places: int, size: int) -> Grid:
    return Grid(size / places / 2, size / places)


def _shrunk(length: int, shrink: float) -> int:
    return max(1, round(length * shrink))


def _axis(count: int, length: int, start: int, side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One axis of the overlay, of `count` pixels over `length` of the image: where in the square (0-1 from edge to
    edge) the middle of each lies, and how much of it lies inside (0-1)."""
    edges = np.arange(count + 1) * (length / count)  # in pixels of the image
    overlap = np.minimum(edges[1:], start + side) - np.maximum(edges[:-1], start)
    return ((edges[1:] + edges[:-1]) / 2 - start) / side, np.clip(overlap / (length / count), 0, 1)


def _weights(at: NDArray[np.float64], grid: Grid, places: int) -> NDArray[np.float64]:
    """How much each of the map's places counts at each point of the input (N x places). Exact to floating point:
    OpenCV's warps round to a 32nd of a place, here up to ten pixels of the image."""
    at = (at - grid.first) / grid.step
    values = np.zeros((len(at), places))
    first = np.floor(at).astype(np.int64)
    for tap in range(-1, 3):
        np.add.at(values, (np.arange(len(at)), np.clip(first + tap, 0, places - 1)), _cubic(np.abs(at - first - tap)))
    return values


def _cubic(far: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weight of a place `far` (0-2) away."""
    a = _SHARPNESS
    near = ((a + 2) * far - (a + 3)) * far**2 + 1
    return np.where(far <= 1, near, (((far - 5) * far + 8) * far - 4) * a)


def _encode(canvas: NDArray[np.float32]) -> bytes:
    """One byte a pixel and a palette with transparency: four times less to compress."""
    return png.encode(np.rint(canvas * SHADES).astype(np.uint8), palette=_PALETTE)


def _palette() -> tuple[bytes, bytes]:
    levels = np.arange(SHADES + 1) / SHADES * 255
    blue_green_red = cv2.applyColorMap(levels.astype(np.uint8)[:, None], cv2.COLORMAP_INFERNO)
    alpha = (levels * OPACITY).astype(np.uint8)
    return blue_green_red[:, 0, ::-1].tobytes(), alpha.tobytes()


_PALETTE = _palette()
