"""One scan: the picture, what the machine says once the reader may know it, and the reader's verdict."""

from pathlib import Path
from typing import Any

from flask import (
    Blueprint,
    abort,
    flash,
    jsonify,
    make_response,
    redirect,
    request,
    send_file,
    url_for,
)
from flask.typing import ResponseReturnValue

from db.errors import Refused
from db.files import derived_path
from db.store import entries, people, reading, worklist
from db.store.entries import EntryView
from db.store.reading import ScanView, printable
from db.words import Kind, Stage, State
from webui import errors, filters, onward, scan_page, verdicts
from webui.guard import READS, SEES, database, may_see, me, my_sites, needs, passive
from webui.text import _

bp = Blueprint("review", __name__)
UNDER = "worklist"
AHEAD = "X-Nightread-Ahead"  # a page fetched ahead: the key of the scan that is being read


@bp.get("/scan/last")
@needs(*READS)
def last() -> ResponseReturnValue:
    """The scan of the reader's last verdict, to give another one in its place; `before` is a review's id."""
    before = request.args.get("before", "")
    if before and not (before.isdecimal() and len(before) < 19):
        abort(400, "That is no verdict.")
    found = entries.last_of_mine(database(), me=me(), before=int(before) if before else None)
    if found is None:
        flash(_("You have given no verdict that could be changed."))
        return redirect(url_for("worklist.index"), 303)
    return redirect(url_for("review.show", key=found[0], again=1), 303)


@bp.get("/scan/<key:key>")
@needs(*SEES)
def show(key: str) -> ResponseReturnValue:
    """The scan page; that it was opened goes on record. One that somebody else has open is announced first."""
    scan = _scan(key)
    entry = _entry(scan)
    is_wanted = verdicts.is_wanted(entry)
    if entry and entry.holder and is_wanted and "anyway" not in request.args:
        return scan_page.held(scan, entry)
    is_ahead = AHEAD in request.headers
    people.note_event(database(), by=me().name, action="prefetched" if is_ahead else "viewed", about=_about(scan))
    if is_wanted:
        entries.hold(database(), scan.scan_id, me=me())
    return scan_page.render(scan, entry, also_not=request.headers.get(AHEAD, ""))


@bp.post("/scan/<key:key>")
@needs(*READS)
def give_verdict(key: str) -> ResponseReturnValue:
    """Append what the reader says, then on to the scan after this one; after a first impression, to the same scan with
    what the machine says."""
    scan = _scan(key)
    if scan.outcome is None or scan.outcome.kind != Kind.SCORED:
        abort(400, "Only a scored scan takes a verdict.")
    entry = _entry(scan)
    said = verdicts.read(request.form, scan, entry)
    if said.problem:
        return _again(scan, entry, said, 409 if said.is_stale else 400)
    try:
        state = entries.add_review(
            database(),
            scan.scan_id,
            me=me(),
            stage=said.stage,
            verdict=said.verdict,
            findings=said.findings,
            note=said.note,
        )
    except Refused as problem:
        return _again(scan, _entry(scan), said.but(str(problem)), 409)
    return _on_from(scan, said, state)


@bp.get("/scan/<key:key>/next")
@needs(*READS)
def skip(key: str) -> ResponseReturnValue:
    """Leave this scan as it is: on to the one after it, or, at the end, to the list. The skipped one comes back once
    all others are read."""
    scan, listed = _scan(key), filters.read(request.args)
    entries.release(database(), scan.scan_id, me=me())
    ahead = request.args.get("ahead", "")
    following = ahead if _is_key(ahead) and onward.still_next(ahead, listed) else onward.following(scan, listed)
    onward.come_back_to(following)
    if following:
        onward.skip(key)
    if verdicts.wants_json():
        return jsonify(_told(scan, following, listed))
    return redirect(scan_page.address(following, listed, model_id=scan.model_id), 303)


@bp.post("/scan/<key:key>/seen")
@needs(*READS)
def seen(key: str) -> ResponseReturnValue:
    """A page that was fetched ahead is now before the reader."""
    scan = _scan(key)
    people.note_event(database(), by=me().name, action="viewed", about=_about(scan))
    people.note_event(database(), by=me().name, action="viewed_image", about=_about(scan))
    if verdicts.is_wanted(_entry(scan)):
        entries.hold(database(), scan.scan_id, me=me())
    return jsonify({})


