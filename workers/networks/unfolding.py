"""Put BatchNormalization back where folding took it out: a network without it trains badly at useful rates."""

from collections.abc import Iterable

import keras
import numpy as np
from numpy.typing import NDArray

from workers import networks
from workers.networks import Weights

LEAST_VARIANCE = 1e-6


def unfold(model: keras.Model, folded: Weights, batches: Iterable[NDArray[np.uint8]]) -> Weights:
    """Weights for a network as built (`model`, with BatchNormalization) that computes what the folded weights do.

    Mean and variance of each BatchNormalization are those of its input over `batches` of pixels (B, S, S, 1); scale
    and offset undo them, so that the function stays the same and the statistics are those of the images.
    Raises ModelRefused where the weights do not fit.
    """
    norms = networks.foldable(model)
    weights = {**networks.named_weights(model), **folded}
    for name in norms:
        epsilon = model.get_layer(name).epsilon
        weights |= _norm(name, np.zeros_like(weights[f"{name}/beta"]), np.ones_like(weights[f"{name}/beta"]), epsilon)
    networks.assign(model, weights)
    for name, (mean, variance) in _statistics(model, norms, batches).items():
        weights |= _norm(name, mean, variance, model.get_layer(name).epsilon)
    return weights


def _norm(name: str, mean: NDArray[np.float32], variance: NDArray[np.float32], epsilon: float) -> Weights:
    """A BatchNormalization with these statistics that changes nothing."""
    return {
        f"{name}/moving_mean": mean,
        f"{name}/moving_variance": variance,
        f"{name}/gamma": np.sqrt(variance + np.float32(epsilon)),
        f"{name}/beta": mean,
    }


def _statistics(
    model: keras.Model, norms: dict[str, str], batches: Iterable[NDArray[np.uint8]]
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Mean and variance (C,) of what each BatchNormalization gets; `norms` names the convolution before it."""
    if not norms:
        return {}
    moments = []
    for convolution in norms.values():
        seen = keras.layers.Activation("linear", dtype="float32")(model.get_layer(convolution).output)
        moments += [_averaged(seen), _averaged(seen * seen)]
    probe = keras.Model(model.input, moments)
    sums = [np.zeros(tensor.shape[-1]) for tensor in moments]
    count = 0
    for pixels in batches:
        sums = [
            total + each.astype(np.float64).sum(axis=0)
            for total, each in zip(sums, probe.predict_on_batch(pixels), strict=True)
        ]
        count += len(pixels)
    means = [total / count for total in sums]
    return {
        name: (mean.astype(np.float32), np.maximum(square - mean**2, LEAST_VARIANCE).astype(np.float32))
        for name, mean, square in zip(norms, means[::2], means[1::2], strict=True)
    }


def _averaged(maps: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.GlobalAveragePooling2D(dtype="float32")(maps)
