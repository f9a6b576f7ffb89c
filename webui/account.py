"""A user's own page: change the password; whether sign-in asks for one-time passwords."""

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from db.errors import Refused
from db.store import people
from webui import limits, passwords, sessions
from webui.codes import check_password
from webui.guard import EVERYBODY, database, me, needs
from webui.text import _

bp = Blueprint("account", __name__)
LINK = (_("Account"), EVERYBODY, 90)


@bp.get("/account")
@needs(*EVERYBODY)
def index() -> ResponseReturnValue:
    """Who is signed in, and the form."""
    return _page()


@bp.post("/account")
@needs(*EVERYBODY)
def change_password() -> ResponseReturnValue:
    """A new password ends every session of the user; this browser gets a fresh one."""
    user, db = me(), database()
    old, new, again = (request.form.get(field, "") for field in ("old", "new", "again"))
    try:
        with limits.one_at_a_time:
            check_password(user, old)
        _check_new(old, new, again)
    except Refused as problem:
        return _page(problem=str(problem)), 400
    people.set_password(db, user.id, passwords.hash_password(new), by=user.name)
    flash(_("Your password is changed; every other session of yours has ended."))
    response = redirect(url_for("account.index"), 303)
    sessions.start(db, user, response)
    return response


def _check_new(old: str, new: str, again: str) -> None:
    """Raises Refused."""
    if new != again:
        raise Refused(_("The two new passwords differ."))
    if new == old:
        raise Refused(_("The new password is the present one."))
    passwords.check_choice(new, me().name)


def _page(**shown: str) -> str:
    return render_template("account.html", least=passwords.LEAST_CHARACTERS, **shown)
