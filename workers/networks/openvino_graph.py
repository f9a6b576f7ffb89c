"""The serving graph in OpenVINO's operations: the architecture from our code, the weights from the folder.

The network's layers are walked, whatever Keras computes with, so a worker needs no TensorFlow and no foreign graph
is ever read. It takes and gives what `serving.serving_graph` does. Inside, maps are N x C x H x W, the order in which
a CPU needs no transposition.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from db.errors import ModelRefused
from workers import networks
from workers.networks import Weights
from workers.openvino_runtime import op, openvino
from workers.trained_models import TrainedModel

Value: TypeAlias = openvino.Output
MIDDLE, SHADE = 128, 16  # of grey levels; see _grey
# Rounding these kernels to bfloat16 moved scores most (covid-resnet50 1.2, p99: 0.015 with all of them rounded, 0.011
# without the first, 0.007 without the first five; of all of stage 2 and 3: no better); it costs a tenth more time.
EARLY, EARLY_WEIGHTS = 5, 40_000  # convolutions from the picture on; where a kernel has more, it would cost too much
PIXELS, GREY = "pixels", "grey"  # what scoring gives, and what the first convolution sees of it
KERNEL_AXES = (3, 2, 0, 1)  # Keras: height, width, inputs, outputs; OpenVINO: outputs, inputs, height, width


def serving_graph(model: TrainedModel, weights: Weights, *, count: int = 1, halves: bool = False) -> openvino.Model:
    """Build the folded network: uint8 (N, S, S, 1) -> class scores (N, C), last map (N, h, w, c), features (N, F), for
    N = `count` images.

    Every node bears its layer's name and every constant its weight's. With `halves` the early kernels are made of two
    parts, so that a graph computed in bfloat16 holds them to 16 bits instead of 8. Raises ModelRefused where weights do
    not fit, or where the architecture has a layer that OPERATIONS lacks.
    """
    plain = networks.build(model.architecture, model.head, len(model.classes), input_size=model.input_size)
    drawing = _Drawing(plain, weights, networks.foldable(plain), _early(plain) if halves else frozenset())
    pixels = op.parameter([count, model.input_size, model.input_size, 1], np.uint8, name=PIXELS)
    drawing.draw(pixels)
    scores = drawing.values["scores"]
    if len(model.classes) == 2:
        one = op.constant(np.float32(1))
        scores = op.concat([op.subtract(one, scores), scores], axis=1).output(0)
    means = [_means(drawing.values[name]) for name in model.gate.layers]
    for name, node in zip(model.gate.layers, means, strict=True):
        node.set_friendly_name(f"{name}/mean")
    features = op.concat(means, axis=1)
    last_map = op.transpose(drawing.values[model.map_layer], np.array([0, 2, 3, 1]))
    results = [op.result(value, name=name) for name, value in zip(OUTPUTS, (scores, last_map, features), strict=True)]
    return openvino.Model(results, [pixels], model.architecture)


OUTPUTS = ("class_scores", "last_map", "features")


@dataclass
class _Drawing:
    """A network on its way to a graph: what each layer gives, by its name."""

    network: keras.Model
    weights: Weights
    merged: Mapping[str, str]  # BatchNormalization -> the convolution that its weights are folded into
    halved: frozenset[str]  # layers whose kernels are made of two parts
    values: dict[str, Value] = field(default_factory=dict)

    def draw(self, pixels: openvino.Node) -> None:
        for layer in self.network.layers:
            if isinstance(layer, keras.layers.InputLayer):
                self.values[layer.name] = op.transpose(pixels, np.array([0, 3, 1, 2])).output(0)
            elif layer.name in self.merged:
                self.values[layer.name] = self.values[self.merged[layer.name]]
            else:
                node = self._operation(layer)(self, layer, [self.values[one.name] for one in _before(layer)])
                node.set_friendly_name(layer.name)
                self.values[layer.name] = node.output(0)

    def _operation(self, layer: keras.Layer) -> "Operation":
        if type(layer) not in OPERATIONS:
            raise ModelRefused(f"OpenVINO does not run layer {layer.name}: no operation for {type(layer).__name__}")
        return OPERATIONS[type(layer)]

    def weight(self, layer: keras.Layer, name: str) -> NDArray[np.float32]:
        """One weight of a layer. Raises ModelRefused where the file lacks it or has it in another shape."""
        wanted = tuple(next(weight for weight in layer.weights if weight.name == name).shape)
        values = self.weights.get(f"{layer.name}/{name}")
        if values is None or values.shape != wanted:
            found = "nothing" if values is None else values.shape
            raise ModelRefused(f"weight {layer.name}/{name}: the network needs {wanted}, the file has {found}")
        return values


Operation = Callable[[_Drawing, keras.Layer, list[Value]], openvino.Node]


def _before(layer: keras.Layer) -> list[keras.Layer]:
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    return [tensor._keras_history.operation for tensor in inputs]


def _constant(layer: keras.Layer, name: str, values: NDArray[np.float32]) -> openvino.Node:
    return op.constant(np.ascontiguousarray(values), name=f"{layer.name}/{name}")


def _along_channels(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.reshape(1, -1, 1, 1)


def _concatenate(drawing: _Drawing, layer: keras.Layer, inputs: list[Value]) -> openvino.Node:
    return op.concat(inputs, axis=1)


def _rescale(drawing: _Drawing, layer: keras.Layer, inputs: list[Value]) -> openvino.Node:
    scale, offset = (np.asarray(values, np.float32).reshape(-1) for values in (layer.scale, layer.offset))
    scaled = op.multiply(op.convert(inputs[0], "f32"), op.constant(_along_channels(scale)))
    return op.add(scaled, op.constant(_along_channels(offset)))


def _zero_pad(drawing: _Drawing, layer: keras.Layer, inputs: list[Value]) -> openvino.Node:
    (top, bottom), (left, right) = layer.padding
    return op.pad(inputs[0], [0, 0, top, left], [0, 0, bottom, right], "constant", op.constant(np.float32(0)))


def _convolve(drawing: _Drawing, layer: keras.Layer, inputs: list[Value]) -> openvino.Node:
    source, pads = _padded(layer)
    weight = drawing.weight(layer, "kernel")
    if isinstance(source, keras.layers.Rescaling):
        value, weight = _grey(drawing, source, weight)
    else:
        value = drawing.values[source.name]
    if layer.name in drawing.halved:
        value, weight = op.concat([value, value], axis=1).output(0), _in_two(weight)
    kernel = _constant(layer, "kernel", weight.transpose(KERNEL_AXES))
    node = op.convolution(value, kernel, list(layer.strides), *pads, list(layer.dilation_rate), layer_pad(layer))
    node.set_friendly_name(f"{layer.name}/kernel*")
    return _finish(drawing, layer, node)


def _separable(drawing: _Drawing, layer: keras.Layer, inputs: list[Value]) -> openvino.Node:
    each = drawing.weight(layer, "depthwise_kernel").transpose(2, 3, 0, 1)[:, :, None]  # groups, 1, 1, h, w
    point = drawing.weight(layer, "pointwise_kernel").transpose(KERNEL_AXES)
    depthwise = op.group_convolution(
        inputs[0],
        _constant(layer, "depthwise_kernel", each),
        list(layer.strides),
        [0, 0],
        [0, 0],
        list(layer.dilation_rate),
        layer_pad(layer),
    )
    depthwise.set_friendly_name(f"{layer.name}/depthwise_kernel*")
    kernel = _constant(layer, "pointwise_kernel", point)
    node = op.convolution(depthwise, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    node.set_friendly_name(f"{layer.name}/pointwise_kernel*")
    return _finish(drawing, layer, node)


def layer_pad(layer: keras.Layer) -> str:
    """Padding "same" puts the odd line below and to the right, as TensorFlow does."""
    return "same_upper" if layer.padding == "same" else "explicit"


def _padded(layer: keras.Layer) -> tuple[keras.Layer, tuple[list[int], list[int]]]:
    """What a convolution sees, and the zeros around it: a layer of zeros before it costs a copy of the whole map."""
    (before,) = _before(layer)
    if not isinstance(before, keras.layers.ZeroPadding2D) or layer.padding != "valid":
        return before, ([0, 0], [0, 0])
    (top, bottom), (left, right) = before.padding
    return _before(before)[0], ([top, left], [bottom, right])


def _grey(drawing: _Drawing, rescaling: keras.Layer, kernel: NDArray[np.float32]) -> tuple[Value, NDArray[np.float32]]:
    """The first convolution, of grey pixels instead of three scaled copies of them: its input and its kernel.

    Its three channels are scale * x + offset of the same x, so their kernels add up: one over x - MIDDLE, and one over
    a constant that stands for the offsets and, like them, ends where the padding begins. That is a third less work,
    and int8 and bfloat16 hold the input exactly, where rounding scaled pixels was most of int8's error.
    """
    scale, offset = (np.asarray(values, np.float64).reshape(-1) for values in (rescaling.scale, rescaling.offset))
    colours = kernel.astype(np.float64)
    of_grey = (colours * scale[:, None]).sum(axis=2)
    of_shade = (colours * (offset + MIDDLE * scale)[:, None]).sum(axis=2) / SHADE
    pixels = drawing.values[PIXELS]
    shade = np.full([pixels.shape[0], 1, *pixels.shape[2:]], SHADE, np.float32)
    centred = op.subtract(op.convert(pixels, "f32"), op.constant(np.float32(MIDDLE)))
    value = op.concat([centred, op.constant(shade)], axis=1, name=GREY).output(0)
    return value, np.stack([of_grey, of_shade], axis=2).astype(np.float32)


def _early(network: keras.Model) -> frozenset[str]:
    convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)][:EARLY]
    return frozenset(layer.name for layer in convolutions if np.prod(layer.kernel.shape) < EARLY_WEIGHTS)


def _in_two(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """A kernel for the same input twice, whose parts bfloat16 holds exactly, or nearly so: the leading 8 bits of each
    weight, and the rest."""
    coarse = (np.ascontiguousarray(kernel).view(np.uint32) + 0x8000 & 0xFFFF0000).view(np.float32)
    return np.concatenate([coarse, kernel - coarse], axis=2)


def _finish(drawing: _Drawing, layer: keras.Layer, node: openvino.Node) -> openvino.Node:
    """Bias and activation of a convolution."""
    if layer.use_bias:
        bias = _constant(layer, "bias", _along_channels(drawing.weight(layer, "bias")))
        node = op.add(node, bias)
    return _activated(layer, node)


def _activated(layer: keras.Layer, node: openvino.Node) -> openvino.Node:
    name = layer.activation.__name__
    if name not in ACTIVATIONS:
        raise ModelRefused(f"OpenVINO does not run layer {layer.name}: no operation for the activation {name}")
    return ACTIVATIONS[name](node)


def _activate(drawing: _Drawing, layer: keras.Layer, inputs: list[Value]) -> openvino.Node:
    return _activated(layer, inputs[0])


def _normalise(drawing: _Drawing, layer: keras.Layer, inputs: list[Value]) -> openvino.Node:
    def values(name: str, wanted: bool, otherwise: float) -> NDArray[np.float32]:
        like = drawing.weight(layer, "moving_mean")
        return drawing.weight(layer, name) if wanted else np.full_like(like, otherwise)

    factor = values("gamma", layer.scale, 1.0) / np.sqrt(drawing.weight(layer, "moving_variance") + layer.epsilon)
    shift = values("beta", layer.center, 0.0) - drawing.weight(layer, "moving_mean") * factor
    scaled = op.multiply(inputs[0], _constant(layer, "factor", _along_channels(factor.astype(np.float32))))
    return op.add(scaled, _constant(layer, "shift", _along_channels(shift.astype(np.float32))))


def _add(drawing: _Drawing, layer: keras.Layer, inputs: list[Value]) -> openvino.Node:
    return op.add(*inputs)


def _largest(drawing: _Drawing, layer: keras.Layer, inputs: list[Value]) -> openvino.Node:
    strides, dilation, size = list(layer.strides), [1, 1], list(layer.pool_size)
    return op.max_pool(inputs[0], strides, dilation, [0, 0], [0, 0], size, "floor", layer_pad(layer))


def _average(drawing: _Drawing, layer: keras.Layer, inputs: list[Value]) -> openvino.Node:
    size = list(layer.pool_size)
    return op.avg_pool(inputs[0], list(layer.strides), [0, 0], [0, 0], size, True, "floor", layer_pad(layer))


def _means(value: Value) -> openvino.Node:
    return op.reduce_mean(value, op.constant(np.array([2, 3], np.int64)), keep_dims=False)


def _pool_all(drawing: _Drawing, layer: keras.Layer, inputs: list[Value]) -> openvino.Node:
    return _means(inputs[0])


def _flatten(drawing: _Drawing, layer: keras.Layer, inputs: list[Value]) -> openvino.Node:
    """Every cell, in Keras's order: all channels of one place, then the next place."""
    by_place = op.transpose(inputs[0], np.array([0, 2, 3, 1]))
    length = int(np.prod(layer.output.shape[1:]))
    return op.reshape(by_place, op.constant(np.array([-1, length], np.int64)), special_zero=False)


