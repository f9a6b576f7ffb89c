"""Workers as they tell of themselves: a row each, on the database's clock."""

from contextlib import suppress

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError

from db.schema import Worker
from db.store.connection import Database, epoch_now, now

WORKER_GONE_SECONDS = 30.0  # without a heartbeat
PREPARES = "cpu, prepares"  # the device of a worker that fills the prepared cache and scores nothing


def beat(db: Database, *, name: str, host: str, device: str, pid: int, doing: str, scans: int) -> None:
    """Write a worker's heartbeat; its first one makes its row. Of `doing`, 100 characters are kept."""
    # Two processes of one name may make their row at once; the second one's next beat tells.
    with suppress(IntegrityError), db.writing() as session:
        worker = session.get(Worker, name)
        if worker is None or worker.pid != pid:
            session.execute(delete(Worker).where(Worker.name == name))
            session.add(Worker(name=name, host=host, device=device, pid=pid, started_at=now(), beat=0, doing=""))
            session.flush()
        values = {"beat": epoch_now(), "doing": doing[:100], "scans": scans, "stopped_at": None}
        session.execute(update(Worker).where(Worker.name == name).values(values))


def worker_stopped(db: Database, name: str) -> None:
    """Note that a worker ended in good order."""
    with db.writing() as session:
        session.execute(update(Worker).where(Worker.name == name).values(stopped_at=now(), doing=""))
