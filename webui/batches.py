"""Batches: how the night went, what could not be screened, and who is at work."""

from typing import Any

from flask import Blueprint, abort, jsonify, render_template, request
from flask.typing import ResponseReturnValue

from db.store import browsing, people, reading
from db.store.reading import Totals
from webui.display import time_left
from webui.guard import database, me, my_sites, passive

bp = Blueprint("batches", __name__)
BATCHES = 50
FILES = 500
FLAGGED = 100


@bp.get("/batches")
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
def show(batch_id: int) -> ResponseReturnValue:
    """One batch: totals, the files that were not screened, the flagged scans."""
    if batch_id >= 2**63:
        abort(404)
    db = database()
    batch = browsing.batch(db, batch_id, site_ids=my_sites())
    after = request.args.get("after", "0")
    if not after.isdecimal() or len(after) > 18:
        abort(400, "That is no place in the list.")
    files = browsing.unscreened(db, batch_id, after=int(after), limit=FILES + 1)
    people.note_event(db, by=me().name, action="listed", about=f"batch {batch_id}")
    return render_template(
        "batch.html",
        batch=batch,
        totals=batch.totals,
        files=files[:FILES],
        next_place=files[FILES - 1].scan_id if len(files) > FILES else None,
        is_first=after == "0",
        flagged=browsing.flagged(db, batch_id, limit=FLAGGED),
        most_flagged=FLAGGED,
    )


def _as_json(totals: Totals) -> dict[str, Any]:
    numbers = ("batch", "found", "scored", "flagged", "rejected", "failed", "waiting")
    shown: dict[str, Any] = {name: getattr(totals, name) for name in numbers}
    return {**shown, "rate": f"{totals.images_per_second:.1f}", "left": time_left(totals), "done": totals.is_done}
