"""Where the weights of a frozen base come from, and what a table must say about them."""

import hashlib
import socket
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras

from db.errors import Refused
from workers import networks, trained_models, weights
from workers.networks import Weights
from workers.training import pretrain

NETWORK_SECONDS = 15.0
HEAD_LAYERS = ("hidden/", "scores/")
KERAS_FILES = (".h5", ".keras")


class WeightsUnavailable(Refused):
    """Weights that were asked for cannot be had here; other rows of the table can."""


@dataclass(frozen=True)
class Base:
    """An architecture's base: folded weights, and what they are, in words. Only a trained model's come with a head."""

    architecture: str
    weights: Weights
    label: str
    sha256: str

    @property
    def input_size(self) -> int:
        return networks.ARCHITECTURES[self.architecture].input_size


def load(architecture: str, source: str, described: str | None = None) -> Base:
    """Load weights from `imagenet`, `shipped`, `none`, a trained model's folder (its head too, to go on from), or a
    file (Keras weights without top, or from `pretrain`).

    Raises WeightsUnavailable with one sentence that says what to do.
    """
    loader = _SOURCES.get(source, _file)
    values, label, sha256 = loader(architecture, source)
    return Base(architecture, values, described or label, sha256)


Loaded = tuple[Weights, str, str]


def _imagenet(architecture: str, source: str) -> Loaded:
    """Let Keras fetch the published weights (or find them in its own cache)."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_SECONDS)
    try:
        donor = networks.ARCHITECTURES[architecture].constructor(include_top=False, weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception where a download fails
        raise WeightsUnavailable(
            f"ImageNet weights of {architecture} cannot be fetched here: download them elsewhere (Keras, "
            f"include_top=False) and pass --weights {architecture}=/path/file.h5"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "imagenet.weights.h5"
        donor.save_weights(path)
        values, _, _ = _keras_file(architecture, path)
    return values, "ImageNet, from Keras", _digest(values)


def _shipped(architecture: str, source: str) -> Loaded:
    model = trained_models.load_folder(trained_models.SHIPPED)
    if model.architecture != architecture:
        raise WeightsUnavailable(
            f"the model that ships is a {model.architecture}: for {architecture} pass "
            f"--weights {architecture}=/path/file.h5"
        )
    values = without_head(weights.read(trained_models.SHIPPED, model))
    label = f"base of {model.name} {model.version}, 8 bits (trained on COVID-19 Radiography Database: not unseen there)"
    return values, label, model.weights.sha256


def _none(architecture: str, source: str) -> Loaded:
    keras.utils.set_random_seed(1)
    values = without_head(networks.named_weights(networks.fold(networks.build(architecture, "pooled256", 2))))
    return values, "random weights", _digest(values)


def _trained(architecture: str, folder: Path) -> Loaded:
    model = trained_models.load_folder(folder)
    if model.architecture != architecture:
        raise WeightsUnavailable(f"{folder} holds a {model.architecture}, not a {architecture}")
    return weights.read(folder, model), f"{model.name} {model.version}", model.weights.sha256


def _file(architecture: str, source: str) -> Loaded:
    path = Path(source)
    if path.is_dir():
        return _trained(architecture, path)
    if not path.is_file():
        raise WeightsUnavailable(
            f"--weights {architecture}={source}: no such file; a path, 'imagenet', 'shipped' or 'none' is needed"
        )
    return (_keras_file if path.suffix in KERAS_FILES else _backbone)(architecture, path)


def _keras_file(architecture: str, path: Path) -> Loaded:
    try:
        network = networks.build(architecture, "pooled256", 2, base_weights=path)
    except Exception as error:  # Keras raises many kinds where a file does not fit
        raise WeightsUnavailable(f"{path} does not hold weights of {architecture} without top: {error}") from error
    values = without_head(networks.named_weights(networks.fold(network)))
    return values, path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def _backbone(architecture: str, path: Path) -> Loaded:
    of, values = pretrain.load_backbone(path)
    if of != architecture:
        raise WeightsUnavailable(f"{path} holds a backbone of {of}, not of {architecture}")
    return values, f"{path.name} (nightread pretrain)", hashlib.sha256(path.read_bytes()).hexdigest()


_SOURCES: Mapping[str, Callable[[str, str], Loaded]] = {"imagenet": _imagenet, "shipped": _shipped, "none": _none}


def without_head(values: Weights) -> Weights:
    """The base's part of a network's weights."""
    return {name: array for name, array in values.items() if not name.startswith(HEAD_LAYERS)}


def _digest(values: Weights) -> str:
    total = hashlib.sha256()
    for name in sorted(values):
        total.update(name.encode() + values[name].tobytes())
    return total.hexdigest()
