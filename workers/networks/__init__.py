"""Architectures and heads in backend-neutral Keras 3: nothing here names TensorFlow, JAX or torch.

The whole graph takes grey pixels as scoring prepares them, uint8 (B, S, S, 1), 0-255: channel replication and
the architecture's own scaling live inside it. It ends in `scores`: one sigmoid for two classes, the
probability of the second; a softmax over more.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import keras
import numpy as np
from numpy.typing import NDArray

from db.errors import ModelRefused

Weights = dict[str, NDArray[np.float32]]  # "layer/weight" -> values


@dataclass(frozen=True)
class Architecture:
    """An untrained design: `constructor(include_top, weights, input_tensor)`; pixels become x * scale + offset.

    `map_layer` names the last convolutional map; `gate_layers` those whose means tell a chest X-ray from other
    pictures: early and middle ones, because the last knows only what the classes need. `map_grid`: where the last
    map's places lie in the input, in pixels: the middle of what the first one sees, counted from the edge, and the step
    to the next; None where they are spread evenly. It follows from strides and padding; a test works it out anew.
    """

    constructor: Callable[..., keras.Model]
    scale: float
    offset: tuple[float, float, float]
    input_size: int
    map_layer: str
    gate_layers: tuple[str, ...]
    map_grid: tuple[float, float] | None = None


_COUNTED = re.compile(
    r"(conv2d|batch_normalization|activation|add|average_pooling2d|max_pooling2d|concatenate)(_\d+)?$"
)

# keras.applications' `caffe` mode: BGR minus the ImageNet means; `tf` mode: -1..1.
CAFFE = (1.0, (-103.939, -116.779, -123.68))
SIGNED = (1 / 127.5, (-1.0, -1.0, -1.0))

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "resnet50": Architecture(
            keras.applications.ResNet50,
            *CAFFE,
            input_size=224,
            map_layer="conv5_block3_out",
            gate_layers=("conv2_block3_out", "conv3_block4_out", "conv4_block6_out"),
            map_grid=(0.5, 32),  # not 16: its strides take the upper left of each four
        ),
        "vgg19": Architecture(
            keras.applications.VGG19,
            *CAFFE,
            input_size=224,
            map_layer="block5_pool",
            gate_layers=("block2_pool", "block3_pool", "block4_pool"),
        ),
        "inception_v3": Architecture(
            keras.applications.InceptionV3,
            *SIGNED,
            input_size=299,
            map_layer="mixed10",
            gate_layers=("mixed1", "mixed4", "mixed7"),
            map_grid=(37.5, 32),
        ),
        "xception": Architecture(
            keras.applications.Xception,
            *SIGNED,
            input_size=299,
            map_layer="block14_sepconv2_act",
            gate_layers=("block3_sepconv2_bn", "block8_sepconv3_bn", "block13_sepconv2_bn"),
            map_grid=(7.5, 32),
        ),
    }
)


# What a head sees of the last map. It computes in float32 at any precision, as probabilities need it.
HEADS: Mapping[str, Callable[[], keras.Layer]] = MappingProxyType(
    {
        # Half a million parameters on ResNet-50.
        "pooled256": lambda: keras.layers.GlobalAveragePooling2D(name="pooled", dtype="float32"),
        # The paper's (Table 6): every cell.
        "flatten256": lambda: keras.layers.Flatten(name="flat", dtype="float32"),
    }
)


def classifier(features: keras.KerasTensor, classes: int, dropout: float = 0.0) -> keras.KerasTensor:
    """Put 256 rectified units (`hidden`) and the output (`scores`) on features (B, F)."""
    hidden = keras.layers.Dense(256, activation="relu", name="hidden", dtype="float32")(features)
    if dropout:
        hidden = keras.layers.Dropout(dropout, name="dropout", dtype="float32")(hidden)
    activation, units = ("sigmoid", 1) if classes == 2 else ("softmax", classes)
    return keras.layers.Dense(units, activation=activation, name="scores", dtype="float32")(hidden)


def build(
    architecture: str,
    head: str,
    classes: int,
    *,
    input_size: int | None = None,
    base_weights: Path | None = None,
    dropout: float = 0.0,
) -> keras.Model:
    """Put a head on an architecture: uint8 (B, S, S, 1) -> `scores` (B, 1), or (B, classes) if more than two.

    `input_size` is S, the architecture's own unless given. `base_weights` is a Keras weights file of the
    convolutional base (`include_top=False`); without one the weights are random.
    """
    design = ARCHITECTURES[architecture]
    size = input_size or design.input_size
    pixels = keras.Input((size, size, 1), dtype="uint8", name="pixels")
    colours = keras.layers.Concatenate(name="channels")([pixels, pixels, pixels])
    scaled = keras.layers.Rescaling(design.scale, offset=list(design.offset), name="scaling")(colours)
    base = _steadily_named(design.constructor(include_top=False, weights=None, input_tensor=scaled))
    if base_weights is not None:
        _load_base(base, design, base_weights)
    scores = classifier(HEADS[head]()(base.output), classes, dropout)
    return keras.Model(pixels, scores, name=architecture)


def _load_base(base: keras.Model, design: Architecture, path: Path) -> None:
    """Fill the base from a file written for the plain network, without our input layers in front."""
    donor = _steadily_named(design.constructor(include_top=False, weights=None))
    donor.load_weights(str(path))
    assign(base, named_weights(donor))


def _steadily_named(base: keras.Model) -> keras.Model:
    """Number the layers that Keras named by a count of the whole process (`conv2d_188`), so that weights saved by
    one process fit the network built by another."""
    seen: Counter[str] = Counter()
    for layer in base.layers:
        kind = _COUNTED.match(layer.name)
        if kind and not isinstance(layer, keras.layers.InputLayer):
            seen[kind[1]] += 1
            layer.name = f"{kind[1]}_{seen[kind[1]]}"
    return base


def fold(model: keras.Model) -> keras.Model:
    """Merge every BatchNormalization that follows a convolution with a bias into it, and leave it out.

    The result computes the same scores with fewer steps; statistics are then fixed, as fine-tuning wants.
    Architectures whose convolutions carry no bias (Inception-v3, Xception) come back as they are.
    """
    merged = foldable(model)
    weights = named_weights(model)
    for name, convolution in merged.items():
        _merge(weights, convolution, model.get_layer(name))
    lean = keras.models.clone_model(
        model,
        clone_function=lambda layer: layer.__class__.from_config(layer.get_config()),
        call_function=lambda layer, *inputs, **options: (
            inputs[0] if layer.name in merged else layer(*inputs, **_without_mask(options))
        ),
    )
    assign(lean, weights)
    return lean


def _without_mask(options: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if name != "mask"}


def foldable(model: keras.Model) -> dict[str, str]:
    """Name every BatchNormalization that `fold` merges, and the convolution that takes it in."""
    return {layer.name: source for layer in model.layers if (source := _foldable(layer)) is not None}


def _foldable(layer: keras.Layer) -> str | None:
    """Name the convolution with a bias that feeds this BatchNormalization alone, if there is one."""
    if not isinstance(layer, keras.layers.BatchNormalization):
        return None
    source = layer.input._keras_history.operation
    if not isinstance(source, keras.layers.Conv2D) or source.bias is None:
        return None
    return str(source.name)


def _merge(weights: Weights, convolution: str, norm: keras.layers.BatchNormalization) -> None:
    gamma, beta, mean, variance = (weights[f"{norm.name}/{w.name}"] for w in norm.weights)
    factor = gamma / np.sqrt(variance + norm.epsilon)
    weights[f"{convolution}/kernel"] = weights[f"{convolution}/kernel"] * factor
    weights[f"{convolution}/bias"] = (weights[f"{convolution}/bias"] - mean) * factor + beta


def named_weights(model: keras.Model) -> Weights:
    """Every weight of a model by "layer/weight", float32."""
    return {
        f"{layer.name}/{weight.name}": keras.ops.convert_to_numpy(weight).astype(np.float32)
        for layer in model.layers
        for weight in layer.weights
    }


def assign(model: keras.Model, weights: Weights) -> None:
    """Set every weight of a model by name. Raises ModelRefused where one is missing or of another shape."""
    for layer in model.layers:
        for weight in layer.weights:
            name = f"{layer.name}/{weight.name}"
            values = weights.get(name)
            if values is None or values.shape != tuple(weight.shape):
                found = "nothing" if values is None else values.shape
                raise ModelRefused(f"weight {name}: the network needs {tuple(weight.shape)}, the file has {found}")
            weight.assign(values)
