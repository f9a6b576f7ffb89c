"""Which layers train, the paper's Table 6 to the parameter, the decision aid of its 4.2."""

import keras
import numpy as np
import pytest
from small_models import offer_small

from workers import networks
from workers.training import strategies
from workers.training.strategies import Compute, Similarity, Strategy, advise


def test_table_6_comes_out_to_the_parameter():
    assert strategies.count("resnet50", "flatten256", 2, Strategy.FROZEN) == {
        "total": 49_278_337,
        "trainable": 25_690_625,
        "frozen": 23_587_712,
    }


def test_only_statistics_are_frozen_where_everything_trains(monkeypatch):
    offer_small(monkeypatch)

    counted = strategies.count("small", "pooled256", 2, Strategy.ALL)

    assert counted["frozen"] == 0
    assert counted["trainable"] == counted["total"]


def trained(model):
    return [layer.name for layer in model.layers if layer.trainable_weights]


@pytest.mark.parametrize(
    ("architecture", "convolutions", "first"), [("vgg19", 16, "block4_conv1"), ("resnet50", 53, "conv4_block1_0_conv")]
)
def test_part_trains_the_second_half_of_the_convolutions(architecture, convolutions, first):
    model = networks.fold(networks.build(architecture, "pooled256", 2, input_size=96))

    strategies.freeze(model, strategies.last_frozen(model, architecture, Strategy.PART))

    every = [layer.name for layer in model.layers if hasattr(layer, "kernel_size") and layer.weights]
    training = [name for name in trained(model) if name in every]
    assert len(every) == convolutions
    assert training == every[convolutions // 2 :]
    assert training[0] == first
    assert trained(model)[-2:] == ["hidden", "scores"]


def test_a_frozen_base_trains_the_classifier_alone():
    model = networks.build("vgg19", "pooled256", 2, input_size=96)

    strategies.freeze(model, strategies.last_frozen(model, "vgg19", Strategy.FROZEN))

    assert trained(model) == ["hidden", "scores"]


def test_statistics_that_folding_left_do_not_move():
    model = networks.fold(networks.build("inception_v3", "pooled256", 2, input_size=96))

    strategies.freeze(model, None)

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    assert not any(layer.trainable for layer in norms)


@pytest.mark.parametrize(
    ("images", "similarity", "strategy", "quadrant"),
    [
        (9_000, Similarity.DIFFERENT, Strategy.ALL, "large and different"),
        (9_000, Similarity.SIMILAR, Strategy.PART, "large and similar"),
        (400, Similarity.DIFFERENT, Strategy.PART, "small and different"),
        (400, Similarity.SIMILAR, Strategy.FROZEN, "small and similar"),
    ],
)
def test_size_and_similarity_give_the_papers_quadrants(images, similarity, strategy, quadrant):
    advice = advise(images, 2, 24_000_000, similarity, Compute.ENOUGH)

    assert advice.strategy == strategy
    assert advice.quadrant == quadrant
    assert quadrant in advice.reasons[1]


def test_many_parameters_freeze_more():
    advice = advise(3_000, 2, 49_000_000, Similarity.DIFFERENT, Compute.ENOUGH)

    assert advice.strategy == Strategy.PART
    assert "16,333 parameters to an image" in advice.reasons[-1]


@pytest.mark.parametrize("images", [400, 9_000])
@pytest.mark.parametrize("similarity", Similarity)
def test_little_compute_freezes_everything(images, similarity):
    assert advise(images, 2, 24_000_000, similarity, Compute.LITTLE).strategy == Strategy.FROZEN


def test_the_papers_own_choice_is_told_where_it_differs():
    advice = advise(400, 2, 24_000_000, Similarity.DIFFERENT, Compute.ENOUGH)

    assert "the paper itself froze the whole base" in advice.reasons[-1]


def test_images_that_pass_the_gate_are_similar():
    inside, outside = np.full(95, 1.0), np.full(5, 3.0)

    assert strategies.similarity_of(np.concatenate([inside, outside]), 1.5) == Similarity.SIMILAR
    assert strategies.similarity_of(np.concatenate([inside, outside, outside]), 1.5) == Similarity.DIFFERENT
