"""A trained model of two convolutions, for tests in which the architecture does not matter."""

import hashlib

import keras
import numpy as np
from safetensors.numpy import save

from workers import networks, trained_models, weights
from workers.networks import Architecture
from workers.preprocessing import VERSION, Border
from workers.trained_models import File, Gate, IntendedUse, Preprocessing, TrainedModel
from workers.training import gate

SIZE = 32
LAYERS = ("early", "late")
LAYER_NAMES = ("late", LAYERS)  # the last map; what the gate looks at


def small_design(include_top, weights, input_tensor=None):
    """Two convolutions in place of fifty."""
    inputs = keras.Input((None, None, 3)) if input_tensor is None else input_tensor
    first = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="early")(inputs)
    last = keras.layers.Conv2D(16, 3, strides=2, activation="relu", name="late")(first)
    return keras.Model(keras.utils.get_source_inputs(inputs), last)


def offer_small(monkeypatch):
    """Add the small architecture to the table."""
    designs = {
        **networks.ARCHITECTURES,
        "small": Architecture(small_design, 1 / 255, (0.0, 0.0, 0.0), SIZE, *LAYER_NAMES),
    }
    monkeypatch.setattr(networks, "ARCHITECTURES", designs)


def small_weights(*, classes=2, head="pooled256", seed=9):
    keras.utils.set_random_seed(seed)
    return networks.named_weights(networks.fold(networks.build("small", head, classes)))


def write_small(folder, *, classes=("normal", "covid"), flag_classes=("covid",), head="pooled256", limit=1e9, **fields):
    """Write a trained model's folder with random weights; `fields` replace some of its fields."""
    folder.mkdir(parents=True, exist_ok=True)
    values = small_weights(classes=len(classes), head=head)
    # As many features as the two layers have channels: 8 + 16.
    fit = gate.fit(np.random.default_rng(1).random((50, 24), np.float32), 4)
    files = {"weights.safetensors": weights.pack(values), "gate.safetensors": vars(fit)}
    named = {name: _write(folder, name, arrays) for name, arrays in files.items()}
    model = {
        "name": "small",
        "version": "1",
        "architecture": "small",
        "head": head,
        "classes": tuple(classes),
        "flag_classes": tuple(flag_classes),
        "input_size": SIZE,
        "preprocessing": Preprocessing(VERSION, "exact", Border()),
        "weights": named["weights.safetensors"],
        "encoding": weights.ENCODING,
        "map_layer": "late",
        "gate": Gate(named["gate.safetensors"], LAYERS, limit),
        "intended_use": IntendedUse(18, "tests"),
        "temperature": 1.0,
    }
    written = TrainedModel(**{**model, **fields})
    trained_models.write_folder(folder, written, {"threshold": {"value": 0.4, "why": "a test"}})
    return written


def _write(folder, name, arrays):
    content = save(arrays)
    (folder / name).write_bytes(content)
    return File(name, hashlib.sha256(content).hexdigest())
