"""Whole system over bare engine: images a second from submission to the last outcome, through queue, worker, decoder
processes and ledger, over the frozen TensorFlow graph alone at the same batch size. Interleaved in one run.

Images: 224-pixel JPEGs, real ones from NIGHTREAD_TEST_DATA where it is set, else the shipped samples with noise.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pictures import pictures, write
from sqlalchemy import func, select

from db.schema import Chunk
from db.settings import Settings
from db.store import reading
from db.store.connection import Database, connect
from deploy import home, local
from deploy.supervisor import Supervisor
from producer import submission
from workers import engines, preprocessing, trained_models
from workers.scoring import Scorer

IMAGES = int(os.environ.get("BENCH_IMAGES", "640"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))


def write_folder(folder: Path, seed: int) -> None:
    """IMAGES files that no earlier folder held: one grey level of noise makes each new to the site."""
    folder.mkdir()
    noise = np.random.default_rng(seed)
    several = pictures(IMAGES)
    for number in range(IMAGES):
        write(folder / f"{number:05d}.jpg", several[number % len(several)], noise)


def system_rate(db: Database, folder: Path) -> float:
    """Images a second from the first file looked at to the last outcome."""
    started = time.perf_counter()
    batch = submission.submit(db, folder, site_name="local").batch_id
    while not is_done(db):
        time.sleep(0.1)
    seconds = time.perf_counter() - started
    totals = reading.totals(db, batch)
    if totals.failed or totals.found != IMAGES:
        raise SystemExit(f"not every image was accounted for: {totals}")
    print(f"    {totals.scored} scored, {totals.flagged} flagged, {totals.rejected} rejected", file=sys.stderr)
    return IMAGES / seconds


def is_done(db: Database) -> bool:
    """Whether no chunk is left: asked through an index, so that asking takes nothing from the workers."""
    with db.reading() as session:
        return session.scalar(select(func.count()).where(Chunk.completed_at.is_(None))) == 0


def bare_rate(scorer: Scorer, pixels: NDArray[np.uint8]) -> float:
    """Images a second of the bare engine over pixels that lie ready."""
    engine = engines.of(scorer.engine)
    size = scorer.engine.batch_size
    started = time.perf_counter()
    for start in range(0, len(pixels), size):
        engine.predict(scorer.engine, pixels[start : start + size])
    return len(pixels) / (time.perf_counter() - started)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="nrb-") as folder:
        config = Settings(home=Path(folder) / "h")
        os.environ |= {"NIGHTREAD_HOME": str(config.home), "NIGHTREAD_PRECISION": "float32"}
        db = connect(config)
        home.make_ready(db)
        folders = [Path(folder) / f"images{number}" for number in range(ROUNDS + 1)]
        for seed, scans in enumerate(folders):
            write_folder(scans, seed)
        pixels = np.stack([preprocessing.prepare(picture, 224)[0] for picture in pictures(IMAGES)])
        pixels = np.resize(pixels, (IMAGES, 224, 224))
        threads = len(os.sched_getaffinity(0))
        scorer = Scorer.load(trained_models.SHIPPED, batch_size=config.engine_batch, threads=threads)
        bare_rate(scorer, pixels[:64])
        with local.only_one(config) as lock:
            supervisor = Supervisor(config.home / "logs", lock or 0, lambda text: print(text, file=sys.stderr))
            supervisor.start([*local.queue_parts(config), *local.scoring_parts(config)])
            try:
                measure(db, scorer, pixels, folders)
            finally:
                supervisor.stop()


def measure(db: Database, scorer: Scorer, pixels: NDArray[np.uint8], folders: list[Path]) -> None:
    system_rate(db, folders[0])  # the worker loads its model during this one
    ratios, pairs = [], []
    for scans in folders[1:]:
        before = bare_rate(scorer, pixels)
        whole = system_rate(db, scans)
        bare = statistics.mean((before, bare_rate(scorer, pixels)))
        ratios.append(whole / bare)
        pairs.append((whole, bare))
        print(f"  system {whole:.1f}/s, bare {bare:.1f}/s, ratio {whole / bare:.3f}", file=sys.stderr)
    print(
        f"night: {IMAGES} images x {ROUNDS} rounds, batch {scorer.engine.batch_size}, "
        f"{scorer.describe()['engine']} float32, "
        f"{len(os.sched_getaffinity(0))} cores: whole system over bare frozen graph "
        f"{statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
