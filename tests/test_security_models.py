"""Hostile trained models: whatever stands in a folder, reading it runs nothing and ends in one sentence."""

import ast
import hashlib
import io
import json
import os
import pickle
import random
import zipfile
from pathlib import Path

import pytest
from plain_models import safetensors, write_plain

from db.errors import ModelRefused
from workers import model_folders, trained_models, weights
from workers.trained_models import SUMS, File

REPOSITORY = Path(__file__).parent.parent
FILES = ("model.json", "report.json", "weights.safetensors", "gate.safetensors")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    made.mkdir()
    (made / "report.html").write_text("<p>figures")
    return write_plain(made)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def resum(folder: Path, *, leave_out=()) -> None:
    """Make the sums fit what lies there, as somebody who knows the format would."""
    names = sorted(path.name for path in folder.iterdir() if path.name != SUMS and path.name not in leave_out)
    lines = [f"{digest((folder / name).read_bytes())}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines))


def with_weights(folder: Path, content: bytes, name: str = "weights.safetensors") -> None:
    (folder / name).write_bytes(content)
    document = json.loads((folder / "model.json").read_text())
    document["weights"] = {"file": name, "sha256": digest(content)}
    (folder / "model.json").write_text(json.dumps(document))
    resum(folder)


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def keras_archive(canary: Path) -> bytes:
    """A .keras file whose configuration names code (CVE-2025-1550 and its kin)."""
    harmful = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
    layer = {"class_name": "Lambda", "config": {"function": harmful, "arguments": {"command": f"touch {canary}"}}}
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": [layer]}}))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.9.0"}))
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(100))
    return kept.getvalue()


def hostile(canary: Path) -> dict[str, bytes]:
    """What may stand in the place of weights, with sums that fit."""
    pickled = pickle.dumps(Canary(canary))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(4)

    def claims(**changed):
        entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changed
        said = json.dumps({"w": entry}).encode()
        return len(said).to_bytes(8, "little") + said + bytes(4)

    deep = b"[" * 200_000
    return {
        "a .keras archive": keras_archive(canary),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(200),
        "a pickle": pickled,
        "a pickle of protocol 0": pickle.dumps(Canary(canary), protocol=0),
        "PyTorch's": b"PK\x03\x04" + pickled,
        "nothing": b"",
        "seven bytes": b"1234567",
        "a length of 2**63": (2**63).to_bytes(8, "little") + b"{}",
        "a length past the end": (10**6).to_bytes(8, "little") + b"{}",
        "a header of 12 MB": (12_000_000).to_bytes(8, "little") + b"{" + b" " * 11_999_998 + b"}",
        "a header that is a list": (2).to_bytes(8, "little") + b"[]",
        "a deep header": len(deep).to_bytes(8, "little") + deep,
        "a header that is a pickle": len(pickled).to_bytes(8, "little") + pickled,
        "an archive behind the arrays": whole + keras_archive(canary),
        "arrays that reach past the end": claims(data_offsets=[0, 8]),
        "arrays that begin before": claims(data_offsets=[-4, 4]),
        "arrays with a hole": claims(data_offsets=[2, 4]),
        "offsets that are words": claims(data_offsets=["0", "4"]),
        "offsets that are none": claims(data_offsets=None),
    }


NAMES = list(hostile(Path("/nowhere")))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_safetensors_is_refused_in_the_place_of_weights(folder, tmp_path, name):
    canary = tmp_path / "canary"
    with_weights(folder, hostile(canary)[name])

    with pytest.raises(ModelRefused, match="not a safetensors file"):
        model_folders.registration(folder)

    assert not canary.exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "a header of 12 MB"])  # only odd
def test_it_is_refused_by_the_worker_too(folder, tmp_path, name):
    canary = tmp_path / "canary"
    content = hostile(canary)[name]
    with_weights(folder, content)

    with pytest.raises(ModelRefused, match="not a safetensors file"):
        weights.read_arrays(folder, File("weights.safetensors", digest(content)))

    assert not canary.exists()


@pytest.mark.parametrize("name", ["weights.keras", "weights.h5", "weights.pkl", "weights.pt"])
def test_a_name_of_another_format_helps_it_no_further(folder, tmp_path, name):
    with_weights(folder, keras_archive(tmp_path / "canary"), name)

    with pytest.raises(ModelRefused, match="not a safetensors file"):
        model_folders.registration(folder)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "saved_model.pb", "pytorch_model.bin"])
def test_a_folder_of_another_framework_is_no_trained_model(tmp_path, name):
    (tmp_path / name).write_bytes(keras_archive(tmp_path / "canary"))

    with pytest.raises(ModelRefused, match="not a trained model's folder"):
        model_folders.registration(tmp_path)


def test_other_formats_beside_a_whole_model_are_not_read_and_not_taken_along(folder, tmp_path):
    (folder / "model.keras").write_bytes(keras_archive(tmp_path / "canary"))
    (folder / "weights.pkl").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))

    model_folders.registration(folder)
    model_folders.copy(folder, tmp_path / "copy")

    assert not (tmp_path / "canary").exists()
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {*FILES, "report.html", SUMS}


