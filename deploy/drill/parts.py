"""The house that a drill shakes: real servers and real parts in one private folder, started again when they die."""

import ctypes
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from db.migrate import upgrade
from db.settings import Settings
from db.store import audit, models
from db.store.connection import connect
from db.store.sites import add_site, set_site
from deploy import local, queue_server
from deploy.drill import part, postgres, stub
from deploy.drill.proxy import Proxy
from deploy.drill.scans import SHARE, SITE
from deploy.supervisor import Part, Say, Supervisor

QUEUE, POSTGRES, WEB = "queue", "postgres", "web"
SWEEPS = ("sweep-1", "sweep-2")
SERVERS, OTHERS, WORKERS = 0, 1, 2  # stages: the highest stops first
LEASE_SECONDS = 2.5
DISK_BYTES = 400_000_000  # of the small disk, where this process may mount one
RESTART_SECONDS = 0.5
PATIENCE = 300.0  # for a start on a busy machine
NAME = "nightread"
CLONE_NEWNS, MS_REC_PRIVATE = 0x00020000, 0x4000 | 0x40000


@dataclass(frozen=True)
class Progress:
    """What the ledger says: chunks completed, chunks that are not, submissions under way, scans with an outcome."""

    completed: int
    waiting: int
    unsealed: int
    outcomes: int


