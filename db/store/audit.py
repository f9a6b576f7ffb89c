"""The record of who did or saw what: append-only, a chain of keyed hashes (chain.py), its head outside the database.

What shows an attack, and to whom:

- Whoever writes to the database alone is found out by `verify`, whatever they change, remove, add or cut off.
- Whoever also writes to the home folder can put an older head back, and so hide a cut end. Only a head that was kept
  on another machine shows that: `nightread audit verify` prints one, `--head` takes it.
- Whoever has the key (`audit.key` in the home folder, unless NIGHTREAD_AUDIT_KEY comes from elsewhere) can write a new
  history that fits. Only a head kept on another machine shows that too, and only up to that head.

The head is written just after the commit: a crash in between leaves it behind the log, which is no flaw; the next
event, or the sweep (`note_end`), brings it up to date.
"""

import fcntl
import logging
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import event, select, text
from sqlalchemy.orm import Session

from db.errors import Refused
from db.schema import AuditEvent
from db.settings import Settings
from db.store import chain
from db.store.chain import EMPTY, Head
from db.store.connection import Database, now

log = logging.getLogger(__name__)

HEAD = "audit_head"  # in a session's info: the newest event that it appended and has not committed
HEAD_FILE = "audit.head"  # in the home folder
CHAIN_LOCK = 0x6E69676874  # advisory lock of PostgreSQL: one writer of the chain at a time ("night")


def record(session: Session, actor: str, action: str, about: str, detail: dict[str, Any] | None = None) -> None:
    """Append one event inside a running write transaction. `about` and `detail` hold ids, never patients."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": CHAIN_LOCK})
    session.flush()
    newest = _newest(session)
    entry = AuditEvent(id=newest.number + 1, at=now(), actor=actor, action=action, object=about, detail=detail or {})
    config: Settings = session.info["config"]
    entry.hash = chain.digest(audit_key(config), newest.hash, entry)
    session.add(entry)
    session.flush()
    if HEAD not in session.info:
        event.listen(session, "after_commit", lambda _: _keep_head(config, session.info.pop(HEAD)), once=True)
    session.info[HEAD] = Head(entry.id, entry.hash)


def verify(db: Database) -> int:
    """Walk the chain past the head that the home folder keeps; the newest event's number, so how many there are.
    Raises as `verified_head` does."""
    return verified_head(db).number


def verified_head(db: Database, *, elsewhere: Iterable[Head] = ()) -> Head:
    """Walk the chain past the head in the home folder and those kept `elsewhere`; the head that it ends with.

    Raises ValueError where an event was altered, removed or cut off; Refused where there is no head to compare with."""
    with _locked(db.config.home, fcntl.LOCK_SH):
        kept = [*_kept_head(db.config), *elsewhere]  # read before the log: this process's log may only be longer
    with db.reading() as session:
        rows = session.scalars(select(AuditEvent).order_by(AuditEvent.id)).yield_per(1000)
        try:
            newest = chain.walk(rows, audit_key(db.config), kept)
        except (TypeError, AttributeError, UnicodeError) as error:
            raise ValueError("an audit event was altered: it holds what no event holds") from error
    if not kept and newest != EMPTY:
        raise Refused(
            f"nothing outside the database says where the audit log ends: {_head_file(db.config)} is missing; "
            'give the head that an earlier verification printed: --head "COUNT HASH"'
        )
    return newest


def note_end(db: Database) -> None:
    """Bring the head in the home folder up to the log's newest event, where a crash or a full disk left it behind. A
    head that is missing stays missing: that is for a person to see."""
    if not _head_file(db.config).exists():
        return
    with db.reading() as session:
        newest = _newest(session)
    _keep_head(db.config, newest)


def events(db: Database) -> Iterator[dict[str, Any]]:
    """Every event in order, ready for JSON; moments in ISO 8601."""
    with db.reading() as session:
        for entry in session.scalars(select(AuditEvent).order_by(AuditEvent.id)).yield_per(1000):
            names = ("id", "actor", "action", "object", "detail", "hash")
            yield {"at": entry.at.isoformat()} | {name: getattr(entry, name) for name in names}


def noted_head(home: Path) -> bytes | None:
    """The line in a home folder that says where the log ends, whole; None where there is none."""
    with _locked(home, fcntl.LOCK_SH), suppress(FileNotFoundError):
        return (home / HEAD_FILE).read_bytes()
    return None


def audit_key(config: Settings) -> bytes:
    """The key of the chain: configured, else made once in the home folder (0600)."""
    configured = config.audit_key.get_secret_value()
    return configured.encode() if configured else secret_file(config.home / "audit.key")


def secret_file(path: Path) -> bytes:
    """The secret in a file that only its owner may read; made (32 random bytes, hex) where there is none, whole or
    not at all. Raises Refused where the file is empty."""
    if not path.exists():
        _make_secret(path)
    secret = path.read_bytes()
    if not secret:
        raise Refused(f"{path} is empty: put the secret back that it held")
    return secret


def _make_secret(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = _draft(path)
    try:
        _write(draft, secrets.token_hex(32))
        os.link(draft, path)  # unlike a rename it keeps what another process has put there meanwhile
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)


def _newest(session: Session) -> Head:
    found = session.execute(select(AuditEvent.id, AuditEvent.hash).order_by(AuditEvent.id.desc()).limit(1)).first()
    return Head(*found) if found else EMPTY


def _head_file(config: Settings) -> Path:
    return config.home / HEAD_FILE


def _kept_head(config: Settings) -> list[Head]:
    """The head that the home folder keeps, if it does. Raises ValueError where the file holds something else."""
    file = _head_file(config)
    if not file.exists():
        return []
    try:
        return [Head.parse(file.read_text("utf-8"))]
    except ValueError as error:
        raise ValueError(f"{file} does not hold a count and a hash: it was altered") from error


def _keep_head(config: Settings, head: Head) -> None:
    """Note the newest event outside the database, so that a cut tail shows. Never moves backwards. What happened is
    committed by now, so trouble with the file is only logged."""
    file = _head_file(config)
    try:
        with _locked(config.home, fcntl.LOCK_EX):
            kept = _kept_head(config)
            if kept and kept[0].number < head.number:
                _overwrite(file, f"{head}\n")
            elif not kept:
                draft = _draft(file)
                _write(draft, f"{head}\n")
                draft.replace(file)
    except (OSError, ValueError) as error:
        log.error("the head of the audit log was not noted: %s", error)


@contextmanager
def _locked(home: Path, how: int) -> Iterator[None]:
    """The head's file held, to write it (LOCK_EX) or to read a whole line (LOCK_SH)."""
    with (home / f"{HEAD_FILE}.lock").open("a") as lock:
        fcntl.flock(lock, how)
        yield


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")


def _overwrite(path: Path, content: str) -> None:
    """In place, within the file's first sector, and not forced to the disk, because every page that is looked at comes
    by here: a power cut leaves the line before, and a head that is behind is no flaw. The line never gets shorter."""
    file = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(file, content.encode(), 0)
    finally:
        os.close(file)


def _write(path: Path, content: str) -> None:
    """A new file for its owner alone, on the disk."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
