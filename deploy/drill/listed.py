"""Whether the worklist says what the outcomes say: part of the audit, with the auditor's own arithmetic."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

ALIKE = 1e-9  # between the list's score and the outcome's: they are copies


class Entry(NamedTuple):
    scan_id: int
    model_id: int
    site_id: int
    batch_id: int
    score: float
    share: float | None
    state: str


class Count(NamedTuple):
    site_id: int
    model_id: int
    state: str
    number: int


QUESTIONS: dict[type[Any], str] = {
    Entry: "SELECT scan_id, trained_model_id, site_id, batch_id, score, share, state FROM entries",
    Count: "SELECT site_id, trained_model_id, state, sum(count) FROM entry_counts"
    " GROUP BY site_id, trained_model_id, state",
}


def flaws(
    entries: Sequence[Entry], counts: Sequence[Count], scored: dict[int, tuple[int, float, bool]]
) -> Iterator[str]:
    """(G) Whatever is flagged is on the worklist, once; what is not was drawn for it; the counts are the rows.
    `scored` has each scored scan's batch, score and whether it is flagged."""
    times = Counter(entry.scan_id for entry in entries)
    yield from (f"scan {scan_id} is on the worklist {number} times" for scan_id, number in times.items() if number > 1)
    for scan_id, (_, score, is_flagged) in sorted(scored.items()):
        if is_flagged and not times[scan_id]:
            yield f"scan {scan_id}, flagged at {score}, is on no worklist"
    yield from _unfounded(entries, scored)
    kept = {(one.site_id, one.model_id, one.state): int(one.number) for one in counts if one.number}
    rows = Counter((entry.site_id, entry.model_id, entry.state) for entry in entries)
    for key in sorted(kept.keys() | rows.keys()):
        if kept.get(key, 0) != rows[key]:
            yield f"{rows[key]} entries are {key[2]} at site {key[0]}; {kept.get(key, 0)} are counted"


def _unfounded(entries: Sequence[Entry], scored: dict[int, tuple[int, float, bool]]) -> Iterator[str]:
    for entry in entries:
        batch_id, score, is_flagged = scored.get(entry.scan_id, (None, None, False))
        if batch_id != entry.batch_id or score is None or abs(entry.score - score) > ALIKE:
            yield f"the worklist has scan {entry.scan_id} at {entry.score}, its outcome {score}"
        elif not is_flagged and entry.share is None and entry.state != "withdrawn":
            yield f"scan {entry.scan_id} is on the worklist and neither flagged nor drawn"