@bp.post("/scan/<key:key>/hold")
@needs(*READS)
@passive
def hold(key: str) -> ResponseReturnValue:
    """The page is still open; who else has the scan open, if somebody has."""
    scan = _scan(key)
    entry = _entry(scan)
    if not verdicts.is_wanted(entry) or entries.hold(database(), scan.scan_id, me=me()):
        return jsonify({})
    entry = _entry(scan)
    return jsonify(holder=printable(entry.holder) if entry and entry.holder else None)


@bp.post("/scan/<key:key>/release")
@needs(*READS)
@passive
def release(key: str) -> ResponseReturnValue:
    """The page was left."""
    entries.release(database(), _scan(key).scan_id, me=me())
    return jsonify({})


@bp.get("/scan/<key:key>/image.png")
@needs(*SEES)
def image(key: str) -> ResponseReturnValue:
    """The lossless review copy: grey, 8 or 16 bits."""
    scan = _scan(key)
    action = "prefetched_image" if AHEAD in request.headers else "viewed_image"
    people.note_event(database(), by=me().name, action=action, about=_about(scan))
    return _picture(scan, "image")


@bp.get("/scan/<key:key>/heat.png")
@needs(*SEES)
def heat(key: str) -> ResponseReturnValue:
    """The heat map: a transparent overlay of the same proportions as the picture. Where it may not be seen yet there
    is none."""
    scan = _scan(key)
    entry = _entry(scan)
    if entry and not entry.sees_score:
        abort(404)
    return _picture(scan, "heat")


@bp.get("/scan/<key:key>/input.png")
@needs(*SEES)
def model_input(key: str) -> ResponseReturnValue:
    """The square that the model was given."""
    return _picture(_scan(key), "input")


def _scan(key: str) -> ScanView:
    scan = reading.scan(database(), key, site_ids=my_sites())
    if not may_see(scan.batch):
        advice = _("An admin sees a scan only after opening its batch with a reason: batch %s, under Batches.")
        abort(make_response(errors.page(403, advice % scan.batch)))
    return scan


def _entry(scan: ScanView) -> EntryView | None:
    return entries.entry(database(), scan.scan_id, me=me())


def _about(scan: ScanView) -> str:
    return f"scan {scan.scan_id}"


def _is_key(text: str) -> bool:
    return len(text) == 32 and set(text) <= set("0123456789abcdef")


def _again(scan: ScanView, entry: EntryView | None, said: verdicts.Said, code: int) -> ResponseReturnValue:
    """What was sent comes back with what is wrong with it."""
    if verdicts.wants_json():
        return jsonify(problem=said.problem), code
    return scan_page.render(scan, entry, said=said), code


def _on_from(scan: ScanView, said: verdicts.Said, state: State) -> ResponseReturnValue:
    listed, ahead = filters.read(request.args), request.form.get("ahead", "")
    if said.stage == Stage.IMPRESSION:
        following: str | None = scan.key
    elif _is_key(ahead) and onward.still_next(ahead, listed):
        following = ahead
    else:
        following = onward.following(scan, listed, comes_back=True)
        onward.come_back_to(following)
    words = verdicts.thanks(said, state)
    if not verdicts.wants_json():
        flash(words)
        return redirect(scan_page.address(following, listed, model_id=scan.model_id), 303)
    if following not in (scan.key, ahead):
        flash(words)
    return jsonify({**_told(scan, following, listed), "said": words})


def _told(scan: ScanView, following: str | None, listed: worklist.Filters) -> dict[str, Any]:
    address = scan_page.address(following, listed, model_id=scan.model_id)
    return {"next": following, "address": address, "left": scan_page.left(scan.model_id, listed)}


def _picture(scan: ScanView, kind: str) -> ResponseReturnValue:
    path: Path = derived_path(database().config.derived, scan.key, kind)
    if not path.is_file():
        abort(404)
    sent = send_file(path, mimetype="image/png", etag=False, conditional=False)
    # When a picture was made would tell one that was drawn with its night from one made by a later threshold.
    del sent.headers["Last-Modified"]
    return sent
