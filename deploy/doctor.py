"""What a night needs, checked one by one; every problem comes with its fix. Changes nothing, loads no engine."""

import os
import shlex
import shutil
import socket
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydicom.pixels.decoders.base import get_decoder
from sqlalchemy import make_url, select

from db import migrate
from db.errors import DatabaseUnreachable, ModelRefused, NightreadError, QueueUnreachable, Refused
from db.store import enlisting, models, reading, tallies
from db.store.connection import Database, epoch_now
from db.words import Exit
from deploy import queue_server
from deploy.queue_versions import Version
from workers import devices, engines, model_folders, queue
from workers.images.dicom_rules import TRANSFER_SYNTAXES
from workers.prepared_cache import require_private

LEAST_FREE_BYTES = 2_000_000_000  # a night of 1,000 scans leaves about 1 GB of pictures
CLOCK_SECONDS = 5.0
NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
SECRETS = ("passwords.txt", "audit.key", "web.secret")


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was seen and, where it is a problem, what to do about it."""

    name: str
    ok: bool
    said: str
    fix: str = ""
    unreachable: bool = False

    def as_json(self) -> dict[str, Any]:
        """The shape of `doctor --json`."""
        return {name: value for name, value in asdict(self).items() if name != "unreachable"}


def examine(db: Database) -> list[Check]:
    """Every check, in the order in which to repair."""
    return [_guarded(name, check, db) for name, check in CHECKS.items()]


def exit_code(found: Sequence[Check]) -> Exit:
    """0 when all is well, 3 when queue or database are out of reach, 1 for any other problem."""
    if any(check.unreachable for check in found):
        return Exit.UNREACHABLE
    return Exit.DONE if all(check.ok for check in found) else Exit.PARTIAL


def check_home(db: Database) -> Check:
    """The home folder and its secrets belong to this user alone."""
    home = db.config.home
    if not home.is_dir():
        return Check("home", False, f"{home} does not exist", "run `nightread init`, or set NIGHTREAD_HOME")
    others = [path for path in (home, *(home / name for name in SECRETS)) if path.exists() and _open_to_others(path)]
    if others:
        listed = " ".join(map(str, others))
        return Check("home", False, f"others may read {listed}", f"chmod go-rwx {listed}")
    if not os.access(home, os.W_OK | os.X_OK):
        return Check("home", False, f"{home} may not be written", f"give it to the user who runs nightread: {home}")
    return Check("home", True, f"{home}, private to this user")


def check_database(db: Database) -> Check:
    """It answers and has the structure that this code expects."""
    url = make_url(db.config.database)
    shown = url.render_as_string(hide_password=True)
    if db.is_sqlite and not Path(url.database or "").exists():
        return Check("database", False, f"{shown} does not exist yet", "run `nightread init`", unreachable=True)
    if not migrate.is_current(db):
        return Check("database", False, f"{shown} has another structure than this version", "run `nightread init`")
    return Check("database", True, f"{shown} answers, structure current")


def check_queue(db: Database) -> Check:
    """The configured server answers; or the private one runs, or could be started. It is a patched one."""
    config = db.config
    if not config.queue_url.get_secret_value() and not queue_server.is_running(config):
        program = queue_server.find_server()
        found = queue_server.version(program)
        return _patched(found, f"not running now; `nightread up` starts {program} ({found})")
    queue.ping(with_app=queue.app(config))
    found = queue_server.running_version(config)
    where = "the configured server" if config.queue_url.get_secret_value() else str(config.queue_socket)
    return _patched(found, f"{where} answers ({found})")


def _patched(found: Version, said: str) -> Check:
    if found.is_fixed:
        return Check("queue", True, said)
    return Check("queue", False, f"{said}, which a Lua script can take over", found.remedy)


def check_user(db: Database) -> Check:
    """No worker of this machine runs as root: whoever broke into a decoder would own the machine."""
    here = [one for one in reading.workers(db) if one.alive and one.host == socket.gethostname()]
    as_root = [one.name for one in here if _runs_as_root(one.pid)]
    fix = "give workers a user of their own, as deploy/systemd and the Dockerfile do"
    if as_root:
        return Check("user", False, f"{', '.join(as_root)} runs as root", fix)
    if not here and os.geteuid() == 0:
        return Check("user", True, "no worker runs here now; this is root, which need not start one", fix)
    return Check("user", True, f"{len(here)} workers here, none as root")


def _runs_as_root(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}").stat().st_uid == 0
    except OSError:
        return False


def check_disk(db: Database) -> Check:
    """Room for a night's review copies in the home folder."""
    there = next(folder for folder in (db.config.home, *db.config.home.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    said = f"{free / 1e9:.1f} GB free at {there}"
    fix = "make room, or move the home with NIGHTREAD_HOME to a larger disk"
    return Check("disk", free >= LEAST_FREE_BYTES, said, fix if free < LEAST_FREE_BYTES else "")


def check_cache(db: Database) -> Check:
    """The prepared cache, where there is one, is this user's alone; what it holds wants an encrypted disk."""
    if db.config.prepared is None:
        return Check("cache", True, "no prepared cache (PREPARED_CACHE)")
    try:
        if db.config.prepared.exists():
            require_private(db.config.prepared)
    except Refused as error:
        return Check("cache", False, str(error), "chmod go-rwx it, or unset NIGHTREAD_PREPARED_CACHE")
    said = f"{db.config.prepared} holds patients' pictures, unencrypted: private to this user"
    return Check("cache", True, said, "let it lie on an encrypted disk (`nightread cache clear` empties it)")


def check_codecs(db: Database) -> Check:
    """Every DICOM transfer syntax that intake accepts can be decoded here."""
    missing = [name for uid, name in TRANSFER_SYNTAXES.items() if not decodes(uid)]
    said = f"{len(TRANSFER_SYNTAXES) - len(missing)} of {len(TRANSFER_SYNTAXES)} DICOM transfer syntaxes decode"
    if missing:
        fix = "pip install python-gdcm pyjpegls pylibjpeg-openjpeg"
        return Check("codecs", False, f"{said}; not {', '.join(missing)}", fix)
    return Check("codecs", True, said)


def check_worklist(db: Database) -> Check:
    """Whatever is flagged is on its list, what the pages count is what there is, and somebody decides where readers
    disagree."""
    if missing := sum(enlisting.unlisted(db).values()):
        return Check(
            "worklist", False, f"{missing} flagged scans are on no list", "run `nightread init`: it lists them"
        )
    if wrong := tallies.recount(db):
        return Check("worklist", False, f"{len(wrong)} counts are wrong", "run `nightread init`: it counts anew")
    if sites := tallies.undecided(db):
        fix = f"nightread user add NAME --role arbiter --site {shlex.quote(sites[0])}"
        return Check("worklist", False, f"scans of {', '.join(sites)} wait for an arbiter; nobody is one there", fix)
    return Check("worklist", True, "all that is flagged is listed and counted; somebody decides what is disputed")


def check_devices(db: Database) -> Check:
    """There is something to score on, and an engine to do it with."""
    listed = ", ".join(devices.devices())
    try:
        names = {engines.chosen(db.config.engine, device) for device in devices.devices()}
    except Refused as error:
        return Check("devices", False, str(error), "NIGHTREAD_ENGINE=auto")
    if all(map(engines.is_installed, names)):
        return Check("devices", True, f"{listed}, one worker each, on {', '.join(sorted(names))}")
    if not db.config.is_embedded:
        return Check("devices", True, "no engine: this machine can submit and review; others score")
    extra = "worker" if devices.devices() == ["cpu"] else "gpu"
    return Check("devices", False, f"{listed}, but no engine to use it", f"pip install 'nightread[{extra}]'")


def check_model(db: Database) -> Check:
    """The folders of the active model, and of those that unfinished batches run with, are whole and are theirs."""
    active, in_use = models.active(db), models.in_use(db)
    for model in in_use:
        try:
            model_folders.checked(model)
        except ModelRefused as error:
            whose = "" if model.id == active.id else f"unfinished batches run with {model.label}: "
            fix = "nightread init (the model that ships), or nightread models import FOLDER (its folder, whole)"
            return Check("model", False, f"{whose}{error}", fix)
    others = ", ".join(model.label for model in in_use if model.id != active.id)
    said = f"{active.label}, sha256 {active.weights_sha256[:12]}…, threshold {active.threshold:.3f}"
    return Check("model", True, f"{said}; unfinished batches run with {others}" if others else said)


def check_clock(db: Database) -> Check:
    """This machine and the database agree about the time (leases live on the database's clock, reports on ours)."""
    with db.reading() as session:
        theirs = float(session.scalar(select(epoch_now())) or 0.0)
    apart = abs(time.time() - theirs)
    if apart > CLOCK_SECONDS:
        return Check("clock", False, f"{apart:.0f} s from the database's", "run NTP on both machines")
    if time.time() < Path(__file__).stat().st_mtime - 86_400:
        return Check("clock", False, "set to before nightread was installed", "set it: `timedatectl set-ntp true`")
    return Check("clock", True, "agrees with the database's")


CHECKS: dict[str, Callable[[Database], Check]] = {
    "home": check_home,
    "disk": check_disk,
    "cache": check_cache,
    "database": check_database,
    "queue": check_queue,
    "user": check_user,
    "model": check_model,
    "worklist": check_worklist,
    "devices": check_devices,
    "codecs": check_codecs,
    "clock": check_clock,
}


def decodes(uid: str) -> bool:
    """Whether DICOM pixels of this transfer syntax can be decoded here."""
    return uid in NATIVE or get_decoder(uid).is_available


def _guarded(name: str, check: Callable[[Database], Check], db: Database) -> Check:
    try:
        if name in ("model", "clock", "user", "worklist") and not check_database(db).ok:
            return Check(name, False, "not to be seen before the database is in order", "repair the database first")
        return check(db)
    except QueueUnreachable as error:
        return Check(name, False, str(error), "start it, or correct NIGHTREAD_QUEUE_URL", unreachable=True)
    except DatabaseUnreachable as error:
        return Check(name, False, str(error), "start it, or correct NIGHTREAD_DATABASE_URL", unreachable=True)
    except NightreadError as error:
        return Check(name, False, str(error), "run `nightread init`; if it stays, install nightread again")


def _open_to_others(path: Path) -> bool:
    found = path.stat()
    return bool(stat.S_IMODE(found.st_mode) & 0o077) or found.st_uid != os.getuid()
