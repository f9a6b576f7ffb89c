"""Train a tiny network end to end and a head on its frozen base; prints the backend. Run by test_loop under each."""

from pathlib import Path

import keras
import numpy as np

from workers import networks
from workers.networks import Architecture
from workers.training import frozen, loop
from workers.training.examples import Examples
from workers.training.recipes import Recipe, Stage
from workers.training.strategies import Strategy

SIZE = 32


def tiny(include_top, weights, input_tensor):
    """Two convolutions, the first with BatchNormalization."""
    maps = keras.layers.Conv2D(8, 3, strides=2, name="early")(input_tensor)
    maps = keras.layers.ReLU()(keras.layers.BatchNormalization(name="early_bn")(maps))
    return keras.Model(
        keras.utils.get_source_inputs(maps), keras.layers.Conv2D(16, 3, activation="relu", name="late")(maps)
    )


def dark_and_bright(count, seed):
    """Two classes that differ in brightness."""
    labels = np.arange(count) % 2
    pixels = np.random.default_rng(seed).integers(0, 100, (count, SIZE, SIZE)) + 150 * labels[:, None, None]
    return Examples(pixels.astype(np.uint8), labels, tuple(Path(str(n)) for n in range(count)))


def main():
    networks.ARCHITECTURES = {"tiny": Architecture(tiny, 1 / 255, (0.0, 0.0, 0.0), SIZE, "late", ("early",))}
    training, validation = dark_and_bright(64, 1), dark_and_bright(32, 2)
    keras.utils.set_random_seed(1)
    for normalise in (False, True):
        recipe = Recipe("tiny", "pooled256", ("dark", "bright"), (Stage(SIZE, 3, 8e-3),), normalise=normalise)
        first = networks.named_weights(loop.skeleton(recipe, SIZE))
        assert loop.train(recipe, first, training, validation).history.stages[-1]["val_auc"] > 0.95
    recipe = Recipe("tiny", "pooled256", ("dark", "bright"), (Stage(SIZE, 10, 5e-3),), strategy=Strategy.FROZEN)
    fitted = frozen.train_head(recipe, first, training, validation, copies=1)
    assert fitted.history.stages[-1]["val_auc"] > 0.95
    np.testing.assert_array_equal(fitted.weights["late/kernel"], first["late/kernel"])
    print(keras.config.backend())


if __name__ == "__main__":
    main()
