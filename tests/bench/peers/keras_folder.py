"""A folder script as people write it with Keras on TensorFlow: read, resize, `predict` in batches of 32, float32.

The network is `keras.applications.ResNet50` with our head and our weights: normalisation stays in it, as in any trained
Keras model, and does nothing here, because ours is folded into the convolutions that we ship.
"""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import keras
import numpy as np
from serving import serve

from workers import trained_models, weights

AT_ONCE = 512  # files read before they are predicted: 300 MB


def network() -> keras.Model:
    """224 x 224 x 3 in caffe's colours -> the probability of the second class."""
    base = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(224, 224, 3), pooling="avg")
    hidden = keras.layers.Dense(256, activation="relu", name="hidden")(base.output)
    model = keras.Model(base.input, keras.layers.Dense(1, activation="sigmoid", name="scores")(hidden))
    values = weights.read(trained_models.SHIPPED, trained_models.load_folder(trained_models.SHIPPED))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            ones = np.ones(layer.gamma.shape, np.float32)
            layer.set_weights([ones, 0 * ones, 0 * ones, ones - layer.epsilon])
        elif layer.weights:
            layer.set_weights([values[f"{layer.name}/{weight.name}"] for weight in layer.weights])
    return model


def screen(model: keras.Model, files: list[Path]) -> list[float]:
    """The score of every file."""
    scores: list[float] = []
    for start in range(0, len(files), AT_ONCE):
        images = [cv2.resize(cv2.imread(str(file)), (224, 224)) for file in files[start : start + AT_ONCE]]
        inputs = keras.applications.resnet50.preprocess_input(np.array(images, np.float32)[..., ::-1])
        scores += model.predict(inputs, batch_size=32, verbose=0)[:, 0].tolist()
    return scores


def main() -> None:
    model = network()
    model.predict(np.zeros((32, 224, 224, 3), np.float32), verbose=0)
    serve(lambda files: {"scores": screen(model, files)[:32]})


if __name__ == "__main__":
    main()
