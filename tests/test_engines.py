"""The TensorFlow engine: fixed batches with a padded tail, the same answer every time, errors that callers know; on a
GPU compiled by XLA, at half precision too, and given more than a batch at once."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import SIZE, offer_small, write_small

from db.errors import ModelRefused, Refused
from workers import engines, networks, parity, weights
from workers.engines import tensorflow as engine
from workers.networks import serving
from workers.networks.serving import serving_graph


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


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 byte", MemoryError),
        ("Autotuning failed: CUDA_ERROR_OUT_OF_MEMORY: out of memory", MemoryError),
        ("a kernel failed", RuntimeError),
    ],
)
def test_what_xla_says_in_words_is_an_error_that_callers_know(small, said, known):
    def fails(batch):
        raise tf.errors.InternalError(None, None, said)

    with pytest.raises(known, match="gpu:0"):
        engine.predict(engine.Engine(fails, 4, SIZE, "float16", "gpu:0"), pictures(2))


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


# What a GPU runs, on this CPU


@pytest.fixture
def compiled(small):
    """What a GPU is given, here for the CPU."""
    model, values = small

    def load(precision):
        run = engine._compile(engine._freeze(serving_graph(model, values, precision), 4, SIZE), "/CPU:0")
        return engine.Engine(run, 4, SIZE, precision, "cpu")

    return load


def test_what_xla_compiles_scores_as_the_frozen_graph_does(small, compiled):
    wanted = engine.predict(engine.load(*small, batch_size=4), pictures(3))

    found = engine.predict(compiled("float32"), pictures(3))

    for name in ("class_scores", "last_map", "features"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-5)


def test_half_precision_is_close_and_gives_float32(small, compiled):
    exact = engine.predict(compiled("float32"), pictures(4))

    found = engine.predict(engine.load(*small, batch_size=4, precision="float16"), pictures(4))

    for name in ("class_scores", "last_map", "features"):
        one, other = getattr(found, name), getattr(exact, name)
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=2e-3 * max(1.0, float(np.abs(other).max())))
    assert not np.array_equal(found.last_map, exact.last_map)
    np.testing.assert_allclose(found.class_scores.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("head", ["pooled256", "flatten256"])
def test_only_the_convolutions_are_halved(tmp_path, monkeypatch, head):
    offer_small(monkeypatch)
    model = write_small(tmp_path, head=head)

    graph = serving_graph(model, weights.read(tmp_path, model), "float16")

    computed = {layer.name: layer.compute_dtype for layer in graph.layers}
    assert (computed["early"], computed["late"]) == ("float16", "float16")
    exact = {name: dtype for name, dtype in computed.items() if name not in ("early", "late")}
    assert {"scaling", "hidden", "scores"} < exact.keys()
    assert set(exact.values()) <= {"float32", "uint8"}
    assert keras.config.dtype_policy().name == "float32"  # of whatever else this process builds


@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
def test_every_architecture_can_be_halved(architecture):
    plain = networks.build(architecture, "pooled256", 2, input_size=96)

    halved = serving._in_halves(plain, networks.ARCHITECTURES[architecture].map_layer, "float16")

    computed = {layer.compute_dtype for layer in halved.layers if "conv" in layer.name or "bn" in layer.name}
    assert computed == {"float16"}
    assert halved.get_layer("scores").compute_dtype == "float32"
    assert [one.shape for one in halved.weights] == [one.shape for one in plain.weights]


def test_float32_is_never_tf32(small):
    tf.config.experimental.enable_tensor_float_32_execution(True)

    engine.load(*small, batch_size=1)

    assert not tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.mark.parametrize(("capability", "does"), [(None, False), ((6, 1), False), ((7, 5), True), ((9, 0), True)])
def test_half_precision_needs_a_gpu_with_units_for_it(monkeypatch, capability, does):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [] if capability is None else ["a GPU"])
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": capability}, raising=True
    )

    assert engine.can("float16") == does
    assert engine.can("float32")
    assert not engine.can("bfloat16")
    report = {"forms": {"float16": {"refused": None}}}
    assert parity.chosen(report, "auto", engine) == ("float16" if does else "float32")


# More than a batch


def offered(count, *, run, under_way):
    """What comes of `count` pictures offered at once to an engine with batches of two."""
    running = engine.Engine(run, 2, SIZE, "float32", "gpu:0", under_way)
    return [outputs.class_scores[:, 0] for outputs in engines.passes(running, pictures(count))]


def means(batch):
    scores = tf.reduce_mean(tf.cast(batch, tf.float32), axis=(1, 2))
    return [scores, tf.zeros((2, 1, 1, 1)), tf.zeros((2, 1))]


@pytest.mark.parametrize("under_way", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_any_number_comes_back_in_its_order_with_the_tail_cut(count, under_way):
    found = offered(count, run=means, under_way=under_way)

    np.testing.assert_allclose(np.concatenate(found), pictures(count).mean(axis=(1, 2)), rtol=1e-5)
    assert [len(one) for one in found[:-1]] == [2] * (len(found) - 1)


def test_a_gpu_has_the_next_batch_before_the_last_one_is_fetched():
    """No batch is done before another has begun; without one under way beside it, it would wait in vain."""
    met = threading.Barrier(2, timeout=30)

    def run(batch):
        met.wait()
        return means(batch)

    assert len(offered(8, run=run, under_way=2)) == 4


def test_a_cpu_is_given_one_batch_after_the_other_by_the_caller_alone():
    threads = []

    def run(batch):
        threads.append(threading.current_thread())
        return means(batch)

    offered(8, run=run, under_way=engines.under_way("cpu"))

    assert threads == [threading.current_thread()] * 4
    assert engines.under_way("gpu:1") == 2


def test_a_batch_that_finds_no_room_says_so_and_none_is_left_behind():
    begun, lock = [], threading.Lock()

    def run(batch):
        with lock:
            begun.append(threading.current_thread())
        if len(begun) > 1:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return means(batch)

    with pytest.raises(MemoryError, match="gpu:0: no room for 2 images"):
        offered(12, run=run, under_way=2)
    assert not any(thread.is_alive() for thread in begun)


def test_the_device_says_how_large_a_batch_is_unless_a_setting_does():
    assert (engines.batch_size(0, "cpu"), engines.batch_size(0, "gpu:3")) == (16, 128)
    assert (engines.batch_size(8, "cpu"), engines.batch_size(8, "gpu:0")) == (8, 8)
