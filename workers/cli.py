"""The admin's commands for workers. Celery and the engines load when a worker starts."""

import json
import logging
import os
import socket
from typing import Any

import click

from db.settings import settings
from db.store import heartbeats, reading
from db.store.connection import database
from db.words import Exit
from workers import background, devices

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@click.command()
@click.option("--device", default=None, help="cpu, gpu:0, gpu:1 … (default: the first there is).")
@click.option("--all", "is_all", is_flag=True, default=False, help="One worker for every device of this machine.")
@click.option(
    "--prepare", "is_preparing", is_flag=True, default=False, help="Score nothing: fill the prepared cache, on cores."
)
def worker(device: str | None, is_all: bool, is_preparing: bool) -> int:
    """Score what waits, on one pinned device, until told to stop."""
    if (device is not None) + is_all + is_preparing > 1:
        raise click.UsageError("--all, --prepare and --device exclude each other")
    if is_preparing:
        return _prepare()
    if is_all:
        return devices.run_all()
    chosen = device or devices.devices()[0]
    try:
        devices.pin(chosen)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--device") from error
    return _work(chosen)


def _prepare() -> int:
    from workers.prepare_worker import run  # the decoders' modules are not loaded for the other commands

    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    return run(database())


def _work(device: str) -> int:
    """Run Celery's worker here; its one child, spawned, is what loads the engine."""
    from workers.provisions import stopping_note
    from workers.queue import app

    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    background.give_way()
    node = f"{device.replace(':', '')}@{socket.gethostname()}"
    arguments = ["--quiet", "worker", "--hostname", node, "--loglevel", "WARNING"]
    note = stopping_note(settings(), os.getpid())
    note.unlink(missing_ok=True)  # left by a process that had this number before
    try:
        app(settings()).worker_main([*arguments, "--without-gossip", "--without-mingle", "--without-heartbeat"])
    finally:
        note.unlink(missing_ok=True)
        heartbeats.worker_stopped(database(), devices.worker_name(device))
    return Exit.DONE


@click.command()
def sweep() -> None:
    """Ring for what waits and take back what was lost, until told to stop."""
    from workers.sweep import run  # kombu is not loaded for the other commands

    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    run(database(), every_seconds=settings().sweep_seconds)


@click.command()
@click.option("--json", "is_json", is_flag=True, default=False, help="Data on stdout as JSON.")
def workers(is_json: bool) -> int:
    """The workers as their heartbeats tell; 1 where none that scores is alive."""
    known = reading.workers(database())
    if is_json:
        _print_json([{**vars(one), "alive": one.alive, "scores": one.scores} for one in known])
    else:
        for one in known:
            state = "alive" if one.alive else "stopped" if one.stopped else f"silent for {one.silent:,.0f} s"
            click.echo(f"{one.name:<40} {state:<20} {one.scans:>10,} scans  {one.doing}")
    return Exit.DONE if any(one.alive and one.scores for one in known) else Exit.PARTIAL


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
