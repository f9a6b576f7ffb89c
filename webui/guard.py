"""Who gets in: a page is marked as public or with the roles that it is for, and one without a mark lets nobody in;
every change comes from our own pages."""

import ipaddress
import re
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from flask import Flask, abort, current_app, g, redirect, request, url_for
from flask.typing import ResponseReturnValue

from db.store import openings
from db.store.connection import Database
from db.store.people import UserView, Visit
from db.words import Role
from webui import sessions

View = TypeVar("View", bound=Callable[..., ResponseReturnValue])
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
STATIC = "static"
EVERYBODY = tuple(Role)
READS = (Role.READER, Role.ARBITER)  # whose work is to read scans
SEES = (*READS, Role.ADMIN)  # who may be shown a scan at all; an admin after opening its batch
LISTS = (*READS, Role.CENTRE)  # who work with the scans of the sites that were given to them: a centre without pictures


def install(app: Flask) -> None:
    """Put the guard before every request of the application."""
    app.before_request(_refuse_foreign_names)
    app.before_request(_refuse_foreign_changes)
    app.before_request(_admit)


def public(view: View) -> View:
    """Mark a view that needs no sign-in."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def passive(view: View) -> View:
    """Mark a view that a page polls by itself: it does not keep an idle session alive."""
    view.is_passive = True  # type: ignore[attr-defined]
    return view


def needs(*roles: Role) -> Callable[[View], View]:
    """Mark a view with the roles that may use it."""

    def mark(view: View) -> View:
        view.roles = roles  # type: ignore[attr-defined]
        return view

    return mark


def enrols(view: View) -> View:
    """Mark a view that somebody who must first enrol an app for one-time passwords may use."""
    view.enrols = True  # type: ignore[attr-defined]
    return view


def database() -> Database:
    """The application's database."""
    db: Database = current_app.extensions["nightread"]
    return db


def me() -> UserView:
    """Who is signed in; only for views that are not public."""
    return my_visit().user


def my_visit() -> Visit:
    """The session of who is signed in; only for views that are not public."""
    visit: Visit = g.visit
    return visit


def my_sites() -> set[int]:
    """The sites whose scans the signed-in user may see."""
    return set(me().site_ids)


def may_see(batch_id: int) -> bool:
    """Whether the signed-in user may see the scans of a batch of theirs: readers and arbiters always, an admin only
    after opening the batch in this session, with a reason (break-glass), a centre never."""
    return me().role in READS or openings.is_open(database(), batch_id, my_visit())


def may_list(batch_id: int) -> bool:
    """Whether the signed-in user may see the files of a batch of theirs and how each ended: also its centre."""
    return me().role in LISTS or may_see(batch_id)


def _refuse_foreign_names() -> None:
    """Against DNS rebinding: a page elsewhere must not reach a local server under that page's own name. Behind a
    TLS proxy the certificate sees to this."""
    config = database().config
    is_local = is_loopback(config.web_host) and not config.web_https
    if is_local and not is_loopback(re.sub(r":\d*$", "", request.host)):
        abort(400, "This server answers to localhost only.")


def is_loopback(host: str | None) -> bool:
    """Whether only this machine reaches that address; a name other than localhost may mean anything."""
    try:
        return host == "localhost" or ipaddress.ip_address((host or "").strip("[]")).is_loopback
    except ValueError:
        return False


def _refuse_foreign_changes() -> None:
    """A change must come from a page of ours, besides carrying its token. Browsers state where a request comes
    from in Sec-Fetch-Site (https and loopback); older ones only in Origin."""
    if request.method in SAFE_METHODS:
        return
    if not _comes_from_us():
        abort(400, "This came from another page.")


def _comes_from_us() -> bool:
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return site == "same-origin"
    return origin is None or urlsplit(origin).netloc == request.host


def _admit() -> ResponseReturnValue | None:
    view = current_app.view_functions.get(request.endpoint or "")
    if request.endpoint == STATIC or getattr(view, "is_public", False):
        return None
    visit = sessions.current(database(), is_active=not getattr(view, "is_passive", False))
    if visit is None:
        return _ask_to_sign_in()
    g.visit, g.user = visit, visit.user
    if view is not None and visit.user.role not in getattr(view, "roles", ()):
        abort(403)
    has_second = visit.user.has_codes or visit.second_factor
    if database().config.require_totp and not has_second and not getattr(view, "enrols", False):
        return _ask_to_enrol()
    return None


def _ask_to_enrol() -> ResponseReturnValue:
    if _is_fetched():
        abort(403)
    return redirect(url_for("codes.index"), 303)


def _is_fetched() -> bool:
    """Whether a page of ours asks for this by itself, so that a redirection to another page would be no answer."""
    return request.path.endswith((".png", ".json"))


def _ask_to_sign_in() -> ResponseReturnValue:
    if _is_fetched():
        abort(401)
    was_changing = request.method not in SAFE_METHODS
    is_page = request.url_rule is not None and request.path != "/"  # what else was typed is not repeated
    return redirect(
        url_for("auth.sign_in", next=request.path if is_page else None, lost=1 if was_changing else None), 303
    )
