"""The one-machine deployment behind `up`, `screen` and `demo`: queue server, sweep, a worker a device, web."""

import fcntl
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from db.errors import DatabaseUnreachable, Refused
from db.settings import Settings
from db.store import scoring
from db.store.connection import Database
from db.store.reading import Totals
from deploy import queue_server
from deploy.standstill import Standstill
from deploy.supervisor import Part, Say, Supervisor
from workers.devices import devices, worker_command

QUEUE, SWEEP, WEB = "queue", "sweep", "web"
WORKERS = 2  # their stage: they stop first
LOOK_SECONDS = 0.5


def environment(config: Settings) -> dict[str, str]:
    """The environment that gives a child process these settings."""
    given = {name: _text(getattr(config, name)) for name in (*config.model_fields_set, "home")}
    ours = {f"NIGHTREAD_{name.upper()}": value for name, value in given.items()}
    return {**os.environ, **ours, "PYTHONUNBUFFERED": "1"}


def queue_parts(config: Settings) -> list[Part]:
    """The private queue server, unless one is configured or runs already."""
    if config.queue_url.get_secret_value() or queue_server.is_running(config):
        return []
    command, ready = partial(queue_server.prepare, config), partial(queue_server.is_running, config)
    return [Part(QUEUE, command, queue_server.environment(), stage=0, ready=ready)]


def scoring_parts(config: Settings) -> list[Part]:
    """The sweep and one worker for each device."""
    surrounding = environment(config)
    workers = [
        Part(f"worker-{device.replace(':', '-')}", partial(worker_command, device), surrounding, stage=WORKERS)
        for device in devices()
    ]
    return [Part(SWEEP, partial(_ours, "sweep"), surrounding), *workers]


def web_parts(config: Settings) -> list[Part]:
    """The web server of the review pages."""
    return [Part(WEB, partial(_ours, "web"), environment(config), ready=partial(_answers, config))]


def with_free_port(config: Settings) -> Settings:
    """These settings with a port that the web server can have: a free one for 0. Raises Refused where it is taken."""
    try:
        with socket.create_server((config.web_host, config.web_port), family=_family(config)) as free:
            port: int = free.getsockname()[1]
    except OSError as error:
        raise Refused(
            f"port {config.web_port} of {config.web_host} cannot be had ({error.strerror}): set NIGHTREAD_WEB_PORT"
        ) from error
    return Settings(**{name: getattr(config, name) for name in config.model_fields_set} | {"web_port": port})


def console_script() -> Path:
    """`nightread` as a person types it here: beside the Python that runs, relative where that is shorter."""
    script = Path(sys.executable).with_name("nightread")
    return script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script


@contextmanager
def running(config: Settings, *, say: Say) -> Iterator[tuple[Supervisor, Settings]]:
    """Everything that this machine runs, until the block ends; the settings it runs with (their port is a real one).
    Raises Refused while another one runs on this home, or where the web's port is taken."""
    with only_one(config) as lock:
        if lock is None:
            raise Refused(f"`nightread up` or `screen` runs on {config.home} already, or is just ending")
        config = with_free_port(config)
        supervisor = Supervisor(config.home / "logs", lock, say)
        try:
            supervisor.start([*queue_parts(config), *scoring_parts(config), *web_parts(config)])
            yield supervisor, config
        finally:
            supervisor.stop()


class Helper:
    """Runs what scoring needs while a block lasts, and only if it is needed: nothing where `nightread up` runs on
    this home (it takes over should that one end), and no worker before a scan waits."""

    def __init__(self, db: Database, *, say: Say) -> None:
        self._db, self._say = db, say
        self._is_needed, self._ending = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._supervisor: Supervisor | None = None
        self._standstill = Standstill(db, stage=WORKERS)
        self._thread = threading.Thread(target=self._help, name="helper", daemon=True)

    def __enter__(self) -> "Helper":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self._thread.join()

    def need(self, totals: Totals | None) -> None:
        """These scans wait: start what is not running. Raises what made a start fail, and NothingScores where
        waiting longer would be in vain."""
        self._is_needed.set()
        if self._failure is not None:
            raise self._failure
        if totals is not None:
            self._standstill.look(totals, self._supervisor)

    def _help(self) -> None:
        try:
            while not self._ending.wait(LOOK_SECONDS):
                if self._is_wanted():
                    with only_one(self._db.config) as lock:
                        if lock is not None:
                            self._run(lock)
        except BaseException as error:  # noqa: BLE001 (handed to the thread that asks)
            self._failure = error

    def _run(self, lock: int) -> None:
        config = self._db.config
        supervisor = Supervisor(config.home / "logs", lock, self._say)
        try:
            supervisor.start([*queue_parts(config), *scoring_parts(config)])
            self._supervisor = supervisor
            self._ending.wait()
        finally:
            supervisor.stop()

    def _is_wanted(self) -> bool:
        try:
            return self._is_needed.is_set() or scoring.waiting_chunks(self._db) > 0
        except DatabaseUnreachable:
            return False  # asked again: the database may be back by then


@contextmanager
def only_one(config: Settings) -> Iterator[int | None]:
    """The lock of a home folder as an open file, or None while somebody else holds it."""
    lock = os.open(config.home / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held: int | None = lock
    except BlockingIOError:
        held = None
    try:
        yield held
    finally:
        os.close(lock)


def _ours(command: str) -> list[str]:
    return [sys.executable, "-m", "producer", command]


def _answers(config: Settings) -> bool:
    try:
        socket.create_connection((config.web_host, config.web_port), timeout=1).close()
    except OSError:
        return False
    return True


def _family(config: Settings) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in config.web_host else socket.AF_INET


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return os.pathsep.join(map(str, value))
    return str(value)
