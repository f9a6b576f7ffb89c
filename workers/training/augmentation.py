"""Random changes to training images: what a new site's scanner and printer could do, and what must not help.

Frames, exposure, sharpness and compression tell sources apart, and sources tell classes apart in public
collections (a network that sees only the outer frame reaches AUC 0.74 on ours): each is disturbed at random.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from workers.preprocessing import Pixels

Change = Callable[[Pixels, Generator], Pixels]
BORDERS = (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101)


def mirror(pixels: Pixels, rng: Generator) -> Pixels:
    """Left and right exchanged."""
    return np.ascontiguousarray(pixels[:, ::-1])


def move(pixels: Pixels, rng: Generator, *, degrees: float = 10, scale: float = 0.15, shift: float = 0.08) -> Pixels:
    """Turn by up to `degrees`, enlarge or shrink by up to `scale`, shift by up to `shift` of the side."""
    size = len(pixels)
    matrix = cv2.getRotationMatrix2D(
        (size / 2, size / 2), rng.uniform(-degrees, degrees), rng.uniform(1 - scale, 1 + scale)
    )
    matrix = matrix + np.outer(rng.uniform(-shift, shift, 2) * size, [0, 0, 1])
    border = BORDERS[rng.integers(len(BORDERS))]
    return _uint8(cv2.warpAffine(pixels, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border))


def expose(pixels: Pixels, rng: Generator) -> Pixels:
    """Another gamma (0.67 to 1.5), contrast (0.7 to 1.3) and brightness (up to 25 grey values)."""
    grey = np.arange(256) / 255.0
    curve = grey ** np.exp(rng.uniform(-0.4, 0.4))
    curve = (curve - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.1, 0.1)
    table = np.clip(curve * 255, 0, 255).astype(np.uint8)
    return _uint8(table[pixels])


def equalise(pixels: Pixels, rng: Generator) -> Pixels:
    """Local contrast as some viewers export it."""
    clahe = cv2.createCLAHE(clipLimit=float(rng.uniform(1, 3)), tileGridSize=(8, 8))
    return _uint8(clahe.apply(pixels))


def frame(pixels: Pixels, rng: Generator, *, widest: float = 0.12) -> Pixels:
    """Blank up to `widest` of the picture on each side, with one grey."""
    size = len(pixels)
    top, bottom, left, right = (int(width) for width in rng.uniform(0, widest, 4) * size)
    framed = np.full_like(pixels, 0 if rng.random() < 0.6 else rng.integers(256))
    framed[top : size - bottom, left : size - right] = pixels[top : size - bottom, left : size - right]
    return framed


def cover(pixels: Pixels, rng: Generator) -> Pixels:
    """Hide one rectangle of up to a quarter of each side: letters, pads and tubes must not decide."""
    size = len(pixels)
    height, width = (int(side) for side in rng.uniform(0.05, 0.25, 2) * size)
    top, left = int(rng.integers(size - height)), int(rng.integers(size - width))
    covered = pixels.copy()
    covered[top : top + height, left : left + width] = rng.integers(256)
    return covered


def soften(pixels: Pixels, rng: Generator) -> Pixels:
    """Blur by up to 1.3 pixels."""
    return _uint8(cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.3, 1.3))))


def grain(pixels: Pixels, rng: Generator) -> Pixels:
    """Noise of up to 8 grey values (standard deviation)."""
    noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(1, 8))
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def compress(pixels: Pixels, rng: Generator) -> Pixels:
    """Once through JPEG at quality 35 to 90."""
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 90))])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    return pixels if decoded is None else _uint8(decoded.reshape(pixels.shape))


# In this order, each with its own chance (R13: random combinations).
CHANGES: tuple[tuple[Change, float], ...] = (
    (mirror, 0.5),
    (move, 0.9),
    (equalise, 0.1),
    (expose, 0.8),
    (soften, 0.25),
    (grain, 0.25),
    (compress, 0.25),
    (frame, 0.4),
    (cover, 0.3),
)


def augment(pixels: Pixels, rng: Generator) -> Pixels:
    """Change one image (S x S, 0-255) at random; the same generator state gives the same picture."""
    for change, chance in CHANGES:
        if rng.random() < chance:
            pixels = change(pixels, rng)
    return pixels


def _uint8(image: NDArray[np.generic]) -> Pixels:
    return image.astype(np.uint8, copy=False)
