"""The worklist: what one trained model flagged and nobody has read, worst first."""

import math

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from db.store import people, worklist
from db.store.worklist import ModelToRead
from webui.guard import EVERYBODY, READS, database, me, my_sites, needs
from webui.text import _

bp = Blueprint("worklist", __name__)
LINK = (_("Worklist"), READS, 10)
PAGE = 50


@bp.get("/")
@needs(*EVERYBODY)
def index() -> ResponseReturnValue:
    """One page of a model's list; `after` is the score and id of the last line of the page before. Readers read;
    others have their first page in the batches."""
    if me().role not in READS:
        return redirect(url_for("batches.index"), 303)
    after, wanted = place(request.args.get("after", "")), request.args.get("model", "")
    db, sites = database(), my_sites()
    models = worklist.models_to_read(db, site_ids=sites)
    model = chosen(models, wanted)
    if model and wanted and str(model.model_id) != wanted:
        after = None  # the place was one in the other model's list
    items = worklist.page(db, site_ids=sites, model_id=model.model_id, after=after, limit=PAGE + 1) if model else []
    people.note_event(db, by=me().name, action="listed", about="worklist")
    return render_template(
        "worklist.html",
        items=items[:PAGE],
        next_place=written(items[PAGE - 1].score, items[PAGE - 1].scan_id) if len(items) > PAGE else None,
        is_first=after is None,
        models=models,
        model=model,
    )


def chosen(models: list[ModelToRead], wanted: str) -> ModelToRead | None:
    """The model that an address asks for; the first, where that one has nothing to read. None when none has."""
    if wanted and not (wanted.isdecimal() and len(wanted) <= 18):
        abort(400, "That is no trained model.")
    return next((model for model in models if str(model.model_id) == wanted), models[0] if models else None)


def place(text: str) -> tuple[float, int] | None:
    """A place in the list as an address has it ("0.93:17"); None for the top. Anything else is a bad request."""
    if not text:
        return None
    score, _, scan_id = text.partition(":")
    try:
        found = float(score), int(scan_id)
    except ValueError:
        abort(400, "That is no place in the list.")
    if not math.isfinite(found[0]) or not 0 <= found[1] < 2**63:
        abort(400, "That is no place in the list.")
    return found


def written(score: float, scan_id: int) -> str:
    """A place in the list for an address; `repr` keeps every bit of the score, so that ties neither repeat nor skip."""
    return f"{score!r}:{scan_id}"
