"""Intake over reading and hashing alone: 10,000 small files registered in SQL, their rings sent to a real queue
server, over a plain loop that reads and hashes the same files. Interleaved in one run; with the producer's memory.

Twice: with the files on disk, as a folder is that somebody copied by day and submits at night (the kernel is told to
forget them before each measurement), and with the files in the kernel's memory, where the loop costs next to nothing
and only our own work is left."""

import hashlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ratio

FILES = int(os.environ.get("BENCH_FILES", "10000"))


def write_files(folder: Path) -> None:
    """FILES grey pictures of about 10 kB, each its own content, 1,000 a folder."""
    import cv2
    import numpy as np

    random = np.random.default_rng(0)
    _, encoded = cv2.imencode(".jpg", random.normal(128, 40, (96, 96)).clip(0, 255).astype(np.uint8))
    for number in range(FILES):
        file = folder / f"{number // 1000:03d}" / f"{number:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded.tobytes() + number.to_bytes(4, "big"))


def forget(folder: Path) -> None:
    """Let the kernel drop the files from its memory."""
    os.sync()
    for file in folder.rglob("*.jpg"):
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_and_hash(folder: Path) -> float:
    """Seconds of the plain loop."""
    started = time.perf_counter()
    for below, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(below, name), "rb") as file:  # noqa: PTH118, PTH123 (the plainest loop)
                hashlib.sha256(file.read()).hexdigest()
    return time.perf_counter() - started


def register(folder: Path, home_folder: Path) -> float:
    """Seconds of `submit` into a new database."""
    from db.settings import Settings
    from db.store.connection import connect
    from deploy import home
    from producer import submission

    db = connect(Settings(home=home_folder))
    home.make_ready(db)
    started = time.perf_counter()
    done = submission.submit(db, folder, site_name="local")
    seconds = time.perf_counter() - started
    if done.added != FILES or not done.rang:
        raise SystemExit(f"not every file was registered and rung for: {done}")
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="nri-") as temporary:
        folder, first = Path(temporary) / "files", Path(temporary) / "q"
        write_files(folder)
        os.environ["NIGHTREAD_HOME"] = str(first)
        first.mkdir(mode=0o700)
        from db.settings import settings
        from deploy import queue_server

        with queue_server.serving(settings()):
            measure(folder, Path(temporary), "files on disk", forget)
            measure(folder, Path(temporary), "files in memory", lambda folder: None)
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"intake: peak memory of the producer {megabytes:.0f} MB")


def measure(folder: Path, temporary: Path, what: str, prepare: Callable[[Path], None]) -> None:
    """Record the median ratio of interleaved measurements."""
    ratios = []
    for number in range(ratio.ROUNDS):
        prepare(folder)
        alone = read_and_hash(folder)
        prepare(folder)
        seconds = register(folder, temporary / f"{what.replace(' ', '-')}{number}")
        ratios.append(alone / seconds)
        print(f"  {what}: intake {seconds:.2f} s, reading and hashing {alone:.2f} s", file=sys.stderr)
    ratio.record(f"Intake over reading and hashing alone: {what}", "", ratios, note=f"{FILES:,} files a round")


if __name__ == "__main__":
    main()
