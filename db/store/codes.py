"""One-time passwords: the apps that users enrolled, the codes they spent. What a code must be: webui/totp.py."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import Session

from db.schema import Authenticator, RecoveryCode
from db.store.audit import record
from db.store.connection import Database, now


@dataclass(frozen=True)
class AuthenticatorView:
    """An enrolled app; `confirmed_at` is None until its first code."""

    id: int
    user_id: int
    nonce: str
    confirmed_at: datetime | None
    recovery_left: int


def begin(db: Database, user_id: int, nonce: str, *, by: str) -> None:
    """Start to enrol an app; one that was begun before and never confirmed is given up."""
    with db.writing() as session:
        _remove(session, and_(_of(user_id), Authenticator.confirmed_at.is_(None)))
        session.add(Authenticator(user_id=user_id, nonce=nonce, added_at=now()))
        record(session, by, "codes_begun", f"user {user_id}")


def begun(db: Database, user_id: int) -> AuthenticatorView | None:
    """The app that waits for its first code."""
    return _find(db, and_(_of(user_id), Authenticator.confirmed_at.is_(None)))


def enrolled(db: Database, user_id: int) -> AuthenticatorView | None:
    """The app whose codes sign-in asks for."""
    return _find(db, and_(_of(user_id), Authenticator.confirmed_at.is_not(None)))


def confirm(db: Database, app: AuthenticatorView, *, step: int, recovery_sha256: list[str], by: str) -> bool:
    """From now on sign-in asks for this app's codes, the user's earlier app is done with, and these recovery codes
    are good. False where the app is not there any more."""
    with db.writing() as session:
        waiting = (Authenticator.id == app.id, Authenticator.confirmed_at.is_(None), Authenticator.removed_at.is_(None))
        values = {"confirmed_at": now(), "last_step": step}
        if not _changed(session, update(Authenticator).where(*waiting).values(values)):
            return False
        _remove(session, and_(_of(app.user_id), Authenticator.id != app.id))
        session.add_all(RecoveryCode(authenticator_id=app.id, code_sha256=code) for code in recovery_sha256)
        record(session, by, "codes_confirmed", f"user {app.user_id}", {"authenticator": app.id})
        return True


def spend_step(db: Database, app: AuthenticatorView, step: int) -> bool:
    """Accept the code of this time step, once: False for it and for every earlier one from then on."""
    with db.writing() as session:
        newer = (Authenticator.id == app.id, Authenticator.removed_at.is_(None), Authenticator.last_step < step)
        return _changed(session, update(Authenticator).where(*newer).values(last_step=step))


def spend_recovery(db: Database, app: AuthenticatorView, code_sha256: str, *, by: str) -> bool:
    """Accept a recovery code, once."""
    with db.writing() as session:
        fresh = (RecoveryCode.authenticator_id == app.id, RecoveryCode.code_sha256 == code_sha256)
        spent = update(RecoveryCode).where(*fresh, RecoveryCode.used_at.is_(None)).values(used_at=now())
        if not _changed(session, spent):
            return False
        record(session, by, "recovery_code_used", f"user {app.user_id}")
        return True


def remove_all(db: Database, user_id: int, *, by: str) -> bool:
    """Sign-in asks for the password alone again; whether there was an app."""
    with db.writing() as session:
        had_one = _remove(session, _of(user_id))
        if had_one:
            record(session, by, "codes_removed", f"user {user_id}")
        return had_one


def _of(user_id: int) -> ColumnElement[bool]:
    return and_(Authenticator.user_id == user_id, Authenticator.removed_at.is_(None))


def _find(db: Database, which: ColumnElement[bool]) -> AuthenticatorView | None:
    with db.reading() as session:
        row = session.scalar(select(Authenticator).where(which).order_by(Authenticator.id.desc()).limit(1))
        if row is None:
            return None
        unused = (RecoveryCode.authenticator_id == row.id, RecoveryCode.used_at.is_(None))
        left = session.scalar(select(func.count()).select_from(RecoveryCode).where(*unused)) or 0
        return AuthenticatorView(row.id, row.user_id, row.nonce, row.confirmed_at, left)


def _remove(session: Session, which: ColumnElement[bool]) -> bool:
    return _changed(session, update(Authenticator).where(which).values(removed_at=now()))


def _changed(session: Session, statement: Any) -> bool:
    result: Any = session.execute(statement)
    return bool(result.rowcount)
