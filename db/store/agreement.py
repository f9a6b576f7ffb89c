"""How readers agree with each other and, before and after they saw the score, with themselves: counts of what was said
of the same scan. Costs as much as what was read since the moment given."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations, groupby
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.schema import Entry, Review, User
from db.store.connection import Database
from db.words import Stage, Verdict


@dataclass(frozen=True)
class Pair:
    """Two readers (names, in order) and how often, of the same scan, one said this and the other that, neither
    knowing what the other had said."""

    first: str
    second: str
    said: dict[tuple[Verdict, Verdict], int]


@dataclass(frozen=True)
class Changes:
    """How often a reader's first impression, before score and heat map, was this and their verdict after it that."""

    reader: str
    said: dict[tuple[Verdict, Verdict], int]


def pairs(db: Database, *, site_ids: set[int], model_id: int, since: datetime | None = None) -> list[Pair]:
    """Every pair of readers who read the same scans, each without having seen the other's verdict; `since` bounds the
    submission of the batches."""
    counted: dict[tuple[str, str], Counter[tuple[Verdict, Verdict]]] = {}
    with db.reading() as session:
        for said in _by_scan(session, site_ids, model_id, since, (Stage.VERDICT,)):
            alone = {name: Verdict(verdict) for name, _, verdict, saw_others in said if not saw_others}  # the newest
            for first, second in combinations(sorted(alone), 2):
                counted.setdefault((first, second), Counter())[alone[first], alone[second]] += 1
    return [Pair(*names, dict(counted[names])) for names in sorted(counted)]


def changes(db: Database, *, site_ids: set[int], model_id: int, since: datetime | None = None) -> list[Changes]:
    """Every reader's impressions beside the first verdicts that they gave after these; `since` as in `pairs`."""
    counted: dict[str, Counter[tuple[Verdict, Verdict]]] = {}
    with db.reading() as session:
        for said in _by_scan(session, site_ids, model_id, since, (Stage.IMPRESSION, Stage.VERDICT)):
            begun: dict[str, Verdict] = {}
            for name, stage, verdict, _ in said:
                if stage == Stage.IMPRESSION:
                    begun[name] = Verdict(verdict)
                elif name in begun:
                    counted.setdefault(name, Counter())[begun.pop(name), Verdict(verdict)] += 1
    return [Changes(name, dict(counted[name])) for name in sorted(counted)]


def _by_scan(
    session: Session, site_ids: set[int], model_id: int, since: datetime | None, stages: tuple[Stage, ...]
) -> Iterator[list[Any]]:
    """Scan by scan, (reader's name, stage, verdict, whether they saw others') of its reviews, oldest first."""
    wanted = [Entry.trained_model_id == model_id, Entry.site_id.in_(site_ids), Review.stage.in_(stages)]
    if since is not None:
        wanted.append(Entry.submitted_at >= since)
    columns = select(Entry.scan_id, User.name, Review.stage, Review.verdict, Review.saw_others)
    joined = columns.join(Review, Review.scan_id == Entry.scan_id).join(User, User.id == Review.reader_id)
    rows = session.execute(joined.where(*wanted).order_by(Entry.scan_id, Review.id)).yield_per(1000)
    for _, of_scan in groupby(rows, key=lambda row: row.scan_id):
        yield [row[1:] for row in of_scan]
