"""The same OpenVINO model in Ray Data. Arguments: PRECISION SHAPE.

`staged` is the manual's shape: tasks read and prepare, one actor with all cores' threads infers, several requests under
way. `fused` does both in one actor a core with one thread each, which on few cores moves less. Rates are taken from the
moment that a sixth of the images is done, so that the start of actors, which Ray repeats for every data set, costs
nothing; what it was with that start is told, too.
"""

import os

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_DEDUP_LOGS": "0"}

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from same_model import CORES, compiled, prepared, scores
from serving import serve

from workers.engines.openvino import IMAGES
from workers.openvino_runtime import openvino

BATCH = 32
Batch = dict[str, Any]


class Model:
    """An actor that infers."""

    def __init__(self, precision: str, threads: int) -> None:
        self.images = IMAGES[precision]
        model = compiled(precision, threads=threads, streams=threads, images=self.images)
        self.queue = openvino.AsyncInferQueue(model, 2 * threads)

    def __call__(self, batch: Batch) -> Batch:
        count = len(batch["pixels"])
        filled = np.zeros((-(-count // self.images) * self.images, *batch["pixels"].shape[1:], 1), np.uint8)
        filled[:count, ..., 0] = batch["pixels"]
        found = np.zeros(len(filled))

        def keep(request: Any, place: int) -> None:
            found[place : place + self.images] = scores([request.get_output_tensor(0).data])

        self.queue.set_callback(keep)
        for place in range(0, len(filled), self.images):
            self.queue.start_async({0: filled[place : place + self.images]}, place)
        self.queue.wait_all()
        return {"path": batch["path"], "score": found[:count]}


class Both(Model):
    """An actor that reads, prepares and infers."""

    def __call__(self, batch: Batch) -> Batch:
        return super().__call__(read(batch))


def read(batch: Batch) -> Batch:
    """Read and prepare the files of a batch."""
    return {"path": batch["path"], "pixels": np.stack([prepared(Path(path)) for path in batch["path"]])}


def pipeline(files: list[Path], precision: str, shape: str) -> Any:
    """The data set that gives path and score."""
    blocks = max(2 * CORES, len(files) // BATCH)
    found = ray.data.from_items([{"path": str(file)} for file in files], override_num_blocks=blocks)
    if shape == "fused":
        actors = ray.data.ActorPoolStrategy(size=CORES)
        given = {"fn_constructor_args": (precision, 1), "num_cpus": 1}
        return found.map_batches(Both, batch_size=BATCH, compute=actors, **given)
    actors = ray.data.ActorPoolStrategy(size=1)
    given = {"fn_constructor_args": (precision, CORES), "num_cpus": 0.1}
    return found.map_batches(read, batch_size=BATCH, num_cpus=0.9).map_batches(
        Model, batch_size=BATCH, compute=actors, **given
    )


def screen(files: list[Path], precision: str, shape: str) -> dict[str, Any]:
    """Images and seconds after the first sixth, and of all of it."""
    started = time.perf_counter()
    times, counts, found = [], [], {}
    for batch in pipeline(files, precision, shape).iter_batches(batch_size=None, prefetch_batches=0):
        times.append(time.perf_counter())
        counts.append(len(batch["path"]))
        found.update(zip(batch["path"], batch["score"], strict=True))
    if sum(counts) != len(files):
        raise SystemExit(f"Ray gave {sum(counts)} of {len(files)}")
    done = np.cumsum(counts)
    at = int(np.searchsorted(done, len(files) / 6))
    return {
        "images": int(done[-1] - done[at]),
        "seconds": times[-1] - times[at],
        "scores": [float(found[str(file)]) for file in files[:32]],
        "rate_with_start": len(files) / (times[-1] - started),
    }


def in_ray(files: list[Path], precision: str, shape: str) -> dict[str, Any]:
    """`screen` in a Ray that is started before and ended after: idle it still takes from whoever is measured next."""
    temporary = tempfile.mkdtemp(prefix="nrr-", dir="/tmp")  # its sockets want a short path
    variables = {"PYTHONPATH": os.environ["PYTHONPATH"], "OPENBLAS_NUM_THREADS": "1"}
    ray.init(
        _temp_dir=temporary,
        num_cpus=CORES,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=1_000_000_000,
        runtime_env={"env_vars": variables},
    )
    try:
        return screen(files, precision, shape)
    finally:
        ray.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)


def main() -> None:
    precision, shape = sys.argv[1:3]
    ray.data.DataContext.get_current().enable_progress_bars = False
    serve(lambda files: in_ray(files, precision, shape))


if __name__ == "__main__":
    main()
