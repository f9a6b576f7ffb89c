"""Server-side sessions: the cookie holds a random token, the database its hash."""

import hashlib
import secrets
from datetime import timedelta

from flask import request
from werkzeug.wrappers import Response

from db.settings import Settings
from db.store import people
from db.store.connection import Database
from db.store.people import UserView, Visit

CODE_MINUTES = 5  # that a sign-in waits for its one-time password


def cookie_name(config: Settings) -> str:
    """`__Host-` makes a browser insist on Secure, Path=/ and no Domain; it needs https."""
    return "__Host-nightread" if config.web_https else "nightread"


def start(
    db: Database,
    user: UserView,
    response: Response,
    *,
    awaits_code: bool = False,
    sso: bool = False,
    second_factor: bool = False,
) -> None:
    """Begin a session under a fresh token; whatever token the browser came with ends. One that `awaits_code` opens
    nothing but the page that asks for the one-time password. `sso`: an identity provider signed them in."""
    end(db, by=user.name)
    token = secrets.token_urlsafe(32)
    people.start_session(
        db, user.id, _digest(token), by=user.name, awaits_code=awaits_code, sso=sso, second_factor=second_factor
    )
    response.set_cookie(
        cookie_name(db.config),
        token,
        path="/",
        httponly=True,
        secure=db.config.web_https,
        samesite="Strict",
    )


def current(db: Database, *, is_active: bool) -> Visit | None:
    """Who sent this request, in which session; None when nobody is signed in. `is_active` False (a page that polls)
    does not put off the end of an idle session."""
    token = request.cookies.get(cookie_name(db.config))
    if not token:
        return None
    return people.visit(
        db,
        _digest(token),
        idle=timedelta(minutes=db.config.session_idle_minutes),
        longest=timedelta(hours=db.config.session_hours),
        is_active=is_active,
    )


def awaiting_code(db: Database) -> UserView | None:
    """Whose password was right a moment ago, and whose one-time password is still to come."""
    token = request.cookies.get(cookie_name(db.config))
    if not token:
        return None
    found = people.visit_awaiting_code(db, _digest(token), longest=timedelta(minutes=CODE_MINUTES))
    return found.user if found else None


def end(db: Database, *, by: str) -> None:
    """End the session of this request, if it has one."""
    token = request.cookies.get(cookie_name(db.config))
    if token:
        people.end_session(db, _digest(token), by=by)


def forget(db: Database, response: Response) -> None:
    """Take the cookie back from the browser."""
    response.delete_cookie(
        cookie_name(db.config), path="/", httponly=True, secure=db.config.web_https, samesite="Strict"
    )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
