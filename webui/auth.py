"""Signing in and out: the password, then, for who enrolled an app, a one-time password."""

from typing import Any

from flask import Blueprint, current_app, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from db.store import people
from db.store.people import UserView
from webui import codes, limits, passwords, sessions
from webui.guard import EVERYBODY, READS, STATIC, database, enrols, me, needs, passive, public
from webui.text import _

bp = Blueprint("auth", __name__)


@bp.get("/sign-in")
@public
def sign_in() -> ResponseReturnValue:
    """The form, or straight on for somebody who is signed in already."""
    visit = sessions.current(database(), is_active=False)
    if visit is not None:
        return redirect(onward(visit.user), 303)
    return page(lost="lost" in request.args)


@bp.post("/sign-in")
@public
def try_to_sign_in() -> ResponseReturnValue:
    """Check name and password. The answer and its time are the same whichever of them is wrong."""
    name, password = request.form.get("name", "").strip(), request.form.get("password", "")
    address = request.remote_addr or "unknown"
    db = database()
    with limits.one_at_a_time:
        user = limits.user_or_none(db, name) if name.isprintable() else None
        if limits.is_over(db, name, user, address):
            return _form_again(name, 429)
        if not passwords.matches(user.password_hash if user else None, password) or user is None or user.disabled_at:
            limits.note_failure(db, name, address)
            return _form_again(name, 401)
    if passwords.needs_rehash(user.password_hash):
        people.rehash_password(db, user.id, passwords.hash_password(password))
    session.clear()  # a new form token with the new session
    asks = url_for("auth.code", next=wanted() or None)
    response = redirect(asks if user.has_codes else onward(user), 303)
    sessions.start(db, user, response, awaits_code=user.has_codes)
    return response


@bp.get("/sign-in/code")
@public
def code() -> ResponseReturnValue:
    """Ask for the one-time password, of somebody whose password was right a moment ago."""
    if sessions.awaiting_code(database()) is None:
        return redirect(url_for("auth.sign_in", next=wanted() or None), 303)
    return render_template("code.html", next=wanted())


@bp.post("/sign-in/code")
@public
def try_code() -> ResponseReturnValue:
    """Check the one-time password or recovery code; a wrong one counts as a failed sign-in."""
    db, address = database(), request.remote_addr or "unknown"
    with limits.one_at_a_time:
        user = sessions.awaiting_code(db)
        if user is None:
            return redirect(url_for("auth.sign_in", next=wanted() or None), 303)
        if limits.is_over(db, user.name, user, address):
            return _code_again(429)
        if not codes.accepts(user, request.form.get("code", "")):
            limits.note_failure(db, user.name, address)
            people.note_event(db, by="nobody", action="code_refused", about=f"user {user.id}")
            return _code_again(401)
    session.clear()
    response = redirect(onward(user), 303)
    sessions.start(db, user, response)
    return response


@bp.post("/sign-out")
@needs(*EVERYBODY)
@enrols
@passive
def sign_out() -> ResponseReturnValue:
    """End the session here and in the database."""
    sessions.end(database(), by=me().name)
    session.clear()
    flash(_("You are signed out."))
    response = redirect(url_for("auth.sign_in"), 303)
    sessions.forget(database(), response)
    return response


def page(**shown: Any) -> str:
    """The form to sign in with, and the way to the identity provider, where there is one."""
    config = database().config
    return render_template(
        "sign_in.html",
        next=wanted(),
        idle_minutes=config.session_idle_minutes,
        sso=config.oidc_label if config.oidc_issuer else "",
        **shown,
    )


def _form_again(name: str, status: int) -> ResponseReturnValue:
    typed = name if name.isprintable() else ""
    return page(name=typed, status=status, minutes=limits.MINUTES), status, _wait(status)


def _code_again(status: int) -> ResponseReturnValue:
    form = render_template("code.html", next=wanted(), status=status, minutes=limits.MINUTES)
    return form, status, _wait(status)


def _wait(status: int) -> dict[str, str]:
    return {"Retry-After": str(60 * limits.MINUTES)} if status == 429 else {}


def wanted() -> str:
    """The page to go to after signing in, if it is one of ours; what else an address holds is not repeated."""
    asked = request.values.get("next", "")
    return asked if is_page_of_ours(asked) else ""


def onward(user: UserView, asked: str = "") -> str:
    """Where somebody goes who is signed in now: the page that they asked for, or the first of their role."""
    return asked or wanted() or url_for("worklist.index" if user.role in READS else "batches.index")


def is_page_of_ours(path: str) -> bool:
    """Only a path that one of our own pages answers: never another host, however it is spelt."""
    if not path.startswith("/") or path.startswith(("//", "/\\")) or not path.isprintable():
        return False
    try:
        endpoint, _ = current_app.url_map.bind("").match(path, method="GET")
    except (HTTPException, RequestRedirect):
        return False
    return bool(endpoint != STATIC)
