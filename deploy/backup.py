"""`nightread backup`: the home folder of a machine on its own as one file, while everything runs.

The database comes through SQLite's online backup, in one step, so that writers go on and the copy is of one moment. The
audit log's head is read before it (it may lag behind the log, never lead); pictures and models after it (they are
there before the row that needs them). What can be made anew is left out: the queue (a doorbell), logs, locks.
"""

import fcntl
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import click
from pydantic import SecretStr
from sqlalchemy import URL, make_url

from db.errors import Refused
from db.settings import Settings
from db.store import audit
from db.store.audit import record
from db.store.connection import Database, database
from db.store.reading import printable
from db.words import Exit
from deploy import archive
from producer import progress, reports
from producer.commands import operator

FORMAT = 1
DATABASE = "nightread.db"
HEAD = audit.HEAD_FILE
PICTURES = "derived"
LINKED = (PICTURES, "models")  # folders of the home that may be links to a larger disk
MADE_ANEW = {"queue", "logs", HEAD}  # the head is not, but comes by itself
DRAFT, COPY = ".nightread-backup.draft", ".nightread-backup.db"  # a killed backup's are overwritten by the next one
CONFIDENTIAL = "It holds patient data, password hashes and the audit key, unencrypted: keep it as you keep the home."


@dataclass(frozen=True)
class Made:
    """A finished backup; `left_out` are links and other things that are no plain files, `elsewhere` the secrets that
    the environment gives and that are therefore not in it."""

    file: str
    bytes: int
    sha256: str
    files: int
    revision: str
    pictures: bool
    left_out: tuple[str, ...]
    elsewhere: tuple[str, ...]


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--pictures/--no-pictures",
    default=True,
    show_default=True,
    help="With what scoring keeps of scans.",
)
@click.option("--json", "is_json", is_flag=True, default=False, help="Data on stdout as JSON.")
def backup(target: Path, pictures: bool, is_json: bool) -> int:
    """Write the home folder (database, secrets, models, pictures) to TARGET: a file, or a folder to put one in.

    Everything may run meanwhile. Heat maps are never made anew: without them a reader sees the picture alone."""
    with progress.counting("files written:") as show:
        made = write(database(), target, pictures=pictures, by=operator(), progress=show)
    for name in made.left_out:
        click.echo(f"left out, no plain file: {printable(name)}", err=True)
    for name in made.elsewhere:
        click.echo(f"not in it: {name}, which the environment gives; keep that, too", err=True)
    if is_json:
        reports.print_json(asdict(made))
        return Exit.DONE
    click.echo(f"{made.file}: {made.files:,} files, {made.bytes / 1e6:,.1f} MB, sha256 {made.sha256}")
    click.echo(CONFIDENTIAL)
    return Exit.DONE


def write(
    db: Database, target: Path, *, pictures: bool, by: str, progress: Callable[[int], None] = lambda count: None
) -> Made:
    """Back up a home folder, on record. Raises Refused where the database is not in it, where TARGET cannot be written
    or is something else than a backup."""
    config = db.config
    _refuse_elsewhere(config)
    file = _file(target, config.home)
    left_out: list[str] = []
    try:
        with _drafting(file.parent) as out:
            writer = archive.Writer(out)
            revision = _add_database(writer, config.home, file.parent / COPY)
            for name, path in _files(config.home, pictures=pictures, left_out=left_out, cache=config.prepared):
                _add(writer, name, path, left_out)
                progress(len(writer.parts))
            digest = writer.finish(_facts(config, revision, pictures=pictures))
            size = out.tell()
            (file.parent / DRAFT).replace(file)
    except OSError as error:
        raise Refused(f"{file} cannot be written: {error.strerror or error}") from error
    with db.writing() as session:
        record(session, by, "home_backed_up", "home", {"sha256": digest, "files": len(writer.parts)})
    elsewhere = tuple(f"NIGHTREAD_{name.upper()}" for name in _secrets(config))
    return Made(str(file), size, digest, len(writer.parts), revision, pictures, tuple(left_out), elsewhere)


def copy_database(live: Path, copy: Path) -> str:
    """Copy a SQLite database that others write to, as of one moment, to a new file; its Alembic revision. Raises
    Refused where the copy is not sound."""
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    try:
        with closing(_connect(live)) as source, closing(_connect(copy)) as into:
            source.backup(into)  # all pages in one step: a step at a time begins anew at each write of others
            into.execute("PRAGMA journal_mode=DELETE")
            (said,) = into.execute("PRAGMA quick_check(1)").fetchone()
            found = into.execute("SELECT version_num FROM alembic_version").fetchone() if said == "ok" else None
    except sqlite3.Error as error:
        raise Refused(f"{live} cannot be backed up: {error}") from error
    if found is None:
        raise Refused(f"{live} cannot be backed up: {said}")
    revision: str = found[0]
    return revision


def _connect(file: Path) -> sqlite3.Connection:
    """Open a database that is there."""
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=60)


