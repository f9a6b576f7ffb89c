"""Break-glass: an admin sees the scans of a batch only after opening it, with a reason, in the session at hand.

An opening is an event of the audit record and nothing else, so that it is chained, append-only, and the reason with it.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from db.schema import AuditEvent
from db.store.audit import record
from db.store.connection import Database
from db.store.people import Visit

OPENED = "opened"


@dataclass(frozen=True)
class Opening:
    """Who opened a batch, when and why."""

    user: str
    reason: str
    at: datetime
    session_id: int


def open_batch(db: Database, batch_id: int, visit: Visit, reason: str) -> None:
    """Put on record that an admin opens this batch; it stays open to them until the session ends."""
    with db.writing() as session:
        detail = {"session": visit.session_id, "reason": reason}
        record(session, visit.user.name, OPENED, _about(batch_id), detail)


def is_open(db: Database, batch_id: int, visit: Visit) -> bool:
    """Whether the batch was opened in this session."""
    return any(opening.session_id == visit.session_id for opening in openings(db, batch_id))


def openings(db: Database, batch_id: int) -> list[Opening]:
    """Every opening of a batch, newest first."""
    with db.reading() as session:
        same = (AuditEvent.action == OPENED, AuditEvent.object == _about(batch_id))
        events = session.scalars(select(AuditEvent).where(*same).order_by(AuditEvent.id.desc()))
        return [Opening(each.actor, each.detail["reason"], each.at, each.detail["session"]) for each in events]


def _about(batch_id: int) -> str:
    return f"batch {batch_id}"
