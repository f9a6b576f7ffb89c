"""Single sign-on through an OpenID Connect provider, beside the password: a code with PKCE, state and nonce.

It begins with a link, not a form (our policy lets forms lead nowhere else), and it ends on a page of ours that goes on
by itself: the provider's redirection is another site's doing, so a browser keeps a SameSite=Strict cookie back in what
follows from it. Only users whom an admin linked get in. A code of our own app is not asked for then: the provider sees
to second factors; where NIGHTREAD_REQUIRE_TOTP insists on one, it must say (`amr`) that it asked for it, or we ask.

What speaks to the provider (openid.py) is imported when somebody comes by: its libraries are the extra `sso`."""

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Any

from flask import Blueprint, abort, make_response, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.wrappers import Response

from db.errors import SignOnFailed
from db.settings import Settings
from db.store import links, people
from db.store.people import UserView
from webui import auth, sessions
from webui.codes import web_key
from webui.guard import database, public
from webui.text import _

if TYPE_CHECKING:
    from webui.openid import Flow, Identity

bp = Blueprint("sso", __name__)
MINUTES = 10  # that the provider's page may take
LONGEST = 4096  # characters of what comes back


@bp.get("/sign-in/sso")
@public
def begin() -> ResponseReturnValue:
    """Off to the identity provider; not because some other page says so: then we ask first."""
    from webui.openid import Flow, address

    config = _config()
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        return redirect(url_for("auth.sign_in"), 303)
    flow = Flow(
        state=secrets.token_urlsafe(32),
        nonce=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(48),
        back=url_for("sso.back", _external=True),
    )
    try:
        onward = address(config, flow)
    except SignOnFailed as failed:
        return _again(failed)
    response = redirect(onward, 303)
    kept = _serializer().dumps([flow.state, flow.nonce, flow.verifier, auth.wanted()])
    response.set_cookie(
        cookie_name(config),
        kept,
        max_age=60 * MINUTES,
        path="/",
        httponly=True,
        secure=config.web_https,
        samesite="Lax",  # it must come along when the provider sends the browser back
    )
    return response


@bp.get("/sign-in/sso/back")
@public
def back() -> ResponseReturnValue:
    """Back from the identity provider: who it is, and whether they may come in."""
    from webui.openid import identity

    config = _config()
    try:
        flow, wanted = _begun(config)
        code, issuer = request.args.get("code", ""), request.args.get("iss")
        if not 0 < len(code) <= LONGEST:
            raise SignOnFailed("declined", _("The identity provider did not sign you in."))
        found = identity(config, flow, code=code, issuer=issuer)
        user = _linked(config, found)
    except SignOnFailed as failed:
        return _again(failed)
    return _enter(config, user, found, wanted)


def cookie_name(config: Settings) -> str:
    """Of the cookie that remembers a sign-on under way."""
    return "__Host-nightread_sso" if config.web_https else "nightread_sso"


def _config() -> Settings:
    """The settings, where there is an identity provider; else there is no such page."""
    config = database().config
    if not config.oidc_issuer:
        abort(404)
    return config


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(web_key(), salt="single sign-on")


def _begun(config: Settings) -> "tuple[Flow, str]":
    """The sign-on that this browser began, and the page it was on the way to. Raises SignOnFailed unless what comes
    back is the answer to it, for the first time."""
    from webui.openid import Flow

    stale = SignOnFailed("state", _("That sign-in was not begun here, or too long ago. Begin again."))
    try:
        kept: list[Any] = _serializer().loads(request.cookies.get(cookie_name(config), ""), max_age=60 * MINUTES)
        state, nonce, verifier, wanted = map(str, kept)
    except (BadData, ValueError, TypeError) as error:
        raise stale from error
    if not hmac.compare_digest(state.encode(), request.args.get("state", "").encode()):
        raise stale
    if not links.spend(database(), hashlib.sha256(state.encode()).hexdigest()):
        raise SignOnFailed("replayed", str(stale))
    return Flow(state, nonce, verifier, url_for("sso.back", _external=True)), wanted


def _linked(config: Settings, found: "Identity") -> UserView:
    """Raises SignOnFailed where nobody is linked, or who is may not come in."""
    user = links.user_of(database(), issuer=config.oidc_issuer, subject=found.subject)
    if user is None or user.disabled_at:
        why = "unlinked" if user is None else "disabled"
        raise SignOnFailed(why, _("That account opens nothing here. An admin can link it to you."))
    return user


def _enter(config: Settings, user: UserView, found: "Identity", wanted: str) -> ResponseReturnValue:
    """Sign in; where our own rule asks for a second factor that the provider does not vouch for, the app's code is
    next, or enrolling one (guard.py)."""
    has_second = found.second_factor
    asks = config.require_totp and not has_second and user.has_codes
    wanted = wanted if auth.is_page_of_ours(wanted) else ""
    onward = url_for("auth.code", next=wanted or None) if asks else auth.onward(user, wanted)
    session.clear()  # a new form token with the new session
    response = make_response(render_template("signed_on.html", onward=onward))
    sessions.start(database(), user, response, awaits_code=asks, sso=True, second_factor=has_second)
    return _forgotten(config, response)


def _again(failed: SignOnFailed) -> ResponseReturnValue:
    """The form to sign in with, and in one sentence why this was nothing; on record in one word."""
    people.note_event(database(), by="nobody", action="sign_on_failed", about="sign-on", detail={"why": failed.why})
    response = make_response(auth.page(problem=str(failed)), 503 if failed.why == "silent" else 401)
    return _forgotten(database().config, response)


def _forgotten(config: Settings, response: Response) -> Response:
    name = cookie_name(config)
    response.delete_cookie(name, path="/", httponly=True, secure=config.web_https, samesite="Lax")
    return response
