"""The OpenVINO engine: its graph, drawn from the weights, scores as TensorFlow's does; each image alone, all pinned."""

import subprocess
import sys

import numpy as np
import pytest
from small_models import SIZE, offer_small, small_weights, write_small

pytest.importorskip("openvino", reason="the extra `worker` is not installed")

from db.errors import ModelRefused, Refused
from workers import engines, networks, trained_models, weights
from workers.engines import openvino as engine
from workers.engines import tensorflow
from workers.networks import quantised
from workers.networks.openvino_graph import GREY, serving_graph
from workers.scoring import Scorer


@pytest.fixture
def small(tmp_path, monkeypatch):
    offer_small(monkeypatch)
    model = write_small(tmp_path)
    return model, weights.read(tmp_path, model)


def pictures(count, size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size), dtype=np.uint8)


def outputs_of(run, model, values, pixels):
    return run.predict(run.load(model, values, batch_size=len(pixels)), pixels)


def assert_alike(one, other, tolerance):
    np.testing.assert_allclose(one.class_scores, other.class_scores, atol=tolerance)
    for name in ("last_map", "features"):
        wanted = getattr(other, name)
        np.testing.assert_allclose(getattr(one, name), wanted, atol=tolerance * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize("classes", [("normal", "covid"), ("normal", "covid", "other")])
@pytest.mark.parametrize("head", ["pooled256", "flatten256"])
def test_both_engines_give_the_same_scores_maps_and_features(tmp_path, monkeypatch, classes, head):
    offer_small(monkeypatch)
    model = write_small(tmp_path, classes=classes, head=head)
    values = weights.read(tmp_path, model)

    found = outputs_of(engine, model, values, pictures(3))

    assert_alike(found, outputs_of(tensorflow, model, values, pictures(3)), 2e-5)


@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
def test_every_architecture_runs_on_it_as_on_tensorflow(architecture):
    design = networks.ARCHITECTURES[architecture]
    size = 96
    values = networks.named_weights(networks.fold(networks.build(architecture, "pooled256", 2, input_size=size)))
    rng = np.random.default_rng(3)
    values = {  # statistics as no network has them: every part of a normalisation counts
        name: rng.uniform(0.5, 1.5, one.shape).astype(np.float32) if name.endswith("_variance") else one
        for name, one in values.items()
    }
    model = described(design, architecture=architecture, size=size)

    found = outputs_of(engine, model, values, pictures(2, size))

    assert_alike(found, outputs_of(tensorflow, model, values, pictures(2, size)), 1e-4)


def described(design, *, architecture, size):
    """A trained model's description for an architecture of the table, whose weights are given by hand."""
    shipped = trained_models.load_folder(trained_models.SHIPPED)
    changes = {
        "architecture": architecture,
        "input_size": size,
        "map_layer": design.map_layer,
        "gate": trained_models.Gate(shipped.gate.parameters, design.gate_layers, 1.0),
    }
    return trained_models.TrainedModel(**{**vars(shipped), **changes, "int8": None, "parity": None})


def test_grey_pixels_at_the_border_count_as_the_padded_colours_do():
    """The offsets of the colours end where the padding begins: a white frame shows it if they do not."""
    design = networks.ARCHITECTURES["resnet50"]
    model = described(design, architecture="resnet50", size=64)
    values = networks.named_weights(networks.fold(networks.build("resnet50", "pooled256", 2, input_size=64)))
    framed = np.full((1, 64, 64), 255, np.uint8)

    found = outputs_of(engine, model, values, framed)

    assert_alike(found, outputs_of(tensorflow, model, values, framed), 1e-4)


@pytest.mark.parametrize("precision", engine.PRECISIONS)
def test_an_image_scores_the_same_to_the_bit_alone_and_among_others(small, precision):
    loaded = loaded_at(precision, small, batch_size=8)

    together = engine.predict(loaded, pictures(7))
    alone = [engine.predict(loaded, picture[None]) for picture in pictures(7)]

    assert loaded.images == engine.IMAGES[precision]
    for name, values in vars(together).items():
        np.testing.assert_array_equal(np.concatenate([vars(one)[name] for one in alone]), values)


def loaded_at(precision, small, *, batch_size):
    """The small model on two threads at a precision; skips where the processor does not compute at it."""
    if not engine.can(precision):
        pytest.skip(f"this processor does not compute at {precision}")
    model, values = small
    values = weights.at_int8(values, ranges()) if precision == "int8" else values
    return engine.load(model, values, batch_size=batch_size, threads=2, precision=precision)


@pytest.mark.parametrize(("batch_size", "images"), [(16, 4), (8, 4), (4, 2), (2, 1), (1, 1)])
def test_a_small_batch_still_has_a_request_for_each_thread(small, batch_size, images):
    assert loaded_at("int8", small, batch_size=batch_size).images == images


@pytest.mark.parametrize("shape", [(0, SIZE, SIZE), (5, SIZE, SIZE), (1, SIZE, SIZE + 1), (1, SIZE, SIZE, 1)])
def test_a_batch_of_another_shape_is_refused(small, shape):
    loaded = engine.load(*small, batch_size=4)

    with pytest.raises(ValueError, match="images of 32 pixels"):
        engine.predict(loaded, np.zeros(shape, np.uint8))


def test_the_engine_says_what_it_is_and_how_it_is_pinned(small):
    loaded = engine.load(*small, batch_size=1, threads=2)

    assert engine.describe(loaded) == {
        "engine": "openvino",
        "precision": "float32",
        "device": "cpu, 2 streams of 1 thread, 1 image a request",
    }
    compiled = loaded.compiled
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert compiled.get_property("NUM_STREAMS") == 2


def test_a_precision_that_it_or_the_processor_does_not_do_is_refused(small, monkeypatch):
    with pytest.raises(ModelRefused, match="not int4"):
        engine.load(*small, batch_size=1, precision="int4")

    monkeypatch.setattr(engine, "processor_flags", lambda: frozenset({"avx2"}))
    for precision in ("bfloat16", "int8"):
        with pytest.raises(ModelRefused, match=f"does not compute at {precision}"):
            engine.load(*small, batch_size=1, precision=precision)


def test_a_gpu_is_refused(small):
    with pytest.raises(Refused, match="OpenVINO runs on CPUs"):
        engine.load(*small, batch_size=1, device="gpu:0")


def test_weights_of_another_network_are_refused(small):
    model, values = small

    with pytest.raises(ModelRefused, match="late/kernel"):
        engine.load(model, {**values, "late/kernel": np.zeros((3, 3, 8, 1), np.float32)}, batch_size=1)
    with pytest.raises(ModelRefused, match=r"late/bias: the network needs \(16,\), the file has nothing"):
        engine.load(model, {name: one for name, one in values.items() if name != "late/bias"}, batch_size=1)


def test_a_device_without_room_is_a_memory_error_and_another_failure_a_runtime_error(small):
    loaded = engine.load(*small, batch_size=4)

    assert isinstance(engine._known(loaded, RuntimeError("Exception from src: std::bad_alloc")), MemoryError)
    assert isinstance(engine._known(loaded, RuntimeError("a primitive failed")), RuntimeError)


@pytest.mark.skipif(not engine.can("bfloat16"), reason="this processor does not compute at bfloat16")
def test_bfloat16_holds_early_kernels_to_16_bits(small):
    model, values = small
    exact = outputs_of(engine, model, values, pictures(4)).features

    found = engine.predict(engine.load(model, values, batch_size=4, precision="bfloat16"), pictures(4)).features

    np.testing.assert_allclose(found, exact, rtol=0.02, atol=0.02 * float(np.abs(exact).max()))
    assert not np.array_equal(found, exact)


# int8


SEEN = np.array([[0.0], [2.0], [0.0], [2.0]], np.float32)


def ranges(**changed):
    kernel = small_weights()["late/kernel"]
    greatest = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(axis=0)
    limits = np.stack([-greatest, greatest, -greatest, greatest])
    return {"early>late/kernel*.0": SEEN, "late/kernel>late/kernel*.1": limits, **changed}


@pytest.mark.skipif(not engine.can("int8"), reason="this processor does not compute at int8")
def test_int8_scores_nearly_as_float32(small):
    model, values = small
    exact = outputs_of(engine, model, values, pictures(4))

    at_int8 = weights.at_int8(values, ranges())
    found = engine.predict(engine.load(model, at_int8, batch_size=4, precision="int8"), pictures(4))

    assert not np.array_equal(found.class_scores, exact.class_scores)
    np.testing.assert_allclose(found.class_scores, exact.class_scores, atol=0.02)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"early>nowhere.0": SEEN}, "no place early>nowhere.0"),
        ({"late>late/kernel*.0": SEEN}, "does not lead to"),
        ({"early>late/kernel*.9": SEEN}, "no place"),
        ({"early>late/kernel*.0": np.zeros((3, 1), np.float32)}, "no proper range"),
        ({"early>late/kernel*.0": np.full((4, 1), np.nan, np.float32)}, "no proper range"),
        ({"late/kernel>late/kernel*.1": np.zeros((4, 5), np.float32)}, "does not have 5 channels"),
    ],
)
def test_ranges_of_another_network_are_refused(small, changed, why):
    with pytest.raises(ModelRefused, match=why.replace("*", r"\*")):
        quantised.put_in(serving_graph(*small), ranges(**changed))


