"""OpenVINO on a CPU, at float32, bfloat16 and int8: as many requests at once as threads, a few images in each.

Left to itself OpenVINO takes bfloat16 on one processor and float32 on the next, so precision, streams, threads and
images a request are pinned here and recorded with every outcome. A request always has the same shape, the last one is
filled up with zeros: an image scores the same to the bit alone and among others, wherever it stands.
"""

import queue
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from db.errors import ModelRefused, Refused
from workers.engines import Outputs, processor_flags
from workers.networks import Weights, quantised
from workers.networks.openvino_graph import serving_graph
from workers.openvino_runtime import openvino
from workers.trained_models import TrainedModel

PRECISIONS = ("float32", "bfloat16", "int8")
# What is not rounded to int8 is computed at float32. Streams of one thread each keep the cores busiest.
HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
# Images in a request: each fetches all weights anew, and memory gives them slowly where decoders use it as well. Four
# at once took a tenth less of the cores at int8 and a fifth less beside decoders, two at bfloat16 half of that; at
# float32 nothing was gained (2 cores, Zen 5), and a second look would pay for images that are not there.
IMAGES = {"float32": 1, "bfloat16": 2, "int8": 4}
# Without one of these, int8 sums overflow or crawl (OpenVINO, "Low precision optimisation"), and bfloat16 is emulated.
NEEDED = {
    "float32": frozenset[str](),
    "bfloat16": frozenset({"avx512_bf16", "amx_bf16"}),
    "int8": frozenset({"avx512_vnni", "avx_vnni", "amx_int8"}),
}


@dataclass(frozen=True)
class Engine:
    """A loaded model: each of the `idle` requests takes (`images`, S, S, 1) uint8 and gives the three outputs of the
    serving graph, of `shapes`; `pool` has a thread for each."""

    idle: "queue.SimpleQueue[openvino.InferRequest]"
    pool: ThreadPoolExecutor
    compiled: openvino.CompiledModel
    batch_size: int
    input_size: int
    precision: str
    device: str
    threads: int
    images: int
    shapes: tuple[tuple[int, ...], ...]
    under_way: int = 1  # one call keeps every core busy


def load(
    model: TrainedModel,
    weights: Weights,
    *,
    batch_size: int,
    precision: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
) -> Engine:
    """Load a trained model's weights onto the CPU; at int8 with the ranges among them (`weights.at_int8`).

    Raises ModelRefused for a precision that it or this processor does not do and for weights that do not fit,
    Refused for a GPU.
    """
    if device != "cpu":
        raise Refused(f"{device}: OpenVINO runs on CPUs here; GPUs are TensorFlow's")
    require(precision)
    images = max(1, min(IMAGES[precision], batch_size // (threads or 1)))  # so that each thread has one
    graph = serving_graph(model, weights, count=images, halves=precision == "bfloat16")
    if precision == "int8":
        quantised.put_in(graph, quantised.ranges_among(weights))
    compiled = _compile(graph, precision, threads)
    shapes = tuple(tuple(output.shape) for output in compiled.outputs)
    pinned = int(compiled.get_property("INFERENCE_NUM_THREADS"))
    idle: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
    for _ in range(pinned):
        idle.put(compiled.create_infer_request())
    pool = ThreadPoolExecutor(pinned, "openvino")
    return Engine(idle, pool, compiled, batch_size, model.input_size, precision, device, pinned, images, shapes)


def predict(engine: Engine, pixels: NDArray[np.uint8]) -> Outputs:
    """Run N images, (N, S, S) uint8 with 1 <= N <= batch_size; thread-safe. Raises ValueError on other shapes,
    MemoryError, RuntimeError (the device failed)."""
    count, size = len(pixels), engine.input_size
    if not 1 <= count <= engine.batch_size or pixels.shape[1:] != (size, size):
        raise ValueError(f"up to {engine.batch_size} images of {size} pixels a side, not {pixels.shape}")
    full = -(-count // engine.images) * engine.images
    if full > count:
        pixels = np.concatenate([pixels, np.zeros((full - count, size, size), np.uint8)])
    given = Outputs(*(np.empty((full, *shape[1:]), np.float32) for shape in engine.shapes))
    running = [engine.pool.submit(_run, engine, pixels, given, place) for place in range(0, full, engine.images)]
    wait(running)  # all of them, whichever fails: they write to `given`
    for one in running:
        one.result()
    return Outputs(*(values[:count] for values in vars(given).values()))


def _run(engine: Engine, pixels: NDArray[np.uint8], given: Outputs, place: int) -> None:
    """One request, on one core; what it gives is written where it belongs, without a copy."""
    request, images = engine.idle.get(), slice(place, place + engine.images)
    try:
        for output, values in zip(engine.compiled.outputs, vars(given).values(), strict=True):
            request.set_tensor(output, openvino.Tensor(values[images], shared_memory=True))
        request.infer({0: pixels[images][..., None]}, share_inputs=True)
    except RuntimeError as error:
        raise _known(engine, error) from error
    finally:
        engine.idle.put(request)


def describe(engine: Engine) -> dict[str, str]:
    """Name engine, precision and device, as every outcome records them."""
    images = "1 image" if engine.images == 1 else f"{engine.images} images"
    return {
        "engine": "openvino",
        "precision": engine.precision,
        "device": f"{engine.device}, {engine.threads} streams of 1 thread, {images} a request",
    }


def require(precision: str) -> None:
    """Raise ModelRefused for a precision that this engine or this processor does not do."""
    if precision not in PRECISIONS:
        raise ModelRefused(f"OpenVINO runs models at {', '.join(PRECISIONS)}, not {precision}")
    if not can(precision):
        raise ModelRefused(
            f"this processor does not compute at {precision} (it has none of {', '.join(sorted(NEEDED[precision]))}): "
            f"let NIGHTREAD_PRECISION be auto or float32"
        )


def can(precision: str) -> bool:
    """Whether it computes at a precision here, as it should."""
    return precision in PRECISIONS and (not NEEDED[precision] or bool(NEEDED[precision] & processor_flags()))


def _compile(graph: openvino.Model, precision: str, threads: int | None) -> openvino.CompiledModel:
    wanted = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": threads or 1,
        "INFERENCE_NUM_THREADS": threads or 1,
        "ENABLE_CPU_PINNING": False,  # two workers of one machine would be pinned to the same cores
    }
    compiled = openvino.Core().compile_model(graph, "CPU", wanted)
    found = {name: compiled.get_property(name) for name in ("NUM_STREAMS", "INFERENCE_NUM_THREADS")}
    hint = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if hint != HINTS[precision] or any(found[name] != wanted[name] for name in found):
        raise ModelRefused(f"OpenVINO does not compute at {precision} as it was told here: {hint}, {found}")
    return compiled


def _known(engine: Engine, error: RuntimeError) -> Exception:
    """The error that callers know: no room, or a device that failed."""
    if "bad_alloc" in str(error) or "allocate" in str(error):
        return MemoryError(f"{engine.device}: no room for {engine.threads} images at once")
    return RuntimeError(f"{engine.device}: OpenVINO failed: {str(error).strip().splitlines()[-1][:200]}")
