"""Why a night takes longer than the ideal: what each part of the house took of the cores, what nobody took, and what
the same work takes at once in one process; and the same of each two houses that pairs.py holds against each other.
Printed as tables and, with --write, put into breakdown.md; no goal.

    python tests/bench/breakdown.py --set PJND --precision int8 --pairs two-stage,cache,workers
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import alone
import night
import numpy as np
import pairs
import processes
import ratio
import sets
from house import House, house
from numpy.typing import NDArray
from ratio import CORES, say

from workers.decoder_link import MEMORY_KEPT

FILE = Path(__file__).with_name("breakdown.md")
HEAD = """# Where a night's time goes

Written by a command, never by hand: `{command}`

{machine}. In core-milliseconds a scan (seconds of the night x cores / scans), medians of
each set's nights ({rounds}).

- **The ideal** is the bare engine and preparation (read, hash, decode, crop, resize), each measured alone with every
  core busy. **Together** is the very same work at once, in one process, a thread a core, and nothing around it: what it
  takes beyond the ideal they cost each other in caches and memory, and no system around them would save.
- **The night** is everything, from submission to the last outcome, and its parts below add up to it. The decoders also
  make the review copies of what is flagged. Intake reads and hashes every file once before it is scored; the watch that
  measures is counted with it. **Nobody**: cores that stood idle, at the start and the end of a night most of all.

"""
PAIRS_HEAD = """
Two houses in turn over the same new files of P ({rounds} rounds). **The engine alone** is what it says above: of one
core's workers, each in a process of its own on its core, at once; of two stages, the second one over what it looks at.

"""
# By what its command line says; what is left is this process: intake, and the look at the ledger.
PARTS = {"decoders": "workers.decoder", "worker": "billiard.spawn", "queue server": "valkey-server", "sweep": "sweep"}
INTAKE = "intake, and the watch"


def part_of(pid: int) -> str:
    """Which part of the house a process is."""
    command = processes.command(pid)
    return next((part for part, said in PARTS.items() if said in command), INTAKE)


def taken() -> Counter[str]:
    """Core-seconds so far, by part; a worker's children that ended were decoders, which are replaced now and then."""
    found: Counter[str] = Counter()
    for pid, (own, ended) in processes.times_below().items():
        part = part_of(pid)
        found[part] += own / processes.TICKS
        found["decoders" if part == "worker" else part] += ended / processes.TICKS
    return found


def together(scorer: Any, files: list[Path], again: NDArray[np.bool_]) -> float:
    """Core-seconds an image of preparation and engine at once, some files after others as a worker takes them; the
    second of two stages over those that it looks at."""

    def both(start: int) -> None:
        part = slice(start, start + alone.AT_ONCE)
        alone.engines_over(scorer, alone.pixels_of(files[part]), again[part])

    started = time.perf_counter()
    with ThreadPoolExecutor(CORES) as threads:
        list(threads.map(both, range(0, len(files), alone.AT_ONCE)))
    return (time.perf_counter() - started) * CORES / len(files)


def one_round(at: House, folder: Path, scorer: Any) -> dict[str, float]:
    """Core-seconds a scan of one new folder, by row of the table."""
    files = sorted(folder.iterdir())
    some = files[: night.SAMPLED]
    pixels = alone.pixels_of(some)
    again = alone.looked_at_again(scorer, pixels, sets.THRESHOLD)
    bare = alone.Bare(scorer, pixels[:480], sets.THRESHOLD)
    engine, both = [bare.core_seconds()], [together(scorer, some, again)]
    loop = alone.loop_seconds(some, ())
    parts = night_parts(at, folder)
    engine.append(bare.core_seconds())
    both.append(together(scorer, some, again))
    inference = statistics.mean(engine)
    return {
        "the engine alone": inference,
        "preparation alone": loop,
        "**the ideal**": inference + loop,
        "**together**": statistics.mean(both),
        **parts,
    }


def night_parts(at: House, folder: Path) -> dict[str, float]:
    """Core-seconds a scan of the night of a folder, and of each part of the house in it."""
    before = taken()
    found = at.night(folder)
    used = taken() - before
    whole = found.seconds * CORES / found.scored
    parts = {part: used[part] / found.scored for part in ("worker", "decoders", INTAKE, "sweep", "queue server")}
    return {"**the night**": whole, **parts, "nobody": whole - sum(parts.values())}


