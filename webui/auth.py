"""Signing in and out."""

import threading

from flask import Blueprint, current_app, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from db.store import people
from db.store.people import UserView
from db.words import Role
from webui import limits, passwords, sessions
from webui.guard import database, me, passive, public

bp = Blueprint("auth", __name__)

# One attempt at a time: guesses sent side by side must not slip past the count, and each hash takes 64 MiB.
_one_at_a_time = threading.Lock()


@bp.get("/sign-in")
@public
def sign_in() -> ResponseReturnValue:
    """The form, or straight on for somebody who is signed in already."""
    user = sessions.holder(database(), is_active=False)
    if user is not None:
        return redirect(_onward(user), 303)
    return render_template(
        "sign_in.html",
        next=request.args.get("next", ""),
        lost="lost" in request.args,
        idle_minutes=database().config.session_idle_minutes,
    )


@bp.post("/sign-in")
@public
def try_to_sign_in() -> ResponseReturnValue:
    """Check name and password. The answer and its time are the same whichever of them is wrong."""
    name, password = request.form.get("name", "").strip(), request.form.get("password", "")
    address = request.remote_addr or "unknown"
    db = database()
    with _one_at_a_time:
        user = limits.user_or_none(db, name) if name.isprintable() else None
        if limits.is_over(db, name, user, address):
            return _form_again(name, 429)
        if not passwords.matches(user.password_hash if user else None, password) or user is None or user.disabled_at:
            limits.note_failure(db, name, address)
            return _form_again(name, 401)
    if passwords.needs_rehash(user.password_hash):
        people.rehash_password(db, user.id, passwords.hash_password(password))
    session.clear()  # a new form token with the new session
    response = redirect(_onward(user), 303)
    sessions.start(db, user, response)
    return response


@bp.post("/sign-out")
@passive
def sign_out() -> ResponseReturnValue:
    """End the session here and in the database."""
    sessions.end(database(), by=me().name)
    session.clear()
    flash("You are signed out.")
    response = redirect(url_for("auth.sign_in"), 303)
    sessions.forget(database(), response)
    return response


def _form_again(name: str, status: int) -> ResponseReturnValue:
    minutes = int(limits.WINDOW.total_seconds() // 60)
    typed = name if name.isprintable() else ""
    page = render_template(
        "sign_in.html", next=request.form.get("next", ""), name=typed, status=status, minutes=minutes
    )
    headers = {"Retry-After": str(int(limits.WINDOW.total_seconds()))} if status == 429 else {}
    return page, status, headers


def _onward(user: UserView) -> str:
    wanted = request.values.get("next", "")
    if _is_page_of_ours(wanted):
        return wanted
    return url_for("batches.index" if user.role == Role.ADMIN else "worklist.index")


def _is_page_of_ours(path: str) -> bool:
    """Only a path that one of our own pages answers: never another host, however it is spelt."""
    if not path.startswith("/") or path.startswith(("//", "/\\")) or not path.isprintable():
        return False
    try:
        current_app.url_map.bind("").match(path, method="GET")
    except (HTTPException, RequestRedirect):
        return False
    return True
