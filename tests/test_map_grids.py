"""Where the places of a network's last map lie in its input: worked out from its layers, and seen in the shipped."""

import keras
import numpy as np
import pytest
from builders import chest

from workers import trained_models
from workers.networks import ARCHITECTURES, build
from workers.scoring import Scorer


def worked_out(tensor, known):
    """(middle of the first place, step), in pixels from the edge of the input, along rows. Where ways part by half a
    step, as around Xception's pools of even sides, by the one with more layers."""
    layer = tensor._keras_history.operation
    if layer in known:
        return known[layer]
    sources = [worked_out(source, known) for source in layer._inbound_nodes[0].input_tensors]
    if not sources:
        known[layer] = (0.5, 1.0)
        return known[layer]
    middle, step = sources[0]
    assert all(other == step and abs(place - middle) <= step / 2 for place, other in sources), layer.name
    if isinstance(layer, keras.layers.ZeroPadding2D):
        middle -= layer.padding[0][0] * step
    elif hasattr(layer, "strides"):
        (stride, _), side = layer.strides, (getattr(layer, "kernel_size", None) or layer.pool_size)[0]
        size = layer._inbound_nodes[0].input_tensors[0].shape[1]
        padding = max((-(-size // stride) - 1) * stride + side - size, 0) // 2 if layer.padding == "same" else 0
        middle, step = middle + ((side - 1) / 2 - padding) * step, step * stride
    known[layer] = (middle, step)
    return known[layer]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_table_says_what_strides_and_padding_give(name):
    design = ARCHITECTURES[name]
    last = build(name, "pooled256", 2).get_layer(design.map_layer).output

    found = worked_out(last, {})

    places = last.shape[1]
    evenly = design.input_size / places / 2, design.input_size / places
    assert found == (design.map_grid or evenly)


def test_the_shipped_models_map_answers_where_its_input_changed():
    """Small marks in a drawn chest, and the middle of all that they change in the last map."""
    scorer = Scorer.load(trained_models.SHIPPED, batch_size=8)
    plain = chest(224, 224, seed=3)
    spots = [(y, x) for y in range(60, 176, 23) for x in range(60, 176, 23)]
    marked = np.stack([plain] * len(spots))
    for picture, (y, x) in zip(marked, spots, strict=True):
        picture[y - 6 : y + 6, x - 6 : x + 6] = 255 - picture[y - 6 : y + 6, x - 6 : x + 6]

    before = scorer.predict(plain[None])[0].last_map
    changes = np.array([(np.abs(one.last_map - before).sum(-1) ** 2) for one in scorer.predict(marked)])

    first, step = scorer.grid
    middles = first + step * np.arange(7)
    total = changes.sum(axis=(1, 2))
    found = np.array([changes.sum(2) @ middles / total, changes.sum(1) @ middles / total])
    off = (found - np.array(spots).T).mean(axis=1)
    evenly = off + 16 - first  # had the places been drawn in the middles of sevenths
    assert (np.abs(off) < 8).all()
    assert (np.abs(off) < np.abs(evenly)).all()
