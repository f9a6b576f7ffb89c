"""The JAX engine: without TensorFlow, it scores as TensorFlow and OpenVINO do, and says what callers know."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import SIZE, offer_small, write_small

pytest.importorskip("jax", reason="jax is not installed")

from db.errors import Refused
from workers import engines, trained_models, weights

NAMES = ("class_scores", "last_map", "features")


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    """A small model's folder, what the engine gave for five pictures, and what it said."""
    folder, out = tmp_path_factory.mktemp("small"), tmp_path_factory.mktemp("out") / "given.npz"
    with pytest.MonkeyPatch.context() as patch:
        offer_small(patch)
        write_small(folder)
    script = Path(__file__).with_name("jax_child.py")
    kept = {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "XLA_FLAGS")}
    done = subprocess.run([sys.executable, script, folder, out], capture_output=True, text=True, env=kept)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(out) as given:
        return folder, dict(given), json.loads(done.stdout)


@pytest.fixture
def wanted(child, monkeypatch):
    """The same five pictures by TensorFlow at float32, and by OpenVINO where it is installed."""
    offer_small(monkeypatch)
    folder, _, _ = child
    model = trained_models.load_folder(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE), dtype=np.uint8)
    modules = [engines.module(name) for name in ("tensorflow", "openvino") if engines.is_installed(name)]
    values = weights.read(folder, model)
    return [module.predict(module.load(model, values, batch_size=5), pixels) for module in modules]


def apart(found, other):
    return float(np.abs(found - other).max() / max(1.0, float(np.abs(other).max())))


def test_it_scores_as_the_other_engines_do(child, wanted):
    _, given, told = child

    for outputs in wanted:
        assert max(apart(given[f"float32/{name}"], getattr(outputs, name)) for name in NAMES) < 2e-5
        assert apart(given["scored"], outputs.class_scores[:, 1]) < 1e-5
    assert told["float32"] == {"engine": "jax", "precision": "float32", "device": "cpu"}


def test_half_precision_is_close_and_gives_float32(child, wanted):
    _, given, told = child

    for name in NAMES:
        assert given[f"float16/{name}"].dtype == np.float32
        assert 0 < apart(given[f"float16/{name}"], getattr(wanted[0], name)) < 2e-3
    assert told["float16"]["precision"] == "float16"


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_padded_batch_scores_each_image_as_a_full_one_does(child, precision):
    _, given, _ = child

    for name in NAMES:
        assert apart(given[f"{precision}/alone/{name}"], given[f"{precision}/{name}"]) < 1e-6


def test_the_shipped_model_scores_as_its_report_says(child):
    _, _, told = child

    assert told["golden"] == pytest.approx(trained_models.read_report(trained_models.SHIPPED)["golden_score"], abs=1e-4)
    assert told["heat"] == 1.0


def test_it_loads_no_other_framework_and_takes_memory_as_it_needs_it(child):
    _, _, told = child

    assert told["loaded"] == []
    assert told["preallocate"] == "false"
    assert told["float32 is"] is True  # told so to XLA, which takes TF32 on a GPU otherwise


def test_what_it_cannot_do_here_is_refused(child):
    _, _, told = child

    assert "float32" in told["can"]
    assert not {"bfloat16", "int8"} & set(told["can"])
    assert told["refused"]["precision"] == "ModelRefused: JAX runs models at float32, float16, not bfloat16"
    assert "it has no parity report" in told["refused"]["report"]
    if told["can"] == ["float32"]:
        assert told["refused"]["device"].startswith("Refused: gpu:0: JAX sees no such device")


def test_a_device_without_room_is_a_memory_error_and_another_failure_a_runtime_error(child):
    _, _, told = child

    assert told["failed"] == ["MemoryError: cpu: no room for 4 images", "RuntimeError: cpu: JaxRuntimeError"]


def test_nothing_chooses_it_but_its_name(monkeypatch):
    assert engines.chosen("jax", "gpu:0") == engines.chosen("jax", "cpu") == "jax"
    assert engines.chosen("auto", "gpu:0") == "tensorflow"

    monkeypatch.setattr(engines, "is_installed", lambda name: name == "jax")
    with pytest.raises(Refused, match="the engine tensorflow is not installed here"):
        engines.chosen("auto", "gpu:0")


def test_beside_tensorflow_it_says_why_it_cannot_run(child, monkeypatch):
    offer_small(monkeypatch)
    folder, _, _ = child
    model = trained_models.load_folder(folder)

    with pytest.raises(Refused, match="set KERAS_BACKEND=jax"):
        engines.module("jax").load(model, weights.read(folder, model), batch_size=1)
