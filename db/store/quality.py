"""Questions of the quality page: the list at another threshold, trained models side by side. No patient and no single
scan is in any answer. What is still to be read blind is left out where it could tell drawn scans from flagged ones."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import func, select

from db.intervals import Figure
from db.live import Live
from db.schema import Batch, Entry, Outcome, Scan, Site, TrainedModel
from db.store import estimates, models, nights
from db.store.browsing import OPEN
from db.store.connection import Database
from db.store.models import ModelView
from db.store.scoring import current_outcome
from db.words import Kind, State, Verdict

NIGHT = timedelta(hours=24)  # batches submitted within this time before the newest one belong to its night
LEAST_SCORED = 10  # scans of a night, before its list at another threshold is told
MOST_BATCHES = 200  # the newest, among which the last night is looked for
VERSIONS = 6  # of models side by side
REPORT_FIGURES = ("auc", "sensitivity", "specificity")


@dataclass(frozen=True)
class Workbench:
    """What the list of the last night would be at another threshold, of the stored scores; `curve` has (threshold, how
    many scans) from 0 to 1. Of who may not see all: the last night of which a batch is read; `left_out` batches since
    then are still read blind, and sites had too few scans to hide one among them."""

    threshold: float
    asked: float
    scored: int
    listed: int
    listed_then: int
    by_site: list[tuple[str, int, int, int]]  # scored, listed, listed then
    curve: list[tuple[float, int]]
    night: datetime | None  # when its last batch was submitted
    left_out: int
    live: Live


@dataclass(frozen=True)
class Version:
    """A trained model at its own threshold: the nights of the window, live figures, and its report's."""

    model: ModelView
    is_active: bool
    counted: nights.Counted
    is_blind: bool
    confirmed: int
    decided: int
    live: Live
    report: dict[str, Figure]
    judged_on: str


def workbench(
    db: Database, *, site_ids: set[int], model_id: int, asked: float, live: Live, sees_all: bool
) -> Workbench:
    """The last night at another threshold, with the `live` figures there; nothing is scored and nothing is changed.
    Without `sees_all`, batches that are still read blind are left out."""
    with db.reading() as session:
        mine = (Batch.trained_model_id == model_id, Batch.site_id.in_(site_ids))
        newest = select(Batch.id, Batch.submitted_at).where(*mine).order_by(Batch.submitted_at.desc(), Batch.id.desc())
        recent = {row.id: row.submitted_at for row in session.execute(newest.limit(MOST_BATCHES))}
        still = select(Entry.batch_id).where(Entry.batch_id.in_(recent), Entry.state.in_(OPEN), Entry.blind).distinct()
        blind = set() if sees_all else set(session.scalars(still))
        night = max((at for batch_id, at in recent.items() if batch_id not in blind), default=None)
        batches = {batch_id for batch_id, at in recent.items() if night and night - NIGHT < at <= night} - blind
        columns = select(Site.name, Outcome.score).select_from(Scan).join(Outcome, current_outcome(model_id))
        joined = columns.join(Batch, Batch.id == Scan.batch_id).join(Site, Site.id == Batch.site_id)
        scored = joined.where(Scan.batch_id.in_(batches), Outcome.kind == Kind.SCORED)
        by_site: dict[str, list[float]] = defaultdict(list)
        for site, score in session.execute(scored).yield_per(5000):
            by_site[site].append(score or 0.0)
    left_out = sum(1 for batch_id in blind if night is None or recent[batch_id] > night - NIGHT)
    told = {site: sorted(scores) for site, scores in by_site.items() if sees_all or len(scores) >= LEAST_SCORED}
    left_out += len(by_site) - len(told)
    return _workbench(models.threshold(db, model_id), asked, told, night=night, left_out=left_out, live=live)


