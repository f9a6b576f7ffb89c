"""`nightread models`: trained models come in and go out, become active, are retired, get another threshold."""

import getpass
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from db.errors import Refused
from db.store import golden, people, thresholds
from db.store import models as store
from db.store.connection import Database, database
from db.store.models import ModelView
from db.store.reading import printable
from db.store.thresholds import LastNight
from db.words import Exit, Role
from workers import activation, model_folders, model_words, parity, queue, workbench
from workers.copies import Copies, make_copies
from workers.training.bars import counting
from workers.workbench import Proposal

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
JSON = click.option("--json", "is_json", is_flag=True, default=False, help="Data on stdout as JSON.")
MODEL = click.argument("wanted", metavar="MODEL")
PROPOSED = "proposed"


def operator() -> str:
    """Who runs the command line: a trusted operator, named on the record."""
    return f"cli:{getpass.getuser()}"


@click.group()
def models() -> None:
    """Trained models. MODEL is NAME, NAME:VERSION, or `active` for the one that new batches run with."""


@models.command("list")
@JSON
def list_models(is_json: bool) -> None:
    """Every registered model: state, threshold, AUC on held-back images, when it was registered."""
    db = database()
    active, known = store.active_id(db), store.registered(db)
    lines = [model_words.line(model, is_active=model.id == active) for model in known]
    _tell(lines, is_json, "\n".join(map(model_words.written_line, lines)) or "none yet: run `nightread init`")


@models.command()
@MODEL
@JSON
def show(wanted: str, is_json: bool) -> None:
    """What a person wants to know of MODEL: use, figures, shortcut audit, thresholds, where its report lies."""
    db = database()
    model = store.named(db, wanted)
    told = model_words.portrait(db, model)
    _tell(told, is_json, model_words.written_portrait(told))


@models.command("import")
@click.argument("folder", type=FOLDER)
@JSON
def import_model(folder: Path, is_json: bool) -> None:
    """Check a trained model's FOLDER, keep a copy in the home folder, register it. It becomes active by `activate`."""
    model = model_folders.take_in(database(), folder.absolute(), by=operator())
    if not model_folders.same_files(folder, Path(model.folder)):
        raise Refused(f"{model.label} is kept with another report or gate: give the new one another version")
    told = {"model": model.label, "folder": model.folder, "threshold": model.threshold}
    told |= {"refusal": activation.shortcut_refusal(model.report)}
    _tell(told, is_json, f"{model.label} is in {model.folder}; next: nightread models activate {_address(model)}")


@models.command()
@MODEL
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@JSON
def export(wanted: str, folder: Path, is_json: bool) -> None:
    """Copy MODEL's folder to DIR/NAME-VERSION, checked by its hashes; `import` takes it elsewhere."""
    model = store.named(database(), wanted)
    target = model_folders.hand_out(model, folder)
    _tell({"model": model.label, "folder": str(target)}, is_json, f"{model.label} is copied to {target}")


@models.command()
@MODEL
@click.option("--why", default="", help="The reason, for the record.")
@click.option("--sign", "signer", default=None, metavar="ADMIN", help="Who answers for a model that would be refused.")
@JSON
def activate(wanted: str, why: str, signer: str | None, is_json: bool) -> None:
    """Let new batches run with MODEL; a batch finishes with the model it started with.

    A model is refused whose shortcut audit is missing, or shows that the frame of the picture or the facts of the
    file tell nearly as much as the model; an admin may sign for it, with a reason."""
    db = database()
    model = store.named(db, wanted)
    was_active = store.active_id(db) == model.id
    if not was_active:
        model_folders.checked(model)
        signed = _signed(db, model, signer=signer, why=why.strip())
        store.activate(db, model.id, why=why.strip() or "no reason was given", by=operator(), signed=signed)
    said = (
        "was active already"
        if was_active
        else f"is active: new batches run with it, flagged from {model.threshold:.3f}"
    )
    _tell({"model": model.label, "active": True, "changed": not was_active}, is_json, f"{model.label} {said}")


