"""The device's rate, and whether the worker's parts keep up with it: on whatever device there is.

    KERAS_BACKEND=jax python tests/bench/gpu.py        # no TensorFlow needed; or KERAS_BACKEND=tensorflow

For each precision and batch size, images a second with the pixels in memory, measured in turn:
    keras      `keras.Model.predict` over the same graph, for scores alone: what a plain script does
    in turn    the engine, one batch fetched before the next is sent
    passes     the engine as scoring calls it: on a GPU with two batches under way
    scored     with everything that scoring makes of it: scores, distances, what heat maps need
and, at the batch that scores fastest, over PNG files of 224 pixels a side (BENCH_SIDE: larger ones):
    decoders   the decoder processes alone
    fed        decoders and scoring at once, the next files decoded while these are scored, as a worker does it
Beside them, how far this device's scores are from float32 on this machine's CPU: TF32 would show.

It needs keras, numpy, opencv, safetensors and the framework; the decoders what a worker does (pydicom, pylibjpeg with
openjpeg, pyjpegls, python-gdcm, simplejpeg), or they are left out. BENCH_IMAGES, BENCH_ROUNDS, BENCH_DECODERS.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout will do, installed or not

import cv2
import numpy as np
from numpy.typing import NDArray
from ratio import CORES, commit, say

from workers import devices, engines, trained_models, weights
from workers.scoring import Scorer

Pixels = NDArray[np.uint8]
SHIPPED = trained_models.SHIPPED
# Keras is not loaded yet.
NAME = os.environ.setdefault("KERAS_BACKEND", "tensorflow" if engines.is_installed("tensorflow") else "jax")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SIDE = int(os.environ.get("BENCH_SIDE", "224"))
PORTION = 8  # files in an order to a decoder, as in a worker's
DECODERS = int(os.environ.get("BENCH_DECODERS", "0")) or CORES


def main() -> None:
    """Measure, print a table (with --json, the same as data)."""
    given = arguments()
    module = engines.module(NAME)
    device = devices.devices()[0] if sees_gpu() else "cpu"
    batches = given.batches or ([16] if device == "cpu" else [64, 128, 256])
    images = int(os.environ.get("BENCH_IMAGES", "0")) or (64 if device == "cpu" else 8192)
    pixels = drawn(images, 224)
    found: dict[str, Any] = {
        "device": device,
        "name": device_name(),
        "engine": NAME,
        "cores": CORES,
        "commit": commit(),
        "images": images,
        "rounds": ROUNDS,
        "halves_here": module.can("float16"),
        "alone": [],
        "scores": {},
    }
    exact = np.array([one.score for one in loaded("float32", 16, "cpu").predict(pixels[:64])])
    for precision in given.precisions:
        for batch in batches:
            say(f"{precision}, batches of {batch}")
            scorer = loaded(precision, batch, device)
            found["alone"].append(alone(scorer, precision, batch, pixels))
        here = np.array([one.score for one in scorer.predict(pixels[:64])])
        found["scores"][precision] = float(np.abs(here - exact).max())
    found["fed"] = [fed(one["precision"], one["batch"], device, images) for one in fastest(found["alone"])]
    print(json.dumps(found, indent=1) if given.is_json else "\n".join(told(found)))


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precisions", nargs="+", default=["float32", "float16"])
    parser.add_argument("--batches", nargs="+", type=int, help="64 128 256, or 16 on a CPU")
    parser.add_argument("--json", dest="is_json", action="store_true")
    return parser.parse_args()


def loaded(precision: str, batch: int, device: str) -> Scorer:
    """The shipped model, whatever its parity report allows: this measures."""
    model = trained_models.load_folder(SHIPPED)
    return Scorer._at(SHIPPED, model, None, engines.module(NAME), precision, (batch, None, device))


def alone(scorer: Scorer, precision: str, batch: int, pixels: Pixels) -> dict[str, Any]:
    """Images a second over pixels in memory, each way; the median of ROUNDS in turn."""
    import keras  # with its framework, which the engine loads first

    from workers.networks.serving import serving_graph

    module, running = engines.of(scorer.engine), scorer.engine
    graph = serving_graph(scorer.model, weights.read(SHIPPED, scorer.model), precision)
    plain = keras.Model(graph.input, graph.outputs[0])
    at_once = batch * (engines.OFFERED if running.under_way > 1 else 1)
    ways: dict[str, Callable[[], object]] = {
        "keras": lambda: plain.predict(pixels[..., None], batch_size=batch, verbose=0),
        "in_turn": lambda: [len(module.predict(running, part).class_scores) for part in parts(pixels, batch)],
        "passes": lambda: [len(one.class_scores) for one in engines.passes(running, pixels)],
        "scored": lambda: [len(scorer.predict(part)) for part in parts(pixels, at_once)],
    }
    for way in ways.values():
        way()  # compiled, and the memory taken
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            rates[name].append(len(pixels) / seconds(way))
    medians = {name: statistics.median(several) for name, several in rates.items()}
    spread = {name: [min(several), max(several)] for name, several in rates.items()}
    return {"precision": precision, "batch": batch, **medians, "spread": spread}


def fed(precision: str, batch: int, device: str, images: int) -> dict[str, Any]:
    """Images a second from files through decoder processes, alone and with scoring behind them."""
    try:
        from workers.decoding import DecoderPool, Source
        from workers.images import Limits
    except ImportError as error:
        return {"precision": precision, "batch": batch, "left_out": f"no decoders here: {error.name} is missing"}
    scorer = loaded(precision, batch, device)
    at_once = batch * (engines.OFFERED if scorer.engine.under_way > 1 else 1)
    with tempfile.TemporaryDirectory(prefix="nrb-") as folder:
        names = written(Path(folder), images)
        with (
            DecoderPool(DECODERS, Limits(), memory_bytes=1_300_000_000, seconds=10.0) as pool,
            ThreadPoolExecutor(DECODERS, "decode") as threads,
            ThreadPoolExecutor(1, "ahead") as ahead,
        ):

            def decoded(some: list[str]) -> Pixels:
                orders = threads.map(
                    lambda names: [*pool.prepare_many([Source(folder, one) for one in names], 224)],
                    parts(some, PORTION),
                )
                return np.stack([one.pixels for order in orders for one in order])

            def both() -> int:
                scored, waiting = 0, list(parts(names, at_once))
                coming = ahead.submit(decoded, waiting[0])
                for following in [*waiting[1:], None]:
                    ready = coming.result()
                    if following is not None:
                        coming = ahead.submit(decoded, following)
                    scored += len(scorer.predict(ready))
                return scored

            pixels = decoded(names)
            scorer.predict(pixels[:batch])
            ways: dict[str, Callable[[], object]] = {
                "decoders": lambda: decoded(names),
                "scored": lambda: [len(scorer.predict(part)) for part in parts(pixels, at_once)],
                "fed": both,
            }
            rates = {name: [len(names) / seconds(way) for _ in range(ROUNDS)] for name, way in ways.items()}
    return {"precision": precision, "batch": batch} | {name: statistics.median(one) for name, one in rates.items()}


def told(found: dict[str, Any]) -> Iterator[str]:
    """The table that people read."""
    yield f"{found['name']} ({found['device']}), {found['engine']}, {found['cores']} cores, commit {found['commit']}"
    yield f"{found['images']:,} images, median of {found['rounds']} rounds, images a second with the pixels in memory:"
    columns = "".join(f"{name:>9}" for name in ("keras", "in turn", "passes", "scored"))
    yield f"{'precision':<10}{'batch':>6}{columns}   scored/keras  scored/passes"
    for one in found["alone"]:
        rates = "".join(f"{one[name]:>9,.0f}" for name in ("keras", "in_turn", "passes", "scored"))
        ratios = f"{one['scored'] / one['keras']:>14.2f}{one['scored'] / one['passes']:>15.2f}"
        yield f"{one['precision']:<10}{one['batch']:>6}{rates} {ratios}"
    for precision, largest in found["scores"].items():
        yield f"{precision} here against float32 on this machine's CPU: scores differ by at most {largest:.6f}"
    for one in found["fed"]:
        about = f"from files, {one['precision']}, batches of {one['batch']}"
        if "left_out" in one:
            yield f"{about}: {one['left_out']}"
            continue
        ideal = ideal_rate(one, found["device"])
        yield (
            f"{about}: decoders {one['decoders']:,.0f}, scoring {one['scored']:,.0f}, both at once {one['fed']:,.0f}: "
            f"{one['fed'] / one['scored']:.2f} of scoring alone, {one['fed'] / ideal:.2f} of what the two allow"
        )


def ideal_rate(one: dict[str, Any], device: str) -> float:
    """The slower of the two; on a CPU, where they share the cores, both one after the other."""
    if device == "cpu":
        return 1 / (1 / one["decoders"] + 1 / one["scored"])
    return float(min(one["decoders"], one["scored"]))


def fastest(several: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each precision, the batch size that scores most."""
    precisions = dict.fromkeys(one["precision"] for one in several)
    return [
        max((one for one in several if one["precision"] == name), key=lambda one: one["scored"]) for name in precisions
    ]


