"""Cases (the paper's Figure 17): suspected, imaged, screened, flagged or cleared, read, laboratory, closed; each with
its time and its person. A scan's case is derived from what is on record, but for what happens outside of screening and
reading: that is appended to `case_steps`, and the newest of a kind rules.

What a blind entry hides from somebody (db/store/entries.py) its case hides as well: whether the scan was flagged; and,
from who is to read it, what the laboratory found and how the case was closed, which would tell them what to see."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from enum import StrEnum

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from db.errors import Refused
from db.moments import stated, zone_of
from db.schema import Batch, CaseStep, Entry, Outcome, Review, Scan, Site, TrainedModel, User
from db.store.audit import record
from db.store.connection import Database, now
from db.store.people import UserView
from db.store.scoring import current_outcome
from db.words import Closing, Kind, LabResult, Role, Stage, State, Step, Verdict

OPEN = (State.UNREAD, State.SECOND, State.ARBITER)  # of an entry that is still to be read
NOTE_CHARACTERS = 2_000
RESULTS: dict[Step, type[StrEnum]] = {Step.LABORATORY: LabResult, Step.CLOSED: Closing}
SOON = 24 * 3600  # seconds that a stated moment may lie ahead: clocks and zones differ


class CaseState(StrEnum):
    """Where a case stands."""

    WAITING = "waiting"  # for a worker
    UNSCREENED = "unscreened"  # rejected or failed
    CLEARED = "cleared"
    TO_READ = "to_read"
    CONFIRMED = "confirmed"  # by the reader: the laboratory is awaited
    DISMISSED = "dismissed"
    UNSURE = "unsure"
    REPEAT = "repeat"
    LABORATORY = "laboratory"  # its result is there, and the case still open
    CLOSED = "closed"


READ_AS = {
    Verdict.CONFIRM: CaseState.CONFIRMED,
    Verdict.DISMISS: CaseState.DISMISSED,
    Verdict.UNSURE: CaseState.UNSURE,
    Verdict.REPEAT: CaseState.REPEAT,
}


@dataclass(frozen=True)
class Happened:
    """One step of a case. `what` is a verdict, a laboratory's result, a reason of rejection, how it was closed."""

    step: str
    at: datetime
    by: str
    what: str = ""
    note: str = ""


@dataclass(frozen=True)
class Case:
    """A scan's case, as one user may see it. `path` may hold surrogate escapes; `zone` is the site's."""

    scan_id: int
    key: str
    path: str
    patient: str | None
    study: str | None
    site: str
    zone: str
    batch: int
    state: CaseState
    verdict: Verdict | None
    laboratory: LabResult | None
    is_closed: bool
    is_discrepant: bool  # the laboratory says positive, and reader or machine had said no
    is_hidden: bool  # part of it, until its entry is read
    happened: tuple[Happened, ...]  # in the order of the figure


@dataclass(frozen=True)
class Known:
    """What decides where a case stands."""

    kind: str | None  # of the outcome; None: there is none yet
    entry: str | None  # its state; None: on no list
    verdict: str | None
    laboratory: str | None
    is_closed: bool

    @property
    def state(self) -> CaseState:
        if self.is_closed:
            return CaseState.CLOSED
        if self.entry in OPEN:
            return CaseState.TO_READ
        if self.laboratory:
            return CaseState.LABORATORY
        if self.entry == State.DONE and self.verdict:
            return READ_AS[Verdict(self.verdict)]
        if self.kind is None:
            return CaseState.WAITING
        return CaseState.CLEARED if self.kind == Kind.SCORED else CaseState.UNSCREENED

    @property
    def is_discrepant(self) -> bool:
        """Whether the laboratory found what the reader dismissed, or what the machine cleared and nobody read."""
        read = replace(self, laboratory=None, is_closed=False).state
        return self.laboratory == LabResult.POSITIVE and read in (CaseState.DISMISSED, CaseState.CLEARED)


