"""Cases: what became of each scan's patient; laboratory results by hand and from a file; closing and reopening."""

import io
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from db.errors import Refused
from db.moments import stated, zone_of
from db.store import case_lists, cases, people, reading
from db.store.cases import Case, CaseState
from db.store.connection import now
from db.store.laboratory import COLUMNS, Fate, import_results
from db.store.sites import every_site
from db.words import Closing, LabResult, Step
from webui.guard import LISTS, READS, database, me, my_sites, needs
from webui.text import _

bp = Blueprint("cases", __name__)
LINK = (_("Cases"), LISTS, 40)
PAGE = 50
ALL, DISCREPANT = "all", "discrepant"
STATES = {
    CaseState.CONFIRMED: _("Confirmed, laboratory awaited"),
    CaseState.LABORATORY: _("Laboratory has answered"),
    CaseState.TO_READ: _("To be read"),
    CaseState.DISMISSED: _("Dismissed"),
    CaseState.UNSURE: _("Unsure"),
    CaseState.REPEAT: _("To be imaged again"),
    CaseState.CLEARED: _("Cleared by the machine"),
    CaseState.UNSCREENED: _("Could not be screened"),
    CaseState.WAITING: _("Waiting to be screened"),
    CaseState.CLOSED: _("Closed"),
}
VIEWS = {
    DISCREPANT: _("Laboratory disagrees"),
    **{str(state): word for state, word in STATES.items()},
    ALL: _("Every case"),
}
STEPS = {
    "suspected": _("Suspected"),
    "imaged": _("Imaged"),
    "screened": _("Screened"),
    "unscreened": _("Not screened"),
    "flagged": _("Flagged"),
    "cleared": _("Cleared"),
    "read": _("Read"),
    "laboratory": _("Laboratory"),
    "closed": _("Closed"),
    "reopened": _("Reopened"),
}
WORDS = {
    "confirm": _("confirmed"),
    "dismiss": _("dismissed"),
    "unsure": _("unsure"),
    "repeat": _("to be imaged again"),
    LabResult.POSITIVE: _("positive"),
    LabResult.NEGATIVE: _("negative"),
    LabResult.INDETERMINATE: _("indeterminate"),
    Closing.ISOLATED: _("isolated and treated"),
    Closing.RELEASED: _("released"),
    Fate.APPLIED: _("applied"),
    Fate.KNOWN: _("on record before"),
    Fate.UNKNOWN: _("unknown"),
    Fate.AMBIGUOUS: _("ambiguous"),
    Fate.WRONG: _("wrong"),
}
FORMS = (Step.LABORATORY, Step.CLOSED, Step.REOPENED)  # what may be put down by hand


@dataclass(frozen=True)
class View:
    """Which cases a page lists: one of VIEWS, of one site or of all of mine."""

    show: str
    site_id: int | None


@bp.get("/cases")
@needs(*LISTS)
def index() -> ResponseReturnValue:
    """A page of cases, the newest scan first; `before` is the scan id of the last line of the page before."""
    show, before = request.args.get("show", CaseState.CONFIRMED), request.args.get("before", "")
    if show not in VIEWS or not (before == "" or (before.isdecimal() and len(before) < 19)):
        abort(400)
    view = View(show, _site(request.args.get("site", "")))
    lines = case_lists.page(
        database(),
        me=me(),
        state=CaseState(show) if show in list(CaseState) else None,
        is_discrepant=show == DISCREPANT,
        site_id=view.site_id,
        before=int(before) if before else None,
        limit=PAGE + 1,
    )
    people.note_event(database(), by=me().name, action="listed", about="cases")
    next_place = lines[PAGE - 1].scan_id if len(lines) > PAGE else None
    return _list(view, lines=lines[:PAGE], next_place=next_place, is_first=not before)


@bp.post("/cases/search")
@needs(*LISTS)
def search() -> ResponseReturnValue:
    """Cases by patient, study or file; sent in a form, so that no address holds a patient."""
    text = request.form.get("text", "").replace("\0", "").strip()
    if not text:
        return redirect(url_for("cases.index"), 303)
    lines = case_lists.search(database(), text, me=me())
    people.note_event(database(), by=me().name, action="searched", about="cases")
    return _list(View(ALL, None), lines=lines, text=text, most_found=case_lists.MOST_FOUND)


