"""What the ideal is made of, each measured with nothing else running: the bare engine, and preparation alone."""

import hashlib
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from ratio import CORES
from sets import THRESHOLD

from workers import engines, images, parity, reduced, trained_models
from workers.decoder_link import MEMORY_KEPT
from workers.decoding import DecoderPool, Prepared, Source
from workers.images import NotReduced
from workers.preprocessing import DEFAULT_BORDER, prepare
from workers.scoring import Scorer

SIZE = 224
AT_ONCE = 8  # files in one order to a decoder, as the worker asks


def scorer_at(precision: str, batch_size: int = 16, threads: int = CORES) -> Any:
    """The shipped model in this process. At int8 alone, which its report refuses, the first of its two stages."""
    asked = "two_stage" if precision == "int8" else precision
    loaded = Scorer.load(
        trained_models.SHIPPED,
        batch_size=batch_size,
        threads=threads,
        device="cpu",
        engine=engines.AUTO,
        precision=asked,
    )
    return loaded.first if precision == "int8" else loaded


class Bare:
    """The engine of a loaded scorer over pixels that lie ready, N x S x S; of two stages, the second over those that
    it would look at."""

    def __init__(self, scorer: Any, pixels: NDArray[np.uint8], threshold: float) -> None:
        self._scorer, self._pixels = scorer, pixels
        self._again = looked_at_again(scorer, pixels, threshold)

    def core_seconds(self) -> float:
        """Core-seconds an image with every core busy."""
        started = time.perf_counter()
        engines_over(self._scorer, self._pixels, self._again)
        return (time.perf_counter() - started) * CORES / len(self._pixels)


def looked_at_again(scorer: Any, pixels: NDArray[np.uint8], threshold: float) -> NDArray[np.bool_]:
    """Which of N x S x S the second of two stages would look at; none where there is one."""
    if not hasattr(scorer, "first"):
        return np.zeros(len(pixels), np.bool_)
    return np.array([one.first_score is not None for one in scorer.predict(pixels, threshold=threshold)])


def engines_over(scorer: Any, pixels: NDArray[np.uint8], again: NDArray[np.bool_]) -> None:
    """The bare engine over N x S x S; of two stages the first, then the second over those looked at again."""
    if not hasattr(scorer, "first"):
        run(scorer, pixels)
        return
    run(scorer.first, pixels)
    run(scorer.second, pixels[again])


def ideal(scorer: Any, files: list[Path], reduce: tuple[str, ...] = ()) -> float:
    """Images a second that cores / (inference + preparation) make, both measured alone on some of these files."""
    some = files[:480]
    bare = Bare(scorer, pixels_of(some), THRESHOLD)
    return CORES / (bare.core_seconds() + loop_seconds(some, reduce))


def run(scorer: Scorer, pixels: NDArray[np.uint8]) -> None:
    """The bare engine over N x S x S, without what a score is made of afterwards."""
    engine, size = engines.of(scorer.engine), scorer.engine.batch_size
    for start in range(0, len(pixels), size):
        engine.predict(scorer.engine, pixels[start : start + size])


def codecs(decode: str) -> tuple[str, ...]:
    """Which codecs the shipped model is given at a reduced size under the setting DECODE."""
    model = trained_models.load_folder(trained_models.SHIPPED)
    return parity.reductions(parity.read(trained_models.SHIPPED, model), decode)


def pixels_of(files: list[Path]) -> NDArray[np.uint8]:
    """Files prepared as the shipped model wants them, decoded whole."""
    return np.stack([prepared(file) for file in files])


def prepared(file: Path, reduce: tuple[str, ...] = ()) -> NDArray[np.uint8]:
    """Read, hash, decode and prepare one file; what these codecs compressed at a reduced size where that will do."""
    data = file.read_bytes()
    hashlib.sha256(data).hexdigest()
    with suppress(NotReduced):
        if reduce:
            return reduced.prepare(data, images.Limits(), SIZE, reduce, DEFAULT_BORDER, "exact")[1]
    return prepare(images.to_grey8(images.read(data, images.Limits())), SIZE)[0]


def loop_seconds(files: list[Path], reduce: tuple[str, ...]) -> float:
    """Core-seconds an image of reading, hashing, decoding and preparing in a plain loop with every core busy: a process
    a core, with the decoders' settings for memory."""
    os.environ.update(MEMORY_KEPT)
    with get_context(
        "spawn"
    ).Manager() as manager:  # of spawned processes: a fork of one in which an engine runs would hang
        together = manager.Barrier(CORES)
        with ProcessPoolExecutor(CORES, get_context("spawn")) as several:
            parts = [(files[first::CORES], reduce, together) for first in range(CORES)]
            return sum(several.map(_loop, *zip(*parts, strict=True))) / len(files)


def _loop(files: list[Path], reduce: tuple[str, ...], together: Any) -> float:
    cv2.setNumThreads(1)
    for file in files[:2]:
        prepared(file, reduce)
    together.wait()
    started = time.perf_counter()
    for file in files:
        prepared(file, reduce)
    return time.perf_counter() - started


def pinned_seconds(workers: int, precision: str, pixels: NDArray[np.uint8]) -> float:
    """Core-seconds an image of the bare engine in so many processes at once, a thread and a core for each, over N x S x
    S each."""
    with get_context("spawn").Manager() as manager:
        together = manager.Barrier(workers)
        with ProcessPoolExecutor(workers, get_context("spawn")) as several:
            asked = [(core, precision, pixels, together) for core in range(workers)]
            return sum(several.map(_pinned, *zip(*asked, strict=True))) / workers / len(pixels)


def _pinned(core: int, precision: str, pixels: NDArray[np.uint8], together: Any) -> float:
    os.sched_setaffinity(0, {core})
    scorer = scorer_at(precision, threads=1)
    run(scorer, pixels[:16])
    together.wait()
    started = time.perf_counter()
    run(scorer, pixels)
    return time.perf_counter() - started


def pool_seconds(files: list[Path], hashes: list[str], reduce: tuple[str, ...]) -> float:
    """Core-seconds an image of the same through one decoder process a core, nothing else running."""
    sources = [Source(str(file.parent), file.name, known) for file, known in zip(files, hashes, strict=True)]
    parts = [sources[start : start + AT_ONCE] for start in range(0, len(sources), AT_ONCE)]
    with (
        DecoderPool(CORES, images.Limits(), memory_bytes=1_300_000_000, seconds=30) as pool,
        ThreadPoolExecutor(CORES) as threads,
    ):

        def ask(part: list[Source]) -> int:
            return sum(isinstance(one, Prepared) for one in pool.prepare_many(part, SIZE, reduce=reduce))

        list(threads.map(ask, [[one] for one in sources[: 4 * CORES]]))  # start them
        started = time.perf_counter()
        done = sum(threads.map(ask, parts))
        seconds = time.perf_counter() - started
    if done != len(files):
        raise SystemExit(f"the decoders prepared {done} of {len(files)} files")
    return seconds * CORES / len(files)
