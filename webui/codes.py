"""One-time passwords of a user: enrol an app, confirm it by its first code, keep the recovery codes."""

from flask import Blueprint, current_app, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from db.errors import Refused
from db.store import codes
from db.store.people import UserView
from webui import limits, passwords, totp
from webui.guard import EVERYBODY, database, enrols, me, needs
from webui.text import _

bp = Blueprint("codes", __name__)
UNDER = "account"
ISSUER = "nightread"


@bp.get("/account/codes")
@needs(*EVERYBODY)
@enrols
def index() -> ResponseReturnValue:
    """Whether an app is enrolled, and the form to enrol one."""
    return _page()


@bp.post("/account/codes")
@needs(*EVERYBODY)
@enrols
def begin() -> ResponseReturnValue:
    """Make a secret and show it, this once; it means nothing until its first code comes back."""
    user = me()
    try:
        with limits.one_at_a_time:
            check_password(user, request.form.get("password", ""))
            _check_present_code(user)
    except Refused as problem:
        return _page(problem=str(problem)), 400
    nonce = totp.new_nonce()
    codes.begin(database(), user.id, nonce, by=user.name)
    app = totp.app_for(web_key(), nonce)
    address = app.provisioning_uri(name=user.name, issuer_name=ISSUER)
    return _page(secret=app.secret, address=address, is_begun=True)


@bp.post("/account/codes/confirm")
@needs(*EVERYBODY)
@enrols
def confirm() -> ResponseReturnValue:
    """The first code of the app: from now on sign-in asks for one. Shows the recovery codes, this once."""
    user, db = me(), database()
    app = codes.begun(db, user.id)
    if app is None:
        return redirect(url_for("codes.index"), 303)
    step = totp.step_of(totp.app_for(web_key(), app.nonce), totp.tidy(request.form.get("code", "")))
    if step is None:
        problem = _("That is not the app's present code. Wait for its next one; the clock of the phone must be right.")
        return _page(is_begun=True, problem=problem), 400
    recovery = totp.new_recovery_codes()
    hashes = [totp.recovery_hash(code) for code in recovery]
    if not codes.confirm(db, app, step=step, recovery_sha256=hashes, by=user.name):
        return redirect(url_for("codes.index"), 303)
    return _page(recovery=recovery)


def accepts(user: UserView, typed: str) -> bool:
    """Whether this is a one-time password or a recovery code of the user's app; either is good once."""
    db, tidy = database(), totp.tidy(typed)
    app = codes.enrolled(db, user.id)
    if app is None:
        return False
    step = totp.step_of(totp.app_for(web_key(), app.nonce), tidy)
    if step is not None:
        return codes.spend_step(db, app, step)
    return codes.spend_recovery(db, app, totp.recovery_hash(tidy), by=user.name)


def check_password(user: UserView, password: str) -> None:
    """Raises Refused for a wrong one, which counts as a failed sign-in, and after too many of them."""
    db, address = database(), request.remote_addr or "unknown"
    if limits.is_over(db, user.name, user, address):
        raise Refused(_("Too many wrong passwords: wait %d minutes.") % limits.MINUTES)
    if not passwords.matches(user.password_hash, password):
        limits.note_failure(db, user.name, address)
        raise Refused(_("The present password is not right."))


def web_key() -> bytes:
    """The web's own key, from which the secrets of apps are derived."""
    key = current_app.secret_key or b""
    return key.encode() if isinstance(key, str) else key


def _check_present_code(user: UserView) -> None:
    """An app is replaced only by who holds it, or one of its recovery codes. Raises Refused."""
    if user.has_codes and not accepts(user, request.form.get("code", "")):
        limits.note_failure(database(), user.name, request.remote_addr or "unknown")
        raise Refused(_("The code of the present app is not right; each code is good once."))


def _page(*, secret: str = "", address: str = "", recovery: list[str] | None = None, **shown: object) -> str:
    return render_template(
        "codes.html",
        secret=" ".join(secret[n : n + 4] for n in range(0, len(secret), 4)),
        address=address,
        recovery=recovery or [],
        enrolled=codes.enrolled(database(), me().id),
        is_required=database().config.require_totp,
        **shown,
    )
