"""How trained models are told, as JSON and in words: the list, one model, the workbench of its threshold."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from db.errors import ModelRefused
from db.store import models, thresholds
from db.store.connection import Database
from db.store.models import Decision, ModelView
from db.store.reading import printable
from db.store.thresholds import LastNight, ThresholdView
from workers import activation, model_folders, workbench
from workers.workbench import Figure, Proposal

FIGURES = ("auc", "sensitivity", "specificity", "accuracy", "precision", "f1")
AUDIT = {
    "model": "the model",
    "frame": "the outer frame alone",
    "thumbnail": "an 8 x 8 thumbnail alone",
    "file": "the file alone",
    "frame_blanked": "the model, frame blanked",
    "lungs_blanked": "the model, lungs blanked",
}


def line(model: ModelView, *, is_active: bool) -> dict[str, Any]:
    """One model of the list."""
    fields = ("id", "name", "version", "architecture", "threshold", "weights_sha256", "folder")
    auc = workbench.figure(_part(model.report, "held_back").get("auc"))
    return {
        **{name: getattr(model, name) for name in fields},
        "active": is_active,
        "retired": model.retired_at is not None,
        "registered": model.registered_at.isoformat(),
        "held_back_auc": None if auc is None else asdict(auc),
    }


def written_line(told: dict[str, Any]) -> str:
    state = "active" if told["active"] else "retired" if told["retired"] else ""
    auc = f"AUC {_written(told['held_back_auc'])}" if told["held_back_auc"] else "AUC not in its report"
    label = f"{told['name']} {told['version']}"
    return (
        f"{label:<28} {state:<8} threshold {told['threshold']:.3f}  {auc:<26} {told['architecture']:<12} "
        f"registered {told['registered'][:10]}"
    )


def portrait(db: Database, model: ModelView) -> dict[str, Any]:
    """Everything of one model that a person may want to know."""
    retired = models.retirement(db, model.id)
    return {
        **line(model, is_active=models.active_id(db) == model.id),
        **_folder(model),
        "classes": model.classes,
        "flag_classes": model.flag_classes,
        "input_size": model.input_size,
        "preprocessing_version": model.preprocessing_version,
        "held_back": {name: asdict(found) for name, found in held_back(model.report)},
        "held_back_images": _part(model.report, "held_back").get("images"),
        "audit": audit_figures(model.report),
        "refusal": activation.shortcut_refusal(model.report),
        "thresholds": [_decided(one) for one in thresholds.history(db, model.id)],
        "activations": [_decided(one) for one in models.activations(db, model.id)],
        "retirement": None if retired is None else _decided(retired),
    }


def written_portrait(told: dict[str, Any]) -> str:
    state = "active" if told["active"] else "retired" if told["retired"] else "neither active nor retired"
    title = f"{told['name']} {told['version']} ({state})"
    return "\n".join([title, *(f"  {name:<16} {said}" for name, said in _portrait_lines(told))])


def audit_figures(report: dict[str, Any]) -> dict[str, float]:
    """The AUCs of a report's shortcut audit, by what was looked at."""
    found = {name: activation.auc(report.get("audit"), name) for name in AUDIT}
    return {name: value for name, value in found.items() if value is not None}


def held_back(report: dict[str, Any]) -> list[tuple[str, Figure]]:
    """The figures on held-back images, in the order of FIGURES."""
    part = _part(report, "held_back")
    found = ((name, workbench.figure(part.get(name))) for name in FIGURES)
    return [(name, figure) for name, figure in found if figure is not None]


def bench(model: ModelView, night: LastNight, proposal: Proposal | None, again: int) -> dict[str, Any]:
    """The workbench of a model's threshold; `again`: how many stored scores the proposed one calls in question."""
    proposed = None
    if proposal is not None:
        count = workbench.flagged(night, proposal.value)
        proposed = {"threshold": proposal.value, "why": proposal.why, "flagged_last_night": count}
        proposed["looked_again"] = again
    return {
        "model": model.label,
        "threshold": model.threshold,
        "last_night": {
            "batches": night.batches,
            "scored": len(night.scores),
            "flagged": workbench.flagged(night, model.threshold),
        },
        "prevalence": model.report.get("prevalence"),
        "thresholds": [asdict(row) for row in workbench.rows(model, night)],
        "proposed": proposed,
    }


def written_bench(told: dict[str, Any]) -> str:
    return "\n".join(_bench_lines(told))


def written_change(done: dict[str, Any]) -> str:
    """What setting a threshold did."""
    if done["before"] == done["threshold"]:
        first = f"{done['threshold']:g} ruled already: nothing is recomputed"
    else:
        first = (
            f"{done['threshold']:g} rules from now on (before: {done['before']:g}); of {done['outcomes']:,} stored "
            f"scores {done['newly_flagged']:,} are newly flagged, {done['no_longer_flagged']:,} no longer"
        )
    waits = [f"{done['looked_again']:,} scans that int8 alone had cleared wait until float32 has looked; rung for"]
    made = [f"{done['pictures_made']:,} pictures copied for readers; there is no heat map of these"]
    again = ["where the originals can be read, run: nightread models pictures"]
    lacking = done["pictures_lacking"]
    first = "\n".join([first, *(waits if done["looked_again"] else [])])
    return "\n".join([first, *(made if done["pictures_made"] else []), *lacking, *(again if lacking else [])])