@bp.post("/cases/import")
@needs(*LISTS)
def upload() -> ResponseReturnValue:
    """Laboratory results from a file; the same file again changes nothing."""
    file, view = request.files.get("file"), View(CaseState.CONFIRMED, None)
    site_id = _site(request.form.get("site", ""))
    if file is None or not file.filename or site_id is None:
        return _list(view, lines=[], problem=_("Choose a file and a site first.")), 400
    text = io.StringIO(file.read().decode("utf-8-sig", "surrogateescape"), newline="")
    try:
        imported = import_results(database(), text, site_id=site_id, by=me().name)
    except Refused as problem:
        return _list(view, lines=[], problem=str(problem)), 400
    return _list(view, lines=[], imported=imported)


@bp.get("/cases/<key:key>")
@needs(*LISTS)
def show(key: str) -> ResponseReturnValue:
    """One case; that it was opened goes on record."""
    found = _case(key)
    people.note_event(database(), by=me().name, action="viewed_case", about=f"scan {found.scan_id}")
    return _page(found)


@bp.post("/cases/<key:key>")
@needs(*LISTS)
def add(key: str) -> ResponseReturnValue:
    """Append a laboratory result, or close or reopen the case; back to where the form stood."""
    found, form = _case(key), request.form
    note = form.get("note", "").replace("\r\n", "\n").replace("\0", "").strip()
    if form.get("step") not in list(FORMS):
        abort(400)
    try:
        _require_sight(found)
        step, at = Step(form["step"]), _at(form.get("at", ""), found)
        cases.add_step(database(), found.scan_id, step=step, result=form.get("result"), at=at, note=note, by=me().name)
    except Refused as problem:
        return _page(found, problem=str(problem), typed=form.get("step"), note=note), 400
    flash(_("Saved."))
    is_beside_picture = form.get("back") == "scan" and me().role in READS
    return redirect(url_for("review.show" if is_beside_picture else "cases.show", key=key), 303)


def of(scan_id: int) -> Case:
    """The case of a scan that the signed-in user may see, for `_case.html`."""
    return cases.case(database(), scan_id, me=me())


@bp.app_template_filter("case_word")
def case_word(word: str) -> str:
    """A step, a state, a verdict, a result or a way of closing, as people say it."""
    return {**VIEWS, **STEPS, **WORDS}.get(word, word.replace("_", " "))


@bp.app_template_filter("case_state")
def case_state(state: CaseState) -> str:
    """Where a case stands, as people say it."""
    return STATES[state]


@bp.app_template_filter("at_site")
def at_site(at: datetime, zone: str) -> str:
    """A moment on the clocks of its site; a date alone where it is the first minute of one: then no more was stated."""
    there = at.astimezone(zone_of(zone))
    return f"{there:%Y-%m-%d}" if (there.hour, there.minute) == (0, 0) else f"{there:%Y-%m-%d %H:%M} {there.tzname()}"


def _require_sight(found: Case) -> None:
    """Raises Refused for who reads the scan and has not done so: what they put down might rest on it."""
    if found.is_hidden and me().role in READS:
        raise Refused(_("Give your impression of this scan first; its case is shown to you then."))


def _at(text: str, found: Case) -> datetime:
    """Raises Refused."""
    if not text.strip():
        return now()
    try:
        return stated(text, zone_of(found.zone))
    except ValueError:
        raise Refused(_("That is no date and time.")) from None


def _site(text: str) -> int | None:
    """A site of mine; None for all of them."""
    if not text:
        return None
    if not (text.isdecimal() and len(text) < 19 and int(text) in my_sites()):
        abort(404)
    return int(text)


def _case(key: str) -> Case:
    return of(reading.scan(database(), key, site_ids=my_sites()).scan_id)


def _page(found: Case, **shown: Any) -> str:
    return render_template("case.html", case=found, may_look=me().role in READS, **shown)


def _list(view: View, **shown: Any) -> str:
    sites = [site for site in every_site(database()) if site.id in my_sites()]
    discrepant = case_lists.discrepancies(database(), me=me())
    return render_template(
        "cases.html", view=view, views=VIEWS, sites=sites, discrepant=discrepant, columns=COLUMNS, **shown
    )
