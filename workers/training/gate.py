"""Fit the gate `not_chest` to chest X-rays alone; CT and photographs only measure it."""

import numpy as np
from numpy.typing import NDArray

from workers.gate import Fit, distances

MOST_COMPONENTS = 64
REFUSED = 0.005  # share of validation chest X-rays beyond the limit
# With fewer validation images the limit is a guess from the furthest of them, and generous.
ENOUGH, GENEROUS = 200, 1.6


def components(images: int) -> int:
    """How many directions so many images can support."""
    return max(1, min(MOST_COMPONENTS, images // 10))


def fit(features: NDArray[np.float32], components: int) -> Fit:
    """Fit centre, spread and main directions to chest X-rays' pooled features (N, F), N > components."""
    mean = features.mean(axis=0)
    spread = features.std(axis=0) + np.float32(1e-3) * features.std()
    centred = (features - mean) / spread
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    variances = values**2 / len(features)
    # Rounded as they will be stored, so that the distances fitted are the distances served.
    kept = axes[:components].T.astype(np.float16).astype(np.float32)
    residual = np.array([variances[components:].sum()], np.float32)
    return Fit(mean, spread, kept, variances[:components].astype(np.float32), residual)


def limit(fitted: Fit, validation: NDArray[np.float32]) -> float:
    """Give the distance above which a picture is no chest X-ray, from validation chest X-rays' features."""
    found = distances(fitted, validation)
    if len(found) < ENOUGH:
        return float(found.max() * GENEROUS)
    return float(np.quantile(found, 1 - REFUSED))


def why(images: int) -> str:
    """Where the limit comes from, in words."""
    if images < ENOUGH:
        return f"{GENEROUS} times the furthest of {images} validation images: too few to say how many it would refuse"
    return f"the distance that {REFUSED:.1%} of {images} validation images pass"
