"""What a decoder costs per image: `python tests/bench/decoding.py FOLDER [COUNT]`.

Prints milliseconds of processor time an image (so that a busy machine does not matter much) for the same files: in
this process, step by step; what a flagged scan costs besides, its review copy, by ISA-L as we do and by OpenCV; then
through a pool of one decoder, both sides of the pipes together.
"""

import hashlib
import resource
import sys
import time
from pathlib import Path

import cv2

from workers.decoding import DecoderPool, Source
from workers.images import Limits, as_png, read, review, to_grey8
from workers.preprocessing import prepare

SIZE = 224


def here(files: list[Path]) -> None:
    """Each step in this process."""
    steps = dict.fromkeys(["read and hash", "decode", "prepare"], 0.0)
    for path in files:
        times = [time.process_time()]
        data = path.read_bytes()
        hashlib.sha256(data).hexdigest()
        times.append(time.process_time())
        grey = to_grey8(read(data, Limits()))
        times.append(time.process_time())
        prepare(grey, SIZE)
        times.append(time.process_time())
        for step, before, after in zip(steps, times, times[1:], strict=False):
            steps[step] += after - before
    for step, seconds in {**steps, "together": sum(steps.values())}.items():
        print(f"{step:>18} {seconds / len(files) * 1e3:7.3f} ms")


def copies(files: list[Path]) -> None:
    """A review copy of each, encoded in both ways."""
    ours = theirs = 0.0
    sizes = [0, 0]
    for path in files:
        image = review(path.read_bytes(), Limits())
        started = time.process_time()
        sizes[0] += len(as_png(image))
        encoded = time.process_time()
        sizes[1] += len(cv2.imencode(".png", image.samples)[1])
        ours, theirs = ours + encoded - started, theirs + time.process_time() - encoded
    for name, seconds, size in (("review copy", ours, sizes[0]), ("by OpenCV", theirs, sizes[1])):
        print(f"{name:>18} {seconds / len(files) * 1e3:7.3f} ms, {size / len(files) / 1e3:,.0f} kB")


def through_the_pool(sources: list[Source]) -> tuple[float, float]:
    """Processor and wall-clock seconds, starting the decoder included in the first."""
    before = processor()
    with DecoderPool(1, Limits(), memory_bytes=2_000_000_000, seconds=30) as pool:
        pool.prepare(sources[0], SIZE)
        started = time.perf_counter()
        for source in sources[1:]:
            pool.prepare(source, SIZE)
        wall = time.perf_counter() - started
    return processor() - before, wall


def processor() -> float:
    """Seconds of this process and of those it has seen end."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(folder: Path, count: int) -> None:
    cv2.setNumThreads(1)
    files = sorted(path for path in folder.rglob("*") if path.is_file())[:count]
    here(files)
    copies(files)
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    sources = [Source(str(folder), str(path.relative_to(folder)), h) for path, h in zip(files, hashes, strict=True)]
    start_up, _ = through_the_pool(sources[:1])
    all_of_it, wall = through_the_pool(sources)
    print(f"{'through the pool':>18} {(all_of_it - start_up) / (len(files) - 1) * 1e3:7.3f} ms")
    print(f"{len(files)} files, one decoder, wall clock: {(len(files) - 1) / wall:,.0f} images/s")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
