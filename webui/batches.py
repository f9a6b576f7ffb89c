"""Batches: how the night went, what could not be screened, and who is at work."""

from typing import Any

from flask import Blueprint, abort, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from db.store import browsing, openings, people, reading
from db.store.browsing import BatchView
from db.store.reading import Totals
from db.words import Role
from webui.display import time_left
from webui.guard import EVERYBODY, database, may_list, me, my_sites, my_visit, needs, passive
from webui.text import _

bp = Blueprint("batches", __name__)
LINK = (_("Batches"), EVERYBODY, 30)
BATCHES = 50
FILES = 500
FLAGGED = 100
REASON_CHARACTERS = 10, 500
MOST_BATCHES = 2**63


@bp.get("/batches")
@needs(*EVERYBODY)
def index() -> ResponseReturnValue:
    """The newest batches and the workers."""
    db = database()
    batches = reading.batches(db, site_ids=my_sites(), limit=BATCHES)
    return render_template(
        "batches.html",
        batches=batches,
        roots=browsing.roots(db, {totals.batch for totals in batches}),
        workers=[worker for worker in reading.workers(db) if not worker.stopped],
    )


@bp.get("/batches/progress.json")
@needs(*EVERYBODY)
@passive
def progress() -> ResponseReturnValue:
    """The batches that the page still waits for, and the newest one that there is."""
    wanted = {int(text) for text in request.args.getlist("batch")[:BATCHES] if text.isdecimal() and len(text) < 19}
    db = database()
    batches = reading.batches(db, site_ids=my_sites(), batch_ids=wanted, limit=BATCHES) if wanted else []
    return jsonify(
        newest=browsing.newest_batch(db, site_ids=my_sites()),
        workers=sum(worker.alive for worker in reading.workers(db)),
        batches=[_as_json(totals) for totals in batches],
    )


@bp.get("/batches/<int:batch_id>")
@needs(*EVERYBODY)
def show(batch_id: int) -> ResponseReturnValue:
    """One batch: totals, the files that were not screened, the flagged scans; for an admin who did not open it, the
    totals alone."""
    batch = _batch(batch_id)
    after = request.args.get("after", "0")
    if not after.isdecimal() or len(after) > 18:
        abort(400, "That is no place in the list.")
    return _open_page(batch, int(after)) if may_list(batch_id) else _closed_page(batch)


@bp.post("/batches/<int:batch_id>")
@needs(Role.ADMIN)
def open_batch(batch_id: int) -> ResponseReturnValue:
    """Break the glass: with a reason, on record, an admin sees this batch's scans until the session ends."""
    batch = _batch(batch_id)
    reason, (least, most) = request.form.get("reason", "").replace("\0", "").strip(), REASON_CHARACTERS
    if not least <= len(reason) <= most:
        return _closed_page(batch, reason=reason, problem=f"A reason has {least} to {most} characters."), 400
    openings.open_batch(database(), batch_id, my_visit(), reason)
    return redirect(url_for("batches.show", batch_id=batch_id), 303)


def _batch(batch_id: int) -> BatchView:
    if batch_id >= MOST_BATCHES:
        abort(404)
    return browsing.batch(database(), batch_id, site_ids=my_sites())


def _open_page(batch: BatchView, after: int) -> str:
    db, batch_id = database(), batch.totals.batch
    files = browsing.unscreened(db, batch_id, after=after, limit=FILES + 1)
    people.note_event(db, by=me().name, action="listed", about=f"batch {batch_id}")
    return _page(
        batch,
        files=files[:FILES],
        next_place=files[FILES - 1].scan_id if len(files) > FILES else None,
        is_first=after == 0,
        flagged=browsing.flagged(db, batch_id, limit=FLAGGED),
        most_flagged=FLAGGED,
    )


def _closed_page(batch: BatchView, *, reason: str = "", problem: str = "") -> str:
    least, most = REASON_CHARACTERS
    return _page(batch, is_closed=True, reason=reason, problem=problem, least=least, most=most)


def _page(batch: BatchView, **shown: Any) -> str:
    opened = openings.openings(database(), batch.totals.batch)
    return render_template("batch.html", batch=batch, totals=batch.totals, openings=opened, **shown)


def _as_json(totals: Totals) -> dict[str, Any]:
    numbers = ("batch", "found", "scored", "flagged", "rejected", "failed", "waiting")
    shown: dict[str, Any] = {name: getattr(totals, name) for name in numbers}
    return {**shown, "rate": f"{totals.images_per_second:.1f}", "left": time_left(totals), "done": totals.is_done}
