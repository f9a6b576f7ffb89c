"""Intake over reading and hashing alone: 10,000 small files registered in SQL, their rings sent to a real queue
server, over a plain loop that reads and hashes the same files. Interleaved in one run; with the producer's memory."""

import hashlib
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

FILES = int(os.environ.get("BENCH_FILES", "10000"))
ROUNDS = 3


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

        ratios = []
        with queue_server.serving(settings()):
            for number in range(ROUNDS):
                before = read_and_hash(folder)
                seconds = register(folder, Path(temporary) / f"h{number}")
                alone = statistics.mean((before, read_and_hash(folder)))
                ratios.append(alone / seconds)
                print(f"  intake {seconds:.2f} s, reading and hashing {alone:.2f} s", file=sys.stderr)
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"intake: {FILES} files x {ROUNDS} rounds: rate over reading and hashing alone "
            f"{statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f}); "
            f"producer's peak memory {megabytes:.0f} MB"
        )


if __name__ == "__main__":
    main()