def parts(several: Any, size: int) -> Iterator[Any]:
    """Slices of a size."""
    return (several[start : start + size] for start in range(0, len(several), size))


def seconds(way: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def drawn(count: int, side: int) -> Pixels:
    """Smooth grey pictures; what is in them does not matter to the rate."""
    rng = np.random.default_rng(0)
    several = [rng.integers(30, 226, (7, 7), np.uint8) for _ in range(min(count, 64))]
    large = [cv2.resize(one, (side, side), interpolation=cv2.INTER_CUBIC) for one in several]
    return np.stack([large[number % len(large)] for number in range(count)])


def written(folder: Path, count: int) -> list[str]:
    """PNG files with a little grain, which makes them as large as real ones."""
    rng = np.random.default_rng(1)
    names = [f"{number:06d}.png" for number in range(count)]
    for name, picture in zip(names, drawn(count, SIDE), strict=True):
        grained = np.clip(picture + rng.normal(0, 1.5, picture.shape), 0, 255).astype(np.uint8)
        (folder / name).write_bytes(cv2.imencode(".png", grained)[1].tobytes())
    return names


def sees_gpu() -> bool:
    """Whether the framework does."""
    if NAME == "jax":
        import jax

        return bool(jax.default_backend() == "gpu")
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def device_name() -> str:
    """What the card, or the processor, calls itself."""
    if not sees_gpu():
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a CPU")
    if NAME == "jax":
        import jax

        return str(jax.devices()[0].device_kind)
    import tensorflow as tf

    (gpu, *_) = tf.config.list_physical_devices("GPU")
    return str(tf.config.experimental.get_device_details(gpu).get("device_name", "a GPU"))


if __name__ == "__main__":
    main()
