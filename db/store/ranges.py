"""A page of a list of entries. Every list is made of ranges of an index whose rows come in the list's order (a site's
unread entries by rank, say), each read no further than one page, and merged: a page costs the same however deep it
lies and however many rows there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, literal, or_, select, tuple_, union_all
from sqlalchemy.orm import Session

from db.schema import Batch, Entry, Review, Scan, Site, User
from db.store.listing import IS_SECOND, Ask, Filters, Order, Where, conditions, is_named, is_seen

FEW = 500  # scans that a search finds are looked at one by one; where there are more, a list in order meets them soon
BATCHES = 400  # likewise, batches of a time
AT_ONCE = 100  # ranges in one statement


@dataclass(frozen=True)
class _By:
    """The order of a list: by a column, then by id."""

    column: Any
    descending: bool = True

    def ordered(self, query: Any) -> Any:
        columns = self.column, Entry.id
        return query.order_by(*(column.desc() if self.descending else column.asc() for column in columns))

    def beyond(self, place: tuple[Any, int]) -> ColumnElement[bool]:
        here = tuple_(self.column, Entry.id)
        there = tuple_(literal(place[0], self.column.type), literal(place[1], Entry.id.type))
        return here < there if self.descending else here > there


def entry_ids(session: Session, ask: Ask, *, after: int | None, limit: int) -> list[int]:
    """The ids of a page of entries, in order; `after` is the entry at the end of the page before."""
    by, where = _by(ask.filters), conditions(session, ask)
    place = None if after is None else _place(session, ask, by, after)
    if place is not None:
        where = (*where, by.beyond(place))
    found = _found(session, ask)
    if found is not None:
        is_listed = or_(*(and_(*part) for part in ask.parts))
        ranges = [(*_reachable(ask), Entry.scan_id.in_(found), is_listed)]
    else:
        ranges = _ranges(session, ask, by, where, limit)
    return _merged(session, ranges, by, where, limit)


def _by(asked: Filters) -> _By:
    if asked.text:  # in any state, so never by score: the neighbours of a hidden one would tell it
        return _By(Entry.submitted_at)
    if asked.order != Order.WORST:
        return _By(Entry.submitted_at, descending=asked.order == Order.NEWEST)
    return _By(Entry.score if asked.has_band else Entry.rank)


def _place(session: Session, ask: Ask, by: _By, entry_id: int) -> tuple[Any, int] | None:
    """Where an entry stands in the order; None, so the top, where it is none of theirs or would tell a score that is
    hidden from them."""
    known = select(Entry.state, by.column.label("value"), is_seen(ask.me).label("seen"))
    row = session.execute(known.where(Entry.id == entry_id, ask.is_reachable)).one_or_none()
    if row is None:
        return None
    by_date = by.column is Entry.submitted_at
    return (row.value, entry_id) if row.seen or by_date or ask.shows(row.state) else None


def _found(session: Session, ask: Ask) -> list[int] | None:
    """The scans that a search or a reader's name leaves; None where these are many."""
    ways = []
    if ask.filters.text:
        entries = select(Entry.scan_id).join(Scan, Scan.id == Entry.scan_id).where(*_reachable(ask))
        ways.append([entries.where(way) for way in is_named(session, ask.filters.text)])
    if ask.filters.reader is not None:
        reviewed = select(Review.scan_id).join(User, User.id == Review.reader_id)
        ways.append([reviewed.where(User.name == ask.filters.reader).distinct()])
    for questions in ways:
        found = {scan_id for one in questions for scan_id in session.scalars(one.limit(FEW + 1))}
        if len(found) <= FEW:
            return sorted(found)
    return None


def _reachable(ask: Ask) -> Where:
    """`ask.is_reachable` where scans or batch are known: plus nothing, or SQLite goes through all of the sites."""
    return Entry.trained_model_id + 0 == ask.model_id, (Entry.site_id + 0).in_(ask.sites)


