"""The TensorFlow engine: fixed batches with a padded tail, the same answer every time, errors that callers know."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import SIZE, offer_small, write_small

from db.errors import ModelRefused, Refused
from workers import networks, weights
from workers.engines import tensorflow as engine


@pytest.fixture
def small(tmp_path, monkeypatch):
    offer_small(monkeypatch)
    model = write_small(tmp_path)
    return model, weights.read(tmp_path, model)


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE), dtype=np.uint8)


def test_the_frozen_graph_scores_as_the_network_it_came_from(small):
    model, values = small
    network = networks.build("small", "pooled256", 2)
    networks.assign(network, values)

    outputs = engine.predict(engine.load(model, values, batch_size=4), pictures(4))

    expected = network.predict(pictures(4)[..., None], verbose=0)[:, 0]
    np.testing.assert_allclose(outputs.class_scores[:, 1], expected, atol=1e-6)
    np.testing.assert_allclose(outputs.class_scores.sum(axis=1), 1, atol=1e-6)


def test_one_pass_gives_scores_map_and_features(small):
    model, values = small

    outputs = engine.predict(engine.load(model, values, batch_size=4), pictures(3))

    assert outputs.class_scores.shape == (3, 2)
    assert outputs.last_map.shape == (3, 7, 7, 16)
    assert outputs.features.shape == (3, 8 + 16)
    np.testing.assert_allclose(outputs.features[:, 8:], outputs.last_map.mean(axis=(1, 2)), atol=1e-6)


def test_a_short_batch_scores_each_image_as_a_full_one_does(small):
    loaded = engine.load(*small, batch_size=8)

    together = engine.predict(loaded, pictures(8)).class_scores
    alone = np.concatenate([engine.predict(loaded, picture[None]).class_scores for picture in pictures(8)])

    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_the_same_images_score_the_same_to_the_bit(small):
    loaded = engine.load(*small, batch_size=8)

    first, again = (engine.predict(loaded, pictures(5)).class_scores for _ in range(2))

    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("shape", [(0, SIZE, SIZE), (5, SIZE, SIZE), (1, SIZE, SIZE + 1), (1, SIZE, SIZE, 1)])
def test_a_batch_of_another_shape_is_refused(small, shape):
    loaded = engine.load(*small, batch_size=4)

    with pytest.raises(ValueError, match="images of 32 pixels"):
        engine.predict(loaded, np.zeros(shape, np.uint8))


def test_a_device_without_room_is_a_memory_error(small):
    loaded = engine.load(*small, batch_size=4)

    def full(batch):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    with pytest.raises(MemoryError, match="cpu: no room for 4 images"):
        engine.predict(engine.Engine(full, 4, SIZE, "float32", "cpu"), pictures(2))
    assert engine.predict(loaded, pictures(2)).class_scores.shape == (2, 2)


def test_the_engine_says_what_it_is(small):
    assert engine.describe(engine.load(*small, batch_size=1)) == {
        "engine": "tensorflow",
        "precision": "float32",
        "device": "cpu",
    }


def test_a_precision_it_does_not_do_is_refused(small):
    with pytest.raises(ModelRefused, match="int4"):
        engine.load(*small, batch_size=1, precision="int4")


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused(small):
    with pytest.raises(Refused, match="sees no GPU"):
        engine.load(*small, batch_size=1, device="gpu:0")


def test_weights_of_another_network_are_refused(small):
    model, values = small

    with pytest.raises(ModelRefused, match="late/kernel"):
        engine.load(model, {**values, "late/kernel": np.zeros((3, 3, 8, 1), np.float32)}, batch_size=1)


def test_keras_is_told_nothing_about_threads_it_already_has(small):
    assert keras.backend.backend() == "tensorflow"
    first = engine.load(*small, batch_size=1, threads=1)
    again = engine.load(*small, batch_size=2, threads=2)

    assert (first.batch_size, again.batch_size) == (1, 2)
