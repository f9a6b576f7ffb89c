"""Batches: how the night went, what is read of it, what could not be screened, and who is at work."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, Response, abort, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from db.store import browsing, cases, exports, openings, people, reading
from db.store.browsing import BatchView, ReadSoFar
from db.store.connection import now
from db.store.reading import Totals
from db.store.thresholds import NIGHT
from db.words import Cause, Reason, Role
from webui.display import time_left
from webui.guard import EVERYBODY, database, may_list, may_see, me, my_sites, my_visit, needs, passive
from webui.numbers import is_number, number
from webui.text import _

bp = Blueprint("batches", __name__)
LINK = (_("Batches"), EVERYBODY, 30)
BATCHES = 25
FILES = 500
LISTED = 100
REASON_CHARACTERS = 10, 500
MOST_BATCHES = 2**63
REASONS = {str(code) for codes in (Reason, Cause) for code in codes}


@dataclass(frozen=True)
class Shown:
    """A batch as somebody may see it: `flagged` is None while scans of it are read blind, but for admins. `end` is when
    the last scan should have its outcome, None where there is nothing to go by."""

    totals: Totals
    flagged: int | None
    read: ReadSoFar
    end: datetime | None


@dataclass(frozen=True)
class Night:
    """The batches of the last night as one; `listed` are the scans to be read, `seconds` from submission to verdict."""

    batches: int
    numbers: dict[str, int | None]
    reasons: list[tuple[str, int]]
    read: int
    listed: int
    rate: float
    end: datetime | None
    is_done: bool


@bp.get("/batches")
@needs(*EVERYBODY)
def index() -> ResponseReturnValue:
    """The last night at a glance, the newest batches (`before` one) and the workers."""
    db, before = database(), _place("before")
    ids = browsing.newest_batches(db, site_ids=my_sites(), before=before, limit=BATCHES + 1)
    batches = _shown(reading.batches(db, site_ids=my_sites(), batch_ids=set(ids[:BATCHES]), limit=BATCHES))
    return render_template(
        "batches.html",
        batches=batches,
        night=_night(batches) if batches and before is None else None,
        is_first=before is None,
        next_place=ids[BATCHES - 1] if len(ids) > BATCHES else None,
        roots=browsing.roots(db, {batch.totals.batch for batch in batches}),
        workers=[worker for worker in reading.workers(db) if not worker.stopped],
    )


@bp.get("/batches/progress.json")
@needs(*EVERYBODY)
@passive
def progress() -> ResponseReturnValue:
    """The batches that the page still waits for, and the newest one that there is."""
    wanted = {int(text) for text in request.args.getlist("batch")[:BATCHES] if is_number(text)}
    db = database()
    batches = reading.batches(db, site_ids=my_sites(), batch_ids=wanted, limit=BATCHES) if wanted else []
    return jsonify(
        newest=browsing.newest_batch(db, site_ids=my_sites()),
        workers=sum(worker.alive and worker.scores for worker in reading.workers(db)),
        batches=[_as_json(batch) for batch in _shown(batches)],
    )


@bp.get("/batches/<int:batch_id>")
@needs(*EVERYBODY)
def show(batch_id: int) -> ResponseReturnValue:
    """One batch: totals, the files that were not screened (of one `reason`, or all), the scans to be read and their
    verdicts; for an admin who did not open it, the totals alone."""
    batch, reason = _batch(batch_id), request.args.get("reason", "")
    if reason and reason not in REASONS:
        abort(400, _("There is no such reason."))
    after = _place("after") or 0
    return _open_page(batch, after, reason) if may_list(batch_id) else _closed_page(batch)


@bp.post("/batches/<int:batch_id>")
@needs(Role.ADMIN)
def open_batch(batch_id: int) -> ResponseReturnValue:
    """Break the glass: with a reason, on record, an admin sees this batch's scans until the session ends."""
    batch = _batch(batch_id)
    why, (least, most) = request.form.get("reason", "").replace("\0", "").strip(), REASON_CHARACTERS
    if not least <= len(why) <= most:
        problem = _("A reason has %(least)s to %(most)s characters.") % {"least": least, "most": most}
        return _closed_page(batch, why=why, problem=problem), 400
    openings.open_batch(database(), batch_id, my_visit(), why)
    return redirect(url_for("batches.show", batch_id=batch_id), 303)


@bp.get("/batches/<int:batch_id>/batch.csv")
@needs(*EVERYBODY)
def export(batch_id: int) -> ResponseReturnValue:
    """Every file of the batch with its outcome and final verdict, as CSV, on record."""
    _batch(batch_id)
    if not may_list(batch_id):
        abort(403)
    db, user = database(), me()
    people.note_event(db, by=user.name, action="exported", about=f"batch {batch_id}")
    lines = (line.encode() for line in exports.as_csv(db, batch_id, me=user))
    return Response(lines, mimetype="text/csv")


