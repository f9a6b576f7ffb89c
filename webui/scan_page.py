"""What the scan page shows, gathered for its template."""

from dataclasses import dataclass
from typing import Any

from flask import render_template, request, url_for

from db.files import derived_path
from db.probability import at_prevalence, trained_at
from db.store import models, related, sites, worklist
from db.store.entries import EntryView
from db.store.reading import ReviewView, ScanView
from db.store.worklist import Filters
from db.words import Role, Stage, State
from webui import cases, display, filters, onward, verdicts
from webui.guard import READS, database, me
from webui.seeing import Seen, seen
from webui.text import _, ngettext
from webui.verdicts import Said


@dataclass(frozen=True)
class Form:
    """The form of a verdict; one that is not `is_open` waits behind a line that opens it."""

    stage: Stage
    legend: str
    is_open: bool
    chosen: str
    armed: str  # the verdict whose key saves at once
    findings: tuple[str, ...]
    note: str
    problem: str


@dataclass(frozen=True)
class Meaning:
    """What a score means at its site: the probability of a suspicious scan (0 to 1), None where it is uncalibrated,
    and the share of scans that are (0 to 1), None where nobody stated it."""

    probability: float | None
    prevalence: float | None


def render(scan: ScanView, entry: EntryView | None, *, said: Said | None = None, also_not: str = "") -> str:
    """The page of a scan as whoever asks may see it."""
    outcome = seen(scan.outcome, hides_score=entry is not None and not entry.sees_score)
    listed = filters.read(request.args)
    following = onward.following(scan, listed, also_not=also_not) if me().role in READS else None
    return render_template(
        "scan.html",
        scan=scan,
        entry=entry,
        outcome=outcome,
        form=_form(scan, entry, said),
        choices=verdicts.CHOICES,
        stages=verdicts.STAGES,
        states=verdicts.STATES,
        findings=database().config.findings,
        note_characters=verdicts.NOTE_CHARACTERS,
        left=left(scan.model_id, listed) if me().role in READS else "",
        next_key=following,
        next_address=address(following, listed, model_id=scan.model_id) if following else None,
        listed=filters.written(listed),
        last_mine=_last_mine(entry),
        case=cases.of(scan.scan_id),
        meaning=_meaning(scan, outcome),
        earlier=related.earlier(database(), scan, me=me()),
        same_study=related.same_study(database(), scan, me=me()),
        **_pictures(scan, outcome),
    )


def held(scan: ScanView, entry: EntryView) -> str:
    """The notice that somebody else has the scan open."""
    return render_template("held.html", scan=scan, entry=entry, listed=filters.written(filters.read(request.args)))


def address(key: str | None, listed: Filters, *, model_id: int) -> str:
    """Of a scan within a list, or of the list itself."""
    kept: dict[str, Any] = dict(filters.written(listed))
    if key:
        return url_for("review.show", key=key, **kept)
    if listed.state == State.ARBITER and me().role == Role.ARBITER:
        return url_for("worklist.arbitration", model=model_id)
    return url_for("worklist.index", model=model_id, **kept)


def left(model_id: int, listed: Filters) -> str:
    """How much is left to read, and about how long that takes at the reader's pace; for an arbiter, to decide."""
    counts = worklist.counts(database(), me=me(), model_id=model_id)
    if listed.state == State.ARBITER:
        return ngettext("%s left to decide", "%s left to decide", counts.arbiter) % f"{counts.arbiter:,}"
    words = ngettext("%s left to read", "%s left to read", counts.to_read) % f"{counts.to_read:,}"
    pace = worklist.pace(database(), me=me())
    return f"{words} · {display.estimate(counts.to_read * pace)}" if pace and counts.to_read else words


def _meaning(scan: ScanView, outcome: Seen | None) -> Meaning | None:
    if outcome is None or outcome.score is None:
        return None
    model, prevalence = models.get(database(), scan.model_id), sites.site_named(database(), scan.site).prevalence
    share = trained_at(model.report, model.flag_classes)
    return Meaning(at_prevalence(outcome.score, share, prevalence), prevalence)


def _form(scan: ScanView, entry: EntryView | None, said: Said | None) -> Form | None:
    stage = verdicts.stage_of(scan, entry)
    if stage is None:
        return None
    is_again = "again" in request.args
    before: ReviewView | None = verdicts.before(entry, is_again=is_again)
    is_kept = before is not None and before.stage == Stage.IMPRESSION
    legend = _("Your verdict in place of the last one") if before and not is_kept else verdicts.STAGES[stage]
    chosen = str(said.verdict) if said and said.has_verdict else before.verdict if before else ""
    return Form(
        stage=stage,
        legend=legend,
        is_open=verdicts.is_wanted(entry) or is_again or said is not None,
        chosen=chosen,
        armed=chosen if is_kept else "",
        findings=said.findings if said else before.findings if before else (),
        note=said.note if said else before.note if before else "",
        problem=said.problem if said else "",
    )


def _last_mine(entry: EntryView | None) -> int | None:
    """The id of the reader's verdict here, from which undo steps further back."""
    mine = entry.my_reviews if entry else []
    return next((review.id for review in mine if review.stage != Stage.IMPRESSION), None)


def _pictures(scan: ScanView, outcome: Seen | None) -> dict[str, Any]:
    """Addresses of the pictures that there are and that may be seen."""
    folder = database().config.derived
    hides = outcome is not None and outcome.is_hidden
    routes = {"image": "review.image", "heat": "review.heat", "input": "review.model_input"}
    return {
        f"{kind}_url": url_for(route, key=scan.key)
        if derived_path(folder, scan.key, kind).is_file() and not (hides and kind == "heat")
        else None
        for kind, route in routes.items()
    }
