"""The home folder made ready: private, with its database, its site, its trained model and the first users."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from db import migrate
from db.errors import Refused, Unknown
from db.settings import Settings
from db.store import enlisting, models, people, tallies
from db.store.connection import Database
from db.store.sites import add_site, every_site
from db.words import Role
from deploy.queue_server import private_folder
from webui import passwords
from workers import model_folders, trained_models
from workers.activation import shortcut_refusal

SITE = "local"
BY = "nightread init"
FIRST_USERS = {"admin": Role.ADMIN, "reader": Role.READER}


@dataclass(frozen=True)
class Ready:
    """What `make_ready` found or made; `passwords` only holds those of users that it made just now."""

    passwords_file: Path
    model: str
    caution: str | None  # what the active model's shortcut audit warns of
    passwords: dict[str, str] = field(default_factory=dict)


def make_ready(db: Database) -> Ready:
    """Bring a home folder from nothing, or from wherever an earlier start was interrupted, to ready; works twice.

    Raises Refused where the folder belongs to somebody else, ModelRefused where the shipped model was altered,
    DatabaseUnreachable where the configured database does not answer.
    """
    own_folder(db.config.home)
    with locked(db.config.home / "init.lock"):
        if not migrate.is_current(db):
            migrate.upgrade(db)
        enlisting.enlist_missing(db)
        if tallies.recount(db):
            tallies.recount(db, repair=True)
        if SITE not in {site.name for site in every_site(db)}:
            add_site(db, SITE, by=BY)
        label = _ship_model(db, trained_models.SHIPPED)
        caution = shortcut_refusal(models.active(db).report)
        return Ready(_passwords_file(db.config), label, caution, _first_users(db))


def own_folder(folder: Path) -> None:
    """Make the home folder, or keep others out of one that is there. Raises Refused when it is somebody else's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid == os.getuid():
        folder.chmod(0o700)
    private_folder(folder.resolve())


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Wait for, then hold, a lock between processes."""
    with file.open("a") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def _ship_model(db: Database, folder: Path) -> str:
    """Take in the model that ships: a copy in the home folder, so that an upgrade leaves unfinished batches theirs.
    Activate it where no model is active, or where the active one shipped with an earlier release and nobody chose
    it. The label of the active one."""
    shipped = model_folders.take_in(db, folder, by=BY)
    try:
        active = models.active(db)
        chosen_by = models.activations(db, active.id)[-1].by
        if active.id == shipped.id or chosen_by != BY or shipped.retired_at is not None:
            return active.label
        why = f"shipped with this release in place of {active.label}"
    except Unknown:
        why = "the model that ships"
    refusal = shortcut_refusal(shipped.report)  # as `models activate` would; the release signs, and says so
    models.activate(db, shipped.id, why=why, by=BY, signed={"signed_by": BY, "against": refusal} if refusal else None)
    return shipped.label


def _first_users(db: Database) -> dict[str, str]:
    """Make the first users where there are none. Their passwords are on file before the users exist, so that an
    interrupted start is gone on with and nobody is locked out."""
    known = {user.name for user in people.users(db)}
    file = _passwords_file(db.config)
    if not known and not file.exists():
        _write_private(file, "".join(f"{name} {passwords.generate()}\n" for name in FIRST_USERS))
    if not file.exists() or FIRST_USERS.keys() <= known:
        return {}
    planned = dict(line.split() for line in file.read_text().splitlines())
    made = {name: planned[name] for name in FIRST_USERS if name in planned and name not in known}
    sites = {site.id for site in every_site(db)}
    for name, password in made.items():
        role = FIRST_USERS[name]
        hashed = passwords.hash_password(password)
        people.add_user(db, name, role=role, password_hash=hashed, site_ids=sites, by=BY)
    return made


def _passwords_file(config: Settings) -> Path:
    return config.home / "passwords.txt"


def _write_private(file: Path, text: str) -> None:
    draft = file.with_name(f"{file.name}.draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    if file.exists():
        raise Refused(f"{file} appeared meanwhile: is another `nightread init` running?")
    draft.replace(file)