def versions(
    db: Database, *, site_ids: set[int], since: datetime, known: Mapping[int, Live] = MappingProxyType({})
) -> list[Version]:
    """The trained models in use, the newest VERSIONS, side by side, each at its own threshold, the active one first;
    `known` has the live figures of models, by id, that need not be asked for again."""
    active = models.active_id(db)
    found = []
    for model in used_models(db)[:VERSIONS]:
        live = known.get(model.id) or estimates.live(db, site_ids=site_ids, model_id=model.id)[None]
        found.append(_version(db, model, site_ids, since=since, live=live, is_active=model.id == active))
    return found


def used_models(db: Database) -> list[ModelView]:
    """The trained models that any batch ran with, the active one first, then the newest."""
    active = models.active_id(db)
    with db.reading() as session:
        has_batch = select(Batch.id).where(Batch.trained_model_id == TrainedModel.id).exists()
        used = set(session.scalars(select(TrainedModel.id).where(has_batch))) | {active}
    known = [model for model in models.registered(db) if model.id in used]
    return sorted(known, key=lambda model: (model.id == active, model.id), reverse=True)


def report_figures(report: Mapping[str, Any]) -> tuple[dict[str, Figure], str]:
    """The figures that a model's report has, and what it was judged on; empty for a report without any."""
    for part, judged_on in (
        ("judged", str(report.get("judged_on", "held-back images"))),
        ("held_back", "held-back images"),
        ("validation", "validation images"),
    ):
        found = report.get(part)
        if isinstance(found, Mapping):
            figures = {name: figure for name in REPORT_FIGURES if (figure := _figure(found.get(name)))}
            if figures:
                return figures, judged_on
    return {}, ""


def _figure(told: Any) -> Figure | None:
    try:
        return Figure(float(told["value"]), float(told["low"]), float(told["high"]))
    except (TypeError, KeyError, ValueError):
        return None


def _workbench(
    ruling: float,
    asked: float,
    told: Mapping[str, Sequence[float]],
    *,
    night: datetime | None,
    left_out: int,
    live: Live,
) -> Workbench:
    scores = sorted(score for of_site in told.values() for score in of_site)
    return Workbench(
        threshold=ruling,
        asked=asked,
        scored=len(scores),
        listed=_at_least(scores, ruling),
        listed_then=_at_least(scores, asked),
        by_site=[(site, len(of), _at_least(of, ruling), _at_least(of, asked)) for site, of in sorted(told.items())],
        curve=[(step / 50, _at_least(scores, step / 50)) for step in range(51)],
        night=night,
        left_out=left_out,
        live=live,
    )


def _at_least(scores: Sequence[float], threshold: float) -> int:
    """How many of these scores, lowest first, a threshold flags."""
    return len(scores) - bisect_left(scores, threshold)


def _version(
    db: Database, model: ModelView, site_ids: set[int], *, since: datetime, live: Live, is_active: bool
) -> Version:
    window = nights.nights(db, site_ids=site_ids, model_id=model.id, since=since)
    confirmed, decided = _decided(db, model.id, site_ids, since)
    figures, judged_on = report_figures(model.report)
    return Version(
        model=model,
        is_active=is_active,
        counted=nights.total(window),
        is_blind=any(night.is_blind for night in window),
        confirmed=confirmed,
        decided=decided,
        live=live,
        report=figures,
        judged_on=judged_on,
    )


def _decided(db: Database, model_id: int, site_ids: set[int], since: datetime) -> tuple[int, int]:
    """Of the scans that were flagged and are decided: how many were confirmed, and how many there are."""
    decided = (
        Entry.trained_model_id == model_id,
        Entry.site_id.in_(site_ids),
        Entry.state == State.DONE,
        Entry.submitted_at >= since,
        Entry.share.is_(None),
        Entry.verdict.in_((Verdict.CONFIRM, Verdict.DISMISS)),
    )
    columns = select(func.count().filter(Entry.verdict == Verdict.CONFIRM), func.count())
    with db.reading() as session:
        confirmed, count = session.execute(columns.where(*decided)).one()
        return int(confirmed), int(count)
