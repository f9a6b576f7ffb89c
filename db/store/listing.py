"""What a list of worklist entries is asked for, and which entries that means."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, literal_column, or_, select, text
from sqlalchemy.orm import Session

from db.schema import Entry, Review, Scan, User
from db.store.connection import epoch_now
from db.store.people import UserView
from db.words import Role, Stage, State, Verdict

# As the partial indexes have it, word for word: entries whose score every reader may see.
SEEN: Any = text("(NOT entries.blind OR entries.state = 'done')")
IS_SECOND = Entry.state == literal_column("'second'")
LAST = "\U0010ffff"  # no identifier has it, and every one comes before it
Where = tuple[ColumnElement[bool], ...]


class Order(StrEnum):
    """How a list is ordered."""

    WORST = "worst"
    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True)
class Filters:
    """What a list is cut down to. `since` <= submitted < `until`; a score band, ends included, has only entries that
    every reader may see the score of, by score; `reader` is the name of somebody who reviewed it, where `me` may see
    that; `text` is a scan's key, or how a patient or study begins: newest first, in any state. `state` None is what
    `me` has to read; with a verdict, what is done; with a reader, what may be seen."""

    site_id: int | None = None
    batch_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    lowest: float | None = None
    highest: float | None = None
    reader: str | None = None
    state: State | None = None
    verdict: Verdict | None = None
    text: str = ""
    order: Order = Order.WORST

    @property
    def has_band(self) -> bool:
        return self.lowest is not None or self.highest is not None

    @property
    def has_time(self) -> bool:
        return self.since is not None or self.until is not None


@dataclass(frozen=True)
class Ask:
    """One question for entries of a model: by whom, and whether only those are meant that an arbiter decides, or that
    nobody else has open."""

    me: UserView
    model_id: int
    filters: Filters
    for_arbiter: bool = False
    only_free: bool = False

    @property
    def sites(self) -> list[int]:
        wanted = self.filters.site_id
        return sorted(self.me.site_ids if wanted is None else self.me.site_ids & {wanted})

    @property
    def states(self) -> list[State] | None:
        """The states that are listed; None: what `me` has to read."""
        asked = self.filters
        if self.for_arbiter:
            return [State.ARBITER]
        if asked.state is not None:
            return [asked.state]
        if asked.text or asked.reader == self.me.name:
            return list(State)
        if asked.reader is not None:
            return [State.DONE, State.ARBITER]
        return [State.DONE] if asked.verdict is not None else None

    @property
    def is_reachable(self) -> ColumnElement[bool]:
        """Of the model, at a site of theirs."""
        return and_(Entry.trained_model_id == self.model_id, Entry.site_id.in_(self.sites))

    @property
    def parts(self) -> list[Where]:
        """The states that are listed, each as the condition of an index; in state `second`, what others read first."""
        if self.states is not None:
            return [(IS_SECOND if state == State.SECOND else Entry.state == state,) for state in self.states]
        return [(Entry.state == State.UNREAD,), (IS_SECOND, Entry.first_reader_id != self.me.id)]

    def shows(self, state: str) -> bool:
        """Whether a list may begin at an entry of this state whose score is hidden from `me`. One that shows scores
        does not: its first line would tell what is hidden."""
        return self.states is None or (state in self.states and not self.filters.has_band)


def conditions(session: Session, ask: Ask) -> Where:
    """What an entry of the list must fulfil besides its state and site."""
    asked, where = ask.filters, list[ColumnElement[bool]]()
    if asked.since is not None:
        where.append(Entry.submitted_at >= asked.since)
    if asked.until is not None:
        where.append(Entry.submitted_at < asked.until)
    if asked.has_band:
        highest = 1.0 if asked.highest is None else asked.highest
        where += [SEEN, Entry.score >= (asked.lowest or 0.0), Entry.score <= highest]
    if asked.verdict is not None:
        where.append(Entry.verdict == asked.verdict)
    if asked.reader is not None:
        where.append(_is_reviewed(ask.me, asked.reader))
    if asked.text:
        where.append(exists().where(Scan.id == Entry.scan_id, or_(*is_named(session, asked.text))))
    if ask.for_arbiter:
        where.append(~reviewed_by(ask.me.id, Stage.VERDICT))
    if ask.only_free:
        where.append(or_(Entry.holder_id.is_(None), Entry.holder_id == ask.me.id, Entry.held_until < epoch_now()))
    return tuple(where)


def is_seen(me: UserView) -> ColumnElement[bool]:
    """Whether `me` may see the entry's score (decisions.Standing.sees_score, in SQL)."""
    seen = [~Entry.blind, Entry.state == State.DONE, reviewed_by(me.id)]
    return or_(*seen, *([Entry.state == State.ARBITER] if me.role == Role.ARBITER else []))


def reviewed_by(user_id: Any, *stages: Stage) -> ColumnElement[bool]:
    """Whether somebody reviewed the entry's scan, in one of these stages or in any."""
    theirs = [Review.scan_id == Entry.scan_id, Review.reader_id == user_id]
    return exists().where(*theirs, *([Review.stage.in_(stages)] if stages else []))


def is_named(session: Session, wanted: str) -> Where:
    """The ways in which a scan may be the one that is looked for; each has an index."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    return (Scan.key == wanted, *(_begins(column, wanted, is_sqlite) for column in (Scan.patient, Scan.study)))


def _begins(column: Any, start: str, is_sqlite: bool) -> ColumnElement[bool]:
    if is_sqlite:
        return and_(column >= start, column < start + LAST)
    # PostgreSQL's comparisons of text go by a language's order; these go by its bytes, as the index does.
    return and_(column.bool_op("~>=~")(start), column.bool_op("~<~")(start + LAST))


def _is_reviewed(me: UserView, name: str) -> ColumnElement[bool]:
    """Whether somebody reviewed it, and `me` may know (decisions.Standing.sees_reviews, in SQL)."""
    if name == me.name:
        return reviewed_by(me.id)
    may_know: list[ColumnElement[bool]] = [Entry.state == State.DONE]
    if me.role == Role.ARBITER:
        may_know.append(and_(Entry.state == State.ARBITER, ~reviewed_by(me.id, Stage.VERDICT)))
    return and_(reviewed_by(select(User.id).where(User.name == name).scalar_subquery()), or_(*may_know))
