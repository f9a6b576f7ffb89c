"""Worklist entries are made here: in the transaction that scores a scan, that changes a threshold, or that keeps a
verdict on a scan which was on no list."""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, Float, Table, and_, case, exists, func, literal, select, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.expression import FunctionElement

from db.schema import Batch, Entry, Outcome, Scan, Site, TrainedModel
from db.store import tallies
from db.store.bulk import insert_into, insert_rows
from db.store.connection import Database
from db.store.tallies import NOBODY, Key
from db.words import State

NAMES = ("scan_id", "trained_model_id", "site_id", "batch_id", "score", "rank", "share", "blind", "readers", "state")
ENTRIES = cast(Table, Entry.__table__)
_random = secrets.SystemRandom()


class random_rank(FunctionElement[float]):
    """A random number in [0, 1), another one in each row."""

    type = Float()
    inherit_cache = True


@compiles(random_rank, "sqlite")
def _sqlite_random(element: Any, compiler: Any, **kw: Any) -> str:
    return "((random() >> 11 & 9007199254740991) / 9007199254740992.0)"


@compiles(random_rank, "postgresql")
def _postgresql_random(element: Any, compiler: Any, **kw: Any) -> str:
    return "random()"


@dataclass(frozen=True)
class _Ways:
    """How a batch's site reads just now."""

    site_id: int
    submitted_at: datetime
    readers: int
    blind_first: bool
    samples: bool


def enlist(session: Session, batch_id: int, outcomes: Sequence[Outcome], drawn: Mapping[int, float | None]) -> None:
    """Entries for those of a chunk's new outcomes that are flagged, and for those that were `drawn` from the cleared
    (by scan, with the share that they were drawn with). Scans that were looked at again may have theirs already."""
    by, known = _reappraise(session, [row for row in outcomes if row.generation > 0])
    listed = [row for row in outcomes if row.flagged or drawn.get(row.scan_id) is not None]
    by.update(_add(session, batch_id, [row for row in listed if row.scan_id not in known], drawn))
    tallies.change(session, by)


def _add(
    session: Session, batch_id: int, listed: Sequence[Outcome], drawn: Mapping[int, float | None]
) -> dict[Key, int]:
    """Make these outcomes' entries; what that adds to the counts."""
    if not listed:
        return {}
    ways = _ways(session, batch_id)
    # A site that stopped sampling since these were drawn: they stay among equals.
    samples = ways.samples or any(share is not None for share in drawn.values())
    rows = [
        (
            *(row.scan_id, row.trained_model_id, ways.site_id, batch_id, row.score),
            _random.random() if samples else row.score,
            None if row.flagged else drawn[row.scan_id],
            *(samples or ways.blind_first, ways.readers, State.UNREAD, ways.submitted_at),
        )
        for row in sorted(listed, key=lambda row: row.scan_id)  # their ids tell nothing of who was drawn
    ]
    session.flush()
    insert_rows(session, ENTRIES, (*NAMES, "submitted_at"), rows)
    return {Key(ways.site_id, listed[0].trained_model_id, State.UNREAD, NOBODY): len(rows)}


def _reappraise(session: Session, again: Sequence[Outcome]) -> tuple[Counter[Key], set[int]]:
    """Let the entries that scans have from before they were looked at again say what is so now; what that adds to the
    counts, and which scans these are."""
    by: Counter[Key] = Counter()
    if not again:
        return by, set()
    outcomes = {row.scan_id: row for row in again}
    mine = Entry.scan_id.in_(outcomes), Entry.trained_model_id == again[0].trained_model_id
    found = session.scalars(select(Entry).where(*mine).order_by(Entry.id).with_for_update(key_share=True)).all()
    for entry in found:
        before = tallies.key_of(entry)
        _rewrite(entry, outcomes[entry.scan_id])
        by.update(tallies.moved(before, tallies.key_of(entry)))
    session.flush()
    return by, {entry.scan_id for entry in found}


def _rewrite(entry: Entry, outcome: Outcome) -> None:
    """Its score is the new one. Unread, it stays only where there is something to read; who read it, has read it."""
    if outcome.score is not None:
        entry.rank = outcome.score if entry.rank == entry.score else entry.rank
        entry.score = outcome.score
    is_to_read = outcome.score is not None and (outcome.flagged or entry.share is not None)
    if entry.state in (State.UNREAD, State.WITHDRAWN):
        entry.state = State.UNREAD if is_to_read else State.WITHDRAWN


