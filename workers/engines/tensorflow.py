"""TensorFlow over a fixed batch: a frozen graph on a CPU, the same compiled by XLA on a GPU. The only module that names
TensorFlow.

Freezing makes the weights constants, so that the graph optimiser can fold and fuse: about twice as fast on a
CPU as `keras.Model.predict`. The batch is fixed because every new shape costs a new plan; a short tail is
padded. Where the device runs out of memory, callers see a MemoryError and may offer fewer images.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from db.errors import ModelRefused, Refused
from workers import engines
from workers.engines import Outputs
from workers.networks import Weights
from workers.networks.serving import serving_graph
from workers.trained_models import TrainedModel

PRECISIONS = ("float32", "float16")
Run = Callable[[tf.Tensor], Sequence[tf.Tensor]]


@dataclass(frozen=True)
class Engine:
    """A loaded model: `run` takes (batch_size, S, S, 1) uint8 and gives the three outputs of the serving graph."""

    run: Run
    batch_size: int
    input_size: int
    precision: str
    device: str
    under_way: int = 1


def load(
    model: TrainedModel,
    weights: Weights,
    *,
    batch_size: int,
    precision: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
) -> Engine:
    """Load a trained model's weights onto a device: "cpu" or "gpu:N". float16 is for GPUs: a CPU emulates it, slowly,
    for whoever measures what it does to scores.

    A worker sees one GPU (it is pinned before its process starts), so N only names it. `threads` within one
    operation count for a CPU and bind the whole process; the first model loaded decides. Raises ModelRefused for
    a precision this engine does not do or weights that do not fit, Refused where TensorFlow sees no GPU.
    """
    if precision not in PRECISIONS:
        raise ModelRefused(f"TensorFlow runs models at {', '.join(PRECISIONS)}, not {precision}")
    if keras.backend.backend() != "tensorflow":
        raise Refused(f"Keras runs on {keras.backend.backend()}: unset KERAS_BACKEND for the TensorFlow engine")
    _set_up(threads)
    placed = _place(device)
    with tf.device(placed):
        run = _freeze(serving_graph(model, weights, precision), batch_size, model.input_size)
    if device != "cpu" or precision != "float32":
        run = _compile(run, placed)
    return Engine(run, batch_size, model.input_size, precision, device, engines.under_way(device))


def predict(engine: Engine, pixels: NDArray[np.uint8]) -> Outputs:
    """Run N images, (N, S, S) uint8 with 1 <= N <= batch_size; thread-safe. Raises ValueError on other shapes,
    MemoryError, RuntimeError (the device failed)."""
    batch = engines.fixed(engine, pixels)
    try:
        scores, last_map, features = (output.numpy()[: len(pixels)] for output in engine.run(tf.constant(batch)))
    except tf.errors.ResourceExhaustedError as error:
        raise engines.no_room(engine) from error
    except tf.errors.OpError as error:
        raise engines.failure(engine, error) from error
    return Outputs(scores, last_map, features)


def describe(engine: Engine) -> dict[str, str]:
    """Name engine, precision and device, as every outcome records them."""
    return {"engine": "tensorflow", "precision": engine.precision, "device": engine.device}


def can(precision: str) -> bool:
    """Whether it computes at a precision here, as it should: in halves on the GPU that this process sees, if that one
    has the units for it."""
    if precision != "float16":
        return precision in PRECISIONS
    seen = tf.config.list_physical_devices("GPU")
    found = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in seen]
    return bool(found) and min(found) >= engines.HALVES_FROM


def _set_up(threads: int | None) -> None:
    # Since Ampere, TensorFlow rounds what a float32 convolution multiplies to 10 bits (TF32) unless it is told not to;
    # so does what XLA compiles. What is recorded as float32 shall be float32.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        return  # already running in this process, under what the first load asked for


def _place(device: str) -> str:
    if not device.startswith("gpu"):
        return "/CPU:0"
    if not tf.config.list_physical_devices("GPU"):
        raise Refused(f"{device}: TensorFlow sees no GPU (driver, CUDA_VISIBLE_DEVICES, or the extra `gpu` missing)")
    return "/GPU:0"


def _freeze(graph: keras.Model, batch_size: int, size: int) -> Run:
    signature = tf.TensorSpec((batch_size, size, size, 1), tf.uint8)
    traced = tf.function(lambda pixels: graph(pixels, training=False)).get_concrete_function(signature)
    frozen: Run = convert_variables_to_constants_v2(traced)
    return frozen


def _compile(frozen: Run, placed: str) -> Run:
    """A frozen graph in XLA's hands: compiled at its first run, and run where it is placed."""
    compiled = tf.function(lambda pixels: frozen(pixels), jit_compile=True, autograph=False)

    def run(pixels: tf.Tensor) -> Sequence[tf.Tensor]:
        with tf.device(placed):
            outputs: Sequence[tf.Tensor] = compiled(pixels)
        return outputs

    return run
