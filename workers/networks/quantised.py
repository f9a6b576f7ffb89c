"""A serving graph at int8: the same graph with rounding steps put in, whose ranges are all that a folder stores.

OpenVINO runs what stands between two rounding steps (FakeQuantize) in integers. So a trained model's int8 form is a
few numbers for each layer beside its one set of weights: no second network, and no foreign graph to trust.
"""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from db.errors import ModelRefused
from workers.networks import Weights
from workers.openvino_runtime import op, openvino
from workers.weights import ARROW

# "SOURCE>TARGET.INPUT" -> (4, N): least and greatest value in, least and greatest out; N is 1 or one a channel.
# "LAYER/bias" -> the bias corrected for what rounding shifts on average.
Ranges = dict[str, NDArray[np.float32]]
LEVELS = {True: 255, False: 256}  # of weights (symmetric, so that 0 is exact) and of maps


def ranges_among(values: Weights) -> Ranges:
    """Those of a dictionary that are ranges, not weights."""
    return {name: array for name, array in values.items() if ARROW in name}


def put_in(graph: openvino.Model, ranges: Ranges) -> None:
    """Put the rounding steps into a graph. Raises ModelRefused where the graph lacks the place of one."""
    nodes = {node.get_friendly_name(): node for node in graph.get_ops()}
    for name, (inputs, values) in _steps(nodes, ranges).items():
        source = nodes[name].output(0)
        channels = _channels(source, inputs[0], values)
        limits = [op.constant(limit.reshape(channels)) for limit in values]
        step = op.fake_quantize(source, *limits, LEVELS[nodes[name].get_type_name() == "Constant"])
        step.set_friendly_name(f"{name}/rounded")
        for one in inputs:
            one.replace_source_output(step.output(0))


def found_in(graph: openvino.Model, plain: openvino.Model) -> Ranges:
    """The ranges of a graph that NNCF quantised without storing its weights as integers, and the biases that it has
    corrected, judged by the plain graph it was made from."""
    before = {node.get_friendly_name(): node.data for node in plain.get_ops() if node.get_type_name() == "Constant"}
    found: Ranges = {}
    for node in graph.get_ops():
        if node.get_type_name() == "FakeQuantize":
            found |= _edges(node)
        elif _is_corrected(node, before):
            found[node.get_friendly_name()] = node.data.astype(np.float32).reshape(-1)
    return found


def _is_corrected(node: openvino.Node, before: Mapping[str, NDArray[np.generic]]) -> bool:
    name = node.get_friendly_name()
    if node.get_type_name() != "Constant" or not name.endswith("/bias"):
        return False
    return not np.array_equal(node.data, before[name])


def _edges(node: openvino.Node) -> Ranges:
    values = np.stack([node.input_value(index).get_node().data.reshape(-1) for index in range(1, 5)])
    source = node.input_value(0).get_node()
    if node.get_attributes()["levels"] != LEVELS[source.get_type_name() == "Constant"]:
        raise ValueError(f"{source.get_friendly_name()}: {node.get_attributes()['levels']} levels were not expected")
    targets = [(one.get_node().get_friendly_name(), one.get_index()) for one in node.output(0).get_target_inputs()]
    return {f"{source.get_friendly_name()}{ARROW}{name}.{index}": values.astype(np.float32) for name, index in targets}


def _steps(
    nodes: Mapping[str, openvino.Node], ranges: Ranges
) -> dict[str, tuple[list[openvino.Input], NDArray[np.float32]]]:
    """For each source the inputs that see it rounded, and how: the same for all of them."""
    inputs: dict[str, list[openvino.Input]] = defaultdict(list)
    limits: dict[str, NDArray[np.float32]] = {}
    for edge, values in ranges.items():
        source, _, target = edge.partition(ARROW)
        name, _, index = target.rpartition(".")
        known = limits.setdefault(source, values)
        if values.ndim != 2 or len(values) != 4 or not np.isfinite(values).all() or not np.array_equal(known, values):
            raise ModelRefused(f"int8: {edge} has no proper range")
        inputs[source].append(_input(nodes, source, name, index))
    return {source: (inputs[source], limits[source]) for source in inputs}


def _input(nodes: Mapping[str, openvino.Node], source: str, name: str, index: str) -> openvino.Input:
    node = nodes.get(name)
    if node is None or not index.isdigit() or int(index) >= node.get_input_size():
        raise ModelRefused(f"int8: the network has no place {source}>{name}.{index}")
    if node.input_value(int(index)).get_node().get_friendly_name() != source:
        raise ModelRefused(f"int8: {source} does not lead to {name}.{index} in the network")
    return node.input(int(index))


def _channels(source: openvino.Output, target: openvino.Input, values: NDArray[np.float32]) -> list[int]:
    """The shape in which the limits lie along the channels: of weights their outputs', of maps the second axis."""
    count, shape = values.shape[1], source.get_partial_shape()
    if count == 1:
        return []
    rank = len(shape)
    axis = (1 if source.get_node().get_type_name() != "Constant" else 0) if rank > 2 else rank - 1
    if not shape[axis].is_static or shape[axis].get_length() != count:
        raise ModelRefused(f"int8: {source.get_node().get_friendly_name()} does not have {count} channels")
    return [count if number == axis else 1 for number in range(rank)]
