"""The training loop: it learns, repeats itself, stops early, goes on where it was stopped; unfolding is exact."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from small_models import SIZE, offer_small, small_weights

from db.errors import Refused
from workers import networks
from workers.networks.unfolding import unfold
from workers.training import loop, metrics
from workers.training.examples import Examples
from workers.training.recipes import ClassWeights, Precision, Recipe, Stage
from workers.training.strategies import Strategy


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    offer_small(monkeypatch)


def recipe(**fields):
    usual = {
        "architecture": "small",
        "head": "pooled256",
        "classes": ("dark", "bright"),
        "stages": (Stage(16, 1, 3e-3), Stage(SIZE, 3, 8e-3)),
        "batch_size": 8,
        "dropout": 0.0,
    }
    return Recipe(**{**usual, **fields})


def dark_and_bright(count, seed, *, classes=2):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = rng.integers(0, 100, (count, SIZE, SIZE)) + 150 // (classes - 1) * labels[:, None, None]
    return Examples(pixels.astype(np.uint8), labels, tuple(Path(str(n)) for n in range(count)))


def scores(weights, examples, made=None):
    model = loop.skeleton(made or recipe(), SIZE)
    networks.assign(model, weights)
    return model.predict(examples.pixels[..., None], verbose=0).astype(float)


def area(weights, made=None):
    unseen = dark_and_bright(40, 3)
    return metrics.auc(unseen.labels == 1, scores(weights, unseen, made)[:, 0]).value


def test_training_learns_what_can_be_learned_and_leaves_frozen_layers_alone():
    first = small_weights()

    fitted = loop.train(recipe(freeze_through="early"), first, dark_and_bright(96, 1), dark_and_bright(40, 2))

    assert area(fitted.weights) > 0.95
    np.testing.assert_array_equal(fitted.weights["early/kernel"], first["early/kernel"])
    assert (fitted.weights["late/kernel"] != first["late/kernel"]).any()
    assert [(record["stage"], record["epoch"], record["size"]) for record in fitted.history.stages] == [
        (1, 1, 16),
        (2, 1, SIZE),
        (2, 2, SIZE),
        (2, 3, SIZE),
    ]
    assert set(fitted.history.stages[0]) == {
        *("stage", "epoch", "size", "loss", "accuracy", "val_loss", "val_accuracy", "val_auc")
    }


def test_training_again_gives_the_same_weights():
    runs = [
        loop.train(recipe(), small_weights(), dark_and_bright(32, 1), dark_and_bright(16, 2)).weights for _ in range(2)
    ]

    for name, values in runs[0].items():
        np.testing.assert_allclose(values, runs[1][name], atol=1e-5)


def test_batches_come_in_the_same_order_from_any_number_of_threads():
    batches = loop.Batches(dark_and_bright(64, 1), recipe(), Stage(SIZE, 1, 1e-3), 0)
    again = loop.Batches(dark_and_bright(64, 1), recipe(), Stage(SIZE, 1, 1e-3), 0)

    backwards = [again[index] for index in reversed(range(len(again)))][::-1]

    for index, (pixels, wanted, _) in enumerate(backwards):
        np.testing.assert_array_equal(pixels, batches[index][0])
        np.testing.assert_array_equal(wanted, batches[index][1])


def test_three_classes_train():
    made = recipe(classes=("a", "b", "c"), stages=(Stage(SIZE, 4, 8e-3),))

    fitted = loop.train(
        made, small_weights(classes=3), dark_and_bright(96, 1, classes=3), dark_and_bright(30, 2, classes=3)
    )

    assert fitted.history.stages[-1]["val_auc"] > 0.9
    np.testing.assert_allclose(scores(fitted.weights, dark_and_bright(6, 3, classes=3), made).sum(axis=1), 1, atol=1e-5)


def test_patience_ends_a_stage():
    hopeless = recipe(stages=(Stage(SIZE, 9, 1e-12),), patience=2)

    fitted = loop.train(hopeless, small_weights(), dark_and_bright(16, 1), dark_and_bright(8, 2))

    assert len(fitted.history.stages) < 9


def test_balanced_classes_cost_the_same_together():
    labels = np.array([0] * 30 + [1] * 10)

    costs = loop.costs(labels, recipe(class_weights=ClassWeights.BALANCED))

    np.testing.assert_allclose(costs * [30, 10], 20)
    np.testing.assert_array_equal(loop.costs(labels, recipe()), [1, 1])


def test_fewer_images_than_a_batch_still_train():
    fitted = loop.train(recipe(batch_size=64), small_weights(), dark_and_bright(10, 1), dark_and_bright(8, 2))

    assert len(fitted.history.stages) == 4


class _Stopped(Exception):
    """The machine went down."""


def stop_at(stage, epoch, batch, error):
    def progress(step):
        if (step.stage, step.epoch, step.batch) == (stage, epoch, batch) and not step.record:
            raise error

    return progress


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    images = dark_and_bright(32, 1), dark_and_bright(16, 2)
    told = []

    with pytest.raises(_Stopped):
        loop.train(recipe(), small_weights(), *images, checkpoint=tmp_path, progress=stop_at(2, 2, 2, _Stopped()))
    fitted = loop.train(recipe(), small_weights(), *images, checkpoint=tmp_path, progress=told.append)

    assert (told[0].stage, told[0].epoch) == (2, 2)
    assert [(record["stage"], record["epoch"]) for record in fitted.history.stages] == [(1, 1), (2, 1), (2, 2), (2, 3)]
    assert not list(tmp_path.glob("*.part"))
    assert len(list(tmp_path.glob("*.safetensors"))) <= 2


def test_a_finished_run_is_not_run_again(tmp_path):
    images = dark_and_bright(32, 1), dark_and_bright(16, 2)
    done = loop.train(recipe(), small_weights(), *images, checkpoint=tmp_path)
    told = []

    again = loop.train(recipe(), small_weights(), *images, checkpoint=tmp_path, progress=told.append)

    assert not told
    np.testing.assert_array_equal(again.weights["scores/kernel"], done.weights["scores/kernel"])


def test_the_checkpoint_of_another_run_is_refused(tmp_path):
    images = dark_and_bright(32, 1), dark_and_bright(16, 2)
    loop.train(recipe(stages=(Stage(16, 1, 1e-3),)), small_weights(), *images, checkpoint=tmp_path)

    with pytest.raises(Refused, match="another recipe"):
        loop.train(recipe(), small_weights(), *images, checkpoint=tmp_path)
    with pytest.raises(Refused, match="other weights"):
        loop.train(recipe(stages=(Stage(16, 1, 1e-3),)), small_weights(seed=8), *images, checkpoint=tmp_path)
    (tmp_path / "progress.json").write_text("{")
    with pytest.raises(Refused, match="cannot be read"):
        loop.train(recipe(), small_weights(), *images, checkpoint=tmp_path)


def test_ctrl_c_keeps_the_best_so_far():
    fitted = loop.train(
        recipe(),
        small_weights(),
        dark_and_bright(96, 1),
        dark_and_bright(16, 2),
        progress=stop_at(2, 3, 1, KeyboardInterrupt()),
    )

    assert fitted.stopped
    assert len(fitted.history.stages) == 3
    assert area(fitted.weights) > 0.9


def test_ctrl_c_before_there_is_anything_ends_the_run():
    with pytest.raises(KeyboardInterrupt):
        loop.train(
            recipe(),
            small_weights(),
            dark_and_bright(32, 1),
            dark_and_bright(16, 2),
            progress=stop_at(1, 1, 1, KeyboardInterrupt()),
        )


def test_bfloat16_trains_with_a_float32_head_and_leaves_no_trace():
    made = recipe(precision=Precision.BFLOAT16)

    fitted = loop.train(made, small_weights(), dark_and_bright(96, 1), dark_and_bright(40, 2))

    assert area(fitted.weights) > 0.95
    assert {values.dtype for values in fitted.weights.values()} == {np.dtype(np.float32)}
    assert keras.config.dtype_policy().name == "float32"
    with loop.computing(Precision.BFLOAT16):
        model = loop.skeleton(made, SIZE)
    assert model.get_layer("late").compute_dtype == "bfloat16"
    assert {model.get_layer(name).compute_dtype for name in ("pooled", "hidden", "scores")} == {"float32"}


def test_a_head_for_one_size_is_not_trained_at_two():
    with pytest.raises(Refused, match="one input size"):
        recipe(head="flatten256")


def normed(weights=None, input_tensor=None, include_top=False):
    inputs = input_tensor
    for name in ("early", "late"):
        inputs = keras.layers.Conv2D(8, 3, strides=2, name=name)(inputs)
        inputs = keras.layers.BatchNormalization(name=f"{name}_bn", epsilon=1e-3)(inputs)
        inputs = keras.layers.ReLU(name=f"{name}_relu")(inputs)
    return keras.Model(keras.utils.get_source_inputs(inputs), inputs)


@pytest.fixture
def _normed(monkeypatch):
    design = networks.Architecture(normed, 1 / 255, (0.0, 0.0, 0.0), SIZE, "late_relu", ("early_relu",))
    monkeypatch.setattr(networks, "ARCHITECTURES", {**networks.ARCHITECTURES, "normed": design})


@pytest.mark.usefixtures("_normed")
def test_unfolding_puts_batch_normalization_back_without_changing_a_score():
    images = dark_and_bright(32, 1).pixels[..., None]
    full = networks.build("normed", "pooled256", 2)
    folded = networks.fold(full)
    rng = np.random.default_rng(1)
    networks.assign(
        folded, {name: rng.normal(0, 0.3, v.shape).astype("f4") for name, v in networks.named_weights(folded).items()}
    )

    weights = unfold(full, networks.named_weights(folded), [images[:16], images[16:]])
    networks.assign(full, weights)

    np.testing.assert_allclose(full.predict(images, verbose=0), folded.predict(images, verbose=0), atol=1e-5)
    seen = keras.Model(full.input, full.get_layer("early").output).predict(images, verbose=0)
    np.testing.assert_allclose(weights["early_bn/moving_mean"], seen.mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(weights["early_bn/moving_variance"], seen.var(axis=(0, 1, 2)), rtol=1e-3)


@pytest.mark.usefixtures("_normed")
@pytest.mark.parametrize("strategy", [Strategy.ALL, Strategy.PART])
def test_training_with_normalisation_gives_weights_of_the_folded_network(strategy):
    made = recipe(architecture="normed", normalise=True, strategy=strategy)
    first = networks.named_weights(loop.skeleton(made, SIZE))

    fitted = loop.train(made, first, dark_and_bright(96, 1), dark_and_bright(40, 2))

    assert fitted.weights.keys() == first.keys()
    assert area(fitted.weights, made) > 0.95
    frozen = np.allclose(fitted.weights["early/kernel"], first["early/kernel"], rtol=1e-3)
    assert frozen == (strategy == Strategy.PART)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_training_learns_under_every_backend(backend):
    script = Path(__file__).with_name("train_tiny.py")

    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(script.parents[1]), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == backend
