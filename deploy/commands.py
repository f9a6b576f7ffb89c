"""The commands of a machine on its own: parse, call, print what a person does next."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
from sqlalchemy import make_url

from db.errors import NothingScores
from db.settings import Settings
from db.store import reading
from db.store.connection import Database, database
from db.words import Exit
from deploy import doctor as checks
from deploy import local
from deploy.home import SITE, Ready, make_ready
from producer import progress, reports, submission

SAMPLES = Path(__file__).parent / "samples"
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
JSON = click.option("--json", "is_json", is_flag=True, default=False, help="Data on stdout as JSON.")
SYNTHETIC = (
    "These sample scans are synthetic: drawn by a program, no patient. The model is for research, not for diagnosis."
)


def say(line: str) -> None:
    """Prose goes to stderr; stdout is for data."""
    click.echo(line, err=True)


@click.command()
@JSON
def init(is_json: bool) -> int:
    """Make the home folder: database, site `local`, the model that ships, the first users. Works twice."""
    db = database()
    ready = make_ready(db)
    _introduce(ready)
    if is_json:
        reports.print_json(_home_json(db.config, ready))
    else:
        click.echo(f"{db.config.home} is ready: site {SITE!r}, model {ready.model}; `nightread up` starts everything")
    return Exit.DONE


@click.command()
@JSON
def up(is_json: bool) -> int:
    """Run everything on this machine (queue server, sweep, workers, web) until Ctrl-C."""
    db = database()
    ready = make_ready(db)
    _introduce(ready)
    stopped = threading.Event()
    with _stopping(stopped.set), local.running(db.config, say=say) as (supervisor, config):
        if is_json:
            reports.print_json({**_home_json(config, ready), "address": address(config)})
        else:
            click.echo(f"nightread is up: {address(config)}   (sign in as admin or reader: {ready.passwords_file})")
            click.echo(f"logs: {config.home / 'logs'}   stop: Ctrl-C")
        while not stopped.wait(1.0):
            pass
        say("stopping: workers finish or give back what they hold (Ctrl-C again kills them)")
        signal.signal(signal.SIGINT, lambda number, frame: supervisor.kill())
    return Exit.DONE


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--site", "site_name", default=SITE, show_default=True, help="The screening centre.")
@JSON
def screen(folder: Path, site_name: str, is_json: bool) -> int:
    """The whole night in one command: start what is not running, screen FOLDER, print the report, stop again."""
    return _screen(folder, site_name=site_name, is_json=is_json)


@click.command()
@JSON
def demo(is_json: bool) -> int:
    """Screen the synthetic sample scans that ship with nightread."""
    say(SYNTHETIC)
    code = _screen(SAMPLES, site_name=SITE, is_json=is_json)
    config = database().config
    say(
        f"\n{SYNTHETIC}\nThe results are in {config.home}. To look at them:\n"
        f"  1. {local.console_script()} up\n"
        f"  2. open {address(config)} in a browser\n"
        f"  3. sign in as `reader` with the password in {config.home / 'passwords.txt'}"
    )
    return code


@click.command()
@JSON
def doctor(is_json: bool) -> int:
    """Check everything that a night needs; each problem comes with its fix."""
    found = checks.examine(database())
    if is_json:
        reports.print_json({"ok": all(check.ok for check in found), "checks": [check.as_json() for check in found]})
    else:
        for check in found:
            click.echo(f"{'ok     ' if check.ok else 'PROBLEM'}  {check.name:<12} {check.said}")
            if check.fix:
                click.echo(f"         {'':<12} -> {check.fix}")
    return checks.exit_code(found)


def address(config: Settings) -> str:
    """Where a browser finds the review pages."""
    host = f"[{config.web_host}]" if ":" in config.web_host else config.web_host
    return f"http://{host}:{config.web_port}/"


def _screen(folder: Path, *, site_name: str, is_json: bool) -> int:
    db = database()
    _introduce(make_ready(db))
    with _stopping(_interrupt), local.Helper(db, say=say) as helper:
        with progress.counting("files found:") as show:
            done = submission.submit(db, folder, site_name=site_name, progress=show)
        try:
            if not reading.totals(db, done.batch_id).is_done:
                progress.wait(db, done.batch_id, check=helper.need)
        except NothingScores as error:
            say(f"nightread: {error}")
    return _report(db, done.batch_id, is_json=is_json)


def _report(db: Database, batch_id: int, *, is_json: bool) -> int:
    if not is_json:
        return reports.print_report(db, batch_id)
    reports.print_json(reports.as_json(db, batch_id))
    return reports.exit_code(reading.totals(db, batch_id))


@contextmanager
def _stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP call `stop` while the block lasts."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _introduce(ready: Ready) -> None:
    """The passwords of new users, once, and what the active model's report warns of, always."""
    for name, password in ready.passwords.items():
        say(f"user {name}: password {password}")
    if ready.passwords:
        say(f"(shown once; kept in {ready.passwords_file}, which only you may read)")
    if ready.caution:
        say(f"caution: {ready.model} is for research; `models activate` would want a signature: {ready.caution}")


def _home_json(config: Settings, ready: Ready) -> dict[str, str]:
    return {
        "home": str(config.home),
        "database": make_url(config.database).render_as_string(hide_password=True),
        "site": SITE,
        "model": ready.model,
        "passwords_file": str(ready.passwords_file),
    }
