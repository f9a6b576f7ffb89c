"""Progress on stderr: bars where there is a terminal, a line an epoch where there is none."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:  # these load Keras; who only counts does not need it
    from workers.training.recipes import Progress as Told
    from workers.training.recipes import Step

LINE_SECONDS = 10.0


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show `done` of `of`."""
    if not sys.stderr.isatty():
        yield lambda done, of: None
        return
    with _bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


@contextmanager
def epochs() -> "Iterator[Told]":
    """Show the batches of an epoch, and keep a line of each epoch that is over."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    with _bar() as bar:
        task = bar.add_task("training", total=None)

        def show(step: "Step") -> None:
            name = f"stage {step.stage}/{step.stages}, epoch {step.epoch}/{step.epochs}"
            bar.update(task, description=name, completed=step.batch, total=step.batches)
            if step.record:
                bar.console.print(_line(step), highlight=False)

        yield show


def _lines() -> "Told":
    """A line for an epoch that is over, but not for each of many quick ones; the last of a stage always."""
    since = [float("-inf")]

    def show(step: "Step") -> None:
        if step.record and (step.epoch == step.epochs or time.monotonic() - since[0] > LINE_SECONDS):
            since[0] = time.monotonic()
            click.echo(_line(step), err=True)

    return show


def _line(step: "Step") -> str:
    record = step.record
    return (
        f"stage {step.stage}/{step.stages}, epoch {step.epoch}/{step.epochs}: loss {record['loss']:.4f}, validation "
        f"loss {record['val_loss']:.4f}, accuracy {record['val_accuracy']:.3f}, AUC {record['val_auc']:.4f}"
    )


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
