"""`nightread plan`: what this machine gives, what a deadline needs, and when tonight's queue will be done."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from db.errors import DatabaseUnreachable, Unknown
from db.store import models, reading, tonight
from db.store.connection import Database, database, now
from db.store.tonight import Queue
from db.words import Exit
from deploy import doctor
from deploy.plan import words
from deploy.plan.capacity import Answer, Measured, Spread, answer, most
from deploy.plan.deadline import Deadline, seconds_until, zone
from deploy.plan.machine import Machine, look
from deploy.plan.sampling import measure, samples
from producer import reports
from workers.devices import devices
from workers.trained_models import SHIPPED

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
HOURS = 8.0


@dataclass(frozen=True)
class Night:
    """What the database says, where it answers: else `why` it does not, and nothing waits."""

    db: Database | None
    why: str
    queue: Queue | None
    alive: int
    is_scoring: bool
    zones: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All that a plan says."""

    machine: Machine
    said: dict[str, Any]
    measured: Measured
    night: Night
    answer: Answer | None
    by: Deadline


@click.command()
@click.option("--scans", type=click.IntRange(min=1), default=None, help="How many (default: those that wait now).")
@click.option(
    "--hours", type=click.FloatRange(min=0, min_open=True), default=None, help=f"Within (default: {HOURS:g})."
)
@click.option("--by", default=None, metavar="HH:MM", help="Instead of --hours: until a clock at the site shows this.")
@click.option("--folder", type=FOLDER, default=None, help="Measure on files like these.")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=60.0, show_default=True, help="To measure for.")
@click.option("--json", "is_json", is_flag=True, default=False, help="Data on stdout as JSON.")
def plan(
    scans: int | None, hours: float | None, by: str | None, folder: Path | None, seconds: float, is_json: bool
) -> int:
    """Measure this machine and say how many like it meet a deadline, and when tonight's queue will be done.

    Ends with 0 where this machine alone meets the deadline, 1 where it does not."""
    if hours is not None and by is not None:
        raise click.UsageError("--hours and --by exclude each other")
    night = tonight_of(database())
    within = _within(hours, by, night)
    click.echo(f"measuring this machine for {seconds:,.0f} s …", err=True)
    made = make(night, scans=scans, seconds=within, folder=folder, measuring=seconds)
    reports.print_json(as_json(made)) if is_json else _print(made)
    return Exit.PARTIAL if made.answer is not None and not made.answer.meets else Exit.DONE


def make(night: Night, *, scans: int | None, seconds: float, folder: Path | None, measuring: float) -> Plan:
    """Measure and work it out."""
    machine = look()
    model, threshold = _model(night.db)
    config = database().config
    said = measure(config, samples(night.db, folder), model=model, threshold=threshold, seconds=measuring)
    measured = figures(said, machine)
    count = scans or (night.queue.waiting if night.queue else 0)
    found = answer(measured, scans=count, seconds=seconds) if count else None
    return Plan(machine, said, measured, night, found, Deadline(seconds, now(), zone(night.zones)))


def tonight_of(db: Database) -> Night:
    """What the database says of tonight, if it is ready."""
    try:
        check = doctor.check_database(db)
        if not check.ok:
            return Night(None, f"{check.said}: {check.fix}", None, 0, False, ())
        waits, workers = tonight.queue(db), [one for one in reading.workers(db) if one.alive and one.scores]
    except DatabaseUnreachable as error:
        return Night(None, str(error), None, 0, False, ())
    return Night(db, "", waits, len(workers), bool(workers and waits.waiting), waits.zones or tonight.zones(db))


def figures(said: dict[str, Any], machine: Machine) -> Measured:
    """The measurement as the arithmetic takes it."""
    rates = {name: Spread.of(said[name]) for name in ("engine", "preparation", "together", "reading")}
    return Measured(
        is_gpu=said["device"] != "cpu",
        cores=machine.cores,
        threads=said["threads"],
        decoders=said["decoders"],
        devices=len(devices()),
        mean_bytes=said["mean_bytes"],
        **rates,
    )


def as_json(made: Plan) -> dict[str, Any]:
    """The shape of `plan --json`."""
    measured, queue = made.measured, made.night.queue
    told = {
        name: value for name, value in made.said.items() if name not in ("engine", "preparation", "together", "reading")
    }
    rates = {name: getattr(measured, name).as_json() for name in ("engine", "preparation", "together", "reading")}
    return {
        "machine": vars(made.machine),
        "measured": {
            **told,
            **rates,
            "rounds": len(made.said["engine"]),
            "inference_ms": round(1000 * measured.inference_seconds, 3),
            "preparation_ms": round(1000 * measured.preparation_seconds, 3),
            "efficiency": round(measured.efficiency, 3),
            "scans_per_second": round(measured.machine, 3),
            "binds": measured.binds,
        },
        "deadline": {"seconds": made.by.seconds, "most": most(measured, seconds=made.by.seconds)},
        "answer": None if made.answer is None else made.answer.as_json(),
        "queue": None if queue is None else _queue_json(made.night, queue),
        "database": made.night.why or None,
    }


def _queue_json(night: Night, queue: Queue) -> dict[str, Any]:
    told = {name: getattr(queue, name) for name in ("waiting", "batches", "still_submitting", "rate")}
    return {**told, "workers": night.alive, "seconds_left": words.expected_seconds(queue) if night.alive else None}


def _within(hours: float | None, by: str | None, night: Night) -> float:
    if by is None:
        return 3600 * (HOURS if hours is None else hours)
    try:
        return seconds_until(by, now(), zone(night.zones))
    except ValueError as error:
        raise click.BadParameter(f"{by!r} is no time of day: say 07:00", param_hint="--by") from error


def _model(db: Database | None) -> tuple[Path, float | None]:
    """The folder of the trained model that new batches run with, and its threshold; the shipped one where there is
    none."""
    if db is None:
        return SHIPPED, None
    try:
        active = models.active(db)
    except Unknown:
        return SHIPPED, None
    return Path(active.folder), active.threshold


def _print(made: Plan) -> None:
    for label, text in _lines(made):
        click.echo(f"{label:<15} {text}".rstrip())


def _lines(made: Plan) -> Iterable[words.Line]:
    night, measured = made.night, made.measured
    yield from words.machine_lines(made.machine)
    yield from words.measured_lines(made.said, measured)
    yield from words.cautions(made.said, measured, made.machine, is_scoring=night.is_scoring)
    yield "", ""
    if made.answer is None:
        yield from words.ability_lines(measured, seconds=made.by.seconds)
    else:
        yield from words.answer_lines(made.answer, measured, made.by)
    yield "", ""
    if night.queue is None:
        yield "Tonight", f"no queue to look at: {night.why}"
    else:
        yield from words.queue_lines(night.queue, night.alive, measured, made.by)
