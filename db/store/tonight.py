"""Tonight's queue: what waits, how fast it has gone lately, and some of its files. Reads only.

Cost: the chunks that are open by their index, the counts of the batches they are of, and the scans of a few chunks."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.schema import Batch, Chunk, Scan, Site
from db.store import reading
from db.store.connection import Database, now
from db.store.scoring import WaitingScan, waiting_scans

LATELY = timedelta(minutes=10)
DRAWN = 64  # chunks to take a sample from

T = TypeVar("T")
_random = secrets.SystemRandom()


@dataclass(frozen=True)
class Queue:
    """What waits now. `rate` is scans a second over the last minutes, None where too little ended in them;
    `seconds_left` how long the rest takes at the rate since submission, as the web's pages say it, None likewise."""

    waiting: int
    batches: int
    still_submitting: int  # of those batches: more may come
    zones: tuple[str, ...]  # the time zones of their sites
    rate: float | None
    seconds_left: float | None


def queue(db: Database) -> Queue:
    """The scans without an outcome, over all sites and models."""
    with db.reading() as session:
        is_open = select(Chunk.batch_id).where(Chunk.completed_at.is_(None)).distinct()
        ids = {*session.scalars(is_open), *session.scalars(select(Batch.id).where(Batch.sealed_at.is_(None)))}
        zones = select(Site.time_zone).join(Batch, Batch.site_id == Site.id).where(Batch.id.in_(ids)).distinct()
        listed = tuple(session.scalars(zones.order_by(Site.time_zone)))
    batches = reading.batches(db, batch_ids=ids, limit=len(ids))
    waits = [batch for batch in batches if batch.waiting]
    return Queue(
        waiting=sum(batch.waiting for batch in waits),
        batches=len(waits),
        still_submitting=sum(not batch.sealed for batch in batches),
        zones=listed,
        rate=lately(db, since=min((batch.submitted_at for batch in waits), default=None)),
        seconds_left=max((left for batch in waits if (left := batch.seconds_left) is not None), default=None),
    )


def lately(db: Database, *, since: datetime | None = None) -> float | None:
    """Scans a second that workers completed in the last minutes (and since a moment): those of the chunks after the
    first, over the time since that. None where fewer than two chunks were completed."""
    start = max(now() - LATELY, since or now() - LATELY)
    with db.reading() as session:
        completed = select(Chunk.id, Chunk.completed_at).where(Chunk.completed_at >= start)
        chunks = session.execute(completed.order_by(Chunk.completed_at)).all()
        if len(chunks) < 2:
            return None
        after = [chunk_id for chunk_id, _ in chunks[1:]]
        count = session.scalar(select(func.count()).select_from(Scan).where(Scan.chunk_id.in_(after))) or 0
    first: datetime = chunks[0].completed_at
    return count / max((now() - first).total_seconds(), 1.0)


def some_waiting(db: Database, count: int) -> list[WaitingScan]:
    """At most `count` scans that wait, drawn at random over the queue."""
    with db.reading() as session:
        chunks = list(session.scalars(select(Chunk.id).where(Chunk.completed_at.is_(None))))
        found = [scan for chunk_id in _drawn(chunks, DRAWN) for scan in waiting_scans(session, chunk_id)]
    return _drawn(found, count)


def some_of_the_last(db: Database, count: int) -> list[WaitingScan]:
    """At most `count` scans that workers looked at, drawn at random from the chunks completed last."""
    with db.reading() as session:
        newest = select(Chunk.id).where(Chunk.completed_at.is_not(None)).order_by(Chunk.id.desc()).limit(DRAWN)
        found = [scan for chunk_id in session.scalars(newest).all() for scan in _scans(session, chunk_id)]
    return _drawn(found, count)


def zones(db: Database) -> tuple[str, ...]:
    """The time zones of all sites."""
    with db.reading() as session:
        return tuple(session.scalars(select(Site.time_zone).distinct().order_by(Site.time_zone)))


def _scans(session: Session, chunk_id: int) -> list[WaitingScan]:
    """The scans of a chunk, whatever became of them."""
    columns = select(Scan.id, Scan.key, Batch.root, Scan.path, Scan.sha256, Scan.age, Site.sample_share)
    joined = columns.join(Batch, Scan.batch_id == Batch.id).join(Site, Batch.site_id == Site.id)
    return [WaitingScan(*row) for row in session.execute(joined.where(Scan.chunk_id == chunk_id))]


def _drawn(items: list[T], count: int) -> list[T]:
    return _random.sample(items, min(count, len(items)))
