"""Bars on stderr where there is a terminal, plain lines now and then where there is none."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from db.errors import DatabaseUnreachable
from db.store import reading
from db.store.connection import Database
from db.store.reading import Totals

POLL_SECONDS = 0.5
LINE_SECONDS = 30.0


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Show a growing count; the caller tells it the new one."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,.0f}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda count: bar.update(task, completed=count)


def wait(db: Database, batch_id: int, *, check: Callable[[Totals | None], None] = lambda totals: None) -> Totals:
    """Return once every scan of the batch has its outcome. `check` is told each look at it (None where there was no
    answer) and may raise.
    A database that is away for a moment is asked again."""
    with _bar() as show:
        while True:
            totals: Totals | None = None
            try:
                totals = reading.totals(db, batch_id)
                show(totals)
                if totals.is_done:
                    return totals
            except DatabaseUnreachable as error:
                click.echo(f"waiting: {error}", err=True)
            check(totals)
            time.sleep(POLL_SECONDS)


@contextmanager
def _bar() -> Iterator[Callable[[Totals], None]]:
    if not sys.stderr.isatty():
        yield _lines()
        return
    columns = (TextColumn("screening"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(totals: Totals) -> None:
            bar.update(
                task,
                total=totals.found,
                completed=totals.found - totals.waiting,
                description=f"{totals.flagged:,} flagged, {totals.rejected:,} rejected",
            )

        yield show


def _lines() -> Callable[[Totals], None]:
    last = time.monotonic()

    def show(totals: Totals) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            click.echo(f"{totals.found - totals.waiting:,} of {totals.found:,} scans done", err=True)

    return show
