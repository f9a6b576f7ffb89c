"""The worklist: what a reader has to read of one trained model's, worst first (the scores of two models are on no
common scale), and every other list of its entries. What is hidden from somebody never leaves the store."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

from sqlalchemy import func, select, true
from sqlalchemy.orm import Session

from db.schema import Activation, Batch, Entry, EntryCount, Outcome, Review, Scan, Site, TrainedModel, User
from db.store.connection import Database, now
from db.store.decisions import CLOSED, Standing
from db.store.entries import Place as Place
from db.store.entries import is_held
from db.store.listing import Ask
from db.store.listing import Filters as Filters
from db.store.listing import Order as Order
from db.store.people import UserView
from db.store.ranges import entry_ids
from db.store.scoring import current_outcome
from db.words import Stage, State, Verdict

LATELY, VERDICTS, LEAST_VERDICTS, BREAK = timedelta(hours=8), 50, 5, timedelta(minutes=10)  # what a pace is made of


@dataclass(frozen=True)
class WorklistItem:
    """An entry as one person may see it: `score` and `threshold` are None where they are hidden; `holder` is somebody
    else who has it open; `mine`: a verdict of theirs counts."""

    entry_id: int
    scan_id: int
    key: str
    path: str
    site: str
    batch: int
    patient: str | None
    age: float | None
    score: float | None
    threshold: float | None
    state: State
    verdict: Verdict | None
    holder: str | None
    held_since: datetime | None
    submitted_at: datetime
    place: Place
    mine: bool


@dataclass(frozen=True)
class Counts:
    """How much there is of a model at somebody's sites; unread and second are theirs to read, `oldest` is when the
    first of these was submitted."""

    unread: int
    second: int
    arbiter: int
    done: int
    oldest: datetime | None

    @property
    def to_read(self) -> int:
        return self.unread + self.second


@dataclass(frozen=True)
class UnreadScan:
    """The file of a scan that is to be read: `path` is relative to `root`."""

    key: str
    root: str
    path: str
    sha256: str | None


@dataclass(frozen=True)
class ModelToRead:
    """A trained model with something to read, and how much."""

    model_id: int
    name: str
    version: str
    unread: int

    @property
    def label(self) -> str:
        return f"{self.name} {self.version}"


EVERYTHING = Filters()
BEFORE = datetime.min.replace(tzinfo=UTC)


def page(
    db: Database,
    *,
    me: UserView,
    model_id: int,
    filters: Filters = EVERYTHING,
    after: Place | None = None,
    limit: int = 50,
    arbiter: bool = False,
) -> list[WorklistItem]:
    """A page of a model's entries at the sites of `me`; `after` is the place of the last item of the page before. With
    `arbiter`, what `me` may decide as one."""
    ask = Ask(me, model_id, filters, for_arbiter=arbiter)
    with db.reading() as session:
        return _items(session, ask, entry_ids(session, ask, after=_entry_of(after), limit=limit))


def next_entries(
    db: Database,
    *,
    me: UserView,
    model_id: int,
    after: Place | None = None,
    not_keys: Collection[str] = frozenset(),
    limit: int = 1,
    arbiter: bool = False,
) -> list[WorklistItem]:
    """The first of what `me` has to read (with `arbiter`: to decide) that nobody else has open, but for these keys."""
    ask = Ask(me, model_id, EVERYTHING, for_arbiter=arbiter, only_free=True)
    with db.reading() as session:
        ids = entry_ids(session, ask, after=_entry_of(after), limit=limit + len(not_keys))
        return [item for item in _items(session, ask, ids) if item.key not in not_keys][:limit]


def counts(db: Database, *, me: UserView, model_id: int) -> Counts:
    """How much of a model there is at the sites of `me`, from the counters."""
    with db.reading() as session:
        kept = _kept(session, me, EntryCount.trained_model_id == model_id)
        ask = Ask(me, model_id, Filters(order=Order.OLDEST))
        first = entry_ids(session, ask, after=None, limit=1)
        oldest = session.scalar(select(Entry.submitted_at).where(Entry.id == first[0])) if first else None
        named = {state: kept.get((model_id, state), 0) for state in State}
        return Counts(named[State.UNREAD], named[State.SECOND], named[State.ARBITER], named[State.DONE], oldest)


def pace(db: Database, *, me: UserView) -> float | None:
    """The seconds that a verdict of `me` took lately, as the median; breaks are left out. None before there are
    enough of them."""
    newest = select(Review.at).where(Review.reader_id == me.id, Review.stage != Stage.IMPRESSION)
    with db.reading() as session:
        moments = session.scalars(newest.order_by(Review.id.desc()).limit(VERDICTS + 1)).all()
    lately = [at for at in moments if at > now() - LATELY]
    gaps = [later - earlier for later, earlier in pairwise(lately) if later - earlier <= BREAK]
    return median(gap.total_seconds() for gap in gaps) if gaps and len(lately) >= LEAST_VERDICTS else None


def models_to_read(db: Database, *, me: UserView, arbiter: bool = False) -> list[ModelToRead]:
    """The trained models of which `me` has something to read (with `arbiter`: to decide): the active one first, then
    those with the newest batches."""
    states = (State.ARBITER,) if arbiter else (State.UNREAD, State.SECOND)
    with db.reading() as session:
        to_read: dict[int, int] = {}
        for (model_id, state), number in _kept(session, me).items():
            if state in states and number > 0:
                to_read[model_id] = to_read.get(model_id, 0) + number
        active = session.scalar(select(Activation.trained_model_id).order_by(Activation.id.desc()).limit(1))
        newest = _newest_batches(session, me, to_read)
        models = session.scalars(select(TrainedModel).where(TrainedModel.id.in_(to_read))).all()
        ordered = sorted(models, key=lambda model: (model.id == active, newest.get(model.id, BEFORE)), reverse=True)
        return [ModelToRead(model.id, model.name, model.version, to_read[model.id]) for model in ordered]


def unread_everywhere(db: Database, model_id: int) -> list[UnreadScan]:
    """What of a model is still to be read or decided at any site, in the order of the list."""
    with db.reading() as session:
        columns = select(Scan.key, Batch.root, Scan.path, Scan.sha256).select_from(Entry)
        joined = columns.join(Scan, Scan.id == Entry.scan_id).join(Batch, Batch.id == Entry.batch_id)
        is_open = Entry.trained_model_id == model_id, Entry.state.not_in(CLOSED)
        rows = session.execute(joined.where(*is_open).order_by(Entry.rank.desc(), Entry.id.desc()))
        return [UnreadScan(*row) for row in rows]


def _entry_of(place: Place | None) -> int | None:
    return None if place is None else place.entry_id


def _items(session: Session, ask: Ask, ids: Sequence[int]) -> list[WorklistItem]:
    me = ask.me
    columns = select(
        Entry, Scan.key, Scan.path, Scan.patient, Scan.age, Site.name, User.name, is_held(), Outcome.threshold
    )
    joined = (
        columns.join(Scan, Scan.id == Entry.scan_id)
        .join(Site, Site.id == Entry.site_id)
        .outerjoin(User, User.id == Entry.holder_id)
        .outerjoin(Outcome, current_outcome(Entry.trained_model_id))
    )
    rows = {row[0].id: row for row in session.execute(joined.where(Entry.id.in_(ids)))}
    stages = _my_stages(session, me, [row[0].scan_id for row in rows.values()])
    return [_item(rows[entry_id], stages, ask) for entry_id in ids]


def _item(row: Any, stages: dict[int, set[Stage]], ask: Ask) -> WorklistItem:
    entry, key, path, patient, age, site, holder, held, threshold = row
    mine = frozenset(stages.get(entry.scan_id, ()))
    sees = Standing(State(entry.state), entry.blind, ask.me.role, mine).sees_score
    is_others = held and entry.holder_id != ask.me.id
    by_date = ask.filters.order != Order.WORST or ask.filters.text
    value = entry.submitted_at.timestamp() if by_date else (entry.rank if sees else 0.0)
    return WorklistItem(
        entry_id=entry.id,
        scan_id=entry.scan_id,
        key=key,
        path=path,
        site=site,
        batch=entry.batch_id,
        patient=patient,
        age=age,
        score=entry.score if sees else None,
        threshold=threshold if sees else None,
        state=State(entry.state),
        verdict=None if entry.verdict is None else Verdict(entry.verdict),
        holder=holder if is_others else None,
        held_since=entry.held_since if is_others else None,
        submitted_at=entry.submitted_at,
        place=Place(value, entry.id),
        mine=Stage.VERDICT in mine,
    )


def _my_stages(session: Session, me: UserView, scan_ids: Sequence[int]) -> dict[int, set[Stage]]:
    """By scan, in which stages `me` reviewed it."""
    said = select(Review.scan_id, Review.stage).where(Review.scan_id.in_(scan_ids), Review.reader_id == me.id)
    stages: dict[int, set[Stage]] = {}
    for scan_id, stage in session.execute(said):
        stages.setdefault(scan_id, set()).add(Stage(stage))
    return stages


def _kept(session: Session, me: UserView, *where: Any) -> dict[tuple[int, State], int]:
    """By model and state, how many there are at the sites of `me`; of state `second`, how many they may read."""
    mine = EntryCount.site_id.in_(me.site_ids), EntryCount.reader_id != me.id
    columns = EntryCount.trained_model_id, EntryCount.state
    rows = session.execute(select(*columns, func.sum(EntryCount.count)).where(*mine, *where).group_by(*columns))
    return {(model_id, State(state)): int(number) for model_id, state, number in rows}


def _newest_batches(session: Session, me: UserView, model_ids: Collection[int]) -> dict[int, datetime]:
    """When the newest batch of each model was submitted at the sites of `me`: one step in the index each."""
    same = Batch.trained_model_id == TrainedModel.id, Batch.site_id == Site.id
    last = select(Batch.submitted_at).where(*same).order_by(Batch.submitted_at.desc()).limit(1)
    columns = select(TrainedModel.id, last.correlate(TrainedModel, Site).scalar_subquery())
    pairs = columns.join_from(TrainedModel, Site, true())
    rows = session.execute(pairs.where(TrainedModel.id.in_(model_ids), Site.id.in_(me.site_ids)))
    newest: dict[int, datetime] = {}
    for model_id, submitted_at in rows:
        if submitted_at is not None:
            newest[model_id] = max(submitted_at, newest.get(model_id, submitted_at))
    return newest
