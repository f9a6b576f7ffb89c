"""What can be wrong with a batch, by name; gathered in little memory, however often it is found."""

from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

EXAMPLES = 20  # of each that are kept; the others are counted


class What(StrEnum):
    """What a certificate can lack."""

    UNSEALED = "unsealed"
    WAITING = "waiting"
    OPEN = "open_chunk"
    DOUBLED = "doubled"
    FOREIGN = "foreign_outcome"
    AHEAD = "outcome_ahead"
    HISTORY = "broken_history"
    REASON = "unknown_reason"
    THRESHOLD = "other_threshold"
    FLAG = "wrong_flag"
    SCORE = "wrong_score"
    SUM = "wrong_sum"
    COUNTS = "counts_differ"
    LOST = "other_count_at_sealing"
    ALTERED = "altered_since_certified"
    AUDIT = "audit_log"
    CAME = "file_came"
    CHANGED = "file_changed"
    GONE = "file_gone"
    CLOSED = "file_unreadable"
    ROOT = "folder_out_of_reach"


MEANINGS: dict[What, str] = {
    What.UNSEALED: "the batch is not sealed: its submission was interrupted (`nightread resume`)",
    What.WAITING: "scans have no outcome at their generation",
    What.OPEN: "chunks are not completed",
    What.DOUBLED: "scans have more than one outcome at their generation",
    What.FOREIGN: "scans have an outcome by another trained model than the batch's",
    What.AHEAD: "scans have an outcome of a generation that they never reached",
    What.HISTORY: "scans were tried again, and their earlier outcome is missing, or stood",
    What.REASON: "outcomes give a reason that does not exist",
    What.THRESHOLD: "outcomes were flagged by another threshold than the one that rules",
    What.FLAG: "outcomes are flagged below their threshold, or not flagged above it",
    What.SCORE: "scores are not the sum of their classes",
    What.SUM: "found is not scored + rejected + failed + waiting",
    What.COUNTS: "two ways of counting disagree: check the database's indexes",
    What.LOST: "the number of scans is another than when the batch was sealed",
    What.ALTERED: "outcomes differ from those certified before, and nothing on record explains it",
    What.AUDIT: "the audit log that this certificate is held against is not whole",
    What.CAME: "files lie in the folder that no batch registered: submit it again",
    What.CHANGED: "files are no longer what was registered",
    What.GONE: "files that were registered are gone",
    What.CLOSED: "files that were read once cannot be read now",
    What.ROOT: "the folder cannot be looked at",
}


@dataclass(frozen=True)
class Problem:
    """One kind of thing that does not add up: how often, and some of them by name (scan ids; paths for files)."""

    what: What
    count: int
    examples: tuple[str, ...]

    @property
    def said(self) -> str:
        return MEANINGS[self.what]

    def as_json(self) -> dict[str, Any]:
        """The shape in a certificate."""
        return asdict(self) | {"said": self.said}


class Problems:
    """Counts each kind; remembers the first few of it."""

    def __init__(self) -> None:
        self._counts: Counter[What] = Counter()
        self._examples: dict[What, list[str]] = {}

    def add(self, what: What, example: str | None = None, *, count: int = 1) -> None:
        """Note one more (or `count` at once)."""
        self._counts[what] += count
        some = self._examples.setdefault(what, [])
        if example is not None and len(some) < EXAMPLES:
            some.append(example)

    def found(self) -> tuple[Problem, ...]:
        """What was noted, in the order of `What`."""
        return tuple(
            Problem(what, self._counts[what], tuple(self._examples[what])) for what in What if what in self._counts
        )