def written_parity(told: dict[str, Any]) -> str:
    """What `optimize` made, and what may run."""
    return "\n".join(_parity_lines(told))


def _parity_lines(told: dict[str, Any]) -> Iterator[str]:
    reference, validation = told["reference"], told["validation"]
    yield (
        f"{told['model']}: beside {reference['engine']} {reference['precision']} on {validation['images']:,} "
        f"validation images, threshold {told['threshold']:.4f}"
    )
    yield f"{'':10}  {'p50':>7} {'p99':>7} {'largest':>7}  {'AUC':>8}  flips (beyond the band), gate likewise"
    for name, form in told["forms"].items():
        yield (
            f"{name:10}  {form['p50']:7.5f} {form['p99']:7.4f} {form['largest']:7.4f}  {form['auc_difference']:+8.5f}  "
            f"{form['flips']} ({form['flips_outside']}), {form['gate_flips']} ({form['gate_flips_outside']})"
            + (f"  refused: {form['refused']}" if form["refused"] else "")
        )
    looks = told["second_looks"]
    yield (
        f"two stages: float32 looks again at {looks['without_finding']:.1%} of the images without a finding, "
        f"{looks['all']:.1%} of all"
    )
    kept = [name for name in told["allowed"] if name != "float32"]
    nothing = "nothing beside float32 keeps the limits: the folder stays as it is"
    yield f"may run: {', '.join(kept)}" if kept else nothing


def _bench_lines(told: dict[str, Any]) -> Iterator[str]:
    night = told["last_night"]
    yield f"{told['model']}: {told['threshold']:g} rules"
    if night["scored"]:
        batches = ", ".join(map(str, night["batches"]))
        yield f"last night (batch {batches}): {night['flagged']:,} of {night['scored']:,} scored scans flagged by it"
    else:
        yield "it has scored nothing yet: a night's flags cannot be told"
    if told["thresholds"]:
        yield f"{'threshold':>10}  {'sensitivity':<21}  {'specificity':<21}  {'of 1,000':>8}  last night"
    for row in told["thresholds"]:
        mark = "*" if row["threshold"] == told["threshold"] else " "
        per_1000 = "" if row["flagged_per_1000"] is None else f"{row['flagged_per_1000']:.0f}"
        yield (
            f"{mark}{row['threshold']:>9.4f}  {_written(row['sensitivity']):<21}  {_written(row['specificity']):<21}  "
            f"{per_1000:>8}  {row['flagged_last_night']:>10,}"
        )
    if told["thresholds"]:
        share = f", {told['prevalence']:.1%} of them ill" if isinstance(told["prevalence"], float) else ""
        yield f"of 1,000: flagged of 1,000 screened{share}; 95 % intervals; * rules now"
    else:
        yield "its report has no table of thresholds"
    if told["proposed"]:
        yield f"proposed: {told['proposed']['threshold']:g} ({told['proposed']['why']}); --set lets it rule"
        if told["proposed"]["looked_again"]:
            yield f"{told['proposed']['looked_again']:,} scans that int8 alone had cleared would wait for float32"


def _portrait_lines(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "for", printable(told["intended_use"]) if told["intended_use"] else "not to be read: see folder"
    yield (
        "classes",
        f"{', '.join(map(printable, told['classes']))}; flags {', '.join(map(printable, told['flag_classes']))}",
    )
    yield "made of", f"{told['architecture']}, input {told['input_size']} x {told['input_size']}"
    yield "preprocessing", f"version {told['preprocessing_version']}"
    yield "weights", f"sha256 {told['weights_sha256']}"
    yield "folder", f"{told['folder']}" + (f" PROBLEM: {told['problem']}" if told["problem"] else "")
    yield "report", told["report_html"] or "no report.html; the figures are here"
    for number, (name, found) in enumerate(told["held_back"].items()):
        yield "" if number else "held back", f"{name} {_written(found)}"
    for number, (name, value) in enumerate(told["audit"].items()):
        yield "" if number else "shortcut audit", f"AUC {value:.3f}  {AUDIT[name]}"
    yield "may be active", f"only with an admin's signature: {told['refusal']}" if told["refusal"] else "yes"
    for number, one in enumerate(told["thresholds"]):
        yield "" if number else "thresholds", f"{one['value']:g} {_by(one)}"
    for number, one in enumerate(told["activations"]):
        yield "" if number else "activated", _by(one)
    if told["retirement"]:
        yield "retired", _by(told["retirement"])


def _folder(model: ModelView) -> dict[str, Any]:
    """What only the folder tells; the problem, where it cannot be read."""
    try:
        use, problem = model_folders.checked(model).intended_use, None
    except ModelRefused as error:
        use, problem = None, str(error)
    page = Path(model.folder) / "report.html"
    return {
        "intended_use": None if use is None else use.summary,
        "minimum_age": model.minimum_age,
        "problem": problem,
        "report_html": str(page) if page.is_file() else None,
    }


def _part(report: dict[str, Any], name: str) -> dict[str, Any]:
    part = report.get(name)
    return part if isinstance(part, dict) else {}


def _written(found: dict[str, Any]) -> str:
    return workbench.written(Figure(**found))


def _decided(one: Decision | ThresholdView) -> dict[str, Any]:
    return {**vars(one), "at": one.at.isoformat()}


def _by(one: dict[str, Any]) -> str:
    return f"{one['at'][:16].replace('T', ' ')} by {printable(one['by'])}: {printable(one['why'])}"
