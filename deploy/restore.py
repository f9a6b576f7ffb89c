"""`nightread restore`: a backup back into a home folder of its own, whole or not at all.

Everything happens in a private folder beside the target: unpacked, compared, brought up to this version's tables, the
audit log verified. Only then does it get its name, in one rename."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from alembic.script import ScriptDirectory
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from db import migrate
from db.errors import DatabaseUnreachable, NightreadError, Refused
from db.schema import TrainedModel
from db.settings import Settings, settings
from db.store import audit
from db.store.connection import Database, connect
from db.words import Exit
from deploy import archive
from deploy.backup import DATABASE, FORMAT
from deploy.local import only_one
from producer import reports
from producer.commands import operator

FACTS = {"format": int, "nightread": str, "made_at": str, "home": str, "pictures": bool, "elsewhere": list}
ROOM = 1.2  # bytes wanted on the disk for each one of the backup


@dataclass(frozen=True)
class Restored:
    """What a restore gave; `events` is the length of the audit log that was verified."""

    home: str
    made_at: str
    sha256: str
    files: int
    revision: str
    upgraded: bool
    events: int
    pictures: bool


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--home", type=click.Path(path_type=Path), default=None, help="A new or empty folder.  [NIGHTREAD_HOME]")
@click.option("--json", "is_json", is_flag=True, default=False, help="Data on stdout as JSON.")
def restore(file: Path, home: Path | None, is_json: bool) -> int:
    """Make a home folder of the backup FILE: checked to the last byte, upgraded where it is older, or refused whole."""
    config = settings()
    done = bring_back(file, home or config.home, config, by=operator())
    if is_json:
        reports.print_json(asdict(done))
        return Exit.DONE
    click.echo(f"{done.home}: {done.files:,} files as of {done.made_at}; {done.events:,} audit events verified")
    if done.upgraded:
        click.echo(f"its tables were upgraded to revision {done.revision}")
    if not done.pictures:
        click.echo(
            "it was made without pictures: `nightread models pictures` makes those of unread scans, no heat maps"
        )
    click.echo("run it in place of the home it came from, never beside it: NIGHTREAD_HOME says which one is used")
    return Exit.DONE


def bring_back(file: Path, home: Path, config: Settings, *, by: str) -> Restored:
    """Restore a backup to `home`, which is empty or not there. Raises Refused; then nothing is there that was not."""
    if config.database_url:
        raise Refused("NIGHTREAD_DATABASE_URL names another database than a home folder's: unset it, or use pg_restore")
    target = home.expanduser().absolute()
    try:
        _refuse_used(target)
        digest = archive.check(file)
        with _only_for_us(), _draft(target) as draft:
            _refuse_full(file, draft)
            facts = _facts(file, archive.unpack(file, draft))
            done = _settle(draft, target, config, facts, digest, by)
            os.sync()
            draft.rename(target)
            _keep_name(target.parent)
    except OSError as error:
        raise Refused(f"{target} cannot be made: {error.strerror or error}") from error
    except SQLAlchemyError as error:
        raise Refused(f"{file} holds no sound database: {type(error).__name__}") from error
    return done


def _facts(file: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest, where it says what a backup's does. Raises Refused."""
    if not all(isinstance(manifest.get(name), kind) for name, kind in FACTS.items()):
        raise Refused(f"{file} is not a backup: its manifest lacks what every backup's has")
    return manifest


def _settle(draft: Path, target: Path, config: Settings, facts: dict[str, Any], digest: str, by: str) -> Restored:
    """Bring the unpacked home to this version and place, verify it, and put that on its record."""
    if facts["format"] != FORMAT or not (draft / DATABASE).is_file():
        raise Refused(f"made by nightread {facts['nightread']} in another form: restore it with that version")
    db = connect(config.model_copy(update={"home": draft, "database_url": ""}))
    try:
        before = _revision(db, facts)
        if not migrate.is_current(db):
            migrate.upgrade(db)
        events = _verified(db, facts)
        with db.writing() as session:
            for model in session.scalars(select(TrainedModel)):
                model.folder = _moved(model.folder, facts["home"], target)
            audit.record(session, by, "home_restored", "home", {"sha256": digest, "made_at": facts["made_at"]})
        after = _revision(db, facts)
    finally:
        db.engine.dispose()
    counts = len(facts["parts"])
    return Restored(str(target), facts["made_at"], digest, counts, after, after != before, events, facts["pictures"])


def _revision(db: Database, facts: dict[str, Any]) -> str:
    """The revision of the unpacked tables. Raises Refused where this version does not know it."""
    try:
        with db.reading() as session:
            revision = session.scalar(text("SELECT version_num FROM alembic_version"))
    except DatabaseUnreachable as error:
        raise Refused(f"the backup holds no database of nightread's: {error}") from error
    if revision not in {step.revision for step in ScriptDirectory(str(migrate.MIGRATIONS)).walk_revisions()}:
        raise Refused(
            f"made by nightread {facts['nightread']} with tables of revision {revision}, which this version does not "
            "know: install that version, or a newer one"
        )
    return str(revision)


def _verified(db: Database, facts: dict[str, Any]) -> int:
    try:
        return audit.verify(db)
    except (ValueError, NightreadError) as error:
        configured = "audit_key" in facts["elsewhere"] or db.config.audit_key.get_secret_value()
        hint = " (the key is NIGHTREAD_AUDIT_KEY's: is it the one of that home?)" if configured else ""
        raise Refused(f"the backup's audit log does not verify: {error}{hint}") from error


def _moved(folder: str, old_home: str, target: Path) -> str:
    """A model's folder in the new home, where it lay in the old one."""
    models = f"{old_home}/models/"
    return str(target / "models" / folder.removeprefix(models)) if folder.startswith(models) else folder


def _refuse_used(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise Refused(f"{target} is no folder: name a new or an empty one")
    if not target.exists():
        return
    if (target / "up.lock").exists():
        with only_one(Settings(home=target)) as lock:
            if lock is None:
                raise Refused(f"nightread runs on {target}: stop it, move that folder away, then restore")
    if any(os.scandir(target)):
        raise Refused(f"{target} is not empty: restore to a new folder, or move that one away")


def _refuse_full(file: Path, draft: Path) -> None:
    needed, free = int(file.stat().st_size * ROOM), shutil.disk_usage(draft).free
    if free < needed:
        raise Refused(f"{draft.parent} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} are needed: make room")


@contextmanager
def _only_for_us() -> Iterator[None]:
    """Whatever is made meanwhile (folders above files, SQLite's own files) is closed to others."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _keep_name(folder: Path) -> None:
    """Make sure that a rename in this folder is on the disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A private folder beside the target, for this process alone; gone afterwards, unless it was renamed. What a killed
    restore left there is removed first."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.restoring")
    with (target.parent / f".{target.name}.restoring.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(f"another restore to {target} is under way") from error
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            Path(lock.name).unlink(missing_ok=True)
