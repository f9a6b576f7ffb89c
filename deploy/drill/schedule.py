"""What will go wrong in a run, and when: drawn from its seed alone, so that a failure replays."""

import random
from collections.abc import Collection
from dataclasses import dataclass

from deploy.drill.faults import FAULTS

GAP = (1.5, 4.5)  # seconds from one fault's beginning to the next one's: some overlap
AFTER_SUBMISSION = (0.0, 2.0)
ALWAYS = "wipe queue"  # its recovery is promised by itself
OF_PRODUCERS = ("kill producer", "freeze producer", "two producers")


@dataclass(frozen=True)
class Planned:
    """One fault: when it begins, in seconds after the start of scoring, how long it lasts, and its own luck."""

    at: float
    name: str
    holds: float
    luck: int


@dataclass(frozen=True)
class Schedule:
    """The faults in order, and when each folder but the first two is submitted."""

    faults: tuple[Planned, ...]
    submissions: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """How long the work must last, for every fault to meet some."""
        return max([*self.submissions, *(one.at + one.holds for one in self.faults)])


def draw(seed: int, database: str, *, faults: int, folders: int, only: Collection[str] = ()) -> Schedule:
    """The schedule of a run; `only` leaves out the faults of other names and moves none of those that stay."""
    chance = random.Random(f"{seed} {database}")  # noqa: S311 (to be repeated, not to be secret)
    possible = [name for name, fault in FAULTS.items() if fault.on in ("both", database) and name != ALWAYS]
    names = [ALWAYS, *(chance.choice(possible) for _ in range(max(0, faults - 1 - len(possible))))]
    names += chance.sample(possible, min(faults - 1, len(possible)))
    chance.shuffle(names)
    times = [chance.uniform(0.5, 2.0)]
    for _ in names[1:]:
        times.append(times[-1] + chance.uniform(*GAP))
    submissions = sorted(chance.uniform(0.0, 0.8 * times[-1]) for _ in range(folders))
    planned: list[Planned] = []
    for at, name in zip(times, names, strict=True):
        if name in OF_PRODUCERS:  # there must be one to meet
            at = chance.choice(submissions) + chance.uniform(*AFTER_SUBMISSION)
        holds = chance.uniform(*FAULTS[name].holds)
        planned.append(Planned(round(at, 3), name, round(holds, 3), chance.getrandbits(32)))
    kept = (one for one in sorted(planned, key=lambda one: one.at) if not only or one.name in only)
    return Schedule(tuple(kept), tuple(round(at, 3) for at in submissions))
