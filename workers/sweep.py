"""The sweep: rings for what waits, takes back what was lost, obeys what the web asks. Any number may run."""

import logging
import signal
import threading
from types import FrameType

from db.errors import DatabaseUnreachable, QueueUnreachable
from db.store import audit, recovery, scoring
from db.store.connection import Database
from workers import queue

log = logging.getLogger(__name__)


def sweep(db: Database) -> recovery.Swept:
    """One round: free expired leases first, then ring for whatever nobody holds; the audit log's end is noted, too."""
    audit.note_end(db)
    swept = recovery.free_expired(db)
    if swept != recovery.Swept():
        log.warning("taken back: %d freed, %d split, %d failed", swept.freed, swept.split, swept.failed)
    waiting = scoring.waiting_chunks(db)
    if waiting:
        queue.ring(waiting)
    return swept


def run(db: Database, *, every_seconds: float) -> None:
    """Sweep until SIGTERM or SIGINT. A queue or database that is away is waited for: that is the sweep's job."""
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    while not stop.wait(every_seconds):
        try:
            sweep(db)
        except (DatabaseUnreachable, QueueUnreachable) as error:
            log.error("%s", error)
