"""The record of who did or saw what: append-only, a chain of keyed hashes, its head kept outside the database."""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import event, func, select, text
from sqlalchemy.orm import Session

from db.schema import AuditEvent
from db.settings import Settings
from db.store.connection import Database, now

FIRST = "0" * 64  # what the first event's hash covers in place of a predecessor
CHAIN_LOCK = 0x6E69676874  # advisory lock of PostgreSQL: one writer of the chain at a time ("night")


def record(session: Session, actor: str, action: str, about: str, detail: dict[str, Any] | None = None) -> None:
    """Append one event inside a running write transaction. `about` and `detail` hold ids, never patients."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": CHAIN_LOCK})
    session.flush()
    before = session.scalar(select(AuditEvent.hash).order_by(AuditEvent.id.desc()).limit(1)) or FIRST
    entry = AuditEvent(at=now(), actor=actor, action=action, object=about, detail=detail or {})
    config: Settings = session.info["config"]
    entry.hash = _digest(audit_key(config), before, entry)
    session.add(entry)
    session.flush()
    last, digest = entry.id, entry.hash
    event.listen(session, "after_commit", lambda _: _keep_head(config, last, digest), once=True)


def verify(db: Database) -> int:
    """Walk the chain; the number of events. Raises ValueError naming the first event that does not fit."""
    config = db.config
    before, count, last = FIRST, 0, 0
    with db.reading() as session:
        for entry in session.scalars(select(AuditEvent).order_by(AuditEvent.id)).yield_per(1000):
            if not hmac.compare_digest(entry.hash, _digest(audit_key(config), before, entry)):
                raise ValueError(f"audit event {entry.id} was altered, or one before it is missing")
            before, count, last = entry.hash, count + 1, entry.id
        newest = session.scalar(select(func.max(AuditEvent.id))) or 0
    head = _head(config)
    if head.exists() and not _reaches(db, head.read_text().split()):
        raise ValueError(f"the end of the audit log is missing: it stops at event {max(last, newest)}")
    return count


def events(db: Database) -> Iterator[dict[str, Any]]:
    """Every event in order, ready for JSON; moments in ISO 8601."""
    with db.reading() as session:
        for entry in session.scalars(select(AuditEvent).order_by(AuditEvent.id)).yield_per(1000):
            names = ("id", "actor", "action", "object", "detail", "hash")
            yield {"at": entry.at.isoformat()} | {name: getattr(entry, name) for name in names}


def audit_key(config: Settings) -> bytes:
    """The key of the chain: configured, else made once in the home folder (0600)."""
    configured = config.audit_key.get_secret_value()
    return configured.encode() if configured else secret_file(config.home / "audit.key")


def secret_file(path: Path) -> bytes:
    """The secret in a file that only its owner may read; made (32 random bytes, hex) where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(descriptor, "wb") as out:
        out.write(secrets.token_hex(32).encode())
    return path.read_bytes()


def _digest(key: bytes, before: str, entry: AuditEvent) -> str:
    said = [before, entry.at.isoformat(), entry.actor, entry.action, entry.object, entry.detail]
    return hmac.new(key, json.dumps(said, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _head(config: Settings) -> Path:
    return config.home / "audit.head"


def _keep_head(config: Settings, last: int, digest: str) -> None:
    """Note the newest event outside the database, so that a cut tail shows. Never moves backwards."""
    head = _head(config)
    if head.exists() and int(head.read_text().split()[0]) > last:
        return
    draft = head.with_name(f"{head.name}.{os.getpid()}.{secrets.token_hex(4)}")
    draft.write_text(f"{last} {digest}\n")
    draft.replace(head)


def _reaches(db: Database, head: list[str]) -> bool:
    with db.reading() as session:
        return session.scalar(select(AuditEvent.hash).where(AuditEvent.id == int(head[0]))) == head[1]
