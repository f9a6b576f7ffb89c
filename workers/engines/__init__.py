"""What runs a trained model. Each engine is a module with the same three names: load, predict, describe.

Besides, each says in PRECISIONS what it computes in. The modules load their frameworks, so they are named here and
imported where a worker needs one.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from db.errors import Refused

ENGINES: Mapping[str, str] = MappingProxyType(
    {"openvino": "workers.engines.openvino", "tensorflow": "workers.engines.tensorflow"}
)
AUTO = "auto"


@dataclass(frozen=True)
class Outputs:
    """One pass over N images, float32: class scores (N, C), last map (N, h, w, c), gate features (N, F)."""

    class_scores: NDArray[np.float32]
    last_map: NDArray[np.float32]
    features: NDArray[np.float32]


class Running(Protocol):
    """What `load` gives: a trained model on a device, ready for up to `batch_size` images at once."""

    @property
    def batch_size(self) -> int: ...
    @property
    def input_size(self) -> int: ...
    @property
    def precision(self) -> str: ...
    @property
    def device(self) -> str: ...


class Engine(Protocol):
    """What every engine's module offers."""

    PRECISIONS: tuple[str, ...]
    can: Callable[[str], bool]  # whether it does a precision here
    load: Callable[..., Running]
    predict: Callable[[Any, NDArray[np.uint8]], Outputs]
    describe: Callable[[Any], dict[str, str]]


def chosen(setting: str, device: str) -> str:
    """The engine that a device gets under the setting ENGINE: asked for nothing, a CPU gets OpenVINO where that is
    installed, and everything else TensorFlow. Raises Refused for a pair that cannot be."""
    if setting == AUTO:
        return "openvino" if device == "cpu" and is_installed("openvino") else "tensorflow"
    if setting == "openvino" and device != "cpu":
        raise Refused(f"{device}: the engine openvino runs on CPUs; let NIGHTREAD_ENGINE be auto or tensorflow")
    if not is_installed(setting):
        raise Refused(f"the engine {setting} is not installed here: pip install {setting}, or NIGHTREAD_ENGINE=auto")
    return setting


def is_installed(name: str) -> bool:
    """Whether the framework of an engine is there; without importing it."""
    return importlib.util.find_spec(name) is not None


def module(name: str) -> Engine:
    """The module of an engine, with its framework; in the process that scores, and only there."""
    if name == "openvino" and "keras" not in sys.modules and "tensorflow" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "openvino")  # Keras only draws the architecture: TensorFlow stays out
    return cast(Engine, importlib.import_module(ENGINES[name]))


def of(running: Running) -> Engine:
    """The module that loaded this."""
    return cast(Engine, sys.modules[type(running).__module__])


def processor_flags() -> frozenset[str]:
    """What this machine's CPU says it can do (Linux); empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return frozenset()
    found = (line.partition(":")[2].split() for line in lines if line.startswith("flags"))
    return frozenset(next(found, []))