def _refuse_elsewhere(config: Settings) -> None:
    if config.database_url:
        url = make_url(config.database_url)
        shown = URL.create(url.get_backend_name(), url.username, None, url.host, url.port, url.database, url.query)
        raise Refused(
            f"the database is not in the home folder, so its own tools back it up: "
            f"`pg_dump --format=custom --file=nightread.dump {shown}` (deploy/README.md says what else to keep)"
        )
    if not (config.home / DATABASE).is_file():
        raise Refused(f"there is no {DATABASE} in {config.home}: nothing to back up (`nightread init` makes one)")


def _file(target: Path, home: Path) -> Path:
    """Where the backup goes. Raises Refused."""
    if target.is_dir():
        target = target / f"nightread-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar"
    file = target.absolute()
    if not file.parent.is_dir():
        raise Refused(f"{file.parent} is no folder: make it first (0700: it will hold patient data)")
    if file.parent.resolve().is_relative_to(home.resolve()):
        raise Refused(f"{file} lies in the home folder itself: put it on another disk")
    if os.path.lexists(file) and not (file.is_file() and archive.is_archive(file)):
        raise Refused(f"{file} is there and is no backup: it is not overwritten")
    return file


@contextmanager
def _drafting(folder: Path) -> Iterator[IO[bytes]]:
    """An empty draft for this process alone; it and the database's copy are gone afterwards, unless it was renamed."""
    draft, copy = folder / DRAFT, folder / COPY
    opened = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(opened, "r+b") as out:
        _hold(opened, draft)
        try:
            os.fchmod(opened, 0o600)
            out.truncate(0)
            copy.unlink(missing_ok=True)
            yield out
        finally:
            draft.unlink(missing_ok=True)
            copy.unlink(missing_ok=True)


def _hold(opened: int, draft: Path) -> None:
    """Lock the draft. Raises Refused where another backup has it, or had it a moment ago: then it is a backup now."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(opened), draft.lstat()):
            return
    except (BlockingIOError, FileNotFoundError):
        pass
    raise Refused(f"another backup is being written to {draft.parent}: wait for it")


def _add_database(writer: archive.Writer, home: Path, copy: Path) -> str:
    """Add the head of the audit log and then the database; its revision."""
    head = audit.noted_head(home)
    revision = copy_database(home / DATABASE, copy)
    if head is not None:
        with TemporaryFile() as line:  # the file itself goes on meanwhile
            line.write(head)
            line.seek(0)
            writer.add(HEAD, line)
    with copy.open("rb") as content:
        writer.add(DATABASE, content)
    copy.unlink()
    return revision


def _files(home: Path, *, pictures: bool, left_out: list[str], cache: Path | None = None) -> Iterator[tuple[str, Path]]:
    """Everything else of the home that is to be kept, by its path below it."""
    for entry in sorted(os.scandir(home), key=lambda entry: entry.name):
        if _is_made_anew(entry.name) or (entry.name == PICTURES and not pictures):
            continue
        if cache is not None and cache.is_relative_to(entry.path):
            continue  # made anew from the originals
        if entry.is_dir(follow_symlinks=entry.name in LINKED):
            yield from _below(Path(entry.path), entry.name, left_out)
        else:
            yield entry.name, Path(entry.path)


def _below(folder: Path, prefix: str, left_out: list[str]) -> Iterator[tuple[str, Path]]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = f"{prefix}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            if not entry.name.startswith("."):  # a model that is just being copied
                yield from _below(Path(entry.path), name, left_out)
        elif not _is_draft(name):
            yield name, Path(entry.path)


def _is_made_anew(name: str) -> bool:
    return name in MADE_ANEW or name.startswith((".", DATABASE)) or name.endswith((".lock", ".draft"))


def _is_draft(name: str) -> bool:
    """Whether a worker is just writing it: pictures get their name when they are whole."""
    return name.startswith(f"{PICTURES}/") and not name.endswith(".png")


def _add(writer: archive.Writer, name: str, path: Path, left_out: list[str]) -> None:
    try:
        content = _opened(path)
    except OSError:
        left_out.append(name)
        return
    if content is None:
        return  # gone meanwhile
    with content:
        if stat.S_ISREG(os.fstat(content.fileno()).st_mode):
            writer.add(name, content)
        else:
            left_out.append(name)


def _opened(path: Path) -> IO[bytes] | None:
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    return os.fdopen(opened, "rb")


def _facts(config: Settings, revision: str, *, pictures: bool) -> dict[str, Any]:
    """What a restore and a person want to know; no secret."""
    told = {name: getattr(config, name) for name in sorted(config.model_fields_set)}
    return {
        "format": FORMAT,
        "nightread": version("nightread"),
        "revision": revision,
        "made_at": datetime.now(UTC).isoformat(),
        "home": str(config.home),
        "pictures": pictures,
        "settings": {name: _text(value) for name, value in told.items() if not isinstance(value, SecretStr)},
        "elsewhere": _secrets(config),
    }


def _text(value: object) -> str:
    return os.pathsep.join(map(str, value)) if isinstance(value, tuple) else str(value)


def _secrets(config: Settings) -> list[str]:
    """The secrets that the environment gives."""
    values = {name: getattr(config, name) for name in Settings.model_fields}
    return [name for name, value in values.items() if isinstance(value, SecretStr) and value.get_secret_value()]
