"""Why a night takes longer than the ideal: what each part of the house took of the cores, what nobody took, and what
the same work takes at once in one process. Tables, printed; no goal.

    python tests/bench/breakdown.py --set PJ --precision int8

All in core-milliseconds a scan. `together` is the ideal's own work, preparation and engine, in one process with a
thread a core, nothing else: what it takes beyond the two alone they cost each other (caches, memory), and no system
around them would save.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import alone
import night
import processes
import sets
from house import House, house
from ratio import CORES, machine, say

from workers.decoder_link import MEMORY_KEPT

# By what its command line says. Intake, and the look at the ledger, are this process.
PARTS = {
    "decoders": "workers.decoder",
    "worker": "billiard.spawn",
    "queue server": "valkey-server",
    "sweep": "producer sweep",
}


def part_of(pid: int) -> str:
    """Which part of the house a process is."""
    command = processes.command(pid)
    return next((part for part, said in PARTS.items() if said in command), "submission and others")


def taken() -> Counter[str]:
    """Core-seconds so far, by part."""
    found: Counter[str] = Counter()
    for pid, ticks in processes.ticks_below().items():
        found[part_of(pid)] += ticks / processes.TICKS
    return found


def together(scorer: object, files: list[Path]) -> float:
    """Core-seconds an image of preparation and engine at once."""

    def both(file: Path) -> None:
        alone.run(scorer, alone.prepared(file)[None])  # type: ignore[arg-type]

    started = time.perf_counter()
    with ThreadPoolExecutor(CORES) as threads:
        list(threads.map(both, files))
    return (time.perf_counter() - started) * CORES / len(files)


def one_round(at: House, name: str, precision: str, folder: Path, scorer: object) -> None:
    """Print the table of one new folder."""
    files = sorted(folder.iterdir())
    some = files[: night.SAMPLED]
    bare = alone.Bare(scorer, alone.pixels_of(some[:480]), sets.THRESHOLD)
    before = [bare.core_seconds(), together(scorer, some)]
    loop = alone.loop_seconds(some, ())
    used = taken()
    found = at.night(folder)
    used = taken() - used
    after = [bare.core_seconds(), together(scorer, some)]
    count = len(files)
    whole = found.seconds * CORES / count
    rows = {
        "the engine alone": (before[0] + after[0]) / 2,
        "preparation alone": loop,
        "the ideal": (before[0] + after[0]) / 2 + loop,
        "together": (before[1] + after[1]) / 2,
        "the night": whole,
        **{f"  {part}": seconds / count for part, seconds in used.most_common()},
        "  nobody": whole - used.total() / count,
        "  of it before the first claim": found.first_claim * CORES / count,
    }
    print(f"\n{name} at {precision}: {count} scans, {found.flagged} flagged, {found.second_looks} looked at twice")
    for what, seconds in rows.items():
        print(f"{what:34}{seconds * 1e3:8.2f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", default="P", help="letters of sets: PJNDK")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--count", type=int, default=0)
    given = parser.parse_args()
    if not MEMORY_KEPT.items() <= os.environ.items():  # as the decoders; read when a process starts
        return subprocess.call([sys.executable, *sys.argv], env=os.environ | MEMORY_KEPT)
    print(machine())
    with tempfile.TemporaryDirectory(prefix="nrd-") as temporary:
        scorer = night.scorer_at(given.precision)
        with house(Path(temporary) / "h", precision=given.precision) as at:
            for name in given.set:
                for number in range(-1, given.rounds):
                    folder = Path(temporary) / f"{name}{number}"
                    count = given.count or sets.scaled(name)
                    sets.write_set(name, folder, count if number >= 0 else 64, seed=number + 1)
                    if number < 0:
                        at.night(folder)
                    else:
                        one_round(at, name, given.precision, folder, scorer)
                    shutil.rmtree(folder)
                    say(f"  {name}: round {number + 1} of {given.rounds}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
