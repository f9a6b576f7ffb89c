"""JAX over a fixed batch, compiled by XLA: for GPUs that TensorFlow does not know (CUDA 13, the newest cards), and to
measure the graph where only JAX is at hand. Nothing chooses it but NIGHTREAD_ENGINE=jax."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # memory as it is needed, not three quarters of a GPU

import jax
import keras
import numpy as np
from numpy.typing import NDArray

from db.errors import ModelRefused, Refused
from workers import engines
from workers.engines import Outputs
from workers.networks import Weights
from workers.networks.serving import serving_graph
from workers.trained_models import TrainedModel

PRECISIONS = ("float32", "float16")


@dataclass(frozen=True)
class Engine:
    """A loaded model: `run` takes (batch_size, S, S, 1) uint8 and gives the three outputs of the serving graph."""

    run: Callable[[jax.Array], Sequence[jax.Array]]
    batch_size: int
    input_size: int
    precision: str
    device: str
    under_way: int
    placed: jax.Device


def load(
    model: TrainedModel,
    weights: Weights,
    *,
    batch_size: int,
    precision: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
) -> Engine:
    """Load a trained model's weights onto a device: "cpu" or "gpu:N", of which a worker sees one. `threads` are the
    process's: JAX takes as many as it may run on. Raises ModelRefused for a precision this engine does not do or
    weights that do not fit, Refused where JAX sees no GPU."""
    if precision not in PRECISIONS:
        raise ModelRefused(f"JAX runs models at {', '.join(PRECISIONS)}, not {precision}")
    if keras.backend.backend() != "jax":
        raise Refused(f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=jax for the JAX engine")
    placed = _place(device)
    shape = (batch_size, model.input_size, model.input_size, 1)
    wanted = jax.ShapeDtypeStruct(shape, np.uint8, sharding=jax.sharding.SingleDeviceSharding(placed))
    # "highest": float32 is float32, where XLA would take TF32 on a GPU since Ampere.
    with jax.default_device(placed), jax.default_matmul_precision("highest"):
        graph = serving_graph(model, weights, precision)
        run = jax.jit(lambda pixels: graph(pixels, training=False)).lower(wanted).compile()
    return Engine(run, batch_size, model.input_size, precision, device, engines.under_way(device), placed)


def predict(engine: Engine, pixels: NDArray[np.uint8]) -> Outputs:
    """Run N images, (N, S, S) uint8 with 1 <= N <= batch_size; thread-safe. Raises ValueError on other shapes,
    MemoryError, RuntimeError (the device failed)."""
    batch = engines.fixed(engine, pixels)
    try:
        outputs = engine.run(jax.device_put(batch, engine.placed))
        scores, last_map, features = (np.asarray(output)[: len(pixels)] for output in outputs)
    except jax.errors.JaxRuntimeError as error:
        raise engines.failure(engine, error) from error
    return Outputs(scores, last_map, features)


def describe(engine: Engine) -> dict[str, str]:
    """Name engine, precision and device, as every outcome records them."""
    return {"engine": "jax", "precision": engine.precision, "device": engine.device}


def can(precision: str) -> bool:
    """Whether it computes at a precision here, as it should: in halves on the GPU that this process sees, if that one
    has the units for it."""
    if precision != "float16":
        return precision in PRECISIONS
    gpus = [one for one in jax.devices() if one.platform == "gpu"]
    found = [tuple(map(int, str(one.compute_capability).split("."))) for one in gpus]
    return bool(found) and min(found) >= engines.HALVES_FROM


def _place(device: str) -> jax.Device:
    try:
        return jax.devices(device.partition(":")[0])[0]
    except RuntimeError as error:
        raise Refused(f"{device}: JAX sees no such device (driver, CUDA_VISIBLE_DEVICES, jax[cuda] missing)") from error
