"""Nights in numbers: what a trained model did at each site, night by night, from the batches of a window of time.

A night goes from noon to noon in its site's own time zone, by when a batch was submitted. Cost: the batches of the
window are found by an index and counted one by one; the counts of a batch that is done are remembered by this process
until something of it can have changed (another threshold, a retry), so that a page costs what is new."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Integer, cast, func, select
from sqlalchemy.orm import Session

from db.moments import zone_of
from db.schema import Batch, Chunk, Entry, Outcome, Scan, Site, Threshold
from db.store.browsing import OPEN
from db.store.connection import Database
from db.store.scoring import current_outcome
from db.words import Kind

BINS = 100  # of scores: quantiles are told to a hundredth
LEAST_SCORED = 10  # scans of a night, before its scores are described
MOST_BATCHES = 2000  # of a window; the newest
REMEMBERED = 20_000  # batches
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Counted:
    """A batch, or several, in numbers; `scores` has for each hundredth how many scans were scored so."""

    found: int
    flagged: int
    rejected: int
    failed: int
    waiting: int
    scores: tuple[int, ...]

    @property
    def scored(self) -> int:
        return sum(self.scores)

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(
            self.found + other.found,
            self.flagged + other.flagged,
            self.rejected + other.rejected,
            self.failed + other.failed,
            self.waiting + other.waiting,
            tuple(map(sum, zip(self.scores, other.scores, strict=True))),
        )

    def quantiles(self) -> tuple[float, ...] | None:
        """The scores at QUANTILES, to a hundredth; None where too few were scored."""
        if self.scored < LEAST_SCORED:
            return None
        return tuple(_quantile(self.scores, part) for part in QUANTILES)

    def share(self, name: str) -> float | None:
        """How many were rejected or failed, of the found; how many flagged, of the scored. None where none was."""
        of = self.scored if name == "flagged" else self.found
        return getattr(self, name) / of if of else None


NOTHING = Counted(0, 0, 0, 0, 0, (0,) * BINS)


@dataclass(frozen=True)
class NightFigures:
    """One night of one site. While `is_blind`, how many were flagged would tell drawn scans from flagged ones."""

    site_id: int
    site: str
    night: date
    batches: tuple[int, ...]
    counted: Counted
    is_blind: bool


@dataclass(frozen=True)
class _Listed:
    """A batch of the window; `changes` tells when its counts can have changed."""

    id: int
    site_id: int
    site: str
    zone: str
    submitted_at: datetime
    changes: tuple[object, ...] | None  # None: it is not done


def nights(db: Database, *, site_ids: set[int], model_id: int, since: datetime) -> list[NightFigures]:
    """The nights of these sites under a model since then, oldest first, sites by name."""
    with db.reading() as session:
        batches = _batches(session, site_ids, model_id, since)
        counted = _counted(db, session, model_id, batches)
        blind = _blind(session, [batch.id for batch in batches])
    grouped: dict[tuple[date, str, int], list[_Listed]] = defaultdict(list)
    for batch in batches:
        grouped[night_of(batch.submitted_at, batch.zone), batch.site, batch.site_id].append(batch)
    return [
        NightFigures(
            site_id,
            site,
            night,
            tuple(batch.id for batch in mine),
            sum((counted[batch.id] for batch in mine), NOTHING),
            any(batch.id in blind for batch in mine),
        )
        for (night, site, site_id), mine in sorted(grouped.items())
    ]


def night_of(moment: datetime, zone: str) -> date:
    """The date on which the night began that a moment belongs to, from noon to noon."""
    return (moment.astimezone(zone_of(zone)) - timedelta(hours=12)).date()


def total(figures: Iterable[NightFigures]) -> Counted:
    """Several nights as one."""
    return sum((one.counted for one in figures), NOTHING)


def _batches(session: Session, site_ids: set[int], model_id: int, since: datetime) -> list[_Listed]:
    ruling = session.scalar(select(func.max(Threshold.id)).where(Threshold.trained_model_id == model_id))
    newest_chunk = select(func.max(Chunk.id)).where(Chunk.batch_id == Batch.id).correlate(Batch).scalar_subquery()
    columns = select(Batch.id, Batch.site_id, Site.name, Site.time_zone, Batch.submitted_at, newest_chunk)
    mine = (Batch.trained_model_id == model_id, Batch.site_id.in_(site_ids), Batch.submitted_at >= since)
    is_open = select(Chunk.batch_id).where(Chunk.completed_at.is_(None)).distinct()
    still_open = set(session.scalars(is_open)) | set(session.scalars(select(Batch.id).where(Batch.sealed_at.is_(None))))
    rows = session.execute(
        columns.join(Site, Site.id == Batch.site_id).where(*mine).order_by(Batch.id.desc()).limit(MOST_BATCHES)
    )
    return [
        _Listed(batch_id, site_id, site, zone, at, None if batch_id in still_open else (ruling, chunk))
        for batch_id, site_id, site, zone, at, chunk in rows
    ]


def _counted(db: Database, session: Session, model_id: int, batches: Sequence[_Listed]) -> dict[int, Counted]:
    """The counts of each batch: remembered, or counted now."""
    known = _memory(db)
    found: dict[int, Counted] = {}
    for batch in batches:
        remembered = known.get(batch.id)
        if remembered is not None and remembered[0] == batch.changes:
            found[batch.id] = remembered[1]
            continue
        found[batch.id] = _count(session, model_id, batch.id)
        if batch.changes is not None:
            known[batch.id] = batch.changes, found[batch.id]
    return found


_MEMORY: dict[str, dict[int, tuple[object, Counted]]] = {}


def _memory(db: Database) -> dict[int, tuple[object, Counted]]:
    """What this process remembers of a database."""
    known = _MEMORY.setdefault(str(db.engine.url), {})
    if len(known) > REMEMBERED:
        known.clear()
    return known


def _count(session: Session, model_id: int, batch_id: int) -> Counted:
    score = cast(func.round(Outcome.score * BINS - 0.5), Integer)  # the hundredth it lies in
    columns = select(Outcome.kind, Outcome.flagged, score, func.count()).select_from(Scan)
    joined = columns.outerjoin(Outcome, current_outcome(model_id)).where(Scan.batch_id == batch_id)
    numbers: Counter[str] = Counter()
    scores = [0] * BINS
    for kind, flagged, place, count in session.execute(joined.group_by(Outcome.kind, Outcome.flagged, score)):
        numbers["found"] += count
        numbers[kind or "waiting"] += count
        numbers["flagged"] += count if flagged else 0
        if kind == Kind.SCORED:
            scores[min(max(int(place), 0), BINS - 1)] += count
    return Counted(
        numbers["found"],
        numbers["flagged"],
        numbers[Kind.REJECTED],
        numbers[Kind.FAILED],
        numbers["waiting"],
        tuple(scores),
    )


def _blind(session: Session, batch_ids: Sequence[int]) -> set[int]:
    """The batches of which somebody has still to read a scan blind."""
    still = select(Entry.batch_id).where(Entry.batch_id.in_(batch_ids), Entry.state.in_(OPEN), Entry.blind)
    return set(session.scalars(still.distinct()))


def _quantile(scores: Sequence[int], part: float) -> float:
    """The middle of the hundredth that holds the score of that rank."""
    rank, passed = part * sum(scores), 0
    for place, count in enumerate(scores):
        passed += count
        if count and passed >= rank:
            return (place + 0.5) / BINS
    return 1.0
