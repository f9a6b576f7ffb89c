"""Quality: how the model and its readers do, over nights. No patient is on this page.

What an arbiter, who reads as well, could use to tell drawn scans from flagged ones is left out until these are read:
how many were flagged in nights that are still read blind, and such batches in the workbench. Admins see all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask import Blueprint, abort, render_template, request
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from db.live import LEAST_POSITIVES, LEAST_READ
from db.store import cases, estimates, nights, people, quality, readers
from db.store.connection import now
from db.store.models import ModelView
from db.store.nights import NightFigures
from db.store.quality import Workbench
from db.store.sites import SiteView, every_site
from db.words import Role
from webui import charts
from webui.charts import Axis, Series
from webui.guard import database, me, my_sites, needs
from webui.text import _

bp = Blueprint("quality", __name__)
LINK = (_("Quality"), (Role.ARBITER, Role.ADMIN), 50)
WINDOWS = (7, 30, 90)  # nights
CHARTED = charts.MOST_SERIES  # sites; more are asked for one by one


@dataclass(frozen=True)
class SiteChart:
    """The scores of a site over nights."""

    site: str
    chart: Markup


@bp.get("/quality")
@needs(Role.ARBITER, Role.ADMIN)
def index() -> ResponseReturnValue:
    """The page: of one `model`, of one `site` or all of mine, over so many `nights`; `threshold` is the workbench's."""
    db, sees_all = database(), me().role == Role.ADMIN
    sites = [site for site in every_site(db) if site.id in my_sites()]
    models = quality.used_models(db)
    if not models or not sites:
        return render_template("quality.html", models=models, model=None, sites=sites)
    model, site_ids, days = _model(models), _site_ids(sites), _days()
    since, asked = now() - timedelta(days=days), _threshold(model.threshold)
    window = nights.nights(db, site_ids=site_ids, model_id=model.id, since=since)
    of: dict[str, Any] = {"site_ids": site_ids, "model_id": model.id, "since": since}
    live = estimates.live(db, site_ids=site_ids, model_id=model.id)
    is_other = asked != model.threshold
    there = estimates.live(db, site_ids=site_ids, model_id=model.id, threshold=asked) if is_other else live
    bench = quality.workbench(
        db, site_ids=site_ids, model_id=model.id, asked=asked, live=there[None], sees_all=sees_all
    )
    people.note_event(db, by=me().name, action="viewed_quality", about=f"model {model.id}")
    return render_template(
        "quality.html",
        models=models,
        model=model,
        sites=sites,
        site_ids=site_ids,
        windows=WINDOWS,
        days=days,
        nights=[(night, _hides(night, sees_all)) for night in reversed(window)],
        scores=_score_charts(window, model.threshold),
        rates=[(name, _rate_chart(window, name, sees_all)) for name in ("flagged", "rejected")],
        charted=[(charts.swatch(number), name) for number, name in enumerate(_charted(window), start=1)],
        live=live,
        period=estimates.PERIOD.days,
        least=(LEAST_READ, LEAST_POSITIVES, readers.LEAST_PAIRS),
        pairs=readers.pairs(db, **of),
        changes=readers.changes(db, **of),
        against=readers.against_model(db, **of),
        bench=bench,
        bench_chart=_bench_chart(bench),
        versions=quality.versions(db, site_ids=site_ids, since=since, known={model.id: live[None]}),
        turnaround=cases.turnaround(db, site_ids=site_ids, since=since),
        sees_all=sees_all,
    )


def _model(models: Sequence[ModelView]) -> ModelView:
    """The model that the address asks for; the first where it asks for none."""
    wanted = _number("model", models[0].id)
    return next((model for model in models if model.id == wanted), None) or abort(404)


def _site_ids(sites: Sequence[SiteView]) -> set[int]:
    """The site that the address asks for, or all of mine; another's is not there."""
    every = {site.id for site in sites}
    if not request.args.get("site"):
        return every
    return ({_number("site", 0)} & every) or abort(404)


def _days() -> int:
    days = _number("nights", 30)
    return days if days in WINDOWS else abort(400, _("That is no window."))


def _number(name: str, otherwise: int) -> int:
    text = request.args.get(name, "")
    if text and not (text.isdecimal() and text.isascii() and len(text) <= 18):
        abort(400, _("That is no number."))
    return int(text) if text else otherwise


def _threshold(otherwise: float) -> float:
    text = request.args.get("threshold", "")
    try:
        value = float(text) if text else otherwise
    except ValueError:
        value = math.nan
    return value if 0 <= value <= 1 else abort(400, _("A threshold is a number from 0 to 1."))


def _hides(night: NightFigures, sees_all: bool) -> bool:
    """Whether how many were flagged stays hidden."""
    return night.is_blind and not sees_all


def _charted(window: Sequence[NightFigures]) -> list[str]:
    return sorted({night.site for night in window})[:CHARTED]


def _dates(window: Sequence[NightFigures]) -> list[Any]:
    return sorted({night.night for night in window})


def _score_charts(window: Sequence[NightFigures], threshold: float) -> list[SiteChart]:
    """Of each site: the middle of a night's scores, and where eight in ten lie."""
    dates, made = _dates(window), []
    axis = Axis([f"{date:%d %b}" for date in dates], 1.0)
    for site in _charted(window):
        found = {night.night: night.counted.quantiles() for night in window if night.site == site}
        low, middle, high = (
            [quantiles[place] if (quantiles := found.get(date)) else None for date in dates] for place in range(3)
        )
        title = _("Scores of %(site)s night by night: median, and the range of the middle eight in ten")
        chart = charts.band(title % {"site": site}, axis, middle, low, high, level=threshold)
        made.append(SiteChart(site, chart))
    return made


def _rate_chart(window: Sequence[NightFigures], name: str, sees_all: bool) -> Markup:
    """A share (flagged of the scored, rejected of the found) over nights, a line a site."""
    dates = _dates(window)
    series = [Series(site, [_rate(window, site, date, name, sees_all) for date in dates]) for site in _charted(window)]
    highest = charts.nice(max((value for one in series for value in one.values if value is not None), default=0.0))
    title = _("Share of scans %(what)s night by night, a line for each site") % {"what": name}
    return charts.lines(title, Axis([f"{date:%d %b}" for date in dates], min(highest, 1.0), "%"), series)


def _rate(window: Sequence[NightFigures], site: str, date: Any, name: str, sees_all: bool) -> float | None:
    for night in window:
        if night.site == site and night.night == date:
            is_hidden = name == "flagged" and _hides(night, sees_all)
            return None if is_hidden else night.counted.share(name)
    return None


def _bench_chart(bench: Workbench) -> Markup:
    """How long last night's list would be at each threshold."""
    counts = [float(count) for _, count in bench.curve]
    axis = Axis(["0", "0.2", "0.4", "0.6", "0.8", "1"], charts.nice(max(counts, default=0.0)))
    marks = [(bench.threshold, "now"), (bench.asked, "asked")]
    return charts.curve(_("Scans on last night's list by threshold"), axis, counts, marks)