def test_a_bias_of_another_network_is_refused(small):
    with pytest.raises(ModelRefused, match="no late/bias of shape"):
        weights.at_int8(small[1], {"late/bias": np.zeros(3, np.float32)})


def test_every_grey_level_is_exact_before_the_first_convolution(small):
    graph = serving_graph(*small)

    (seen,) = [node for node in graph.get_ops() if node.get_friendly_name() == GREY]

    assert list(seen.output(0).shape) == [1, 2, SIZE, SIZE]


# The choice


def test_a_cpu_gets_openvino_and_a_gpu_tensorflow():
    assert engines.chosen("auto", "cpu") == "openvino"
    assert engines.chosen("auto", "gpu:0") == "tensorflow"
    assert engines.chosen("tensorflow", "cpu") == "tensorflow"
    with pytest.raises(Refused, match="runs on CPUs"):
        engines.chosen("openvino", "gpu:0")


def test_without_openvino_a_cpu_gets_tensorflow(monkeypatch):
    monkeypatch.setattr(engines, "is_installed", lambda name: name != "openvino")

    assert engines.chosen("auto", "cpu") == "tensorflow"
    with pytest.raises(Refused, match="not installed"):
        engines.chosen("openvino", "cpu")


def test_a_worker_that_serves_with_openvino_loads_no_tensorflow_and_sends_nothing():
    """Heat maps included."""
    script = """
import os, sys
os.environ.pop("KERAS_BACKEND", None)
import numpy as np
from pathlib import Path
from workers import golden, trained_models
from workers.scoring import Scorer
scorer = Scorer.load(trained_models.SHIPPED, batch_size=1, engine="openvino")
prediction = scorer.predict(golden.picture(224)[None])[0]
assert prediction.heat().max() == 1.0, prediction
print(prediction.score, "tensorflow" in sys.modules, sys.modules["openvino_telemetry"], scorer.describe()["engine"])
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()

    assert abs(float(told[0]) - trained_models.read_report(trained_models.SHIPPED)["golden_score"]) < 1e-4
    assert told[1:] == ["False", "None", "openvino"]


def test_both_engines_draw_the_same_heat_map(tmp_path, monkeypatch):
    offer_small(monkeypatch)
    write_small(tmp_path)
    one, other = (
        Scorer.load(tmp_path, batch_size=2, engine=name).predict(pictures(2)) for name in ("openvino", "tensorflow")
    )

    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(mine.heat(), theirs.heat(), atol=1e-3)
        assert mine.distance == pytest.approx(theirs.distance, rel=1e-4)
