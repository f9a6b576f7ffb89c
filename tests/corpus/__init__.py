"""Bad and odd files, made by code from seeds: what centres send by mistake, what rots, what an attacker builds.

A `Kind` makes as many different files as there are seeds, each with the outcome it must get. `python -m corpus` (from
tests/) runs thousands of them through intake and the real decoders; `tests/test_corpus.py` some of each.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from drawn import chest

from db.words import Reason

SCORED = None
# What damage may get that its format does not show: a hole in the picture can also look like a border to cut.
HIDDEN = (SCORED, Reason.TRUNCATED, Reason.UNREADABLE, Reason.TOO_SMALL, Reason.BLANK)


@dataclass(frozen=True)
class File:
    """Bytes and what must become of them: a reason, or SCORED with (where given) these grey levels, within a mean
    difference. `silent`: damage that no decoder can see; it may score as well, and is counted."""

    data: bytes
    reason: Reason | None
    levels: np.ndarray | None = None
    tolerance: float = 0.0
    silent: bool = False

    def allows(self, reason: Reason | None) -> bool:
        """Whether that outcome is the one it must get, or one that hidden damage may get."""
        return reason == self.reason or (self.silent and reason in HIDDEN)

    def shows(self, levels: np.ndarray) -> bool:
        """Whether these are the grey levels that it must be read as."""
        if self.levels is None:
            return True
        if levels.shape != self.levels.shape:
            return False
        return float(np.abs(levels.astype(int) - self.levels).mean()) <= self.tolerance


class Draw:
    """A picture and a source of chance for one file."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        height, width = (int(side) for side in self.rng.integers(110, 200, 2))
        self.grey = chest(height, width, seed=seed)
        self.wide = self.grey.astype(np.uint16) * 257
        self.twelve = self.grey.astype(np.uint16) * 16
        self.seed = seed

    @property
    def rgb(self) -> np.ndarray:
        return np.dstack([self.grey] * 3)

    def fraction(self, low: float = 0.0, high: float = 1.0) -> float:
        return float(self.rng.uniform(low, high))

    def twentieth(self) -> float:
        """A multiple of 5 %: where a file is cut."""
        return int(self.rng.integers(1, 20)) / 20


@dataclass(frozen=True)
class Kind:
    """A class of files: its name (with the suffix that the files bear), what it is, how one is made; a kind whose
    files take seconds each has its turn only `one_in` rounds of a long run."""

    name: str
    about: str
    make: Callable[[Draw], File]
    one_in: int = 1


def kinds() -> dict[str, Kind]:
    """Every class by name."""
    from corpus import bombs, damage, dicoms, others, rasters, tiff_kinds

    every = [*rasters.KINDS, *tiff_kinds.KINDS, *dicoms.KINDS, *others.KINDS, *bombs.KINDS, *damage.KINDS]
    found = {kind.name: kind for kind in every}
    assert len(found) == len(every), "two classes of one name"
    return found