def _batch(batch_id: int) -> BatchView:
    if batch_id >= MOST_BATCHES:
        abort(404)
    return browsing.batch(database(), batch_id, site_ids=my_sites())


def _place(name: str) -> int | None:
    return number(request.args.get(name, ""), _("That is no place in the list."))


def _shown(batches: Sequence[Totals]) -> list[Shown]:
    read = browsing.read_so_far(database(), {totals.batch for totals in batches})
    return [_as_shown(totals, read[totals.batch]) for totals in batches]


def _as_shown(totals: Totals, read: ReadSoFar) -> Shown:
    is_hidden = read.is_blind and me().role != Role.ADMIN
    return Shown(totals, None if is_hidden else totals.flagged, read, _expected_end(totals))


def _expected_end(totals: Totals) -> datetime | None:
    """When the last scan should have its outcome, at the rate so far."""
    left = totals.seconds_left
    return None if left is None else now() + timedelta(seconds=left)


def _night(batches: Sequence[Shown]) -> Night:
    """The batches of the last night as one; those on the page."""
    newest = max(batch.totals.submitted_at for batch in batches)
    mine = [batch for batch in batches if batch.totals.submitted_at > newest - NIGHT]
    sums = [batch.totals for batch in mine]
    reasons: Counter[str] = sum((Counter(totals.reasons) for totals in sums), Counter())
    flagged = [batch.flagged for batch in mine]
    numbers: dict[str, int | None] = {"found": sum(totals.found for totals in sums)}
    numbers["scored"] = sum(totals.scored for totals in sums)
    numbers["flagged"] = None if None in flagged else sum(count or 0 for count in flagged)
    for name in ("rejected", "failed", "waiting"):
        numbers[name] = sum(getattr(totals, name) for totals in sums)
    return Night(
        batches=len(mine),
        numbers=numbers,
        reasons=reasons.most_common(),
        read=sum(batch.read.read for batch in mine),
        listed=sum(batch.read.listed for batch in mine),
        rate=sum(totals.images_per_second for totals in sums if not totals.is_done) or _rate(sums),
        end=max((batch.end for batch in mine if batch.end), default=None),
        is_done=all(totals.is_done for totals in sums),
    )


def _rate(batches: Sequence[Totals]) -> float:
    """Scans a second over batches that are done, each by the time it took."""
    seconds = sum(totals.seconds for totals in batches)
    return sum(totals.scored for totals in batches) / seconds if seconds else 0.0


def _open_page(batch: BatchView, after: int, reason: str) -> str:
    db, batch_id = database(), batch.totals.batch
    files = browsing.unscreened(db, batch_id, reason=reason or None, after=after, limit=FILES + 1)
    people.note_event(db, by=me().name, action="listed", about=f"batch {batch_id}")
    return _page(
        batch,
        files=files[:FILES],
        next_place=files[FILES - 1].scan_id if len(files) > FILES else None,
        is_first=after == 0,
        reason=reason,
        listed=browsing.listed(db, batch_id, me=me(), limit=LISTED),
        most_listed=LISTED,
        turnaround=cases.turnaround(db, batch_id=batch_id),
        scan_page=_scan_page(batch_id),
    )


def _scan_page(batch_id: int) -> str | None:
    """The endpoint that a scan's name leads to: its page; a centre sees no pictures, but the case."""
    if may_see(batch_id):
        return "review.show"
    return "cases.show" if me().role == Role.CENTRE else None


def _closed_page(batch: BatchView, *, why: str = "", problem: str = "") -> str:
    least, most = REASON_CHARACTERS
    return _page(batch, is_closed=True, why=why, problem=problem, least=least, most=most)


def _page(batch: BatchView, **shown: Any) -> str:
    return render_template(
        "batch.html",
        batch=_shown([batch.totals])[0],
        root=batch.root,
        totals=batch.totals,
        openings=openings.openings(database(), batch.totals.batch),
        **shown,
    )


def _as_json(batch: Shown) -> dict[str, Any]:
    totals = batch.totals
    numbers = ("batch", "found", "scored", "rejected", "failed", "waiting")
    shown: dict[str, Any] = {name: getattr(totals, name) for name in numbers}
    return {
        **shown,
        "flagged": _("hidden") if batch.flagged is None else batch.flagged,
        "rate": f"{totals.images_per_second:.1f}",
        "left": time_left(totals),
        "done": totals.is_done,
    }
