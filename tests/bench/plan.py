"""Is the plan honest? What `nightread plan` says of a folder over what a night of the same folder then gives: scans a
second of this machine, predicted / real. `python tests/bench/plan.py [--set PJND] [--count N] [--seconds S]`.

Above 1 the plan promised too much; its margin (a fifth) is there for that."""

import argparse
import statistics
import tempfile
from pathlib import Path

from house import House, house
from ratio import ROUNDS, record, say
from sets import scaled, write_set

from deploy.plan import command
from deploy.plan.capacity import MARGIN

HOURS = 8


def predicted(running: House, folder: Path, seconds: float) -> float:
    """Scans a second that a plan gives this machine; its worker has nothing to do meanwhile."""
    night = command.tonight_of(running.db)
    made = command.make(night, scans=None, seconds=HOURS * 3600.0, folder=folder, measuring=seconds)
    measured = made.measured
    say(f"  plan: {measured.machine:.1f}/s, {measured.efficiency:.2f} of ideal, {measured.binds} binds")
    return measured.machine


def compare(name: str, count: int, seconds: float) -> None:
    """The ratio over some rounds, each with a folder of its own."""
    ratios: list[float] = []
    with tempfile.TemporaryDirectory(prefix="nrb-") as place:
        folders = [Path(place) / f"{name}{number}" for number in range(ROUNDS + 1)]
        for seed, folder in enumerate(folders):
            write_set(name, folder, count, seed)
        with house(Path(place) / "h", precision="auto") as running:
            running.night(folders[0])  # the worker loads its model during this one
            for folder in folders[1:]:
                rate = predicted(running, folder, seconds)
                real = running.night(folder).scoring_rate
                say(f"  night: {real:.1f}/s, so predicted over real {rate / real:.3f}")
                ratios.append(rate / real)
    note = f"{count} files; above {1 + MARGIN:.1f} the margin would not save it; median {statistics.median(ratios):.2f}"
    record(f"plan: predicted over real, {name}", f"<= {1 + MARGIN:.1f}", ratios, note=note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="PJ", help="letters of sets.py")
    parser.add_argument("--count", type=int, default=0, help="files of a round")
    parser.add_argument("--seconds", type=float, default=20.0, help="for which a plan measures")
    asked = parser.parse_args()
    for name in asked.set:
        compare(name, asked.count or scaled(name, 0.5), asked.seconds)


if __name__ == "__main__":
    main()
