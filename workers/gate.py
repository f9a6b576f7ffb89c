"""Is this a chest X-ray at all? A distance in the model's own features, fitted to chest X-rays alone.

Mahalanobis distance within the directions in which chest X-rays vary, and what is left outside of them, each
scaled so that a usual chest X-ray is about 1 from the centre (Lee et al. 2018, without classes).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Fit:
    """What `distances` needs: `mean` and `spread` (F,) of each feature, `axes` (F, K) of unit length,
    `variances` (K,) along them, `residual` the usual square outside of them."""

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]
    axes: NDArray[np.float32]
    variances: NDArray[np.float32]
    residual: NDArray[np.float32]


def distances(fit: Fit, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distances (N,) of pooled features (N, F) from the chest X-rays of training; the usual one is about 1."""
    centred = ((features - fit.mean) / fit.spread).astype(np.float64)
    along = centred @ fit.axes
    outside = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0)
    within = (along**2 / fit.variances).mean(axis=1)
    distance: NDArray[np.float64] = np.sqrt((within + outside / fit.residual) / 2)
    return distance
