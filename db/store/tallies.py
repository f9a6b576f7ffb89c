"""How many worklist entries are in each state: changed with every entry, in the same transaction, so that no page
counts rows.

Nothing is lost and nobody waits for each other in a circle: a change is an addition in SQL (never a number written
over another), and every transaction changes its entries first, then all its counts at once in the order of their keys
(`change` is called once), then the audit record."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import case, delete, func, literal, select, text
from sqlalchemy.orm import Session

from db.schema import Entry, EntryCount, Site, User, UserSite
from db.store.bulk import insert_into
from db.store.connection import Database
from db.words import Role, State

NOBODY = 0  # the reader of a count that is of no reader


class Key(NamedTuple):
    """What is counted apart: a site's entries of a model in a state; in state `second`, by who read them first."""

    site_id: int
    trained_model_id: int
    state: str
    reader_id: int


@dataclass(frozen=True)
class Miscount:
    """A count that is not what the entries come to."""

    key: Key
    kept: int
    counted: int


def key_of(entry: Entry) -> Key:
    """What this entry counts under."""
    reader_id = entry.first_reader_id if entry.state == State.SECOND else None
    return Key(entry.site_id, entry.trained_model_id, str(entry.state), reader_id or NOBODY)


def change(session: Session, by: Mapping[Key, int]) -> None:
    """Add to the counts, inside the transaction that changed the entries."""
    for key, more in sorted(by.items()):
        if more:
            added = insert_into(session, EntryCount).values(**key._asdict(), count=more)
            total = EntryCount.count + added.excluded.count
            same = [EntryCount.site_id, EntryCount.trained_model_id, EntryCount.state, EntryCount.reader_id]
            session.execute(added.on_conflict_do_update(index_elements=same, set_={"count": total}))


def moved(before: Key | None, after: Key) -> Counter[Key]:
    """What an entry that went from one key to another changes; None: it is new."""
    by = Counter([after])
    if before is not None:
        by[before] -= 1
    return by


def recount(db: Database, *, repair: bool = False) -> list[Miscount]:
    """Count every entry and hold the kept counts against that; with `repair`, write what was counted. Looks at every
    row: for `doctor` and tests, not for pages."""
    with db.writing() if repair else db.reading() as session:
        if not db.is_sqlite:
            if repair:  # whoever changes a count now waits, and adds to the repaired one
                session.execute(text("LOCK TABLE entry_counts IN EXCLUSIVE MODE"))
            else:  # entries and counts as of one moment
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        counted = _counted(session)
        rows = session.scalars(select(EntryCount))
        kept = {Key(row.site_id, row.trained_model_id, row.state, row.reader_id): row.count for row in rows}
        wrong = [key for key in sorted(counted.keys() | kept.keys()) if counted.get(key, 0) != kept.get(key, 0)]
        if repair and wrong:
            session.execute(delete(EntryCount))
            session.add_all(EntryCount(**key._asdict(), count=number) for key, number in counted.items())
        return [Miscount(key, kept.get(key, 0), counted.get(key, 0)) for key in wrong]


def undecided(db: Database) -> list[str]:
    """The names of sites where scans wait for an arbiter and nobody is one."""
    waits = select(EntryCount.site_id).where(EntryCount.state == State.ARBITER, EntryCount.count > 0)
    decides = select(UserSite.site_id).join(User, User.id == UserSite.user_id)
    decides = decides.where(User.role == Role.ARBITER, User.disabled_at.is_(None))
    with db.reading() as session:
        names = select(Site.name).where(Site.id.in_(waits), Site.id.not_in(decides))
        return list(session.scalars(names.order_by(Site.name)))


def _counted(session: Session) -> dict[Key, int]:
    first = func.coalesce(Entry.first_reader_id, literal(NOBODY))
    reader = case((Entry.state == State.SECOND, first), else_=literal(NOBODY)).label("reader")
    columns = [Entry.site_id, Entry.trained_model_id, Entry.state, reader]
    rows = session.execute(select(*columns, func.count()).group_by(*columns))
    return {Key(*key): number for *key, number in rows}
