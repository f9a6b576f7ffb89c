"""One run: start the house, let everything on the schedule go wrong, wait for the morning, ask the auditor."""

import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psycopg
import redis

from db.errors import NightreadError
from deploy.drill import auditor, doorbell, messages, scans
from deploy.drill.faults import FAULTS
from deploy.drill.harm import CannotBeDone
from deploy.drill.pages import Visitor
from deploy.drill.parts import House, Progress
from deploy.drill.runs import Run, Violation
from deploy.drill.schedule import Planned, Schedule, draw

LOOK_SECONDS = 0.2
START_SECONDS = 300.0  # until the first chunk is completed; the machine may be busy
MORNING_SECONDS = 240.0  # after the last fault healed: whatever waits then was lost
PACE_SHARE = 0.8  # of the schedule's length, which the stub's slowness makes the work last
SLOWEST = 0.1  # seconds an image: eight of them, in one call of the engine, are well below a lease
TRY_SECONDS = 10.0  # a fault meets another one: tried again so long
NOW_AND_THEN = (psycopg.Error, sqlite3.Error, redis.RedisError, OSError, NightreadError)


@dataclass(frozen=True)
class Plan:
    """A run as it was asked for."""

    seed: int
    database: str
    scans: int
    faults: int
    only: tuple[str, ...] = ()


@dataclass
class Met:
    """A fault as it went: `began` and `healed` in seconds after the start; `recovery` is None where no work was left
    to tell; `missed` says why it could not be done."""

    name: str
    began: float = 0.0
    healed: float = 0.0
    recovery: float | None = None
    missed: str = ""


@dataclass
class Result:
    """What came of a run."""

    seed: int
    database: str
    scans: int
    seconds: float = 0.0
    faults: list[Met] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    crashes: int = 0  # of parts, as the supervisor counted

    def as_json(self) -> dict[str, object]:
        """Ready for JSON."""
        return asdict(self)


