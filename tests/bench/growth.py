"""What grows with the size of a batch, at 20,000 scans over 1,000, in one house: core-seconds a scan and peak memory of
the worker with its decoders, and the time from submission to the first outcome. Set P.

    python tests/bench/growth.py --precision int8 --rounds 3
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import processes
import ratio
import sets
from house import House, Night, house
from ratio import say
from versus import commands

LARGE = int(20_000 * float(os.environ.get("BENCH_SIZE", "1")))
SMALL = LARGE // 20


class Used(NamedTuple):
    """What one night took."""

    night: Night
    core_seconds: float  # a scan
    memory: int  # bytes
    commands: float  # that the queue server was sent, a scan


def used(at: House, folder: Path, count: int, seed: int) -> Used:
    """A night over `count` new files."""
    sets.write_set("P", folder, count, seed)
    os.sync()
    worker = processes.named("producer", "worker")
    before, sent = processes.core_seconds(worker), commands(str(at.db.config.queue_socket))
    with processes.Memory(worker) as memory:
        night = at.night(folder)
    sent = commands(str(at.db.config.queue_socket)) - sent
    found = Used(night, (processes.core_seconds(worker) - before) / count, memory.peak, sent / count)
    say(
        f"  {count} scans: {night.rate:.1f}/s, {found.core_seconds * 1e3:.2f} core-ms a scan, "
        f"{memory.peak / 2**20:.0f} MiB, first outcome after {night.first_outcome:.2f} s, "
        f"{found.commands:.3f} queue commands a scan"
    )
    shutil.rmtree(folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    pairs: list[tuple[Used, Used]] = []
    with (
        tempfile.TemporaryDirectory(prefix="nrg-") as temporary,
        house(Path(temporary) / "h", precision=given.precision) as at,
    ):
        used(at, Path(temporary) / "warm", 256, 99)
        for number in range(given.rounds):
            # The large one between two small ones: what drifts with time is seen on both sides.
            small = used(at, Path(temporary) / "small", SMALL, 3 * number)
            large = used(at, Path(temporary) / "large", LARGE, 3 * number + 1)
            again = used(at, Path(temporary) / "again", SMALL, 3 * number + 2)
            pairs += [(small, large), (again, large)]
    told = f"{LARGE:,} over {SMALL:,} scans, P at {given.precision}"
    _, large = pairs[0]
    for what, goal, figures in (
        ("Core-seconds a scan", "<= 1.05", [(one.core_seconds, other.core_seconds) for one, other in pairs]),
        ("Peak memory", "<= 1.10", [(one.memory, other.memory) for one, other in pairs]),
        ("Time to the first outcome", "<= 1.2", [(a.night.first_outcome, b.night.first_outcome) for a, b in pairs]),
    ):
        ratio.record(f"{what}: {told}", goal, [other / one for one, other in figures], note=seen(large))


def seen(used: Used) -> str:
    """A night's figures for the table."""
    return (
        f"{used.night.rate:.1f} scans/s, {used.core_seconds * 1e3:.1f} core-ms, {used.memory / 2**20:.0f} MiB, "
        f"first outcome after {used.night.first_outcome:.2f} s, {used.commands:.3f} queue commands a scan"
    )


if __name__ == "__main__":
    main()
