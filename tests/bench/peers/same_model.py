"""The very graph that we run, for peers that run it in their own way."""

import os

os.environ.setdefault("KERAS_BACKEND", "openvino")

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from workers import images, trained_models, weights
from workers.engines import openvino as engine
from workers.networks import quantised
from workers.networks.openvino_graph import serving_graph
from workers.openvino_runtime import openvino
from workers.preprocessing import prepare

CORES = len(os.sched_getaffinity(0))


def compiled(precision: str, *, threads: int, streams: int | None, images: int = 1) -> Any:
    """The shipped model compiled for a CPU at a pinned precision, for so many images a request; `streams` None:
    OpenVINO's own choice for the least time an image (all threads on one)."""
    model = trained_models.load_folder(trained_models.SHIPPED)
    values = weights.read(trained_models.SHIPPED, model)
    if precision == "int8":
        assert model.int8 is not None
        values = weights.at_int8(values, weights.unpack(weights.read_arrays(trained_models.SHIPPED, model.int8)))
    graph = serving_graph(model, values, count=images, halves=precision == "bfloat16")
    if precision == "int8":
        quantised.put_in(graph, quantised.ranges_among(values))
    how: dict[str, Any] = {"INFERENCE_PRECISION_HINT": engine.HINTS[precision], "INFERENCE_NUM_THREADS": threads}
    how |= {"PERFORMANCE_HINT": "LATENCY"} if streams is None else {"NUM_STREAMS": streams, "ENABLE_CPU_PINNING": False}
    return openvino.Core().compile_model(graph, "CPU", how)


def prepared(file: Path) -> NDArray[np.uint8]:
    """Our own reading and preparation, without the hash: (224, 224) uint8."""
    return prepare(images.to_grey8(images.read(file.read_bytes(), images.Limits())), 224)[0]


def score(outputs: Any) -> float:
    """The flag class's probability of one image."""
    return float(outputs[0][0, 1])


def scores(outputs: Any) -> NDArray[np.float32]:
    """The flag class's probabilities of all images of a request."""
    found: NDArray[np.float32] = outputs[0][:, 1]
    return found


def digest(scores: list[float]) -> str:
    """Short, to see that two ways of running gave the same."""
    return hashlib.sha256(np.round(scores, 4).tobytes()).hexdigest()[:8]


cv2.setNumThreads(1)
