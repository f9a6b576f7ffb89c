"""A user's own page: change the password."""

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from db.errors import Refused
from db.store import people
from webui import limits, passwords, sessions
from webui.guard import database, me

bp = Blueprint("account", __name__)


@bp.get("/account")
def index() -> ResponseReturnValue:
    """Who is signed in, and the form."""
    return render_template("account.html", least=passwords.LEAST_CHARACTERS)


@bp.post("/account")
def change_password() -> ResponseReturnValue:
    """A new password ends every session of the user; this browser gets a fresh one."""
    user, db = me(), database()
    old, new, again = (request.form.get(field, "") for field in ("old", "new", "again"))
    try:
        _check(old, new, again)
    except Refused as problem:
        return render_template("account.html", least=passwords.LEAST_CHARACTERS, problem=str(problem)), 400
    people.set_password(db, user.id, passwords.hash_password(new), by=user.name)
    flash("Your password is changed; every other session of yours has ended.")
    response = redirect(url_for("account.index"), 303)
    sessions.start(db, user, response)
    return response


def _check(old: str, new: str, again: str) -> None:
    """Raises Refused. A wrong old password counts as a failed sign-in."""
    user, db, address = me(), database(), request.remote_addr or "unknown"
    if limits.is_over(db, user.name, user, address):
        raise Refused("Too many wrong passwords: wait 15 minutes.")
    if not passwords.matches(user.password_hash, old):
        limits.note_failure(db, user.name, address)
        raise Refused("The present password is not right.")
    if new != again:
        raise Refused("The two new passwords differ.")
    if new == old:
        raise Refused("The new password is the present one.")
    passwords.check_choice(new, user.name)
