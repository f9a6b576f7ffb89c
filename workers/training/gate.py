"""Fit the gate `not_chest` to chest X-rays alone; CT and photographs only measure it."""

import numpy as np
from numpy.typing import NDArray

from workers.gate import Fit, distances


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


def limit(fitted: Fit, validation: NDArray[np.float32], refused: float, margin: float) -> float:
    """Give the distance that a share `refused` of validation chest X-rays passes, times a margin for new sites."""
    return float(np.quantile(distances(fitted, validation), 1 - refused) * margin)
