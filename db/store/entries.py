"""One worklist entry: who may see and say what of it, who has it open, and what was said. What is hidden from somebody
never leaves the store."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, Row, and_, case, or_, select, update
from sqlalchemy.orm import Session

from db.errors import Refused, Unknown
from db.schema import Batch, Entry, Outcome, Review, Scan, User
from db.store import enlisting, tallies
from db.store.audit import record
from db.store.connection import Database, epoch_now, now
from db.store.decisions import CLOSED, READ, Said, Standing, decide
from db.store.models import held_threshold
from db.store.people import UserView
from db.store.reading import ReviewView
from db.store.scoring import current_outcome
from db.store.tallies import recount as recount
from db.words import Kind, Role, Stage, State, Verdict

HOLD_SECONDS = 120.0  # an open page renews its hold well before that


@dataclass(frozen=True)
class Place:
    """A place in a list: that of an entry. The store goes by the entry; `value` is its rank, or its submission in
    seconds since 1970 in a list by date, for whoever shows it, and 0 where the score is hidden."""

    value: float
    entry_id: int


@dataclass(frozen=True)
class EntryView:
    """An entry as one person may see it; reviews newest first, `reviews` are those they may see, their own among
    them. `holder` is somebody else who has it open."""

    entry_id: int
    scan_id: int
    state: State
    verdict: Verdict | None
    readers: int
    blind: bool
    sees_score: bool
    sees_reviews: bool
    may_read: bool
    may_arbitrate: bool
    needs_impression: bool
    holder: str | None
    held_since: datetime | None
    place: Place
    my_reviews: list[ReviewView]
    reviews: list[ReviewView]


def entry(db: Database, scan_id: int, *, me: UserView) -> EntryView | None:
    """A scan's entry as `me` may see it; None where the scan is on no list of theirs."""
    with db.reading() as session:
        holds = is_held().label("held")
        joined = select(Entry, User.name, holds).outerjoin(User, User.id == Entry.holder_id)
        row = session.execute(joined.where(Entry.scan_id == scan_id, Entry.site_id.in_(me.site_ids))).one_or_none()
        if row is None:
            return None
        return _view(row, _reviews(session, scan_id), me)


def hold(db: Database, scan_id: int, *, me: UserView) -> bool:
    """Note, for HOLD_SECONDS from now, that `me`, a reader, has an open entry before them; again, to renew. False, and
    nothing changes, where somebody else has."""
    if me.role not in READ:
        return True
    mine = and_(Entry.holder_id == me.id, is_held())
    free = or_(Entry.holder_id.is_(None), Entry.holder_id == me.id, ~is_held())
    since = case((mine, Entry.held_since), else_=now())
    values = {"holder_id": me.id, "held_since": since, "held_until": epoch_now() + HOLD_SECONDS}
    with db.writing() as session:
        holding = update(Entry).where(*_open_of(scan_id, me), free).values(values)
        if _changed(session.execute(holding.execution_options(synchronize_session=False))):
            return True
        others = select(Entry.id).where(*_open_of(scan_id, me), ~free)
        return session.scalar(others) is None


def release(db: Database, scan_id: int, *, me: UserView) -> None:
    """Let go of an entry; nothing happens where `me` does not hold it."""
    mine = update(Entry).where(Entry.scan_id == scan_id, Entry.holder_id == me.id)
    with db.writing() as session:
        session.execute(mine.values(holder_id=None, held_since=None, held_until=None))


def add_review(
    db: Database,
    scan_id: int,
    *,
    me: UserView,
    stage: Stage,
    verdict: Verdict,
    findings: Sequence[str] = (),
    note: str = "",
) -> State:
    """Append what `me` says of a scored scan, on record, and where its entry stands then. A verdict and an arbitration
    let go of the scan. Raises Refused where it is not theirs to say, Unknown where the scan is of another site."""
    if me.role not in READ:
        raise Refused("only readers give verdicts")
    with db.writing() as session:
        listed, was_listed = _listed(session, scan_id, me)
        earlier = session.scalars(select(Review).where(Review.scan_id == scan_id).order_by(Review.id)).all()
        standing = _standing(listed, earlier, me)
        _refuse(standing, stage)
        review = Review(
            scan_id=scan_id,
            reader_id=me.id,
            stage=stage,
            verdict=verdict,
            findings=list(findings) or None,
            note=note,
            saw_score=standing.sees_score,
            saw_others=standing.sees_reviews and any(_is_decisive_of_others(one, me) for one in earlier),
            at=now(),
        )
        session.add(review)
        session.flush()
        if stage != Stage.IMPRESSION:
            before = tallies.key_of(listed) if was_listed else None
            _settle(listed, [*earlier, review], me)
            session.flush()
            tallies.change(session, tallies.moved(before, tallies.key_of(listed)))
        detail = {"entry": listed.id, "review": review.id, "stage": stage, "verdict": verdict, "state": listed.state}
        record(session, me.name, "reviewed", f"scan {scan_id}", detail)
        return State(listed.state)


