"""What can go wrong in a night, as a table: name -> how it is done to a house and undone.

A fault's `inject` gets the house and a random generator of its own (from the run's seed) and gives the heal, which
is called once its time is over, and again never. A fault that cannot be done here raises CannotBeDone, and is told."""

import os
import random
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg
import redis

from deploy.drill import messages, processes
from deploy.drill.parts import POSTGRES, QUEUE, SWEEPS, WEB, House
from deploy.undertaker import kill_group
from workers.queue import QUEUE as RINGS

Heal = Callable[[], None]
Inject = Callable[[House, random.Random], Heal]
LONGER_THAN_A_LEASE = (3.0, 5.5)  # seconds; a lease is 2.5
BLIP = (0.2, 1.0)
HELD = (2.0, 5.0)
Where = Literal["both", "sqlite", "postgresql"]


class CannotBeDone(Exception):
    """Not on this machine, or not at this moment; the text says why."""


@dataclass(frozen=True)
class Fault:
    """`holds` is how long it lasts, in seconds; `on` the database that it concerns."""

    inject: Inject
    holds: tuple[float, float] = BLIP
    on: Where = "both"


def _nothing() -> None:
    pass


def _kill(kind: str) -> Inject:
    def inject(house: House, chance: random.Random) -> Heal:
        _signal(_one(house, kind, chance), signal.SIGKILL)
        return _nothing

    return inject


def _kill_producer(house: House, chance: random.Random) -> Heal:
    """Mostly in the middle of its pages: its batch is there and not sealed."""
    pid = _one(house, "producer", chance)
    deadline = time.monotonic() + chance.choice([0.0, 10.0, 10.0])
    while time.monotonic() < deadline and pid in processes.of(house, "producer"):
        progress = house.progress()
        if progress is not None and progress.unsealed:
            break
        time.sleep(0.02)
    _signal(pid, signal.SIGKILL)
    return _nothing


def _freeze(kind: str) -> Inject:
    def inject(house: House, chance: random.Random) -> Heal:
        pid = _one(house, kind, chance)
        _signal(pid, signal.SIGSTOP)
        return lambda: _signal(pid, signal.SIGCONT)

    return inject


def _terminate(house: House, chance: random.Random) -> Heal:
    """Ask a worker to stop while it holds a chunk; the supervisor starts it again."""
    _signal(_one(house, "worker", chance), signal.SIGTERM)
    return _nothing


def _quit(house: House, chance: random.Random) -> Heal:
    """The signal with which Celery means: at once."""
    _signal(_one(house, "worker", chance), signal.SIGQUIT)
    return _nothing


def _kill_all_workers(house: House, chance: random.Random) -> Heal:
    for name in house.worker_names:
        pid = house.supervisor.pid(name)
        if pid is not None:
            kill_group(pid)
    return _nothing


def _flush(house: House, chance: random.Random) -> Heal:
    _client(house).flushall()
    return _nothing


def _no_memory(house: House, chance: random.Random) -> Heal:
    """The queue server may hold nothing more: it refuses every write, acknowledgements too."""
    _client(house).config_set("maxmemory", 1)
    return lambda: _until_done(lambda: _client(house).config_set("maxmemory", 0))


def _kill_backends(house: House, chance: random.Random) -> Heal:
    with _cluster(house).connect() as session:
        session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = current_user"
            " AND pid <> pg_backend_pid()"
        )
    return _nothing


def _kill_backend_9(house: House, chance: random.Random) -> Heal:
    """The kernel kills one server process: PostgreSQL ends all of them and recovers."""
    with _cluster(house).connect() as session:
        rows = session.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'").fetchall()
    _signal(int(str(chance.choice(sorted(rows))[0])), signal.SIGKILL)
    return _nothing


def _restart_postgres(house: House, chance: random.Random) -> Heal:
    """Immediate shutdown (SIGQUIT to the postmaster): no goodbye, recovery from the log at the next start."""
    _signal(_named(house, POSTGRES), signal.SIGQUIT)
    return lambda: _until(lambda: _cluster(house).is_ready(), "PostgreSQL is back")


def _hold_in_postgres(*statements: str) -> Inject:
    def inject(house: House, chance: random.Random) -> Heal:
        session = psycopg.connect(_cluster(house).url("nightread").replace("+psycopg", ""), connect_timeout=10)
        for statement in statements:
            session.execute(statement)

        def heal() -> None:
            with suppress(psycopg.Error):
                session.rollback()
            session.close()

        return heal

    return inject


def _hold_in_sqlite(house: House, chance: random.Random) -> Heal:
    session = sqlite3.connect(house.home / "nightread.db", timeout=60, isolation_level=None, check_same_thread=False)
    session.execute("BEGIN IMMEDIATE")

    def heal() -> None:
        session.execute("ROLLBACK")
        session.close()

    return heal


