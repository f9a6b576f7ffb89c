"""One temperature for all scores, fitted on validation images, so that 0.8 means about 80 of 100 (Guo et al. 2017)."""

import numpy as np
from numpy.typing import NDArray

from workers.networks import Weights


def fit_temperature(right_log_odds: NDArray[np.float64]) -> float:
    """Find the temperature, 0.5 to 5, with the least cross-entropy.

    Takes log-odds (N,) of each image's true class; with two classes that is the logit with the truth's sign.
    """
    candidates = np.geomspace(0.5, 5, 200)
    losses = [np.logaddexp(0, -right_log_odds / temperature).mean() for temperature in candidates]
    return float(candidates[int(np.argmin(losses))])


def log_odds(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-odds of probabilities, kept finite."""
    kept = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.log(kept / (1 - kept))


def cool(weights: Weights, temperature: float) -> Weights:
    """Put a temperature inside the last layer, so that serving needs no extra step."""
    last = {name: weights[name] / np.float32(temperature) for name in ("scores/kernel", "scores/bias")}
    return {**weights, **last}