def _connect(drawing: _Drawing, layer: keras.Layer, inputs: list[Value]) -> openvino.Node:
    node = op.matmul(inputs[0], _constant(layer, "kernel", drawing.weight(layer, "kernel")), False, False)
    node.set_friendly_name(f"{layer.name}/kernel*")
    return _activated(layer, op.add(node, _constant(layer, "bias", drawing.weight(layer, "bias")[None])))


ACTIVATIONS: Mapping[str, Callable[[openvino.Node | Value], openvino.Node]] = MappingProxyType(
    {
        "linear": lambda node: node,
        "relu": op.relu,
        "sigmoid": op.sigmoid,
        "softmax": lambda node: op.softmax(node, 1),
    }
)

OPERATIONS: Mapping[type[keras.Layer], Operation] = MappingProxyType(
    {
        keras.layers.Activation: _activate,
        keras.layers.Add: _add,
        keras.layers.AveragePooling2D: _average,
        keras.layers.BatchNormalization: _normalise,
        keras.layers.Concatenate: _concatenate,
        keras.layers.Conv2D: _convolve,
        keras.layers.Dense: _connect,
        keras.layers.Flatten: _flatten,
        keras.layers.GlobalAveragePooling2D: _pool_all,
        keras.layers.MaxPooling2D: _largest,
        keras.layers.Rescaling: _rescale,
        keras.layers.SeparableConv2D: _separable,
        keras.layers.ZeroPadding2D: _zero_pad,
    }
)
