"""Harm to the servers, the links to them, the disk under them, and what lies in the queue. As `deploy.drill.harm`."""

import random
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import redis

from deploy.drill import messages
from deploy.drill.harm import CannotBeDone, Heal, Inject, named, nothing, send, wait_until
from deploy.drill.parts import POSTGRES, QUEUE, House
from workers.queue import QUEUE as RINGS


def flush(house: House, chance: random.Random) -> Heal:
    _client(house).flushall()
    return nothing


def no_memory(house: House, chance: random.Random) -> Heal:
    """The queue server may hold nothing more: it refuses every write, acknowledgements too."""
    _client(house).config_set("maxmemory", 1)
    return lambda: _until_done(lambda: _client(house).config_set("maxmemory", 0))


def kill_backends(house: House, chance: random.Random) -> Heal:
    with _cluster(house).connect() as session:
        session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = current_user"
            " AND pid <> pg_backend_pid()"
        )
    return nothing


def kill_backend(house: House, chance: random.Random) -> Heal:
    """The kernel kills one server process: PostgreSQL ends all of them and recovers."""
    with _cluster(house).connect() as session:
        rows = session.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'").fetchall()
    send(int(str(chance.choice(sorted(rows))[0])), signal.SIGKILL)
    return nothing


def end_postgres(number: int) -> Inject:
    """SIGQUIT to the postmaster is an immediate shutdown, SIGKILL is worse: no goodbye, recovery from the log."""

    def inject(house: House, chance: random.Random) -> Heal:
        send(named(house, POSTGRES), number)
        return lambda: wait_until(lambda: bool(_cluster(house).is_ready()), "PostgreSQL is back")

    return inject


def hold_in_postgres(*statements: str) -> Inject:
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


def hold_in_sqlite(house: House, chance: random.Random) -> Heal:
    session = sqlite3.connect(house.home / "nightread.db", timeout=60, isolation_level=None, check_same_thread=False)
    session.execute("BEGIN IMMEDIATE")

    def heal() -> None:
        session.execute("ROLLBACK")
        session.close()

    return heal


def reset(which: str) -> Inject:
    def inject(house: House, chance: random.Random) -> Heal:
        _proxy(house, which).reset()
        return nothing

    return inject


def half_open(which: str) -> Inject:
    def inject(house: House, chance: random.Random) -> Heal:
        _proxy(house, which).deafen()
        return lambda: _ignored(_proxy(house, which).mend())

    return inject


def parted(which: str) -> Inject:
    def inject(house: House, chance: random.Random) -> Heal:
        _proxy(house, which).part()
        return lambda: _ignored(_proxy(house, which).mend())

    return inject


def slow(which: str) -> Inject:
    def inject(house: House, chance: random.Random) -> Heal:
        _proxy(house, which).delay(chance.uniform(0.1, 0.6))
        return lambda: _proxy(house, which).delay(0.0)

    return inject


def fill_disk(house: House, chance: random.Random) -> Heal:
    """No byte is left where database, append-only file and pictures lie."""
    if not house.has_small_disk:
        raise CannotBeDone("no file system may be mounted here (not root): `files may not grow` ran in its place")
    filler = house.disk / "filler"
    _fill(filler)
    return lambda: filler.unlink(missing_ok=True)


def push(make: Callable[[random.Random, Path], Iterator[bytes]]) -> Inject:
    """Put foreign messages in front of the rings."""

    def inject(house: House, chance: random.Random) -> Heal:
        client = _client(house)
        for message in make(chance, house.folder / messages.PROOF):
            client.rpush(RINGS, message)  # workers take from this end
        return nothing

    return inject


def remote_control(house: House, chance: random.Random) -> Heal:
    """What shuts every worker down where Celery's remote control is on: as a broadcast, and among the rings."""
    client = _client(house)
    for message in messages.control(chance, house.folder):
        client.publish(messages.BROADCAST, message)
        client.rpush(RINGS, message)
    return nothing


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

    wait_until(done, "the queue server answers")


def _ignored(value: object) -> None:
    pass