@dataclass
class Watch:
    """Looks at the ledger now and then; `seen` holds when, and what."""

    house: House
    tell: Callable[[str], None]
    seen: list[tuple[float, Progress]] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join(30)

    def recovery(self, healed: float) -> float | None:
        """Seconds from a heal to the next chunk that was completed; None where nothing waited any more."""
        before = [progress for at, progress in self.seen if at <= healed]
        after = [(at, progress) for at, progress in self.seen if at > healed]
        if not before or not after or not before[-1].waiting:
            return None
        done = before[-1].completed
        return next((at - healed for at, progress in after if progress.completed > done), None)

    def _look(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            progress = self.house.progress()
            if progress is not None and (not self.seen or progress != self.seen[-1][1]):
                self.tell(json.dumps({"seconds": round(time.monotonic(), 2), **asdict(progress)}))
            if progress is not None:
                self.seen.append((time.monotonic(), progress))


def run(plan: Plan, house: House, *, tell: Callable[[str], None]) -> Result:
    """Carry out a plan in a house that has not started yet. The caller closes the house."""
    result = Result(plan.seed, plan.database, plan.scans)
    started = time.monotonic()
    folders = scans.write(
        house.folder / "scans", seed=plan.seed, scans=plan.scans, poison=1, hangs=int(plan.seed % 5 == 0)
    )
    schedule = draw(plan.seed, plan.database, faults=plan.faults, folders=len(folders.others) - 1, only=plan.only)
    tell(json.dumps({"plan": asdict(plan), "schedule": asdict(schedule)}))
    pace = min(SLOWEST, PACE_SHARE * schedule.seconds * house.workers / plan.scans)
    house.write_script(pace=pace, marks=folders.marks)
    watch, visitor = Watch(house, tell), Visitor(house)
    try:
        _begin(house, folders)
        watch.start()
        visitor.start()
        result.faults = _night(house, schedule, folders, tell)
        house.write_script(pace=0.0, marks=folders.marks)
        result.violations += _until_morning(house, folders)
    finally:
        visitor.stop()
        watch.stop()
    for met in result.faults:
        met.recovery = None if met.missed else watch.recovery(met.healed)
    tell(json.dumps({"workers": house.ask("SELECT name, scans, doing FROM workers ORDER BY name")}))
    result.crashes = house.supervisor.deaths(stage=1) + house.supervisor.deaths(stage=2)
    result.violations += [Violation("W", f"{name} did not stop in good time") for name in house.stop_parts()]
    result.violations += [
        *_executed(house),
        *_scored_by_an_older_worker(house),
        *auditor.audit(_run_of(house, folders)),
    ]
    result.seconds = time.monotonic() - started
    return result


def _begin(house: House, folders: scans.Folders) -> None:
    """Up to the first completed chunk, with a folder waiting. What is submitted before any worker runs can change in
    between."""
    house.start_servers()
    house.submit(folders.prelude.root, name="submit-0")
    _require(house.until(lambda: not house.supervisor.has("submit-0"), seconds=START_SECONDS), "submitted")
    scans.change(folders)
    house.start_scoring()
    house.submit(folders.others[0].root, name="submit-1")
    _require(
        house.until(lambda: _completed(house) > 0 and len(house.submissions()) == 0, seconds=START_SECONDS), "scored"
    )


def _night(house: House, schedule: Schedule, folders: scans.Folders, tell: Callable[[str], None]) -> list[Met]:
    """Everything on the schedule, each in a thread of its own; returns once all of it is over and healed."""
    start = time.monotonic()
    tell(json.dumps({"start": round(start, 2)}))
    met = [Met(planned.name) for planned in schedule.faults]
    threads = [
        threading.Thread(target=_meet, args=(house, planned, one, start, tell), daemon=True)
        for planned, one in zip(schedule.faults, met, strict=True)
    ]
    for number, (at, folder) in enumerate(zip(schedule.submissions, folders.others[1:], strict=True), 2):
        threads.append(threading.Thread(target=_submit, args=(house, folder.root, number, start + at), daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return met


def _submit(house: House, root: Path, number: int, at: float) -> None:
    time.sleep(max(0.0, at - time.monotonic()))
    house.submit(root, name=f"submit-{number}")


def _meet(house: House, planned: Planned, met: Met, start: float, tell: Callable[[str], None]) -> None:
    """Do one fault and undo it."""
    time.sleep(max(0.0, start + planned.at - time.monotonic()))
    met.began = time.monotonic()
    try:
        heal = _inject(house, planned)
        tell(json.dumps({"at": round(time.monotonic() - start, 2), "begins": planned.name}))
        time.sleep(planned.holds)
        heal()
    except (CannotBeDone, *NOW_AND_THEN) as error:
        met.missed = str(error).split("\n")[0] or type(error).__name__
    met.healed = time.monotonic()
    tell(json.dumps({"at": round(met.healed - start, 2), "ends": planned.name, "missed": met.missed}))


def _inject(house: House, planned: Planned) -> Callable[[], None]:
    """Begin a fault; another one may be in its way for a while."""
    deadline = time.monotonic() + TRY_SECONDS
    while True:
        try:
            return FAULTS[planned.name].inject(house, random.Random(planned.luck))  # noqa: S311 (to be repeated)
        except NOW_AND_THEN:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _until_morning(house: House, folders: scans.Folders) -> list[Violation]:
    """Wait until nothing waits; what still does at the deadline was lost."""
    files = sum(len(one.files) for one in folders.expected)

    def is_over() -> bool:
        now = house.progress()
        return (
            now is not None
            and not now.waiting
            and not now.unsealed
            and not house.submissions()
            and now.outcomes >= files
            and auditor.is_noted(_run_of(house, folders))
            and not list(doorbell.flaws(house.queue_socket))  # a worker on a busy machine still throws forgeries away
        )

    if house.until(is_over, seconds=MORNING_SECONDS):
        return []
    return [Violation("W", f"still unfinished {MORNING_SECONDS:.0f} s after the last fault: {house.progress()}")]


def _executed(house: House) -> list[Violation]:
    there = (house.folder / messages.PROOF).exists()
    return [Violation("W", "a body out of the queue was executed")] if there else []


def _scored_by_an_older_worker(house: House) -> list[Violation]:
    rows = house.ask("SELECT name FROM workers WHERE name LIKE '%.99' AND scans > 0")
    return [Violation("W", f"{name}, which speaks an older protocol, scored") for (name,) in rows]


def _run_of(house: House, folders: scans.Folders) -> Run:
    return Run(
        home=house.home,
        database_url=house.database_url,
        queue_socket=house.queue_socket,
        audit_key=house.audit_key,
        batches=folders.expected,
        logs=house.supervisor.logs,
        canaries=folders.canaries,
    )


def _completed(house: House) -> int:
    progress = house.progress()
    return progress.completed if progress else 0


def _require(done: bool, what: str) -> None:
    if not done:
        raise NightreadError(f"nothing was {what} within {START_SECONDS:.0f} s: is this machine very busy?")
