"""A trained model is a folder; this reads and checks it without loading any framework.

model.json     everything but weights and thresholds
report.json    what it was measured to do, and the threshold recommended from it
weights, gate  safetensors
parity.json    how its faster forms agree with float32; there once `nightread models optimize` has made them,
int8           and the ranges of the one in integers, safetensors
SHA256SUMS     of all of these, as `sha256sum -c` reads it: one altered byte and the folder is refused
"""

import hashlib
import json
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from db.errors import ModelRefused
from workers.preprocessing import VERSION, Border, Mode

SHIPPED = Path(__file__).parent / "shipped" / "covid-resnet50"
FORMAT = 1
SUMS = "SHA256SUMS"
MOST_BYTES = 4_000_000_000  # of one file; a ResNet-50's weights take 25,000,000


@dataclass(frozen=True)
class Preprocessing:
    """How pictures became pixels when the model was trained, and so how they must when it scores."""

    version: str
    mode: Mode
    border: Border


@dataclass(frozen=True)
class File:
    """A file of the folder: its plain name and the sha256 of its content, in hex."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Gate:
    """What counts as a chest X-ray: a distance of at most `limit` in the pooled features of `layers`."""

    parameters: File
    layers: tuple[str, ...]
    limit: float


@dataclass(frozen=True)
class IntendedUse:
    """Whom and what the model is for; `minimum_age` in years."""

    minimum_age: int
    summary: str


@dataclass(frozen=True)
class Threshold:
    """A recommended operating point and the reason for it."""

    value: float
    why: str


@dataclass(frozen=True)
class TrainedModel:
    """`model.json`: what must be known to run the model and to read its scores.

    `classes` are in the order of the class scores; a score is the sum over `flag_classes`, 0-1. `temperature`
    is already inside the weights; it is kept for the record. `map_layer` names the last convolutional map.
    """

    name: str
    version: str
    architecture: str
    head: str
    classes: tuple[str, ...]
    flag_classes: tuple[str, ...]
    input_size: int
    preprocessing: Preprocessing
    weights: File
    encoding: str
    map_layer: str
    gate: Gate
    intended_use: IntendedUse
    temperature: float
    int8: File | None = None
    parity: File | None = None

    def files(self) -> tuple[File, ...]:
        """Every file that it names."""
        return tuple(file for file in (self.weights, self.gate.parameters, self.int8, self.parity) if file is not None)


def load_folder(folder: Path) -> TrainedModel:
    """Read and check a trained model's folder.

    Raises ModelRefused where a file is missing, altered or named outside the folder, where `model.json` is not
    of this format, or where its preprocessing is not the one this code does.
    """
    sums = _check_sums(folder)
    try:
        model = _parse(json.loads((folder / "model.json").read_text("utf-8")))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelRefused(f"{folder}/model.json is not a trained model of format {FORMAT}: {error!r}") from error
    for needed in model.files():
        if sums.get(needed.file) != needed.sha256:
            raise ModelRefused(f"{folder}: {needed.file} is not the file that model.json names")
    if not {"model.json", "report.json"} <= sums.keys():
        raise ModelRefused(f"{folder}/{SUMS} does not cover model.json and report.json")
    if model.int8 is not None and model.parity is None:
        raise ModelRefused(f"{folder} has an int8 form without its parity report: run `nightread models optimize`")
    if model.preprocessing.version != VERSION:
        raise ModelRefused(
            f"{model.name} {model.version} was trained with preprocessing {model.preprocessing.version}; "
            f"this code does {VERSION}: install the version it was trained with, or train again"
        )
    return model


def read_report(folder: Path) -> dict[str, Any]:
    """Give `report.json`; a figure that is not a number is None. Raises ModelRefused if the folder is altered."""
    _check_sums(folder)
    try:
        text = (folder / "report.json").read_text("utf-8")
        report: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelRefused(f"{folder}/report.json is not JSON: {error}") from error
    return report


def files(folder: Path) -> list[File]:
    """Every file that SHA256SUMS names. Raises ModelRefused if one is missing or altered."""
    return [File(name, digest) for name, digest in _check_sums(folder).items()]


def recommended_threshold(folder: Path) -> Threshold:
    """Give the operating point that the report recommends. Raises ModelRefused if it has none."""
    try:
        return Threshold(**read_report(folder)["threshold"])
    except (KeyError, TypeError) as error:
        raise ModelRefused(f"{folder}/report.json recommends no threshold") from error


def read_checked(folder: Path, wanted: File) -> bytes:
    """Read one file of the folder once and check those bytes. Raises ModelRefused if they are not the ones."""
    content = _inside(folder, wanted.file)
    if hashlib.sha256(content).hexdigest() != wanted.sha256:
        raise ModelRefused(f"{folder / wanted.file} is altered: copy the trained model's folder again")
    return content


def write_folder(folder: Path, model: TrainedModel, report: dict[str, Any]) -> None:
    """Write `model.json`, `report.json` and the sums beside what is already there: weights, gate, what is there for
    other precisions and, where there is one, `report.html`."""
    (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    write_model(folder, model)


def write_model(folder: Path, model: TrainedModel) -> None:
    """Write `model.json` and the sums beside what is already there, the report included."""
    document = {"format": FORMAT, **{name: value for name, value in asdict(model).items() if value is not None}}
    (folder / "model.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    names = ["model.json", "report.json", *(file.file for file in model.files())]
    names += ["report.html"] if (folder / "report.html").exists() else []
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines), "utf-8")


def _check_sums(folder: Path) -> dict[str, str]:
    try:
        lines = _inside(folder, SUMS).decode("utf-8").removesuffix("\n").split("\n")
    except (ModelRefused, ValueError) as error:
        raise ModelRefused(f"{folder} is not a trained model's folder: no readable {SUMS}") from error
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name, digest in sums.items():
        read_checked(folder, File(name, digest))
    return sums


def _inside(folder: Path, name: str) -> bytes:
    path = folder / name
    if not name or "\0" in name or name != Path(name).name or name in {".", ".."} or path.is_symlink():
        raise ModelRefused(f"{folder}: {name!r} is not the name of a file inside the folder")
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            raise ModelRefused(f"{path} is no file of at most {MOST_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ModelRefused(f"{path} is missing or may not be read: copy the trained model's folder again") from error


def _parse(document: dict[str, Any]) -> TrainedModel:
    if document.pop("format") != FORMAT:
        raise ValueError("another format")
    seen = document.pop("preprocessing")
    gate = document.pop("gate")
    document |= {
        "classes": tuple(document["classes"]),
        "flag_classes": tuple(document["flag_classes"]),
        "preprocessing": Preprocessing(**{**seen, "border": Border(**seen["border"])}),
        "weights": File(**document["weights"]),
        "gate": Gate(File(**gate["parameters"]), tuple(gate["layers"]), float(gate["limit"])),
        "intended_use": IntendedUse(**document["intended_use"]),
        **{name: File(**document[name]) for name in ("int8", "parity") if document.get(name) is not None},
    }
    model = TrainedModel(**document)
    if len(model.classes) < 2 or not set(model.flag_classes) < set(model.classes) or not model.flag_classes:
        raise ValueError("flag_classes must be some, and not all, of the classes")
    return model
