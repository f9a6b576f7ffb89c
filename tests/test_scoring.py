"""Scoring: a folder in, probabilities, distances and heat maps out."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import SIZE, offer_small, write_small

from db.errors import ModelRefused
from workers import networks, trained_models, weights
from workers.scoring import Scorer, head_gradient


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    offer_small(monkeypatch)


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE), dtype=np.uint8)


def test_any_number_of_images_is_scored_in_order(tmp_path):
    write_small(tmp_path)
    scorer = Scorer.load(tmp_path, batch_size=4)

    together = [prediction.score for prediction in scorer.predict(pictures(10))]

    alone = [scorer.predict(picture[None])[0].score for picture in pictures(10)]
    assert together == pytest.approx(alone, abs=1e-6)
    assert len(set(together)) == 10
    assert scorer.predict(pictures(0)) == []


def test_the_score_of_two_classes_is_the_flagged_ones(tmp_path):
    write_small(tmp_path)

    (prediction,) = Scorer.load(tmp_path, batch_size=2).predict(pictures(1))

    assert prediction.score == prediction.class_scores["covid"]
    assert sum(prediction.class_scores.values()) == pytest.approx(1, abs=1e-6)


def test_the_score_of_many_classes_is_the_sum_over_the_flagged_ones(tmp_path):
    write_small(tmp_path, classes=("normal", "covid", "viral"), flag_classes=("covid", "viral"))

    (prediction,) = Scorer.load(tmp_path, batch_size=2).predict(pictures(1))

    assert prediction.score == pytest.approx(prediction.class_scores["covid"] + prediction.class_scores["viral"])


def test_a_picture_beyond_the_gates_limit_is_no_chest(tmp_path):
    write_small(tmp_path / "any")
    distance = Scorer.load(tmp_path / "any", batch_size=1).predict(pictures(1))[0].distance

    near, far = (
        Scorer.load(folder, batch_size=1)
        for folder, limit in ((tmp_path / "near", distance * 1.01), (tmp_path / "far", distance * 0.99))
        if write_small(folder, limit=limit)
    )

    assert near.predict(pictures(1))[0].is_chest
    assert not far.predict(pictures(1))[0].is_chest
    assert far.gate_limit == pytest.approx(distance * 0.99)


def test_an_engine_that_gives_no_probability_is_an_error(tmp_path):
    model = write_small(tmp_path)
    values = weights.read(tmp_path, model)
    values["scores/bias"][:] = np.nan
    written = write_small(tmp_path / "broken")
    save_weights(tmp_path / "broken", written, values)

    with pytest.raises(ValueError, match="not a probability"):
        Scorer.load(tmp_path / "broken", batch_size=1).predict(pictures(1))


def save_weights(folder, model, values):
    import hashlib
    from dataclasses import replace

    from safetensors.numpy import save

    content = save(weights.pack(values))
    (folder / model.weights.file).write_bytes(content)
    named = replace(model, weights=trained_models.File(model.weights.file, hashlib.sha256(content).hexdigest()))
    trained_models.write_folder(folder, named, {"threshold": {"value": 0.5, "why": "a test"}})


def test_an_altered_folder_is_not_loaded(tmp_path):
    write_small(tmp_path)
    (tmp_path / "gate.safetensors").write_bytes(b"x")

    with pytest.raises(ModelRefused):
        Scorer.load(tmp_path)


@pytest.mark.parametrize("head", ["pooled256", "flatten256"])
@pytest.mark.parametrize(("classes", "flagged"), [(2, (1,)), (2, (0,)), (4, (1, 3))])
def test_the_gradient_of_the_head_is_the_slope_of_the_scores_log_odds(head, classes, flagged):
    network = networks.build("small", head, classes)
    values = networks.named_weights(network)
    after = keras.Model(network.get_layer("late").output, network.output)
    last_map = np.random.default_rng(1).random((1, 7, 7, 16), np.float32)
    mask = np.isin(np.arange(classes), flagged)
    with tf.GradientTape() as tape:
        at = tf.constant(last_map)
        tape.watch(at)
        scores = after(at)
        scores = tf.concat([1 - scores, scores], 1) if classes == 2 else scores
        total = tf.reduce_sum(tf.boolean_mask(scores, mask, axis=1))
        log_odds = tf.math.log(total / (1 - total))
    expected = tape.gradient(log_odds, at).numpy()

    gradient = head_gradient(values, last_map, mask)

    share = 1 / 49 if head == "pooled256" else 1
    np.testing.assert_allclose(np.broadcast_to(gradient * share, expected.shape), expected, rtol=1e-3, atol=1e-7)


def test_a_heat_map_is_between_nothing_and_one_and_the_same_both_ways(tmp_path):
    write_small(tmp_path)
    scorer = Scorer.load(tmp_path, batch_size=2)

    heat = scorer.predict(pictures(1))[0].heat()

    assert heat.shape == (7, 7)
    assert heat.min() >= 0
    assert heat.max() in (0.0, 1.0)
    np.testing.assert_array_equal(heat, scorer.explain(pictures(1)[0]))


@pytest.fixture(scope="session")
def shipped():
    return Scorer.load(trained_models.SHIPPED, batch_size=8)


def test_the_shipped_model_is_small_and_sound(shipped):
    size = sum(file.stat().st_size for file in trained_models.SHIPPED.iterdir())

    assert size < 30_000_000
    assert shipped.model.flag_classes == ("covid",)
    assert shipped.model.intended_use.minimum_age == 18
    assert 0 < trained_models.recommended_threshold(trained_models.SHIPPED).value < 1


def test_the_shipped_model_refuses_noise_and_plain_fields(shipped):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, 224, 224), dtype=np.uint8)
    fields = np.stack([np.full((224, 224), 128), np.add.outer(np.arange(224), np.arange(224)) // 2]).astype(np.uint8)

    assert not any(prediction.is_chest for prediction in shipped.predict(np.concatenate([noise, fields])))


@pytest.mark.skipif("NIGHTREAD_TEST_DATA" not in os.environ, reason="NIGHTREAD_TEST_DATA names no real images")
def test_the_shipped_model_tells_unseen_covid_images_from_normal_ones(shipped):
    from workers.training import data, metrics

    folder = Path(os.environ["NIGHTREAD_TEST_DATA"]) / "cxr"
    unseen = data.draw(held_back(data, folder), 80)

    predictions = shipped.predict(unseen.pixels)

    scores = np.array([prediction.score for prediction in predictions])
    assert metrics.auc(unseen.labels == 1, scores).value > 0.9
    assert np.mean([prediction.is_chest for prediction in predictions]) >= 0.97


def held_back(data, folder):
    return data.split(data.load([folder], ["normal", "covid"], 224))[data.Split.HELD_BACK]