@models.command()
@MODEL
@click.option("--why", required=True, help="The reason, for the record.")
@JSON
def retire(wanted: str, why: str, is_json: bool) -> None:
    """Let no new batch run with MODEL any more, for good; batches that started with it finish."""
    db = database()
    model = store.named(db, wanted)
    changed = store.retire(db, model.id, why=why, by=operator())
    said = "is retired; batches that started with it finish" if changed else "was retired already"
    _tell({"model": model.label, "retired": True, "changed": changed}, is_json, f"{model.label} {said}")


@models.command()
@MODEL
@click.option("--sensitivity", type=click.FloatRange(0, 1), default=None, help="Propose one that keeps it (report).")
@click.option("--capacity", type=click.IntRange(0), default=None, help="Propose one that flags no more a night.")
@click.option(
    "--set",
    "value",
    is_flag=False,
    flag_value=PROPOSED,
    default=None,
    metavar="[VALUE]",
    help="Let this one rule, or, without a value, the proposed one.",
)
@click.option("--why", default="", help="The reason, for the record.")
@JSON
def threshold(
    wanted: str, sensitivity: float | None, capacity: int | None, value: str | None, why: str, is_json: bool
) -> None:
    """The workbench of MODEL's threshold: what the report and the last night's scores say of each; propose one, set it.

    Setting it recomputes, from the stored scores and on record, which scans are flagged."""
    if sensitivity is not None and capacity is not None:
        raise click.UsageError("--sensitivity and --capacity exclude each other")
    db = database()
    model = store.named(db, wanted)
    night = thresholds.last_night(db, model.id)
    proposal = _proposed(model, night, sensitivity=sensitivity, capacity=capacity)
    chosen = _chosen(value, proposal, why.strip())
    again = 0 if proposal is None else thresholds.looked_again(db, model.id, proposal.value)
    told = model_words.bench(model, night, proposal, again)
    text = model_words.written_bench(told)
    if chosen is not None:
        told["set"] = _set(db, model, chosen)
        text = model_words.written_change(told["set"])
    _tell(told, is_json, text)


@models.command()
@click.argument("wanted", metavar="[MODEL]", required=False)
@JSON
def pictures(wanted: str | None, is_json: bool) -> int:
    """Make the pictures that flagged, unread scans lack, because a later threshold flagged them: a review copy and what
    the model saw. Heat maps are drawn only while scoring. Works twice."""
    db = database()
    chosen = store.registered(db) if wanted is None else [store.named(db, wanted)]
    done = [_copied(db, model) for model in chosen]
    made, lacking = sum(one.made for one in done), [line for one in done for line in _lacking(one)]
    _tell({"made": made, "lacking": lacking}, is_json, "\n".join([f"pictures of {made:,} scans made", *lacking]))
    return Exit.PARTIAL if lacking else Exit.DONE


def _signed(db: Database, model: ModelView, *, signer: str | None, why: str) -> dict[str, Any]:
    """What goes on record beside the activation. Raises Refused where the model would need a signature."""
    refusal = None if model.retired_at else activation.shortcut_refusal(model.report)
    if refusal is None:
        return {}
    if signer is None:
        raise Refused(f"{model.label} is not activated: {refusal}. An admin may sign: --sign NAME --why REASON")
    if not why:
        raise click.UsageError("--sign needs --why REASON")
    admin = people.user_named(db, signer)
    if admin.role != Role.ADMIN or admin.disabled_at is not None:
        raise Refused(f"{signer} may not sign: no enabled admin (`nightread user list` shows them)")
    return {"signed_by": admin.name, "against": refusal, "audit": model_words.audit_figures(model.report)}


def _proposed(
    model: ModelView, night: LastNight, *, sensitivity: float | None, capacity: int | None
) -> Proposal | None:
    if sensitivity is not None:
        return workbench.for_sensitivity(model, night, sensitivity)
    return None if capacity is None else workbench.for_capacity(night, capacity)


