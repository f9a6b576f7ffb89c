"""The worklist: what waits for the reader, worst first by default; the arbiter's list; the search for a patient."""

from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from db.store import models, people, sites, worklist
from db.store.entries import Place
from db.store.worklist import Filters, ModelToRead, Order, WorklistItem
from db.words import Role, State
from webui import display, filters, verdicts
from webui.guard import EVERYBODY, READS, database, me, my_sites, needs
from webui.text import _

bp = Blueprint("worklist", __name__)
LINK = (_("Worklist"), READS, 10)
PAGE = 50
LEAST_SEARCHED, MOST_SEARCHED = 2, 200  # characters
ORDERS = {Order.WORST: _("worst first"), Order.NEWEST: _("newest first"), Order.OLDEST: _("oldest first")}


@bp.get("/")
@needs(*EVERYBODY)
def index() -> ResponseReturnValue:
    """One page of a model's list; `after` is the place of the last line of the page before. Readers read; others have
    their first page in the batches."""
    if me().role not in READS:
        return redirect(url_for("batches.index"), 303)
    return _page(filters.read(request.args), after=place(request.args.get("after", "")))


@bp.get("/arbitration")
@needs(Role.ARBITER)
def arbitration() -> ResponseReturnValue:
    """What readers disagree about or nobody is sure of."""
    return _page(Filters(state=State.ARBITER), after=place(request.args.get("after", "")), arbiter=True)


@bp.post("/search")
@needs(*READS)
def search() -> ResponseReturnValue:
    """Scans by patient, study or key, whether they were read or not. What is looked for is in no address."""
    text = request.form.get("text", "").strip()
    if not LEAST_SEARCHED <= len(text) <= MOST_SEARCHED or not text.isprintable():
        abort(400, "That is no identifier.")
    return _page(Filters(text=text), after=None)


def _page(wanted: Filters, *, after: Place | None, arbiter: bool = False) -> str:
    db, asked = database(), request.values.get("model", "")
    to_read = worklist.models_to_read(db, me=me(), arbiter=arbiter)
    model_id = _model(to_read, asked, wanted)
    if asked and str(model_id) != asked:
        after = None  # the place was one in the other model's list
    found = _found(wanted, model_id, after=after, arbiter=arbiter)
    people.note_event(db, by=me().name, action="listed", about="worklist")
    return render_template(
        "worklist.html",
        items=found[:PAGE],
        next_place=written(found[PAGE - 1].place) if len(found) > PAGE else None,
        first_free=next((line.key for line in found[:PAGE] if line.holder is None), None),
        is_first=after is None,
        is_arbiters=arbiter,
        models=to_read,
        model_id=model_id,
        wanted=wanted,
        listed=filters.written(wanted),
        orders=ORDERS,
        states=verdicts.STATES,
        choices=verdicts.CHOICES,
        sites=[site for site in sites.every_site(db) if site.id in my_sites()],
        least=LEAST_SEARCHED,
        most=MOST_SEARCHED,
        **_numbers(model_id),
    )


def _found(wanted: Filters, model_id: int | None, *, after: Place | None, arbiter: bool) -> list[WorklistItem]:
    """A page's lines and one more, where there is one; a search goes through every model's list."""
    db = database()
    ids = [model.id for model in models.registered(db)] if wanted.text else [model_id] if model_id is not None else []
    lines = [
        line
        for one in ids
        for line in worklist.page(
            db, me=me(), model_id=one, filters=wanted, after=after, limit=PAGE + 1, arbiter=arbiter
        )
    ]
    return sorted(lines, key=lambda line: line.submitted_at, reverse=True)[: PAGE + 1] if wanted.text else lines


def _numbers(model_id: int | None) -> dict[str, Any]:
    """How much there is to read, and about how long it takes at the reader's pace."""
    if model_id is None:
        return {"counts": None, "estimate": ""}
    counts = worklist.counts(database(), me=me(), model_id=model_id)
    pace = worklist.pace(database(), me=me())
    return {"counts": counts, "estimate": display.estimate(counts.to_read * pace) if counts.to_read and pace else ""}


def _model(to_read: list[ModelToRead], asked: str, wanted: Filters) -> int | None:
    """The model that an address asks for; where that one has nothing to read, the first that has, else the active."""
    if asked and not (asked.isdecimal() and len(asked) <= 18):
        abort(400, "That is no trained model.")
    if asked and (filters.written(wanted) or any(str(model.model_id) == asked for model in to_read)):
        return int(asked)
    return to_read[0].model_id if to_read else models.active_id(database())


def place(text: str) -> Place | None:
    """A place in the list as an address has it ("17"); None for the top. Anything else is a bad request."""
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:
        abort(400, "That is no place in the list.")
    return Place(0.0, int(text))


def written(at: Place) -> str:
    """A place in the list for an address: the entry alone, whose score is nobody's business there."""
    return str(at.entry_id)