def _reset(which: str) -> Inject:
    def inject(house: House, chance: random.Random) -> Heal:
        _proxy(house, which).reset()
        return _nothing

    return inject


def _half_open(which: str) -> Inject:
    def inject(house: House, chance: random.Random) -> Heal:
        _proxy(house, which).deafen()
        return lambda: _ignored(_proxy(house, which).mend())

    return inject


def _parted(which: str) -> Inject:
    def inject(house: House, chance: random.Random) -> Heal:
        _proxy(house, which).part()
        return lambda: _ignored(_proxy(house, which).mend())

    return inject


def _slow(which: str) -> Inject:
    def inject(house: House, chance: random.Random) -> Heal:
        _proxy(house, which).delay(chance.uniform(0.1, 0.6))
        return lambda: _proxy(house, which).delay(0.0)

    return inject


def _fill_disk(house: House, chance: random.Random) -> Heal:
    """No byte is left where database, append-only file and pictures lie."""
    if not house.has_small_disk:
        raise CannotBeDone("no file system may be mounted here (not root): `files may not grow` ran in its place")
    filler = house.disk / "filler"
    _fill(filler)
    return lambda: filler.unlink(missing_ok=True)


def _forbid_growth(house: House, chance: random.Random) -> Heal:
    """RLIMIT_FSIZE 0 for a part and its children: every write to a file fails, as on a full disk of its own."""
    pid = _one(house, chance.choice(["worker", "sweep", "web"]), chance)
    before = {one: resource.prlimit(one, resource.RLIMIT_FSIZE) for one in (pid, *processes.descendants(pid))}
    for one, (_, hard) in before.items():
        with suppress(ProcessLookupError):
            resource.prlimit(one, resource.RLIMIT_FSIZE, (0, hard))

    def heal() -> None:
        for one, limits in before.items():
            with suppress(ProcessLookupError, PermissionError):
                resource.prlimit(one, resource.RLIMIT_FSIZE, limits)

    return heal


def _skew(hours: float) -> Inject:
    """A worker whose clock is wrong: it must start again to have it, and again to lose it."""

    def inject(house: House, chance: random.Random) -> Heal:
        name = chance.choice(house.worker_names)
        house.skew_file(name).write_text(str(3600 * hours))
        _signal(_named(house, name), signal.SIGTERM)

        def heal() -> None:
            house.skew_file(name).unlink(missing_ok=True)
            with suppress(CannotBeDone):
                _signal(_named(house, name), signal.SIGTERM)

        return heal

    return inject


def _push(make: Callable[[random.Random, Path], Iterator[bytes]]) -> Inject:
    """Put foreign messages in front of the rings."""

    def inject(house: House, chance: random.Random) -> Heal:
        client = _client(house)
        for message in make(chance, house.folder / messages.PROOF):
            client.rpush(RINGS, message)  # workers take from this end
        return _nothing

    return inject


def _remote_control(house: House, chance: random.Random) -> Heal:
    """What shuts every worker down where Celery's remote control is on: as a broadcast, and among the rings."""
    client = _client(house)
    for message in messages.control(chance, house.folder):
        client.publish(messages.BROADCAST, message)
        client.rpush(RINGS, message)
    return _nothing


def _older_worker(house: House, chance: random.Random) -> Heal:
    name = f"older-{chance.randrange(10**6)}"
    house.start_older_worker(name)
    return lambda: house.supervisor.dismiss(name)


def _both_sweeps_kill(house: House, chance: random.Random) -> Heal:
    for name in SWEEPS:
        with suppress(CannotBeDone):
            _signal(_named(house, name), signal.SIGKILL)
    return _nothing


def _twin(house: House, chance: random.Random) -> Heal:
    """A second producer over the folder that is being submitted just now."""
    root = _root_in_hand(house)
    house.submit(root, name=f"twin-{chance.randrange(10**6)}")
    return _nothing


