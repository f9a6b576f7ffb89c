"""A trained model's folder: read whole, or refused with a reason."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from small_models import offer_small, write_small

from db.errors import ModelRefused
from workers import trained_models, weights
from workers.preprocessing import Border
from workers.trained_models import SUMS, File, Preprocessing, load_folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    offer_small(monkeypatch)
    write_small(tmp_path / "model")
    return tmp_path / "model"


def rewrite(folder, **fields):
    """Change model.json and make the sums fit again, as somebody who knows the format could."""
    document = json.loads((folder / "model.json").read_text()) | fields
    (folder / "model.json").write_text(json.dumps(document))
    digest = hashlib.sha256((folder / "model.json").read_bytes()).hexdigest()
    lines = (folder / SUMS).read_text().splitlines()
    kept = [line for line in lines if not line.endswith("model.json")]
    (folder / SUMS).write_text("\n".join([*kept, f"{digest}  model.json"]) + "\n")


def test_a_folder_reads_as_it_was_written(tmp_path, monkeypatch):
    offer_small(monkeypatch)
    written = write_small(tmp_path / "model", classes=("normal", "covid", "other"), flag_classes=("covid", "other"))

    assert load_folder(tmp_path / "model") == written


def test_the_report_recommends_a_threshold(folder):
    threshold = trained_models.recommended_threshold(folder)

    assert (threshold.value, threshold.why) == (0.4, "a test")


@pytest.mark.parametrize("name", ["model.json", "report.json", "weights.safetensors", "gate.safetensors"])
def test_one_flipped_byte_in_any_file_is_refused(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)

    with pytest.raises(ModelRefused, match=name):
        load_folder(folder)


@pytest.mark.parametrize("name", [SUMS, "model.json", "report.json", "weights.safetensors", "gate.safetensors"])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()

    with pytest.raises(ModelRefused, match=name.split(".")[0]):
        load_folder(folder)


def test_another_preprocessing_is_refused(tmp_path, monkeypatch):
    offer_small(monkeypatch)
    write_small(tmp_path / "model", preprocessing=Preprocessing("0.9", "exact", Border()))

    with pytest.raises(ModelRefused, match=r"trained with preprocessing 0\.9"):
        load_folder(tmp_path / "model")


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/b", "..", ""])
def test_a_file_name_may_not_leave_the_folder(folder, name):
    (folder.parent / "outside").write_bytes(b"")

    with pytest.raises(ModelRefused, match="inside the folder"):
        trained_models.read_checked(folder, File(name, "0" * 64))


def test_a_link_may_not_leave_the_folder(folder):
    (folder / "weights.safetensors").rename(folder.parent / "elsewhere")
    (folder / "weights.safetensors").symlink_to(folder.parent / "elsewhere")

    with pytest.raises(ModelRefused, match="inside the folder"):
        load_folder(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"format": 2},
        {"classes": ["covid"]},
        {"flag_classes": []},
        {"flag_classes": ["normal", "covid"]},
        {"flag_classes": ["typo"]},
        {"unheard_of": 1},
        {"gate": {}},
    ],
    ids=str,
)
def test_a_document_that_makes_no_sense_is_refused(folder, fields):
    rewrite(folder, **fields)

    with pytest.raises(ModelRefused, match=r"model\.json"):
        load_folder(folder)


def test_weights_that_the_document_does_not_name_are_refused(folder):
    rewrite(folder, weights={"file": "weights.safetensors", "sha256": "0" * 64})

    with pytest.raises(ModelRefused, match=r"weights\.safetensors"):
        load_folder(folder)


def test_a_file_that_is_no_safetensors_is_refused(folder):
    (folder / "odd").write_bytes(b"\x80\x04pickle")
    digest = hashlib.sha256(b"\x80\x04pickle").hexdigest()

    with pytest.raises(ModelRefused, match="not a safetensors file"):
        weights.read_arrays(folder, File("odd", digest))


def test_eight_bits_a_channel_keep_each_channels_largest_weight_to_a_127th():
    rng = np.random.default_rng(0)
    kernel = (rng.standard_normal((3, 3, 4500, 5)) * [1, 10, 0.1, 100, 1e-6]).astype(np.float32)
    kernel[..., 2] = 0
    values = {"c/kernel": kernel, "c/bias": np.arange(5, dtype=np.float32)}

    packed = weights.pack(values)
    back = weights.unpack(packed)

    assert packed["c/kernel"].dtype == np.int8
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    assert (np.abs(back["c/kernel"] - kernel).max(axis=(0, 1, 2)) <= largest / 127 / 2 * 1.001).all()
    np.testing.assert_array_equal(back["c/bias"], values["c/bias"])


def test_small_kernels_keep_sixteen_bits():
    kernel = np.random.default_rng(0).standard_normal((3, 3, 4, 5)).astype(np.float32)

    packed = weights.pack({"c/kernel": kernel})

    assert packed["c/kernel"].dtype == np.float16
    np.testing.assert_allclose(weights.unpack(packed)["c/kernel"], kernel, rtol=1e-3)


def test_reading_a_folder_loads_no_framework():
    program = (
        "import sys, workers.trained_models as t\n"
        "t.load_folder(t.SHIPPED) if t.SHIPPED.exists() else None\n"
        "print(sorted({'tensorflow', 'keras', 'openvino', 'safetensors'} & sys.modules.keys()))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
