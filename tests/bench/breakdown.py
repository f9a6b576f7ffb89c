"""Why a night takes longer than the ideal: what each part of the house took of the cores, what nobody took, and what
the same work takes at once in one process. Printed as a table and, with --write, put into breakdown.md; no goal.

    python tests/bench/breakdown.py --set PJND --precision int8
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import alone
import night
import processes
import ratio
import sets
from house import House, house
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
# By what its command line says; what is left is this process: intake, and the look at the ledger.
PARTS = {"decoders": "workers.decoder", "worker": "billiard.spawn", "queue server": "valkey-server", "sweep": "sweep"}
INTAKE = "intake, and the watch"


def part_of(pid: int) -> str:
    """Which part of the house a process is."""
    command = processes.command(pid)
    return next((part for part, said in PARTS.items() if said in command), INTAKE)


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


def one_round(at: House, folder: Path, scorer: object) -> dict[str, float]:
    """Core-seconds a scan of one new folder, by row of the table."""
    files = sorted(folder.iterdir())
    some = files[: night.SAMPLED]
    bare = alone.Bare(scorer, alone.pixels_of(some[:480]), sets.THRESHOLD)
    engine, both = [bare.core_seconds()], [together(scorer, some)]
    loop = alone.loop_seconds(some, ())
    used = taken()
    found = at.night(folder)
    used = taken() - used
    engine.append(bare.core_seconds())
    both.append(together(scorer, some))
    whole = found.seconds * CORES / len(files)
    parts = {part: used[part] / len(files) for part in ("worker", "decoders", INTAKE, "sweep", "queue server")}
    inference = statistics.mean(engine)
    return {
        "the engine alone": inference,
        "preparation alone": loop,
        "**the ideal**": inference + loop,
        "**together**": statistics.mean(both),
        "**the night**": whole,
        **parts,
        "nobody": whole - sum(parts.values()),
    }


def measure(name: str, precision: str, count: int, rounds: int) -> dict[str, float]:
    """The medians of some rounds of one set, in milliseconds; and the two ratios."""
    scorer = night.scorer_at(precision)
    found: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="nrd-") as temporary,
        house(Path(temporary) / "h", precision=precision) as at,
    ):
        for number in range(-1, rounds):
            folder = Path(temporary) / f"round{number}"
            sets.write_set(name, folder, count if number >= 0 else 64, seed=number + 1)
            if number < 0:
                at.night(folder)
            else:
                found.append(one_round(at, folder, scorer))
                say(f"  {name}: " + ", ".join(f"{what} {value * 1e3:.2f}" for what, value in found[-1].items()))
            shutil.rmtree(folder)
    middle = {what: statistics.median(one[what] for one in found) * 1e3 for what in found[0]}
    return middle | {
        "ideal / night": middle["**the ideal**"] / middle["**the night**"],
        "ideal / together": middle["**the ideal**"] / middle["**together**"],
    }


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if not MEMORY_KEPT.items() <= os.environ.items():  # as the decoders; read when a process starts
        return subprocess.call([sys.executable, *sys.argv], env=os.environ | MEMORY_KEPT)
    pairs = [(name, precision) for precision in given.precision.split(",") for name in given.set]
    columns = {
        f"{name}, {precision}": measure(name, precision, given.count or sets.scaled(name), given.rounds)
        for name, precision in pairs
    }
    print(table(columns))
    if given.write:
        head = HEAD.format(command=ratio.command(), machine=ratio.machine(), rounds=given.rounds)
        FILE.write_text(head + table(columns), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
