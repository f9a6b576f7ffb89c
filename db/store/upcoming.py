"""What will be claimed next, without claiming it: for whoever prepares scans ahead of the workers that score them."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select

from db.schema import Chunk
from db.store.connection import Database
from db.store.scoring import WaitingScan, waiting_scans
from db.words import PROTOCOL


@dataclass(frozen=True)
class Upcoming:
    """A chunk that nobody holds."""

    chunk_id: int
    batch_id: int
    trained_model_id: int


def upcoming(db: Database, *, skip: int = 0, not_batches: Collection[int] = ()) -> list[Upcoming]:
    """The waiting chunks in the order in which they will be claimed, but for the first `skip`."""
    waiting = select(Chunk.id, Chunk.batch_id, Chunk.trained_model_id)
    waiting = waiting.where(Chunk.completed_at.is_(None), Chunk.token.is_(None), Chunk.protocol <= PROTOCOL)
    if not_batches:
        waiting = waiting.where(Chunk.batch_id.not_in(not_batches))
    with db.reading() as session:
        rows = session.execute(waiting.order_by(Chunk.priority.desc(), Chunk.id).offset(skip))
        return [Upcoming(*row) for row in rows]


def scans_of(db: Database, chunk_id: int) -> tuple[WaitingScan, ...]:
    """The scans of a chunk that have no outcome yet."""
    with db.reading() as session:
        return waiting_scans(session, chunk_id)