FAULTS: Mapping[str, Fault] = {
    "kill worker": Fault(_kill("worker")),
    "kill child": Fault(_kill("child")),
    "kill decoder": Fault(_kill("decoder")),
    "kill sweep": Fault(_kill("sweep")),
    "kill producer": Fault(_kill_producer),
    "kill queue": Fault(_kill(QUEUE)),
    "kill web": Fault(_kill(WEB)),
    "kill all workers": Fault(_kill_all_workers),
    "kill both sweeps": Fault(_both_sweeps_kill),
    "freeze worker": Fault(_freeze("worker"), LONGER_THAN_A_LEASE),
    "freeze child": Fault(_freeze("child"), LONGER_THAN_A_LEASE),
    "freeze decoder": Fault(_freeze("decoder"), LONGER_THAN_A_LEASE),
    "freeze sweep": Fault(_freeze("sweep"), LONGER_THAN_A_LEASE),
    "freeze producer": Fault(_freeze("producer"), LONGER_THAN_A_LEASE),
    "freeze queue": Fault(_freeze(QUEUE), LONGER_THAN_A_LEASE),
    "freeze web": Fault(_freeze(WEB), LONGER_THAN_A_LEASE),
    "terminate worker": Fault(_terminate),
    "quit worker": Fault(_quit),
    "wipe queue": Fault(_flush),
    "queue out of memory": Fault(_no_memory, HELD),
    "restart postgres": Fault(_restart_postgres, on="postgresql"),
    "terminate backends": Fault(_kill_backends, on="postgresql"),
    "kill backend": Fault(_kill_backend_9, on="postgresql"),
    "hold rows": Fault(
        _hold_in_postgres("SELECT id FROM chunks WHERE completed_at IS NULL FOR UPDATE"), HELD, "postgresql"
    ),
    "hold table": Fault(_hold_in_postgres("LOCK TABLE chunks, outcomes IN ACCESS EXCLUSIVE MODE"), HELD, "postgresql"),
    "hold database": Fault(_hold_in_sqlite, HELD, "sqlite"),
    "reset queue links": Fault(_reset(QUEUE)),
    "reset database links": Fault(_reset(POSTGRES), on="postgresql"),
    "half-open queue links": Fault(_half_open(QUEUE), LONGER_THAN_A_LEASE),
    "half-open database links": Fault(_half_open(POSTGRES), LONGER_THAN_A_LEASE, "postgresql"),
    "part from queue": Fault(_parted(QUEUE), LONGER_THAN_A_LEASE),
    "part from database": Fault(_parted(POSTGRES), LONGER_THAN_A_LEASE, "postgresql"),
    "slow database": Fault(_slow(POSTGRES), HELD, "postgresql"),
    "slow queue": Fault(_slow(QUEUE), HELD),
    "full disk": Fault(_fill_disk, HELD),
    "files may not grow": Fault(_forbid_growth, HELD),
    "clock 2 h ahead": Fault(_skew(2.0), (5.0, 8.0)),
    "clock 2 h behind": Fault(_skew(-2.0), (5.0, 8.0)),
    "garbage": Fault(_push(messages.garbage)),
    "unknown tasks": Fault(_push(messages.unknown)),
    "pickled bodies": Fault(_push(messages.pickled)),
    "yaml bodies": Fault(_push(messages.yaml)),
    "forged rings": Fault(_push(messages.forged)),
    "remote control": Fault(_remote_control),
    "older worker": Fault(_older_worker, HELD),
    "two producers": Fault(_twin),
}


def _one(house: House, kind: str, chance: random.Random) -> int:
    """A process of a kind that runs now, waiting for one a while. Raises CannotBeDone."""
    deadline = time.monotonic() + 5.0
    while not (found := processes.of(house, kind)):
        if time.monotonic() > deadline:
            raise CannotBeDone(f"no {kind} runs just now")
        time.sleep(0.01)
    return chance.choice(sorted(found))


def _named(house: House, name: str) -> int:
    pid = house.supervisor.pid(name)
    if pid is None:
        raise CannotBeDone(f"{name} does not run just now")
    return pid


def _root_in_hand(house: House) -> Path:
    submissions = house.submissions()
    if not submissions:
        raise CannotBeDone("nothing is being submitted just now")
    return submissions[0]


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _client(house: House) -> Any:
    make: Any = redis.Redis  # its constructor has no types
    return make(unix_socket_path=str(house.queue_socket), socket_timeout=5)


def _cluster(house: House) -> Any:
    if house.cluster is None:
        raise CannotBeDone("this run is on SQLite")
    return house.cluster


def _proxy(house: House, which: str) -> Any:
    proxy = house.queue_proxy if which == QUEUE else house.database_proxy
    if proxy is None:
        raise CannotBeDone("this run is on SQLite")
    return proxy


def _fill(file: Path) -> None:
    for size in (2**20, 2**12, 1):
        with suppress(OSError), file.open("ab", buffering=0) as out:
            while True:
                out.write(bytes(size))


def _until_done(act: Callable[[], object]) -> None:
    """Do it, however often that takes: the server may be down or frozen by another fault."""

    def done() -> bool:
        try:
            act()
        except redis.RedisError:
            return False
        return True

    _until(done, "the queue server answers")


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        if time.monotonic() > deadline:
            raise CannotBeDone(f"waited 60 s in vain until {what}")
        time.sleep(0.1)


def _ignored(value: object) -> None:
    pass