def _ranges(session: Session, ask: Ask, by: _By, where: Where, limit: int) -> list[Where]:
    """The ranges whose first rows, merged, are the page."""
    asked = ask.filters
    if asked.batch_id is not None:
        return [(Entry.batch_id == asked.batch_id, *_reachable(ask), *part) for part in ask.parts]
    if by.column is Entry.rank and asked.has_time and (batches := _batches(session, ask)) is not None:
        return _heads(session, ask, by, where, batches, limit)
    of_model = Entry.trained_model_id == ask.model_id
    if ask.states is None and not asked.has_band:
        unread = [(of_model, Entry.site_id == site, *ask.parts[0]) for site in ask.sites]
        return unread + [
            (of_model, Entry.site_id == site, IS_SECOND, Entry.first_reader_id == reader)
            for site, reader in _first_readers(session, ask)
        ]
    return [(of_model, Entry.site_id == site, *part) for site in ask.sites for part in ask.parts]


def _batches(session: Session, ask: Ask) -> list[int] | None:
    """The batches of a time: every entry was submitted with its batch. None where these are many."""
    where = [Batch.trained_model_id == ask.model_id, Batch.site_id.in_(ask.sites)]
    if ask.filters.since is not None:
        where.append(Batch.submitted_at >= ask.filters.since)
    if ask.filters.until is not None:
        where.append(Batch.submitted_at < ask.filters.until)
    found = list(session.scalars(select(Batch.id).where(*where).limit(BATCHES + 1)))
    return found if len(found) <= BATCHES else None


def _heads(session: Session, ask: Ask, by: _By, where: Where, batches: list[int], limit: int) -> list[Where]:
    """The ranges, one a batch and state, that come first in the order: a page of n has rows of no more than n."""
    questions = []
    for number, part in enumerate(ask.parts):
        first = by.ordered(select(Entry.id).where(Entry.batch_id == Batch.id, *_reachable(ask), *part, *where))
        head = first.limit(1).correlate(Batch).scalar_subquery()
        columns = select(Batch.id.label("batch"), literal(number).label("part"), head.label("head"))
        questions.append(columns.where(Batch.id.in_(batches)))
    heads = union_all(*questions).subquery()
    best = by.ordered(select(heads.c.batch, heads.c.part).join(Entry, Entry.id == heads.c.head)).limit(limit)
    return [(Entry.batch_id == batch, *_reachable(ask), *ask.parts[part]) for batch, part in session.execute(best)]


def _first_readers(session: Session, ask: Ask) -> list[tuple[int, int]]:
    """(site, user) of all others who read first what waits for a second reader: one step in the index each."""

    def lowest(site: Any, *where: ColumnElement[bool]) -> Any:
        waits = and_(Entry.trained_model_id == ask.model_id, Entry.site_id == site, IS_SECOND)
        readers = select(Entry.first_reader_id).where(waits, *where)
        return readers.order_by(Entry.first_reader_id).limit(1)

    sites = select(Site.id.label("site"), lowest(Site.id).correlate(Site).scalar_subquery().label("reader"))
    firsts = sites.where(Site.id.in_(ask.sites)).cte("firsts", recursive=True)
    following = lowest(firsts.c.site, Entry.first_reader_id > firsts.c.reader).correlate(firsts).scalar_subquery()
    firsts = firsts.union_all(select(firsts.c.site, following).where(firsts.c.reader.is_not(None)))
    others = select(firsts.c.site, firsts.c.reader).where(firsts.c.reader != ask.me.id)
    return [(site, reader) for site, reader in session.execute(others)]


def _merged(session: Session, ranges: Sequence[Where], by: _By, where: Where, limit: int) -> list[int]:
    """The first rows of all ranges together."""
    rows: list[tuple[Any, int]] = []
    for start in range(0, len(ranges), AT_ONCE):
        columns = select(by.column.label("value"), Entry.id)
        parts = [by.ordered(columns.where(*one, *where)).limit(limit) for one in ranges[start : start + AT_ONCE]]
        rows += [tuple(row) for row in session.execute(_together(parts, by, limit))]
    return [entry_id for _, entry_id in sorted(rows, reverse=by.descending)[:limit]]


def _together(parts: Sequence[Any], by: _By, limit: int) -> Any:
    if len(parts) == 1:
        return parts[0]
    within = [part.subquery() for part in parts]  # SQLite takes an order and a limit within a union only so
    both = union_all(*(select(part.c.value, part.c.id) for part in within)).subquery()
    columns = both.c.value, both.c.id
    order = [column.desc() if by.descending else column.asc() for column in columns]
    return select(*columns).order_by(*order).limit(limit)
