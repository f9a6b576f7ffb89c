"""The screening centre's commands: parse, call, print a count that a person can act on."""

import getpass
from collections import Counter
from pathlib import Path

import click

from db.errors import QueueUnreachable
from db.store import reading, recovery, scoring, sites
from db.store.connection import database
from db.store.reading import printable
from db.words import Exit
from producer import progress, reports, site_settings, submission
from workers import queue

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
JSON = click.option("--json", "is_json", is_flag=True, default=False, help="Data on stdout as JSON.")


def operator() -> str:
    """Who runs the command line: a trusted operator, named on the record."""
    return f"cli:{getpass.getuser()}"


@click.group()
def site() -> None:
    """Screening centres that may submit."""


@site.command("add")
@click.argument("name")
@click.option("--time-zone", default="UTC", show_default=True, help="Zone of the site's reports.")
@JSON
def add_site(name: str, time_zone: str, is_json: bool) -> None:
    """Register a screening centre."""
    sites.add_site(database(), name, time_zone=time_zone, by=operator())
    reports.print_json({"site": name}) if is_json else click.echo(f"site {name!r} is registered")


@site.command("list")
@JSON
def list_sites(is_json: bool) -> None:
    """The registered screening centres, and how their scans are read."""
    known = sites.every_site(database())
    if is_json:
        reports.print_json([site_settings.as_json(one) for one in known])
        return
    for one in known:
        click.echo(f"{one.name}  ({one.time_zone}): {site_settings.told(one)}")


site.add_command(site_settings.set_site)


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--site", "site_name", default="local", show_default=True, help="The screening centre.")
@click.option("--wait", "is_waiting", is_flag=True, default=False, help="Return once every scan has its outcome.")
@click.option("--dry-run", is_flag=True, default=False, help="Only say what would be found.")
@click.option("--urgent", is_flag=True, default=False, help="Before every routine batch.")
@click.option("--manifest", type=FILE, default=None, help="CSV: path, patient, study, age, urgent, suspected, imaged.")
@JSON
def submit(
    folder: Path, site_name: str, is_waiting: bool, dry_run: bool, urgent: bool, manifest: Path | None, is_json: bool
) -> int:
    """Register every scan below FOLDER for screening. The same folder again gives the same batch."""
    db = database()
    if dry_run:
        sites.site_named(db, site_name)
        return _print_preview(folder, manifest, is_json=is_json)
    with progress.counting("files found:") as show:
        done = submission.submit(db, folder, site_name=site_name, urgent=urgent, manifest=manifest, progress=show)
    if not done.rang:
        click.echo("the queue server does not answer: the scans are registered; the sweep will ring for them", err=True)
    if is_waiting:
        return reports.exit_code(_wait_and_print(done.batch_id, is_json=is_json))
    totals = reading.totals(db, done.batch_id)
    if is_json:
        reports.print_json(totals.as_json())
    else:
        _print_submitted(done, totals)
    return Exit.DONE


@click.command()
@click.argument("batch", type=int, required=False)
@JSON
def status(batch: int | None, is_json: bool) -> int:
    """Batches (or one) and workers, as they stand now."""
    db = database()
    listed = [reading.totals(db, batch)] if batch is not None else reading.batches(db)
    workers = reading.workers(db)
    if is_json:
        alive = [{"name": w.name, "device": w.device, "alive": w.alive, "doing": w.doing} for w in workers]
        reports.print_json({"batches": [one.as_json() for one in listed], "workers": alive})
    else:
        for totals in listed:
            reports.print_totals(totals)
            click.echo()
        if not listed:
            click.echo("no batch yet: `nightread submit FOLDER` makes one")
        alive_names = [f"{w.name} ({w.doing})" for w in workers if w.alive and w.scores]
        click.echo(f"workers alive: {', '.join(alive_names) or 'none: start one with `nightread up`'}")
    return Exit.PARTIAL if any(one.failed or one.waiting for one in listed) else Exit.DONE


@click.command()
@click.argument("batch", type=int)
@click.option("--csv", "file", type=click.Path(dir_okay=False, path_type=Path), default=None, help="One line a scan.")
@JSON
def report(batch: int, file: Path | None, is_json: bool) -> int:
    """The report of BATCH: totals, what was not screened and why, the flagged scans."""
    db = database()
    if file is not None:
        click.echo(f"{reports.write_csv(db, batch, file):,} scans written to {file}", err=True)
    if is_json:
        reports.print_json(reports.as_json(db, batch))
    elif file is None:
        reports.print_report(db, batch)
    return reports.exit_code(reading.totals(db, batch))


@click.command()
@click.option("--wait", "is_waiting", is_flag=True, default=False, help="Return once nothing waits any more.")
@JSON
def resume(is_waiting: bool, is_json: bool) -> int:
    """Go on after an interruption: unfinished submissions are completed, whatever waits is rung for."""
    db = database()
    with progress.counting("files found:") as show:
        resumed = submission.resume(db, progress=show)
    waiting = scoring.waiting_chunks(db)
    rings = queue.ring(waiting) if waiting else 0
    open_batches = [one for one in reading.batches(db) if one.waiting]
    if is_waiting:
        open_batches = [progress.wait(db, one.batch) for one in open_batches]
    if is_json:
        reports.print_json({"resumed": [one.batch_id for one in resumed], "chunks_waiting": waiting, "rings": rings})
    else:
        click.echo(f"{len(resumed)} submissions completed; {waiting:,} chunks wait; {rings} rings sent")
    return Exit.PARTIAL if any(one.waiting or one.failed for one in open_batches) else Exit.DONE


@click.command()
@click.argument("batch", type=int)
@JSON
def retry(batch: int, is_json: bool) -> int:
    """Try the failed scans of BATCH again, on record."""
    db = database()
    reading.totals(db, batch)
    count = recovery.retry_failed(db, batch, by=operator())
    try:
        if count:
            queue.ring(count)
    except QueueUnreachable as error:
        click.echo(f"{error}; the sweep will ring", err=True)
    reports.print_json({"batch": batch, "retried": count}) if is_json else click.echo(_retried(count))
    return Exit.DONE


def _retried(count: int) -> str:
    return f"{count:,} scans wait again" if count else "no scan of this batch failed: nothing to try again"


def _print_preview(folder: Path, manifest: Path | None, *, is_json: bool) -> int:
    config = database().config
    files = submission.preview(folder, config=config, manifest=manifest)
    reasons = Counter(str(found.reason) for found in files if found.reason)
    if is_json:
        reports.print_json({"found": len(files), "rejected": sum(reasons.values()), "reasons": dict(reasons)})
        return Exit.DONE
    click.echo(f"{len(files):,} files found, {len(files) - sum(reasons.values()):,} to be screened")
    for found in files:
        if found.reason:
            click.echo(f"  {found.reason:<28} {printable(found.path)}  ({found.detail})")
    return Exit.DONE


def _print_submitted(done: submission.Submitted, totals: reading.Totals) -> None:
    refused = ", ".join(f"{count:,} {reason}" for reason, count in totals.reasons.items())
    click.echo(
        f"{totals.found:,} scans in batch {done.batch_id} ({done.added:,} new, {done.known:,} known before)"
        + (f"; {totals.rejected:,} files rejected ({refused})" if refused else "")
    )
    click.echo(f"follow it: `nightread status {done.batch_id}`; in the morning: `nightread report {done.batch_id}`")


def _wait_and_print(batch_id: int, *, is_json: bool) -> reading.Totals:
    db = database()
    totals = progress.wait(db, batch_id)
    reports.print_json(totals.as_json()) if is_json else reports.print_report(db, batch_id)
    return totals
