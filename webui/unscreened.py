"""What could not be screened: nobody falls through."""

import math
import time
from typing import Any

from flask import Blueprint, abort, current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from db.errors import DatabaseUnreachable, Refused, Unknown
from db.store import people, reading, unscreened
from db.store.unscreened import Standing
from webui.guard import LISTS, database, me, my_sites, needs
from webui.text import _

bp = Blueprint("unscreened", __name__)
LINK = (_("Not screened"), LISTS, 25)
PAGE = 50
MOST_COUNTED = 100  # in the navigation: beyond that it says "99+"
COUNT_SECONDS = 60.0  # a count in the navigation may be as old as this
STANDINGS = {
    Standing.OPEN: (_("Open"), _("nobody has seen to them yet")),
    Standing.ACKNOWLEDGED: (_("Acknowledged"), _("somebody took note, and said what follows")),
    Standing.RESOLVED: (_("Resolved"), _("another scan of the same patient was screened")),
    Standing.DUPLICATE: (_("Second copies"), _("the same picture of the same patient was screened, or waits to be")),
}
COUNTED = "nightread_unscreened"  # this process's counts: sites -> (when, how many)


@bp.get("/unscreened")
@needs(*LISTS)
def index() -> ResponseReturnValue:
    """One page of the scans that stand as asked (open, unless said otherwise), newest first; `after` is the id of the
    last one of the page before."""
    return _page(_standing(), _after(request.args.get("after", "")))


@bp.post("/unscreened/<key:key>/acknowledge")
@needs(*LISTS)
def acknowledge(key: str) -> ResponseReturnValue:
    """Take note of an open scan."""
    db, note = database(), request.form.get("note", "").replace("\r\n", "\n").replace("\0", "").strip()
    reading.scan(db, key, site_ids=my_sites())
    try:
        unscreened.acknowledge(db, key, site_ids=my_sites(), by=me().name, note=note)
    except Unknown:
        return _seen_to()
    except Refused as refused:
        page = _page(Standing.OPEN, _after(request.form.get("after", "")), problem=str(refused), about=key, note=note)
        return page, 400
    return _done(_("Acknowledged."))


@bp.post("/unscreened/<key:key>/again")
@needs(*LISTS)
def send_again(key: str) -> ResponseReturnValue:
    """Let a failed scan wait again."""
    reading.scan(database(), key, site_ids=my_sites())
    try:
        unscreened.send_again(database(), key, site_ids=my_sites(), by=me().name)
    except Unknown:
        return _seen_to()
    except Refused:
        abort(400, _("Only a failed scan can be sent again."))
    return _done(_("It waits for a worker again."))


def nav_count() -> int:
    """How many are open, for the navigation: at most MOST_COUNTED, and COUNT_SECONDS old at most."""
    sites, moment, counted = frozenset(my_sites()), time.monotonic(), _counted()
    when, count = counted.get(sites, (-math.inf, 0))
    if moment - when < COUNT_SECONDS:
        return count
    try:
        count = unscreened.open_count(database(), site_ids=set(sites), most=MOST_COUNTED)
    except DatabaseUnreachable:
        return 0  # the page of that error has a navigation, too
    counted[sites] = moment, count
    return count


def _counted() -> dict[frozenset[int], tuple[float, int]]:
    counted: dict[frozenset[int], tuple[float, int]] = current_app.extensions.setdefault(COUNTED, {})
    return counted


def _page(standing: Standing, after: int | None, **problem: Any) -> str:
    db = database()
    items = unscreened.page(db, site_ids=my_sites(), standing=standing, after=after, limit=PAGE + 1)
    people.note_event(db, by=me().name, action="listed", about="unscreened")
    return render_template(
        "unscreened.html",
        items=items[:PAGE],
        next_place=items[PAGE - 1].scan_id if len(items) > PAGE else None,
        after=after,
        standing=standing,
        standings=STANDINGS,
        counts=unscreened.counts(db, site_ids=my_sites()),
        note_characters=unscreened.NOTE_CHARACTERS,
        **problem,
    )


def _standing() -> Standing:
    try:
        return Standing(request.args.get("standing", Standing.OPEN))
    except ValueError:
        abort(400, _("There is no such list."))


def _after(text: str) -> int | None:
    if text and not (text.isdecimal() and text.isascii() and len(text) <= 18):
        abort(400, _("That is no place in the list."))
    return int(text) if text else None


def _seen_to() -> ResponseReturnValue:
    return _done(_("It is not open any more: somebody saw to it, or a later scan did."))


def _done(words: str) -> ResponseReturnValue:
    _counted().clear()
    flash(words)
    return redirect(url_for("unscreened.index", after=_after(request.form.get("after", ""))), 303)
