"""What runs a trained model. Each engine is a module with the same three names: load, predict, describe."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Outputs:
    """One pass over N images, float32: class scores (N, C), last map (N, h, w, c), gate features (N, F)."""

    class_scores: NDArray[np.float32]
    last_map: NDArray[np.float32]
    features: NDArray[np.float32]
