"""Server-side sessions: the cookie holds a random token, the database its hash."""

import hashlib
import secrets
from datetime import timedelta

from flask import request
from werkzeug.wrappers import Response

from db.settings import Settings
from db.store import people
from db.store.connection import Database
from db.store.people import UserView


def cookie_name(config: Settings) -> str:
    """`__Host-` makes a browser insist on Secure, Path=/ and no Domain; it needs https."""
    return "__Host-nightread" if config.web_https else "nightread"


def start(db: Database, user: UserView, response: Response) -> None:
    """Begin a session under a fresh token; whatever token the browser came with ends."""
    end(db, by=user.name)
    token = secrets.token_urlsafe(32)
    people.start_session(db, user.id, _digest(token), by=user.name)
    response.set_cookie(
        cookie_name(db.config),
        token,
        path="/",
        httponly=True,
        secure=db.config.web_https,
        samesite="Strict",
    )


def holder(db: Database, *, is_active: bool) -> UserView | None:
    """Who sent this request; None when nobody is signed in. `is_active` False (a page that polls) does not
    put off the end of an idle session."""
    token = request.cookies.get(cookie_name(db.config))
    if not token:
        return None
    return people.session_user(
        db,
        _digest(token),
        idle=timedelta(minutes=db.config.session_idle_minutes),
        longest=timedelta(hours=db.config.session_hours),
        is_active=is_active,
    )


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
