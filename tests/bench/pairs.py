"""Two houses side by side in one run, in turn over the same new files, the other one idle meanwhile.

python tests/bench/pairs.py two-stage   two stages over int8 alone, and whether float32 gives every flag
python tests/bench/pairs.py cache       scoring anew from the prepared cache over the bare engine
python tests/bench/pairs.py workers     two workers of one core each over one
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import alone
import numpy as np
import ratio
import sets
from house import House, house, settings_of
from ratio import CORES, say
from sqlalchemy import func, select

from db.schema import Outcome, Scan
from deploy import local
from deploy.supervisor import Part

NAMES = {
    "two-stage": ("two stages", "int8 alone"),
    "cache": ("filling the cache", "from the cache"),
    "workers": ("one one-core worker", "two one-core workers"),
}


def two_stage(rounds: int) -> None:
    """Rate of two stages over that of int8 alone; and how many flags float32 would not give."""
    exact = alone.scorer_at("float32")
    unfounded: list[float] = []
    flags = 0
    with pair("two-stage", "int8") as (folder, houses):
        ratios, notes = [], []
        for scans in rounds_of("P", folder, houses, rounds, sets.scaled("P")):
            nights = [at.night(scans) for at in houses]
            ratios.append(nights[0].rate / nights[1].rate)
            notes.append(nights[0].second_looks / nights[0].scored)
            flagged = flagged_in(houses[0], scans)
            flags += len(flagged)
            scores = [one.score for one in exact.predict(alone.pixels_of(flagged))] if flagged else []  # type: ignore[attr-defined]
            unfounded.append(float(sum(score < sets.THRESHOLD for score in scores)))
            rates = f"two stages {nights[0].rate:.1f}/s, int8 {nights[1].rate:.1f}/s"
            say(f"  {rates}, ratio {ratios[-1]:.3f}; {len(flagged)} flags")
    note = f"{statistics.median(notes):.1%} looked at twice, {sets.FLAGGED:.0%} flagged"
    ratio.record("P: two stages over int8 alone, whole system", ">= 0.78", ratios, note=note)
    ratio.record(
        "P: flags of two stages that float32 does not give", "0", unfounded, note=f"{flags} flags in all rounds"
    )


def cache(name: str, rounds: int, precision: str) -> None:
    """Rate of scoring anew from a cache that another house filled, over the bare engine and over that house's."""
    scorer = alone.scorer_at(precision)
    over_engine, over_first, rates = [], [], []
    with pair("cache", precision) as (folder, (first, again)):
        for scans in rounds_of(name, folder, [first, again], rounds, sets.scaled(name)):
            pixels = alone.pixels_of(sorted(scans.iterdir())[:480])
            bare = alone.Bare(scorer, np.resize(pixels, (480, *pixels.shape[1:])), sets.THRESHOLD)
            filling, before = first.night(scans), bare.core_seconds()
            night = again.night(scans)
            engine = 2 * CORES / (before + bare.core_seconds())
            over_engine.append(night.rate / engine)
            over_first.append(night.rate / filling.rate)
            rates.append(night.rate)
            say(f"  {name}: from the cache {night.rate:.1f}/s, engine {engine:.1f}/s, filling it {filling.rate:.1f}/s")
    note = f"{statistics.median(rates):.1f} scans/s"
    ratio.record(
        f"{name} at {precision}: from the prepared cache over the bare engine", ">= 0.95", over_engine, note=note
    )
    ratio.record(f"{name} at {precision}: from the prepared cache over filling it", "", over_first, note=note)


def flagged_in(at: House, folder: Path) -> list[Path]:
    """The files of the newest batch that were flagged; it is this folder."""
    newest = select(func.max(Scan.batch_id)).scalar_subquery()
    wanted = select(Scan.path).join(Outcome, Outcome.scan_id == Scan.id).where(Outcome.flagged, Scan.batch_id == newest)
    with at.db.reading() as session:
        return [folder / path for path in session.scalars(wanted)]


def workers(rounds: int, precision: str) -> None:
    """Rate of two workers, each pinned to a core, over one."""
    if CORES < 2:
        raise SystemExit("two workers of one core each want two cores")
    with pair("workers", precision) as (folder, houses):
        ratios, rates = [], []
        for scans in rounds_of("P", folder, houses, rounds, sets.scaled("P", 0.75)):
            one, two = (at.night(scans) for at in houses)
            ratios.append(two.rate / one.rate)
            rates.append(two.rate)
            say(f"  two workers {two.rate:.1f}/s, one {one.rate:.1f}/s, ratio {ratios[-1]:.3f}")
    note = f"{statistics.median(rates):.1f} scans/s by two"
    ratio.record(f"P at {precision}: two one-core workers over one", ">= 1.9", ratios, note=note)


@contextmanager
def pair(what: str, precision: str) -> Iterator[tuple[Path, list[House]]]:
    """A folder for scans, and the two houses of NAMES[what], in that order; `precision` is not heeded by two stages."""
    with tempfile.TemporaryDirectory(prefix="nr2-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        kept = {"prepared_cache": str(folder / "cache")} if what == "cache" else {}
        houses = []
        for number in (1, 2):
            home = folder / f"house{number}"
            if what == "workers":
                opened = one_core_workers(home, number, precision)
            elif what == "two-stage":
                opened = house(home, precision=("two_stage", "int8")[number - 1])
            else:
                opened = house(home, precision=precision, **kept)
            houses.append(stack.enter_context(opened))
        yield folder, houses


@contextmanager
def one_core_workers(folder: Path, count: int, precision: str) -> Iterator[House]:
    """A house with `count` workers, each on a core of its own and, as far as it sees, on a machine of its own: workers
    of one name would take each other for dead."""
    given = {"engine_threads": 1, "decoders": 1}
    config = settings_of(folder, precision=precision, **given)
    surrounding = local.environment(config)

    def part(number: int) -> Part:
        name = f"worker-{number}"
        command = f'hostname {name} && exec taskset -c {number} "$0" -m producer worker --device cpu'
        words = ["unshare", "--map-root-user", "--uts", "sh", "-c", command, sys.executable]
        return Part(name, lambda: words, surrounding, stage=local.WORKERS)

    sweep = [one for one in local.scoring_parts(config) if one.name == local.SWEEP]
    with house(folder, precision=precision, workers=[*sweep, *map(part, range(count))], **given) as at:
        yield at


def rounds_of(name: str, folder: Path, houses: list[House], rounds: int, count: int) -> Iterator[Path]:
    """A new folder of files a round, after one that lets each house load its model."""
    for number in range(-1, rounds):
        scans = folder / f"round{number}"
        sets.write_set(name, scans, count if number >= 0 else 256, seed=number + 1)
        if number < 0:
            for at in houses:
                at.night(scans)
        else:
            yield scans
        shutil.rmtree(scans)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=NAMES)
    parser.add_argument("--set", default="P", help="of the cache: letters of sets")
    parser.add_argument("--precision", default="int8", help="of workers and cache")
    parser.add_argument("--rounds", type=int, default=ratio.ROUNDS)
    given = parser.parse_args()
    if given.what == "two-stage":
        two_stage(given.rounds)
    elif given.what == "cache":
        for name in given.set:
            cache(name, given.rounds, given.precision)
    else:
        workers(given.rounds, given.precision)


if __name__ == "__main__":
    main()
