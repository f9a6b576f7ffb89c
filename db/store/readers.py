"""Readers against each other, against the model, and against their own first impression: counts and Cohen's kappa. No
patient and no single scan is in any answer. The cost is that of what was read since the moment given."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from db.intervals import Figure, kappa
from db.schema import Entry, Outcome, Review, Scan, User
from db.store import agreement
from db.store.connection import Database
from db.store.scoring import current_outcome
from db.words import Kind, Stage, State, Verdict

LEAST_PAIRS = 20  # scans that two have read, before there is a kappa


@dataclass(frozen=True)
class Agreement:
    """Two who read the same scans (the second may be the model): how many, how many they agreed on, and Cohen's kappa,
    None below LEAST_PAIRS. Against the model, a drawn scan counts for those that it stands for."""

    first: str
    second: str
    scans: int
    agreed: int
    kappa: Figure | None


@dataclass(frozen=True)
class AgainstModel:
    """A reader's verdicts of what the model flagged and of what was drawn from the cleared."""

    reader: str
    flagged: int
    flagged_confirmed: int
    drawn: int
    drawn_confirmed: int
    kappa: Figure | None


@dataclass(frozen=True)
class Change:
    """A reader's impressions before they saw the score: how many there were, and how many verdicts then differed."""

    reader: str
    scans: int
    to_confirm: int
    from_confirm: int
    other: int


def pairs(db: Database, *, site_ids: set[int], model_id: int, since: datetime) -> list[Agreement]:
    """Every pair of readers of the same scans, each of whom did not know the other's verdict."""
    return [
        _agreement(pair.first, pair.second, {said: (float(n), float(n)) for said, n in pair.said.items()}, pair.said)
        for pair in agreement.pairs(db, site_ids=site_ids, model_id=model_id, since=since)
    ]


def changes(db: Database, *, site_ids: set[int], model_id: int, since: datetime) -> list[Change]:
    """How often readers changed their mind once they had seen the score."""
    return [
        _change(one.reader, one.said)
        for one in agreement.changes(db, site_ids=site_ids, model_id=model_id, since=since)
    ]


def against_model(db: Database, *, site_ids: set[int], model_id: int, since: datetime) -> list[AgainstModel]:
    """Every reader's own verdicts (confirm or dismiss) of scans that are done, against what the model said: flagged
    scans for themselves, drawn ones for those that they stand for; a second look of one's own accord for nothing."""
    said: dict[str, Counter[tuple[bool, bool, float]]] = defaultdict(Counter)
    newest: dict[tuple[int, int], tuple[str, bool, bool, float]] = {}
    columns = select(Review.scan_id, Review.reader_id, User.name, Review.verdict, Outcome.flagged, Entry.share)
    joined = (
        columns.select_from(Entry)
        .join(Review, Review.scan_id == Entry.scan_id)
        .join(User, User.id == Review.reader_id)
        .join(Scan, Scan.id == Entry.scan_id)
        .join(Outcome, current_outcome(Entry.trained_model_id))
    )
    wanted = (
        Entry.trained_model_id == model_id,
        Entry.site_id.in_(site_ids),
        Entry.state == State.DONE,
        Entry.submitted_at >= since,
        Outcome.kind == Kind.SCORED,
        Review.stage == Stage.VERDICT,
        Review.saw_others.is_(False),
    )
    with db.reading() as session:
        for scan_id, reader_id, name, verdict, flagged, share in session.execute(
            joined.where(*wanted).order_by(Review.id)
        ).yield_per(1000):
            weight = 1.0 if flagged else 1 / share if share else 0.0
            if verdict in (Verdict.CONFIRM, Verdict.DISMISS) and weight:
                newest[scan_id, reader_id] = name, bool(flagged), verdict == Verdict.CONFIRM, weight
            else:
                newest.pop((scan_id, reader_id), None)
    for name, flagged, confirmed, weight in newest.values():
        said[name][flagged, confirmed, weight] += 1
    return [_against_model(name, said[name]) for name in sorted(said)]


def _agreement(
    first: str, second: str, table: Mapping[tuple[Any, Any], tuple[float, float]], counts: Mapping[tuple[Any, Any], int]
) -> Agreement:
    scans = sum(counts.values())
    agreed = sum(count for (one, other), count in counts.items() if one == other)
    return Agreement(first, second, scans, agreed, kappa(table) if scans >= LEAST_PAIRS else None)


def _change(reader: str, said: Mapping[tuple[Verdict, Verdict], int]) -> Change:
    changed = {both: count for both, count in said.items() if both[0] != both[1]}
    to_confirm = sum(count for (_, after), count in changed.items() if after == Verdict.CONFIRM)
    from_confirm = sum(count for (before, _), count in changed.items() if before == Verdict.CONFIRM)
    return Change(
        reader, sum(said.values()), to_confirm, from_confirm, sum(changed.values()) - to_confirm - from_confirm
    )


def _against_model(reader: str, said: Mapping[tuple[bool, bool, float], int]) -> AgainstModel:
    table: dict[tuple[Any, Any], tuple[float, float]] = {}
    counts: Counter[tuple[bool, bool]] = Counter()
    for (flagged, confirmed, weight), count in said.items():
        total, squares = table.get((flagged, confirmed), (0.0, 0.0))
        table[flagged, confirmed] = total + count * weight, squares + count * weight**2
        counts[flagged, confirmed] += count
    drawn = counts[False, True] + counts[False, False]
    return AgainstModel(
        reader,
        counts[True, True] + counts[True, False],
        counts[True, True],
        drawn,
        counts[False, True],
        kappa(table) if drawn and sum(counts.values()) >= LEAST_PAIRS else None,
    )
