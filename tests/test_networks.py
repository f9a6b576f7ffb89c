"""Architectures and heads: the paper's counts, the scaling inside the graph, folding."""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest

from db.errors import ModelRefused
from workers import networks
from workers.networks import ARCHITECTURES, HEADS

ROOT = Path(networks.__file__).parents[1]


@pytest.fixture(scope="module")
def paper_network():
    return networks.build("resnet50", "flatten256", 2)


@pytest.fixture
def pixels():
    return np.random.default_rng(3).integers(0, 256, (2, 96, 96, 1), dtype=np.uint8)


def trainable_parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def test_the_papers_table_6_is_reproduced_to_the_parameter(paper_network):
    assert paper_network.count_params() == 49_278_337


def test_with_the_base_frozen_only_the_papers_head_trains(paper_network):
    head = ("hidden", "scores")
    for layer in paper_network.layers:
        layer.trainable = layer.name in head

    assert trainable_parameters(paper_network) == 25_690_625
    assert paper_network.count_params() - trainable_parameters(paper_network) - 0 == 23_587_712


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_scores_grey_pixels(name, pixels):
    network = networks.build(name, "pooled256", 2, input_size=96)

    scores = network.predict(pixels, verbose=0)

    assert scores.shape == (2, 1)
    assert ((scores > 0) & (scores < 1)).all()


def test_more_than_two_classes_share_one_probability(pixels):
    network = networks.build("vgg19", "pooled256", 3, input_size=96)

    scores = network.predict(pixels, verbose=0)

    assert scores.shape == (2, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "preprocess"),
    [
        ("resnet50", keras.applications.resnet50.preprocess_input),
        ("vgg19", keras.applications.vgg19.preprocess_input),
        ("inception_v3", keras.applications.inception_v3.preprocess_input),
        ("xception", keras.applications.xception.preprocess_input),
    ],
)
def test_the_scaling_inside_the_graph_is_the_architectures_own(name, preprocess, pixels):
    network = networks.build(name, "pooled256", 2, input_size=96)
    inside = keras.Model(network.input, network.get_layer("scaling").output)

    expected = preprocess(np.repeat(pixels, 3, axis=-1).astype(np.float32))

    np.testing.assert_allclose(inside.predict(pixels, verbose=0), expected, atol=1e-4)


def test_folding_leaves_the_scores_as_they_were(pixels):
    network = networks.build("resnet50", "pooled256", 2, input_size=96)
    rng = np.random.default_rng(1)
    networks.assign(
        network,
        {
            name: rng.uniform(0.5, 1.5, values.shape).astype(np.float32) if name.split("/")[1] in NORMS else values
            for name, values in networks.named_weights(network).items()
        },
    )

    folded = networks.fold(network)

    np.testing.assert_allclose(folded.predict(pixels, verbose=0), network.predict(pixels, verbose=0), atol=1e-4)
    assert not [layer for layer in folded.layers if isinstance(layer, keras.layers.BatchNormalization)]


NORMS = ("gamma", "beta", "moving_mean", "moving_variance")


def test_an_architecture_without_biases_is_not_folded(pixels):
    network = networks.build("inception_v3", "pooled256", 2, input_size=96)

    folded = networks.fold(network)

    assert folded.count_params() == network.count_params()
    np.testing.assert_allclose(folded.predict(pixels, verbose=0), network.predict(pixels, verbose=0), atol=1e-5)


def test_weights_of_another_shape_are_refused():
    network = networks.build("vgg19", "pooled256", 2, input_size=96)
    weights = networks.named_weights(network)
    weights["hidden/bias"] = np.zeros(3, np.float32)

    with pytest.raises(ModelRefused, match="hidden/bias"):
        networks.assign(network, weights)


def test_a_missing_weight_is_refused():
    network = networks.build("vgg19", "pooled256", 2, input_size=96)
    weights = networks.named_weights(network)
    del weights["scores/kernel"]

    with pytest.raises(ModelRefused, match="scores/kernel"):
        networks.assign(network, weights)


NEUTRAL = [
    *ROOT.glob("networks/*.py"),
    *(ROOT / f"training/{name}.py" for name in ("loop", "frozen", "recipes", "checkpoints", "strategies")),
]


@pytest.mark.parametrize("path", NEUTRAL, ids=lambda path: path.name)
def test_network_and_loop_code_names_no_backend(path):
    tree = ast.parse(path.read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert not imported & {"tensorflow", "jax", "torch"}


def test_both_heads_are_offered():
    assert set(HEADS) == {"pooled256", "flatten256"}


@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
def test_weights_saved_by_one_build_fit_another(architecture):
    first, again = (networks.fold(networks.build(architecture, "pooled256", 2, input_size=96)) for _ in range(2))

    networks.assign(again, networks.named_weights(first))

    design = networks.ARCHITECTURES[architecture]
    assert {design.map_layer, *design.gate_layers} <= {layer.name for layer in first.layers}
    assert first.get_layer(design.map_layer).output is first.get_layer("pooled").input
