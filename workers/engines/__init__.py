"""What runs a trained model. Each engine is a module with the same three names: load, predict, describe.

Besides, each says in PRECISIONS what it computes in. The modules load their frameworks, so they are named here and
imported where a worker needs one.
"""

import importlib.util
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from db.errors import Refused

ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "openvino": "workers.engines.openvino",
        "tensorflow": "workers.engines.tensorflow",
        "jax": "workers.engines.jax",
    }
)
AUTO = "auto"
# What Keras draws the architecture with, where it is not loaded yet. OpenVINO needs nothing more of it: TensorFlow
# stays out.
KERAS: Mapping[str, str] = MappingProxyType({"openvino": "openvino", "jax": "jax"})
# Images in one call of an engine, unless the setting ENGINE_BATCH says.
BATCH: Mapping[str, int] = MappingProxyType({"cpu": 16, "gpu": 128})
# Batches given to a device at once: while a GPU computes one, the other is fetched or sent. A CPU has no time to spare.
UNDER_WAY: Mapping[str, int] = MappingProxyType({"cpu": 1, "gpu": 2})
OFFERED = 8  # batches at a time where there are several under way; 400 MB of last maps at 128 images each (ResNet-50)
HALVES_FROM = (7, 0)  # NVIDIA's compute capability from which float16 has units of its own (Volta; a T4 is 7.5)


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
    @property
    def under_way(self) -> int: ...  # batches that the device is given at once


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
    name = setting
    if setting == AUTO:
        name = "openvino" if device == "cpu" and is_installed("openvino") else "tensorflow"
    if name == "openvino" and device != "cpu":
        raise Refused(f"{device}: the engine openvino runs on CPUs; let NIGHTREAD_ENGINE be auto or tensorflow")
    if not is_installed(name):
        raise Refused(
            f"the engine {name} is not installed here: pip install {name}, or let NIGHTREAD_ENGINE be another"
        )
    return name


def batch_size(setting: int, device: str) -> int:
    """Images in one call of the engine of "cpu" or "gpu:N", under the setting ENGINE_BATCH (0: the device decides)."""
    return setting or BATCH[device.partition(":")[0]]


def under_way(device: str) -> int:
    """Batches to give "cpu" or "gpu:N" at once."""
    return UNDER_WAY[device.partition(":")[0]]


def is_installed(name: str) -> bool:
    """Whether the framework of an engine is there; without importing it."""
    return importlib.util.find_spec(name) is not None


def module(name: str) -> Engine:
    """The module of an engine, with its framework; in the process that scores, and only there."""
    if name in KERAS and "keras" not in sys.modules and "tensorflow" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", KERAS[name])
    return cast(Engine, importlib.import_module(ENGINES[name]))


def of(running: Running) -> Engine:
    """The module that loaded this."""
    return cast(Engine, sys.modules[type(running).__module__])


def passes(running: Running, pixels: NDArray[np.uint8]) -> Iterator[Outputs]:
    """Run any N images, (N, S, S) uint8, a batch after the other: what each gives, in order. Raises as `predict`.

    A device that is given several batches at once computes one while the results of the one before are fetched, and
    looked at by the caller, so that it never waits for the host. Each is sent and fetched by a thread of its own: both
    leave the interpreter alone.
    """
    predict, size = of(running).predict, running.batch_size
    slices = (pixels[start : start + size] for start in range(0, len(pixels), size))
    if running.under_way == 1:
        yield from (predict(running, one) for one in slices)
        return
    sent: deque[Future[Outputs]] = deque()
    with ThreadPoolExecutor(running.under_way, "engine") as senders:
        for one in slices:
            sent.append(senders.submit(predict, running, one))
            if len(sent) > running.under_way:
                yield sent.popleft().result()
        while sent:
            yield sent.popleft().result()


def fixed(running: Running, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A whole batch, (batch_size, S, S, 1), that begins with N images, (N, S, S) uint8, and ends in zeros: a compiled
    graph is for one shape alone. Raises ValueError for no image, more than a batch, or another size."""
    count, size = len(pixels), running.input_size
    if not 1 <= count <= running.batch_size or pixels.shape[1:] != (size, size):
        raise ValueError(f"up to {running.batch_size} images of {size} pixels a side, not {pixels.shape}")
    batch = np.zeros((running.batch_size, size, size, 1), np.uint8)
    batch[:count, ..., 0] = pixels
    return batch


def no_room(running: Running) -> MemoryError:
    """What callers know when a batch does not fit."""
    return MemoryError(f"{running.device}: no room for {running.batch_size} images")


def failure(running: Running, error: Exception) -> Exception:
    """What callers know, for what XLA raised: no room for a batch, or a device that failed. XLA tells the two apart in
    words alone, also where it runs out while it looks for the fastest kernel."""
    told = str(error)
    if "RESOURCE_EXHAUSTED" in told or "out of memory" in told.lower():
        return no_room(running)
    return RuntimeError(f"{running.device}: {type(error).__name__}")


def processor_flags() -> frozenset[str]:
    """What this machine's CPU says it can do (Linux); empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return frozenset()
    found = (line.partition(":")[2].split() for line in lines if line.startswith("flags"))
    return frozenset(next(found, []))