def reconsider(session: Session, trained_model_id: int) -> None:
    """After a model's flags changed: entries for what is newly flagged, also where it had been withdrawn; what is no
    longer flagged, and was neither read nor drawn, is withdrawn."""
    by = Counter(_add_flagged(session, trained_model_id))
    # Of any generation: what was looked at again had never been flagged.
    is_flagged = exists().where(
        Outcome.scan_id == Entry.scan_id, Outcome.trained_model_id == trained_model_id, Outcome.flagged.is_(True)
    )
    by.update(_move(session, trained_model_id, State.WITHDRAWN, State.UNREAD, is_flagged))
    by.update(_move(session, trained_model_id, State.UNREAD, State.WITHDRAWN, ~is_flagged, Entry.share.is_(None)))
    tallies.change(session, by)


def unlisted(db: Database) -> dict[int, int]:
    """By trained model, how many flagged scans are on no list: none, unless a worker of an earlier version was at
    work. Looks at every flagged scan: for `doctor`, not for pages."""
    with db.reading() as session:
        counted = _unlisted(select(Outcome.trained_model_id, func.count())).group_by(Outcome.trained_model_id)
        return {model_id: number for model_id, number in session.execute(counted)}  # noqa: C416


def enlist_missing(db: Database) -> int:
    """Put flagged scans that are on no list onto theirs; how many there were."""
    added = 0
    for model_id in unlisted(db):
        with db.writing() as session:
            session.execute(select(TrainedModel.id).where(TrainedModel.id == model_id).with_for_update())
            by = _add_flagged(session, model_id)
            tallies.change(session, by)
            added += sum(by.values())
    return added


def by_choice(session: Session, outcome: Outcome, batch: Batch) -> bool:
    """An entry for a scored scan that is on no list, because a reader has something to say of it; not counted yet.
    False where another reader's came first. The model's row must be held (`held_threshold`)."""
    values = (outcome.scan_id, batch.trained_model_id, batch.site_id, batch.id, outcome.score, outcome.score)
    fields = dict(zip(NAMES, (*values, None, False, 1, State.UNREAD), strict=True))
    adding = insert_into(session, Entry).values(**fields, submitted_at=batch.submitted_at)
    return session.scalar(adding.on_conflict_do_nothing().returning(Entry.id)) is not None


def _ways(session: Session, batch_id: int) -> _Ways:
    columns = select(Site.id, Batch.submitted_at, Site.readers, Site.blind_first, Site.sample_share > 0)
    row = session.execute(columns.join(Batch, Batch.site_id == Site.id).where(Batch.id == batch_id)).one()
    return _Ways(*row)


def _add_flagged(session: Session, trained_model_id: int) -> dict[Key, int]:
    """Make the entries that are missing; what that adds to the counts."""
    samples = Site.sample_share > 0
    columns = select(
        Scan.id,
        literal(trained_model_id),
        Site.id,
        Batch.id,
        Outcome.score,
        case((samples, random_rank()), else_=Outcome.score),
        literal(None, Float()),
        samples | Site.blind_first,
        Site.readers,
        literal(str(State.UNREAD)),
        Batch.submitted_at,
    )
    missing = _unlisted(columns).where(Outcome.trained_model_id == trained_model_id).order_by(Scan.id)
    adding = insert_into(session, Entry).from_select([*NAMES, "submitted_at"], missing, include_defaults=False)
    sites = Counter(session.scalars(adding.returning(Entry.site_id)))
    return {Key(site_id, trained_model_id, State.UNREAD, NOBODY): number for site_id, number in sites.items()}


def _unlisted(columns: Any) -> Any:
    """Of all that is flagged, by its batch's model, what has no entry."""
    return (
        columns.select_from(Outcome)
        .join(Scan, and_(Scan.id == Outcome.scan_id, Scan.generation == Outcome.generation))
        .join(Batch, and_(Batch.id == Scan.batch_id, Batch.trained_model_id == Outcome.trained_model_id))
        .join(Site, Site.id == Batch.site_id)
        .where(Outcome.flagged.is_(True))
        .where(~exists().where(Entry.scan_id == Scan.id, Entry.trained_model_id == Outcome.trained_model_id))
    )


def _move(
    session: Session, trained_model_id: int, before: State, after: State, *where: ColumnElement[bool]
) -> dict[Key, int]:
    """Take entries from one state to another; what that adds to the counts."""
    of_model = Entry.trained_model_id == trained_model_id, Entry.state == before
    moving = update(Entry).where(*of_model, *where).values(state=after).returning(Entry.site_id)
    sites = Counter(session.scalars(moving.execution_options(synchronize_session=False)))
    moves = (
        (state, sign * number, site) for site, number in sites.items() for state, sign in ((before, -1), (after, 1))
    )
    return {Key(site_id, trained_model_id, state, NOBODY): number for state, number, site_id in moves}
