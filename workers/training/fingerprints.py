"""Which pictures a trained model has seen, in eight hexadecimal digits each, so that nobody judges it on them unawares.

They are of the prepared pixels, not of the file: a copy in another format is known too, and nothing can be drawn again
from them.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

DIGITS = 8


def of(pixels: NDArray[np.uint8]) -> str:
    """Fingerprints of pictures (N, S, S), sorted, one after the other."""
    return "".join(sorted(_each(pixels)))


def known(fingerprints: str, pixels: NDArray[np.uint8]) -> int:
    """How many of the pictures (N, S, S) are among these fingerprints."""
    have = {fingerprints[start : start + DIGITS] for start in range(0, len(fingerprints), DIGITS)}
    return sum(one in have for one in _each(pixels))


def _each(pixels: NDArray[np.uint8]) -> list[str]:
    return [hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()[:DIGITS] for picture in pixels]