def measure(name: str, precision: str, count: int, rounds: int) -> dict[str, float]:
    """The medians of some rounds of one set, in milliseconds, and the two ratios; `count` files a round, 0 for what
    sets.py says."""
    scorer = alone.scorer_at(precision)
    found: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="nrd-") as temporary,
        house(Path(temporary) / "h", precision=precision) as at,
    ):
        for number in range(-1, rounds):
            folder = Path(temporary) / f"round{number}"
            sets.write_set(name, folder, (count or sets.scaled(name)) if number >= 0 else 64, seed=number + 1)
            if number < 0:
                at.night(folder)
            else:
                found.append(one_round(at, folder, scorer))
                say(f"  {name}: " + ", ".join(f"{what} {value * 1e3:.2f}" for what, value in found[-1].items()))
            shutil.rmtree(folder)
    middle = medians(found)
    return middle | {
        "ideal / night": middle["**the ideal**"] / middle["**the night**"],
        "ideal / together": middle["**the ideal**"] / middle["**together**"],
    }


def medians(found: list[dict[str, float]]) -> dict[str, float]:
    """Of each row over all rounds, in milliseconds."""
    return {what: statistics.median(one[what] for one in found) * 1e3 for what in found[0]}


def measure_pair(what: str, precision: str, rounds: int) -> dict[str, dict[str, float]]:
    """A column for each of two houses."""
    found: tuple[list[dict[str, float]], ...] = ([], [])
    with pairs.pair(what, precision) as (folder, houses):
        for scans in pairs.rounds_of("P", folder, houses, rounds, sets.scaled("P")):
            pixels = alone.pixels_of(sorted(scans.iterdir())[:480])
            for number, at in enumerate(houses):
                engine = engine_alone(what, number, precision, pixels)
                before, parts = engine(), night_parts(at, scans)
                found[number].append({"the engine alone": (before + engine()) / 2, **parts})
    columns = dict(zip(pairs.NAMES[what], map(medians, found), strict=True))
    for title, one in columns.items():
        say(f"  {title}: " + ", ".join(f"{row} {value:.2f}" for row, value in one.items()))
    return columns


def engine_alone(what: str, number: int, precision: str, pixels: NDArray[np.uint8]) -> Callable[[], float]:
    """Measures core-seconds an image of the engine as the first or second house of a pair runs it."""
    if what == "workers":
        return lambda: alone.pinned_seconds(number + 1, precision, pixels)
    runs = ("two_stage", "int8")[number] if what == "two-stage" else precision
    return alone.Bare(alone.scorer_at(runs), pixels, sets.THRESHOLD).core_seconds


def table(columns: dict[str, dict[str, float]]) -> str:
    """Markdown, a column a set."""
    lines = [["", *columns], ["---", *["---:"] * len(columns)]]
    for what in next(iter(columns.values())):
        lines.append([what, *(f"{one[what]:.3f}" if "/" in what else f"{one[what]:.2f}" for one in columns.values())])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", default="PJND", help="letters of sets: PJNDK")
    parser.add_argument("--precision", default="int8", help="several by commas")
    parser.add_argument("--pairs", default="", help="of pairs.py, by commas: " + ", ".join(pairs.NAMES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if not MEMORY_KEPT.items() <= os.environ.items():  # as the decoders; read when a process starts
        return subprocess.call([sys.executable, *sys.argv], env=os.environ | MEMORY_KEPT)
    text = HEAD.format(command=ratio.command(), machine=ratio.machine(), rounds=given.rounds)
    text += "\n".join(
        table({f"{name}, {precision}": measure(name, precision, given.count, given.rounds) for name in given.set})
        for precision in given.precision.split(",")
    )
    if given.pairs:
        columns: dict[str, dict[str, float]] = {}
        for what in given.pairs.split(","):
            columns |= measure_pair(what, "int8", given.rounds)
        text += PAIRS_HEAD.format(rounds=given.rounds) + table(columns)
    print(text)
    if given.write:
        FILE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
