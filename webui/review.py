"""One scan: the picture, what the machine says, and the reader's verdict."""

from pathlib import Path

from flask import Blueprint, abort, flash, make_response, redirect, render_template, request, send_file, url_for
from flask.typing import ResponseReturnValue

from db.files import derived_path
from db.store import people, reading, worklist
from db.store.reading import ScanView
from db.words import Kind, Verdict
from webui import errors
from webui.guard import READS, SEES, database, may_see, me, my_sites, needs

bp = Blueprint("review", __name__)
UNDER = "worklist"
NOTE_CHARACTERS = 10_000
VERDICTS = {
    Verdict.CONFIRM: ("C", "Confirm", "the flag is right: act on it"),
    Verdict.DISMISS: ("D", "Dismiss", "the flag is wrong: nothing suspicious"),
    Verdict.UNSURE: ("U", "Unsure", "needs another look or another image"),
}


@bp.get("/scan/<key:key>")
@needs(*SEES)
def show(key: str) -> ResponseReturnValue:
    """The scan page; that it was opened goes on record."""
    scan = _scan(key)
    people.note_event(database(), by=me().name, action="viewed", about=f"scan {scan.scan_id}")
    return _page(scan)


@bp.post("/scan/<key:key>")
@needs(*READS)
def give_verdict(key: str) -> ResponseReturnValue:
    """Append the verdict, then on to the worst scan of the same model that nobody has read."""
    scan = _scan(key)
    if not _is_scored(scan):
        abort(400, "Only a scored scan takes a verdict.")
    note = request.form.get("note", "").replace("\r\n", "\n").replace("\0", "").strip()
    try:
        verdict = Verdict(request.form.get("verdict", ""))
    except ValueError:
        return _page(scan, note=note, problem="Choose confirm, dismiss or unsure first."), 400
    if len(note) > NOTE_CHARACTERS:
        return _page(scan, note=note, problem=f"A note may have {NOTE_CHARACTERS:,} characters."), 400
    people.add_review(database(), scan.scan_id, reader=me(), verdict=verdict, note=note)
    flash(f"Saved: {verdict}.")
    return redirect(_worst_unread(scan) or url_for("worklist.index"), 303)


@bp.get("/scan/<key:key>/next")
@needs(*READS)
def skip(key: str) -> ResponseReturnValue:
    """Leave this scan unread: on to the next one down the list, or back to its top."""
    scan = _scan(key)
    mine = url_for("worklist.index", model=scan.model_id)
    if scan.outcome is None or scan.outcome.score is None:
        return redirect(mine, 303)
    below = _worst_unread(scan, after=(scan.outcome.score, scan.scan_id))
    return redirect(below or mine, 303)


@bp.get("/scan/<key:key>/image.png")
@needs(*SEES)
def image(key: str) -> ResponseReturnValue:
    """The lossless review copy: grey, 8 or 16 bits."""
    scan = _scan(key)
    people.note_event(database(), by=me().name, action="viewed_image", about=f"scan {scan.scan_id}")
    return _picture(scan, "image")


@bp.get("/scan/<key:key>/heat.png")
@needs(*SEES)
def heat(key: str) -> ResponseReturnValue:
    """The heat map: a transparent overlay of the same proportions as the picture."""
    return _picture(_scan(key), "heat")


def _scan(key: str) -> ScanView:
    scan = reading.scan(database(), key, site_ids=my_sites())
    if not may_see(scan.batch):
        advice = f"An admin sees a scan only after opening its batch with a reason: batch {scan.batch}, under Batches."
        abort(make_response(errors.page(403, advice)))
    return scan


def _page(scan: ScanView, *, note: str = "", problem: str = "") -> str:
    return render_template(
        "scan.html",
        scan=scan,
        outcome=scan.outcome,
        reviews=people.reviews(database(), scan.scan_id),
        unread=worklist.unread(database(), site_ids=my_sites(), model_id=scan.model_id),
        has_image=_path(scan, "image").is_file(),
        has_heat=_path(scan, "heat").is_file(),
        may_decide=me().role in READS and _is_scored(scan),
        verdicts=VERDICTS,
        note=note,
        note_characters=NOTE_CHARACTERS,
        problem=problem,
    )


def _is_scored(scan: ScanView) -> bool:
    return scan.outcome is not None and scan.outcome.kind == Kind.SCORED


def _path(scan: ScanView, kind: str) -> Path:
    return derived_path(database().config.derived, scan.key, kind)


def _picture(scan: ScanView, kind: str) -> ResponseReturnValue:
    path = _path(scan, kind)
    if not path.is_file():
        abort(404)
    return send_file(path, mimetype="image/png", etag=False, last_modified=None, conditional=False)


def _worst_unread(scan: ScanView, *, after: tuple[float, int] | None = None) -> str | None:
    """The address of the worst unread scan of the same trained model, or of the worst one below `after`."""
    found = worklist.page(database(), site_ids=my_sites(), model_id=scan.model_id, after=after, limit=1)
    return url_for("review.show", key=found[0].key) if found else None