@dataclass(frozen=True)
class Turnaround:
    """From submission to verdict, of `n` scans; None where there is none."""

    n: int
    median_seconds: float | None
    p90_seconds: float | None


def case(db: Database, scan_id: int, *, me: UserView) -> Case:
    """The case of a scan, which the caller made sure that `me` may see."""
    with db.reading() as session:
        scan = session.get_one(Scan, scan_id)
        batch = session.get_one(Batch, scan.batch_id)
        site = session.get_one(Site, batch.site_id)
        outcome = session.scalar(
            select(Outcome).join(Scan, current_outcome(batch.trained_model_id)).where(Scan.id == scan.id)
        )
        entry = session.scalar(
            select(Entry).where(Entry.scan_id == scan.id, Entry.trained_model_id == batch.trained_model_id)
        )
        steps = session.scalars(select(CaseStep).where(CaseStep.scan_id == scan.id).order_by(CaseStep.id)).all()
        hidden = entry is not None and is_hidden(session, entry, me)
        shown = [step for step in steps if not (hidden and me.role != Role.CENTRE and step.step in _TELLING)]
        known = Known(
            kind=outcome.kind if outcome else None,
            entry=entry.state if entry else None,
            verdict=entry.verdict if entry else None,
            laboratory=_newest(shown, Step.LABORATORY),
            is_closed=_is_closed(shown),
        )
        happened = [
            *_stated(scan, site, shown),
            *(_screened(session, outcome, entry, is_flag_hidden=hidden) if outcome else ()),
            *(_read(session, entry) if entry else ()),
            *(_happened(step) for step in shown if step.step in _TELLING),
        ]
        return Case(
            scan_id=scan.id,
            key=scan.key,
            path=scan.path,
            patient=scan.patient,
            study=scan.study,
            site=site.name,
            zone=site.time_zone,
            batch=batch.id,
            state=known.state,
            verdict=Verdict(known.verdict) if known.verdict and known.entry == State.DONE else None,
            laboratory=LabResult(known.laboratory) if known.laboratory else None,
            is_closed=known.is_closed,
            is_discrepant=known.is_discrepant,
            is_hidden=hidden,
            happened=tuple(happened),
        )


def add_step(db: Database, scan_id: int, *, step: Step, result: str | None, at: datetime, note: str, by: str) -> None:
    """Append what happened to a case, on record. Raises Refused, saying why."""
    if at.timestamp() > now().timestamp() + SOON:
        raise Refused("That moment has not come yet.")
    if len(note) > NOTE_CHARACTERS:
        raise Refused(f"A note may have {NOTE_CHARACTERS:,} characters.")
    with db.writing() as session:
        scan = session.get_one(Scan, scan_id, with_for_update=True)
        steps = session.scalars(select(CaseStep).where(CaseStep.scan_id == scan.id).order_by(CaseStep.id)).all()
        if step == Step.CLOSED and _is_closed(steps):
            raise Refused("This case is closed already.")
        if step == Step.REOPENED and not _is_closed(steps):
            raise Refused("This case is open.")
        if step in (Step.CLOSED, Step.REOPENED) and not note.strip():
            raise Refused("Say in the note why.")
        append(session, scan.id, step=step, result=result, at=at, note=note, by=by)


def append(session: Session, scan_id: int, *, step: Step, result: str | None, at: datetime, note: str, by: str) -> None:
    """One row and its event, inside a running write transaction."""
    if step in RESULTS and result not in list(RESULTS[step]):
        raise Refused(f"Choose one of: {', '.join(RESULTS[step])}.")
    result = result if step in RESULTS else None
    row = CaseStep(scan_id=scan_id, step=step, result=result, at=at, by=by, recorded_at=now(), note=note)
    session.add(row)
    session.flush()
    record(session, by, "case_step", f"scan {scan_id}", {"step": step, "result": result, "case_step": row.id})