@models.command()
@MODEL
@JSON
def reprove(wanted: str, is_json: bool) -> None:
    """Forget what MODEL gives for the golden image: the next worker that runs it says anew. For the case that the
    first to run it was the one with the broken device, and the sound ones refuse the model since."""
    db = database()
    model = store.named(db, wanted)
    forgotten = golden.forget(db, model.id, by=operator())
    told = {"model": model.label, "forgotten": forgotten}
    _tell(told, is_json, f"{forgotten} golden scores of {model.label} forgotten: now restart a worker that is sound")


@models.command()
@MODEL
@click.option(
    "--data",
    "paths",
    required=True,
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="As for `train`.",
)
@click.option("--images", type=click.IntRange(10), default=300, show_default=True, help="Training images to calibrate.")
@click.option(
    "--float32-layers", "spare", multiple=True, metavar="PATTERN", help="Layers that int8 leaves alone (a regex)."
)
@JSON
def optimize(wanted: str, paths: tuple[Path, ...], images: int, spare: tuple[str, ...], is_json: bool) -> int:
    """Make MODEL's faster forms (OpenVINO) in its folder, with the parity report that says which may run.

    int8 is calibrated on training images of DATA; then each form scores the validation images beside float32. What
    breaks a limit does not run; where all do, the folder stays as it is."""
    from workers.training import optimise  # loads OpenVINO, NNCF and Keras, which the other commands do without

    db = database()
    model = store.named(db, wanted)
    found, folder = model_folders.checked(model), Path(model.folder)
    with counting("reading") as progress:
        threads = len(os.sched_getaffinity(0))
        made = optimise.optimise(
            folder, list(paths), images=images, spare=spare, threads=threads, say=_note, progress=progress
        )
    told = {"model": model.label, "folder": model.folder, "allowed": made.allowed, **made.parity}
    useful = set(made.allowed) - {parity.FLOAT32}
    if useful:
        model_folders.put_in(folder, *optimise.shipped(found, made))
        store.optimised(db, model.id, forms={"allowed": made.allowed, "margin": made.parity["margin"]}, by=operator())
    _tell(told, is_json, model_words.written_parity(told))
    return Exit.DONE if useful else Exit.REFUSED


def _note(line: str) -> None:
    click.echo(line, err=True)


def _chosen(value: str | None, proposal: Proposal | None, why: str) -> Proposal | None:
    """The threshold to set, with its reason; None where none is to be set."""
    if value is None:
        return None
    if value == PROPOSED:
        if proposal is None:
            raise click.UsageError("--set needs a value, or --sensitivity or --capacity to propose one")
        return Proposal(proposal.value, f"{why}: {proposal.why}" if why else proposal.why)
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise click.BadParameter(f"{value!r} is no threshold: a number from 0 to 1", param_hint="--set")
    if not why:
        raise click.UsageError("--set VALUE needs --why REASON")
    return Proposal(number, why)


def _set(db: Database, model: ModelView, chosen: Proposal) -> dict[str, Any]:
    done = thresholds.set_threshold(db, model.id, chosen.value, why=chosen.why, by=operator())
    if done.looked_again and (unreached := queue.ring_if_reached(done.looked_again)):
        _note(unreached)
    copies = _copied(db, model)
    told = {"threshold": chosen.value, "why": chosen.why, **asdict(done)}
    return {**told, "pictures_made": copies.made, "pictures_lacking": _lacking(copies)}


def _copied(db: Database, model: ModelView) -> Copies:
    with counting("review copies") as progress:
        return make_copies(db, model.id, progress=progress)


def _lacking(copies: Copies) -> list[str]:
    blind = [f"none of what the model saw: {copies.blind}"] if copies.blind else []
    return [*(f"{count:,} not copied: {why}" for why, count in copies.lacking.items()), *blind]


def _address(model: ModelView) -> str:
    return f"{model.name}:{model.version}"


def _tell(told: Any, is_json: bool, text: str) -> None:
    click.echo(json.dumps(told, indent=2) if is_json else "\n".join(map(printable, text.split("\n"))))