@pytest.mark.parametrize("name", [*FILES, "report.html", SUMS])
def test_one_flipped_byte_anywhere_is_refused(folder, name):
    whole, draw = (folder / name).read_bytes(), random.Random(name)
    spots = {0, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(30))}

    for spot in spots:
        changed = bytearray(whole)
        changed[spot] ^= 1 << draw.randrange(8)
        (folder / name).write_bytes(changed)

        with pytest.raises(ModelRefused):
            trained_models.load_folder(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_the_sums_do_not_cover_is_refused(folder, name):
    resum(folder, leave_out={name})

    with pytest.raises(ModelRefused):
        trained_models.load_folder(folder)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/hostname", "sub/weights", "..", ".", "", "a\0b", "weights.safetensors/"]
)
def test_no_name_in_the_document_or_the_sums_leaves_the_folder(folder, name):
    outside = folder.parent / "outside"
    outside.write_bytes(safetensors())
    document = json.loads((folder / "model.json").read_text())
    document["weights"] = {"file": name, "sha256": digest(outside.read_bytes())}
    (folder / "model.json").write_text(json.dumps(document))
    resum(folder)
    with (folder / SUMS).open("a") as sums:
        sums.write(f"{digest(outside.read_bytes())}  {name}\n")

    with pytest.raises(ModelRefused, match="inside the folder"):
        trained_models.load_folder(folder)


@pytest.mark.parametrize("name", [*FILES, SUMS])
def test_a_link_in_the_place_of_any_file_is_refused(folder, name):
    (folder / name).rename(folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")

    with pytest.raises(ModelRefused):
        trained_models.load_folder(folder)


@pytest.mark.parametrize("name", [*FILES, SUMS])
def test_a_pipe_or_a_folder_in_the_place_of_any_file_is_refused_and_not_waited_for(folder, name):
    for make in (os.mkfifo, os.mkdir):
        (folder / name).rename(folder.parent / "kept")
        make(folder / name)

        with pytest.raises(ModelRefused):
            trained_models.load_folder(folder)

        (folder / name).unlink() if make is os.mkfifo else (folder / name).rmdir()
        (folder.parent / "kept").rename(folder / name)


def test_a_file_without_end_is_refused_unread(folder):
    with (folder / "weights.safetensors").open("r+b") as file:
        file.truncate(trained_models.MOST_BYTES + 1)  # sparse: takes no room

    with pytest.raises(ModelRefused, match="at most"):
        trained_models.load_folder(folder)


@pytest.mark.parametrize("name", ["model.json", "report.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"7", b'"text"', b"null", b"[]", b"[" * 200_000, b"\xff\xfe", b"{}", pickle.dumps({"format": 1})],
    ids=range(9),
)
def test_a_document_that_is_none_is_refused_in_one_sentence(folder, name, content):
    (folder / name).write_bytes(content)
    resum(folder)

    with pytest.raises(ModelRefused) as refused:
        model_folders.registration(folder)

    assert len(str(refused.value)) < 500


# The source


PARTS = ("db", "producer", "workers", "webui", "deploy")
# What can run code that a file holds. Where one is allowed, why.
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "torch", "h5py"}
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "load_model", "model_from_json", "model_from_config", "load_weights",
    "enable_unsafe_deserialization", "system", "popen", "spawnl", "execv", "getoutput", "Lambda",
}  # fmt: skip
ALLOWED = {
    ("deploy/drill/messages.py", "pickle"): "the drill makes hostile messages of it; nothing unpickles",
    (
        "workers/networks/__init__.py",
        "load_weights",
    ): "Keras weights of a base that a trainer names on the command line",
}


def found_in(path: Path, tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0], node
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.Call):
            called = node.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            is_method = isinstance(called, ast.Attribute) and not isinstance(called.value, ast.Name)
            if name == "compile" and isinstance(called, ast.Attribute):
                continue  # a pattern's or a model's: neither runs text
            if name == "system" and ast.unparse(called) == "platform.system":
                continue
            if not (is_method and name in {"exec", "eval"}):
                yield name, node
            if any(word.arg in {"shell", "allow_pickle"} and not is_false(word.value) for word in node.keywords):
                yield "shell=True or allow_pickle=True", node
            if any(word.arg == "safe_mode" for word in node.keywords):
                yield "safe_mode", node


def is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def test_nothing_in_the_product_loads_code_from_a_file_or_runs_a_text():
    wrong, seen = [], 0
    for part in PARTS:
        for path in (REPOSITORY / part).rglob("*.py"):
            name = str(path.relative_to(REPOSITORY))
            seen += 1
            for what, node in found_in(path, ast.parse(path.read_text())):
                is_bad = what in FORBIDDEN_IMPORTS | FORBIDDEN_CALLS or what in {
                    "shell=True or allow_pickle=True",
                    "safe_mode",
                }
                if is_bad and not any(name.startswith(place) and what == word for place, word in ALLOWED):
                    wrong.append(f"{name}:{node.lineno}: {what}")

    assert wrong == []
    assert seen > 100


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import keras\nkeras.models.load_model('x')", "eval('1')",
        "from keras.models import load_model", "subprocess.run('x', shell=True)", "np.load('x', allow_pickle=True)",
        "os.system('x')", "yaml.load('x')\nimport yaml", "exec('x')", "keras.layers.Lambda(1)", "__import__('os')",
        "model.load_weights('x.h5')", "subprocess.run('x', shell=flag)",
    ],
)  # fmt: skip
def test_the_test_above_would_see_it(source):
    seen = {what for what, _ in found_in(Path("x.py"), ast.parse(source))}

    assert seen & (FORBIDDEN_IMPORTS | FORBIDDEN_CALLS | {"shell=True or allow_pickle=True"})