def turnaround(
    db: Database,
    *,
    batch_id: int | None = None,
    site_ids: set[int] | None = None,
    site_id: int | None = None,
    since: datetime | None = None,
) -> Turnaround:
    """How long scans that were submitted `since` then took from submission to verdict."""
    times = select(Entry.submitted_at, Entry.decided_at).where(Entry.state == State.DONE)
    if batch_id is not None:
        times = times.where(Entry.batch_id == batch_id)
    if site_ids is not None:
        times = times.where(Entry.site_id.in_(site_ids))
    if site_id is not None:
        times = times.where(Entry.site_id == site_id)
    if since is not None:
        times = times.where(Entry.submitted_at >= since)
    with db.reading() as session:
        taken = sorted((end - start).total_seconds() for start, end in session.execute(times) if end is not None)
    if not taken:
        return Turnaround(0, None, None)
    return Turnaround(len(taken), statistics.median(taken), taken[math.ceil(0.9 * len(taken)) - 1])


def is_hidden(session: Session, entry: Entry, me: UserView) -> bool:
    """Whether the blindness of an entry still hides from this user whether the scan was flagged."""
    if not entry.blind or entry.state not in OPEN:
        return False
    if me.role == Role.ARBITER and entry.state == State.ARBITER:
        return False
    return not session.scalar(select(exists().where(Review.scan_id == entry.scan_id, Review.reader_id == me.id)))


_TELLING = (Step.LABORATORY, Step.CLOSED, Step.REOPENED)


def _newest(steps: Sequence[CaseStep], step: Step) -> str | None:
    return next((one.result for one in reversed(steps) if one.step == step), None)


def _is_closed(steps: Sequence[CaseStep]) -> bool:
    ends = [one.step for one in steps if one.step in (Step.CLOSED, Step.REOPENED)]
    return bool(ends) and ends[-1] == Step.CLOSED


def _happened(step: CaseStep) -> Happened:
    return Happened(step.step, step.at, step.by, step.result or "", step.note)


def _stated(scan: Scan, site: Site, steps: Iterable[CaseStep]) -> Iterator[Happened]:
    """When it was suspected and imaged, as its file or the manifest says."""
    tags, zone = scan.tags or {}, zone_of(site.time_zone)
    for step, names, by in (
        (Step.SUSPECTED, ("suspected",), "manifest"),
        (Step.IMAGED, ("imaged", "study_date"), "the file's header or manifest"),
    ):
        moments = [found for name in names if (found := _moment(tags.get(name), zone))]
        if moments:
            yield Happened(step, moments[0], by)


def _moment(text: object, zone: tzinfo) -> datetime | None:
    try:
        return stated(str(text), zone) if text else None
    except ValueError:
        return None


def _screened(session: Session, outcome: Outcome, entry: Entry | None, *, is_flag_hidden: bool) -> Iterator[Happened]:
    model = session.get_one(TrainedModel, outcome.trained_model_id)
    by = f"{model.name} {model.version}"
    if outcome.kind != Kind.SCORED:
        yield Happened(CaseState.UNSCREENED, outcome.at, by, outcome.reason or "")
        return
    yield Happened("screened", outcome.at, by)
    if not is_flag_hidden:
        yield Happened("flagged" if outcome.flagged else "cleared", outcome.at, by)


def _read(session: Session, entry: Entry) -> Iterator[Happened]:
    """The final verdict, by whoever's word it was."""
    if entry.state != State.DONE or entry.decided_at is None:
        return
    given = select(Review, User.name).join(User, Review.reader_id == User.id).where(Review.scan_id == entry.scan_id)
    rows = session.execute(given.where(Review.stage != Stage.IMPRESSION).order_by(Review.id.desc())).all()
    last = [name for review, name in rows if review.stage == Stage.ARBITRATION][:1]
    newest = {name: review.verdict for review, name in reversed(rows)}
    by = last or sorted(name for name, verdict in newest.items() if verdict == entry.verdict)
    yield Happened("read", entry.decided_at, ", ".join(by), entry.verdict or "")