def last_of_mine(db: Database, *, me: UserView, before: int | None = None) -> tuple[str, int] | None:
    """The key of the scan on which `me` last had a say that counts, and the review's id; with `before`, the last one
    under that id. None where there is none, and where the scan is of a site that is no longer theirs."""
    mine = [Review.reader_id == me.id, Review.stage != Stage.IMPRESSION]
    if before is not None:
        mine.append(Review.id < before)
    columns = select(Scan.key, Review.id).join(Review, Review.scan_id == Scan.id).join(Batch, Batch.id == Scan.batch_id)
    with db.reading() as session:
        last = columns.where(*mine, Batch.site_id.in_(me.site_ids)).order_by(Review.id.desc()).limit(1)
        row = session.execute(last).one_or_none()
        return None if row is None else (row.key, row.id)


def is_held() -> Any:
    """Whether somebody has the entry open, on the database's clock."""
    return and_(Entry.holder_id.is_not(None), Entry.held_until >= epoch_now())


def _view(row: Row[Any, Any, Any], reviews: list[tuple[Review, str]], me: UserView) -> EntryView:
    found, holder, is_open = row
    standing = _standing(found, [review for review, _ in reviews], me)
    is_others = is_open and found.holder_id != me.id
    mine = [ReviewView.of(*one) for one in reviews if one[0].reader_id == me.id]
    return EntryView(
        entry_id=found.id,
        scan_id=found.scan_id,
        state=standing.state,
        verdict=None if found.verdict is None else Verdict(found.verdict),
        readers=found.readers,
        blind=found.blind,
        sees_score=standing.sees_score,
        sees_reviews=standing.sees_reviews,
        may_read=standing.may_read,
        may_arbitrate=standing.may_arbitrate,
        needs_impression=standing.needs_impression,
        holder=holder if is_others else None,
        held_since=found.held_since if is_others else None,
        place=Place(found.rank if standing.sees_score else 0.0, found.id),
        my_reviews=mine,
        reviews=[ReviewView.of(*one) for one in reviews] if standing.sees_reviews else mine,
    )


def _reviews(session: Session, scan_id: int) -> list[tuple[Review, str]]:
    joined = select(Review, User.name).join(User, User.id == Review.reader_id)
    rows = session.execute(joined.where(Review.scan_id == scan_id).order_by(Review.id.desc()))
    return [(review, name) for review, name in rows]


def _open_of(scan_id: int, me: UserView) -> tuple[Any, ...]:
    return Entry.scan_id == scan_id, Entry.site_id.in_(me.site_ids), Entry.state.not_in(CLOSED)


def _changed(result: Any) -> bool:
    return isinstance(result, CursorResult) and result.rowcount == 1


def _standing(of: Entry, reviews: Sequence[Review], me: UserView) -> Standing:
    mine = frozenset(Stage(review.stage) for review in reviews if review.reader_id == me.id)
    return Standing(State(of.state), of.blind, me.role, mine)


def _listed(session: Session, scan_id: int, me: UserView) -> tuple[Entry, bool]:
    """The entry, to be changed by nobody else until the transaction ends, and whether it was there: it is made where
    the scan was on no list."""
    locked = select(Entry).where(Entry.scan_id == scan_id).with_for_update(key_share=True)
    found = session.scalar(locked)
    is_new = found is None and _list_by_choice(session, scan_id, me)
    found = found or session.scalars(locked).one()
    if found.site_id not in me.site_ids:
        raise Unknown("no such scan")
    return found, not is_new


def _list_by_choice(session: Session, scan_id: int, me: UserView) -> bool:
    batch = session.scalar(select(Batch).join(Scan, Scan.batch_id == Batch.id).where(Scan.id == scan_id))
    if batch is None or batch.site_id not in me.site_ids:
        raise Unknown("no such scan")
    # Before the entry: whoever sets a threshold holds the model first, and then comes to the entries.
    held_threshold(session, batch.trained_model_id)
    current = select(Outcome).join(Scan, current_outcome(batch.trained_model_id)).where(Scan.id == scan_id)
    outcome = session.scalar(current)
    if outcome is None or outcome.kind != Kind.SCORED:
        raise Refused("only a scored scan takes a verdict")
    return enlisting.by_choice(session, outcome, batch)


def _refuse(standing: Standing, stage: Stage) -> None:
    """Raise Refused where it is not theirs to say."""
    if stage == Stage.IMPRESSION and not standing.needs_impression:
        raise Refused("a first impression comes before the score is seen: give a verdict")
    if stage == Stage.VERDICT and not standing.may_read:
        raise Refused("this scan waits for an arbiter: no other verdict is taken")
    if stage == Stage.ARBITRATION and not standing.may_arbitrate:
        why = "your own verdict counts there" if Stage.VERDICT in standing.mine else "it does not wait for an arbiter"
        raise Refused(f"{why}: somebody else decides" if standing.role == Role.ARBITER else "only arbiters arbitrate")


def _is_decisive_of_others(review: Review, me: UserView) -> bool:
    return review.reader_id != me.id and review.stage != Stage.IMPRESSION


def _settle(of: Entry, reviews: Sequence[Review], me: UserView) -> None:
    """Where the entry stands after these reviews, oldest first; `me` lets go of it."""
    said = [Said(review.reader_id, Stage(review.stage), Verdict(review.verdict)) for review in reviews]
    of.state, of.verdict = decide(said, of.readers)
    of.first_reader_id = next((one.reader_id for one in said if one.stage == Stage.VERDICT), None)
    of.decided_at = now() if of.state == State.DONE else None
    if of.holder_id == me.id:
        of.holder_id = of.held_since = of.held_until = None