@dataclass
class House:
    """Every part, by name, and the ways past the proxies; `close` ends all of it."""

    folder: Path
    database: str
    lock: int
    say: Say
    workers: int = 2
    programs: Path | None = None  # PostgreSQL's
    may_mount: bool = False  # `leave_namespace` succeeded
    has_small_disk: bool = False
    supervisor: Supervisor = field(init=False)
    config: Settings = field(init=False)  # the parts': through the proxies
    direct: Settings = field(init=False)
    queue_proxy: Proxy = field(init=False)
    database_proxy: Proxy | None = None
    cluster: postgres.Cluster | None = None
    errands: dict[str, Path] = field(default_factory=dict)  # every producer that was started, and its folder

    def __post_init__(self) -> None:
        self.disk.mkdir(mode=0o711)
        self.has_small_disk = self.may_mount and mount_small_disk(self.disk)
        for private in (self.home, self.queue_folder, self._temporary):
            private.mkdir(mode=0o700)
        self.supervisor = Supervisor(self.folder / "logs", self.lock, self.say, longest_delay=RESTART_SECONDS)
        self.queue_proxy = Proxy(self.queue_socket)
        if self.database == "postgresql" and self.programs is not None:
            self.cluster = postgres.make(self.disk / "pg", self.programs, settings=postgres.HONEST)
            self.database_proxy = Proxy(self.cluster.folder / ".s.PGSQL.5432")

    @property
    def disk(self) -> Path:
        """What the night writes: database, append-only file, home."""
        return self.folder / "disk"

    elsewhere = f"{SITE}-elsewhere"  # a site that submits nothing

    @property
    def home(self) -> Path:
        return self.disk / "home"

    @property
    def queue_folder(self) -> Path:
        return self.disk / "q"

    @property
    def queue_socket(self) -> Path:
        return self.queue_folder / "queue.sock"

    @property
    def database_url(self) -> str:
        """Past the proxy."""
        return self.cluster.url(NAME) if self.cluster else f"sqlite:///{self.home / 'nightread.db'}"

    def start_servers(self) -> None:
        """Queue server, database, proxies; an empty, migrated database with the site and the stub."""
        self.queue_proxy.start()
        self.supervisor.start([self._queue_part(), *self._postgres_part()])
        if self.cluster is not None and self.database_proxy is not None:
            self.database_proxy.start()
            with self.cluster.connect() as session:
                session.execute(f"CREATE DATABASE {NAME}")
        self.config, self.direct = self._settings(through_proxies=True), self._settings(through_proxies=False)
        db = connect(self.direct)
        upgrade(db)
        for name in (SITE, self.elsewhere):
            add_site(db, name, by="drill")
        set_site(db, SITE, {"sample_share": SHARE}, by="drill")
        (self.home / "models" / "stub").mkdir(parents=True)
        models.activate(db, models.register(db, stub.REGISTRATION, by="drill"), why="a drill", by="drill")
        self.audit_key = audit.audit_key(self.direct)
        db.engine.dispose()

    def start_scoring(self) -> None:
        """Two sweeps, the workers, the web."""
        sweeps = [self.part(name, "sweep") for name in SWEEPS]
        workers = [
            self.part(name, "worker", "--device", "cpu", stage=WORKERS, more=self._of_worker(number))
            for number, name in enumerate(self.worker_names, 1)
        ]
        self.supervisor.start([*sweeps, *workers, self.part(WEB, "web")])

    def start_older_worker(self, name: str) -> None:
        """A worker of an earlier release, that listens where nobody rings."""
        more = self._of_worker(99) | {part.PROTOCOL: "0"}
        self.supervisor.start([self.part(name, "worker", "--device", "cpu", stage=WORKERS, more=more)])

    def submit(self, root: Path, *, name: str) -> None:
        """Start a producer over a folder; it is started again until it succeeds (`supervisor.has`)."""
        self.errands[name] = root
        errand = self.part(name, "submit", str(root), "--site", SITE, "--json", is_errand=True)
        self.supervisor.start([errand])

    def submissions(self) -> list[Path]:
        """The folders that a producer is at work on just now."""
        return [root for name, root in list(self.errands.items()) if self.supervisor.has(name)]

    def part(
        self,
        name: str,
        *command: str,
        stage: int = OTHERS,
        more: Mapping[str, str] | None = None,
        is_errand: bool = False,
    ) -> Part:
        """One of ours, changed by `deploy.drill.part`."""
        words = [sys.executable, "-m", "deploy.drill.part", *command]
        return Part(name, lambda: words, self._environment() | dict(more or {}), stage=stage, is_errand=is_errand)

    @property
    def worker_names(self) -> list[str]:
        return [f"worker-{number}" for number in range(1, self.workers + 1)]

    def skew_file(self, worker: str) -> Path:
        """Where a worker reads, at its start, by how much its clock is wrong."""
        return self.folder / f"{worker}.skew"

    def write_script(self, *, pace: float, marks: Mapping[str, str]) -> None:
        """Tell the stub how slow to be, and over which pictures to misbehave; whole or not at all."""
        draft = self._script.with_suffix(".draft")
        draft.write_text(json.dumps({"pace": pace, "marks": dict(marks)}))
        draft.replace(self._script)

    def ask(self, question: str, *, seconds: float = 5.0) -> list[tuple[Any, ...]]:
        """A question to the database itself. Raises sqlite3.Error and psycopg.Error."""
        if self.cluster is not None:
            with self.cluster.connect(NAME, timeout=int(seconds)) as session:
                session.execute(f"SET statement_timeout = {int(1000 * seconds)}")
                return list(session.execute(question))
        with closing(sqlite3.connect(self.home / "nightread.db", timeout=seconds)) as session:
            return session.execute(question).fetchall()

    def progress(self) -> Progress | None:
        """How far the night is; None while the database does not answer."""
        try:
            row = self.ask(
                "SELECT (SELECT count(*) FROM chunks WHERE completed_at IS NOT NULL),"
                " (SELECT count(*) FROM chunks WHERE completed_at IS NULL),"
                " (SELECT count(*) FROM batches WHERE sealed_at IS NULL),"
                " (SELECT count(*) FROM outcomes)",
                seconds=2.0,
            )[0]
        except (sqlite3.Error, psycopg.Error):
            return None
        return Progress(*(int(value) for value in row))

    def until(self, holds: Callable[[], bool], *, seconds: float) -> bool:
        """Wait for something; False when it did not come about in time."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def stop_parts(self) -> list[str]:
        """Stop everything but the servers, in good order; the names of those that had to be killed."""
        return self.supervisor.stop(down_to=OTHERS)

    def close(self) -> None:
        """End everything that is left."""
        self.supervisor.stop(patience=20)
        for proxy in (self.queue_proxy, self.database_proxy):
            if proxy is not None and proxy.port:
                proxy.stop()

    @property
    def _temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def _script(self) -> Path:
        return self.folder / "script.json"

    def _of_worker(self, number: int) -> dict[str, str]:
        return {part.NUMBER: str(number), part.SKEW: str(self.skew_file(f"worker-{number}"))}

    def _environment(self) -> dict[str, str]:
        told = {name: value for name, value in local.environment(self.config).items() if _is_ours(name, self.config)}
        return told | {stub.SCRIPT: str(self._script), "TMPDIR": str(self._temporary)}

    def _settings(self, *, through_proxies: bool) -> Settings:
        queue = f"redis+socket://{self.queue_socket}"
        database = self.database_url if self.cluster else ""
        if through_proxies:
            queue = f"redis://127.0.0.1:{self.queue_proxy.port}/0"
            if self.database_proxy is not None:
                database = f"postgresql+psycopg://{postgres.USER}@127.0.0.1:{self.database_proxy.port}/{NAME}"
        given: dict[str, Any] = {
            "home": self.home,
            "queue_url": queue,
            "database_url": database,
            "roots": str(self.folder / "scans"),
            "max_megapixels": 20,
            "decoders": 1,
            "decode_seconds": 10.0,
            "chunk_size": 16,
            "engine_batch": 8,
            "lease_seconds": LEASE_SECONDS,
            "sweep_seconds": 0.5,
            "task_seconds": 15,
            "web_port": _free_port(),
        }
        return Settings(**given)

    def _queue_part(self) -> Part:
        return Part(
            QUEUE, self._prepare_queue, queue_server.environment(), stage=SERVERS, ready=self.queue_socket.exists
        )

    def _prepare_queue(self) -> list[str]:
        """As `deploy.queue_server` does it, but with the commands by which a drill does harm."""
        self.queue_socket.unlink(missing_ok=True)
        lines = ["port 0", f"unixsocket {self.queue_socket}", "unixsocketperm 600", f"dir {self.queue_folder}"]
        lines += ["appendonly yes", "appendfsync everysec", 'save ""', "maxmemory-policy noeviction", "daemonize no"]
        written = self.folder / "queue.conf"
        written.write_text("\n".join(lines) + "\n")
        return [str(queue_server.find_server()), str(written)]

    def _postgres_part(self) -> list[Part]:
        if self.cluster is None:
            return []
        surrounding = postgres.environment(self.cluster.folder)
        return [Part(POSTGRES, self.cluster.command, surrounding, stage=SERVERS, ready=self.cluster.is_ready)]


def leave_namespace() -> bool:
    """Give this process mounts of its own, which end with it; only root may. Before any thread is started."""
    if os.getuid() != 0 or sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.unshare(CLONE_NEWNS) == 0 and libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None) == 0)


def mount_small_disk(folder: Path) -> bool:
    """Put a file system of DISK_BYTES over a folder; False where this process may not. After `leave_namespace`."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=711", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _is_ours(name: str, config: Settings) -> bool:
    """No setting of whoever runs the drill gets into it."""
    known = {f"NIGHTREAD_{field.upper()}" for field in config.model_fields_set}
    return not name.startswith("NIGHTREAD_") or name.startswith("NIGHTREAD_DRILL_") or name in known
