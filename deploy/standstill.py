"""When waiting for scores is in vain: workers end as often as they start, or every one refuses the model."""

from db.errors import NothingScores
from db.store import reading
from db.store.connection import Database
from db.store.reading import Totals, WorkerView
from deploy.supervisor import Supervisor
from workers.devices import REFUSES

TRIES = 5  # ends of each worker, on average, since a scan was last done


class Standstill:
    """Watches a batch that is waited for. `stage` is the one of the workers among a supervisor's parts."""

    def __init__(self, db: Database, *, stage: int) -> None:
        self._db, self._stage = db, stage
        self._waiting = -1
        self._deaths = 0
        self._children: set[int] = set()  # process ids: one that died is followed by another

    def look(self, totals: Totals, supervisor: Supervisor | None) -> None:
        """Note how the batch stands; `supervisor` keeps this process's own workers, if it has any. Raises
        NothingScores, which says what still waits and what the workers' logs end with."""
        workers = [worker for worker in reading.workers(self._db) if worker.alive and worker.scores]
        ended = supervisor.deaths(stage=self._stage) if supervisor else 0
        if totals.waiting != self._waiting:
            self._waiting, self._deaths, self._children = totals.waiting, ended, set()
        self._children |= {worker.pid for worker in workers}
        lost = ended - self._deaths + max(0, len(self._children) - len(workers))
        if _all_refuse(workers, totals):
            raise NothingScores(self._message(totals, f"every worker refuses model {totals.model}", supervisor))
        kept = supervisor.count(stage=self._stage) if supervisor else 0
        if lost >= TRIES * max(1, kept, len(workers)):
            raise NothingScores(self._message(totals, f"workers ended {lost} times with nothing done", supervisor))

    def _message(self, totals: Totals, why: str, supervisor: Supervisor | None) -> str:
        return (
            f"no worker scores: {why}; {totals.waiting:,} of {totals.found:,} scans of batch {totals.batch} still wait."
            f" Mend that (`nightread doctor` may know), then run this command again"
            + (supervisor.last_lines(stage=self._stage) if supervisor else "")
        )


def _all_refuse(workers: list[WorkerView], totals: Totals) -> bool:
    refuses = f"{REFUSES}{totals.model}"
    return bool(workers) and all(one.doing == refuses or one.doing.startswith(f"{refuses}: ") for one in workers)
