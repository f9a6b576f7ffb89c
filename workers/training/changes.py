"""Random changes to training images: the paper's (3.5), and what a new site's scanner and printer could do.

Each takes pixels (S x S, 0-255), a generator, and the range from which it draws how strong it is; it gives pixels of
the same kind and leaves those given as they are.
"""

import math

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from workers.preprocessing import Pixels

BORDERS = (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101)


def flip_horizontal(pixels: Pixels, rng: Generator, low: float, high: float) -> Pixels:
    """Left and right exchanged (R8)."""
    return np.ascontiguousarray(pixels[:, ::-1])


def flip_vertical(pixels: Pixels, rng: Generator, low: float, high: float) -> Pixels:
    """Top and bottom exchanged (R8)."""
    return np.ascontiguousarray(pixels[::-1])


def shift(pixels: Pixels, rng: Generator, low: float, high: float) -> Pixels:
    """Up, down, left, right, or up or down and left or right at once (R9); shares of the side, ours."""
    directions = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
    by = np.array(directions[rng.integers(len(directions))]) * rng.uniform(low, high, 2) * len(pixels)
    return _warp(pixels, np.array([[1, 0, by[0]], [0, 1, by[1]]], np.float64), rng)


def rotation(pixels: Pixels, rng: Generator, low: float, high: float) -> Pixels:
    """So many degrees, clockwise or not at random (R10)."""
    degrees = rng.uniform(low, high) * rng.choice([-1, 1])
    return _warp(pixels, cv2.getRotationMatrix2D((len(pixels) / 2, len(pixels) / 2), degrees, 1), rng)


def saturation(pixels: Pixels, rng: Generator, low: float, high: float) -> Pixels:
    """Stronger or weaker colours (R11). No effect on grey images, so none on ours: colours are S x S x 3."""
    factor = rng.uniform(low, high)
    if pixels.ndim == 2:
        return pixels
    grey = pixels.mean(axis=2, keepdims=True)
    return _uint8(np.clip(np.rint(grey + (pixels - grey) * factor), 0, 255))


def contrast(pixels: Pixels, rng: Generator, low: float, high: float) -> Pixels:
    """Greys drawn apart or together about their mean, by a factor (R12)."""
    mean = pixels.mean()
    table = np.clip(np.rint((np.arange(256) - mean) * rng.uniform(low, high) + mean), 0, 255).astype(np.uint8)
    return _uint8(table[pixels])


def move(pixels: Pixels, rng: Generator, low: float, high: float, *, scale: float = 0.15, by: float = 0.08) -> Pixels:
    """Turned by some degrees, enlarged or shrunk by up to `scale`, shifted by up to `by` of the side, in one go."""
    size = len(pixels)
    degrees = rng.uniform(low, high) * rng.choice([-1, 1])
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), degrees, rng.uniform(1 - scale, 1 + scale))
    return _warp(pixels, matrix + np.outer(rng.uniform(-by, by, 2) * size, [0, 0, 1]), rng)


def equalise(pixels: Pixels, rng: Generator, low: float, high: float) -> Pixels:
    """Local contrast as some viewers export it, up to a clip limit."""
    clahe = cv2.createCLAHE(clipLimit=float(rng.uniform(low, high)), tileGridSize=(8, 8))
    return _uint8(clahe.apply(pixels))


def expose(pixels: Pixels, rng: Generator, low: float, high: float) -> Pixels:
    """Another gamma; with it another contrast (0.7 to 1.3) and brightness (up to 25 grey values)."""
    grey = np.arange(256) / 255.0
    curve = grey ** np.exp(rng.uniform(math.log(low), math.log(high)))
    curve = (curve - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.1, 0.1)
    table = np.clip(curve * 255, 0, 255).astype(np.uint8)
    return _uint8(table[pixels])


def frame(pixels: Pixels, rng: Generator, low: float, high: float) -> Pixels:
    """Some of the picture blanked on each side with one grey; shares of the side."""
    size = len(pixels)
    top, bottom, left, right = (int(width) for width in rng.uniform(low, high, 4) * size)
    framed = np.full_like(pixels, 0 if rng.random() < 0.6 else rng.integers(256))
    framed[top : size - bottom, left : size - right] = pixels[top : size - bottom, left : size - right]
    return framed


def cover(pixels: Pixels, rng: Generator, low: float, high: float) -> Pixels:
    """One rectangle hidden, its sides shares of ours: letters, pads and tubes must not decide."""
    size = len(pixels)
    height, width = (int(side) for side in rng.uniform(low, high, 2) * size)
    top, left = int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1))
    covered = pixels.copy()
    covered[top : top + height, left : left + width] = rng.integers(256)
    return covered


def soften(pixels: Pixels, rng: Generator, low: float, high: float) -> Pixels:
    """Blurred, by a standard deviation in pixels."""
    return _uint8(cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(low, high))))


def grain(pixels: Pixels, rng: Generator, low: float, high: float) -> Pixels:
    """Noise, by a standard deviation in grey values."""
    noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(low, high))
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def compress(pixels: Pixels, rng: Generator, low: float, high: float) -> Pixels:
    """Once through JPEG, at a quality of 1 to 100."""
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, round(rng.uniform(low, high))])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    return pixels if decoded is None else _uint8(decoded.reshape(pixels.shape))


def _warp(pixels: Pixels, matrix: NDArray[np.float64] | cv2.typing.MatLike, rng: Generator) -> Pixels:
    """What comes in from outside is black, the edge repeated, or the picture mirrored: it must not tell anything."""
    border = BORDERS[rng.integers(len(BORDERS))]
    size = pixels.shape[1], pixels.shape[0]
    return _uint8(cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border))


def _uint8(image: NDArray[np.generic]) -> Pixels:
    return image.astype(np.uint8, copy=False)
