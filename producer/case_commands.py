"""Command `nightread cases import`: laboratory results from a CSV."""

import getpass
from pathlib import Path

import click

from db.store.connection import database
from db.store.laboratory import Fate, import_results
from db.store.sites import site_named
from db.words import Exit
from producer import reports

MOST_SHOWN = 50  # problems in the text; --json has them all


@click.group()
def cases() -> None:
    """What became of the screened: laboratory results."""


@cases.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--site", "site_name", required=True, help="The screening centre whose scans the file is about.")
@click.option("--json", "is_json", is_flag=True, default=False, help="Data on stdout as JSON.")
def import_file(file: Path, site_name: str, is_json: bool) -> int:
    """Put the laboratory results of FILE on record. A CSV with the columns path, patient or study; result (positive,
    negative, indeterminate); at (ISO 8601, in the site's time); note. Every line is accounted for; the same file
    again changes nothing."""
    db = database()
    site = site_named(db, site_name)
    with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as text:
        done = import_results(db, text, site_id=site.id, by=f"cli:{getpass.getuser()}")
    if is_json:
        problems = [{"line": one.line, "fate": one.fate, "why": one.why} for one in done.problems]
        reports.print_json({"site": site.name, "lines": done.lines} | done.counts | {"problems": problems})
    else:
        counts = ", ".join(f"{done.counts[fate]:,} {fate}" for fate in Fate)
        click.echo(f"{done.lines:,} lines: {counts}")
        for one in done.problems[:MOST_SHOWN]:
            click.echo(f"  line {one.line}: {one.fate}: {one.why}")
        if len(done.problems) > MOST_SHOWN:
            click.echo(f"  and {len(done.problems) - MOST_SHOWN:,} more: --json has them all")
    return Exit.DONE if done.is_complete else Exit.PARTIAL
