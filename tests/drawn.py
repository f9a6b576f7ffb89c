"""One drawn chest; no pixel comes from a patient."""

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]


def chest(height: int = 320, width: int = 288, seed: int = 0) -> Grey:
    """A drawn chest: two dark lungs in a grey trunk, a bright spine, ribs, noise; 0-255, bone white."""
    down, across = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    grey = 170 - 40 * np.abs(across)
    for side in (-0.42, 0.42):
        lung = ((across - side) / 0.3) ** 2 + ((down + 0.05) / 0.62) ** 2
        grey -= 105 * np.clip(1.4 - lung, 0, 1)
    grey += 60 * np.exp(-((across / 0.1) ** 2)) + 9 * np.sin(26 * down + 5 * across**2)
    noise = np.random.default_rng(seed).normal(0, 3, grey.shape)
    return np.clip(grey + noise, 0, 255).astype(np.uint8)


CHEST = chest()


def encoded(suffix: str, pixels: np.ndarray, *options: int) -> bytes:
    """`pixels` in the format that OpenCV knows by that suffix."""
    done, data = cv2.imencode(suffix, pixels, list(options))
    assert done
    return data.tobytes()
