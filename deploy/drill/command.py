"""`nightread drill`: many runs, some at once, each in a process of its own; one line a run, a table at the end."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import click

from db.words import Exit
from deploy.drill import leftovers, postgres, table
from deploy.drill.faults import FAULTS
from deploy.drill.nemesis import Met, Plan, Result
from deploy.drill.runs import Violation
from deploy.queue_server import find_server

DATABASES = ("sqlite", "postgresql", "both")
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
STOP_SECONDS = 120.0


@click.command()
@click.option("--seeds", default="1-10", show_default=True, help="Runs to make: 1-60, or 3,7,12.")
@click.option("--seed", type=int, default=None, help="One run, to replay it.")
@click.option("--faults", "only", default="", help="Of its faults only these, by commas: what a replay narrows down.")
@click.option("--count", type=click.IntRange(1, 200), default=12, show_default=True, help="Faults a run.")
@click.option("--scans", type=click.IntRange(60, 1_000_000), default=2000, show_default=True, help="Scans a run.")
@click.option("--database", type=click.Choice(DATABASES), default="both", show_default=True, help="both: in turns.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Runs at once.")
@click.option("--keep", type=FOLDER, default=None, help="Keep logs, history and databases of every run here.")
@click.option("--table", "written", type=FILE, default=None, help="Write the results as Markdown.")
@click.option("--json", "is_json", is_flag=True, default=False, help="Data on stdout as JSON.")
def drill(
    seeds: str,
    seed: int | None,
    only: str,
    count: int,
    scans: int,
    database: str,
    jobs: int,
    keep: Path | None,
    written: Path | None,
    is_json: bool,
) -> int:
    """Shake a house of its own (real servers, real workers with a stub for the model) and audit what came of it.

    Everything lies in a private folder and ends with the command. Exit code 0 only where no promise was broken,
    that of recovery (99 of 100 faults within 90 s, a wiped queue within 60 s) among them."""
    numbers = [seed] if seed is not None else parse_seeds(seeds)
    find_server()  # refused here rather than in each run
    with private_folder() as folder:
        programs = _programs(database, folder)
        plans = [
            Plan(number, database_of(number, database, has_postgres=programs is not None), scans, count, _names(only))
            for number in numbers
        ]
        results: list[Result] = []
        for result in _results(plans, folder, programs=programs, jobs=jobs, keep=keep):
            results.append(result)
            click.echo(table.line(result), err=is_json)
            for broken in result.violations:
                click.echo(f"  VIOLATION {broken.check}: {broken.said}", err=True)
            if result.violations:
                click.echo(f"    {replay(result, count)}", err=True)
    results.sort(key=lambda result: result.seed)
    click.echo(table.summary(results), err=is_json)
    if written is not None:
        written.write_text(table.markdown(results), "utf-8")
    if is_json:
        click.echo(json.dumps({"runs": [one.as_json() for one in results], **table.figures(results)}, indent=2))
    for slow in table.late(results):
        click.echo(f"  TOO LATE: {slow}", err=True)
    return Exit.PARTIAL if table.late(results) or any(one.violations for one in results) else Exit.DONE


def parse_seeds(text: str) -> list[int]:
    """ "1-3,7" gives 1, 2, 3, 7. Raises click.BadParameter."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise click.BadParameter(f"{part!r} is no seed and no range of seeds", param_hint="--seeds")
        first, last = int(match[1]), int(match[2] or match[1])
        found += range(first, last + 1)
    return found


def database_of(seed: int, database: str, *, has_postgres: bool) -> str:
    """Odd seeds run on SQLite and even ones on PostgreSQL, where both are asked for and there."""
    if database != "both":
        return database
    return "sqlite" if seed % 2 or not has_postgres else "postgresql"


def replay(result: Result, count: int) -> str:
    """The command that does the same again."""
    kinds = ",".join(dict.fromkeys(met.name for met in result.faults))
    return (
        f"nightread drill --seed {result.seed} --database {result.database} --scans {result.scans} --count {count}"
        f' --keep FOLDER --faults "{kinds}"'
    )


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for the runs, removed at the end of the block, and also where this process is killed."""
    folder = Path(tempfile.mkdtemp(prefix="nr-drill-"))
    folder.chmod(0o711)  # PostgreSQL's user passes through to what is its own
    cleaner = subprocess.Popen(
        [sys.executable, "-I", "-S", leftovers.__file__, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield folder
    finally:
        cleaner.communicate()


def _names(only: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in only.split(",") if name.strip())
    for name in names:
        if name not in FAULTS:
            raise click.BadParameter(f"no fault {name!r}; there are: {', '.join(FAULTS)}", param_hint="--faults")
    return names


def _programs(database: str, folder: Path) -> Path | None:
    """PostgreSQL's programs where it is wanted. Raises NoPostgres where it is asked for, or this is CI."""
    if database == "sqlite":
        return None
    try:
        return postgres.programs(folder / "wheel")
    except postgres.NoPostgres as error:
        if database == "postgresql" or os.environ.get("CI"):
            raise
        click.echo(f"{error}; every run is on SQLite", err=True)
        return None


def _results(
    plans: list[Plan], folder: Path, *, programs: Path | None, jobs: int, keep: Path | None
) -> Iterator[Result]:
    """The results as they come, in the order of the plans."""
    running: set[subprocess.Popen[str]] = set()
    orders = (_order(plan, folder, programs, keep) for plan in plans)
    with ThreadPoolExecutor(jobs, "run") as threads:
        waiting = [threads.submit(_one, order, running) for order in orders]
        try:
            for future in waiting:
                yield future.result()
        except BaseException:
            for future in waiting:
                future.cancel()
            _stop(running)
            raise


def _order(plan: Plan, folder: Path, programs: Path | None, keep: Path | None) -> dict[str, object]:
    return {
        "folder": str(folder / f"seed-{plan.seed}"),
        "programs": str(programs or ""),
        "keep": str(keep.absolute()) if keep else None,
        "plan": asdict(plan),
    }


def _one(order: dict[str, object], running: "set[subprocess.Popen[str]]") -> Result:
    """One run in a process of its own, whose session this command's Ctrl-C does not reach: it ends with its input."""
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.drill.one"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    running.add(process)
    assert process.stdin is not None  # noqa: S101 (for the type checker: it was opened as a pipe)
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    told, complaint = _outputs(process)
    running.discard(process)
    shutil.rmtree(str(order["folder"]), ignore_errors=True)
    if process.returncode:
        plan = dict(order["plan"])  # type: ignore[call-overload]
        said = complaint.strip().splitlines()[-1:] or ["it said nothing"]
        broken = Violation("W", f"the run ended with status {process.returncode}: {said[0]}")
        return Result(plan["seed"], plan["database"], plan["scans"], violations=[broken])
    return _parsed(json.loads(told))


def _outputs(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Both outputs to their ends, without closing the input: that would end the run."""
    assert process.stdout is not None  # noqa: S101 (as above)
    assert process.stderr is not None  # noqa: S101 (as above)
    with ThreadPoolExecutor(1, "complaint") as thread:
        complaint = thread.submit(process.stderr.read)
        told = process.stdout.read()
        process.wait()
        return told, complaint.result()


def _parsed(told: dict[str, object]) -> Result:
    result = Result(**told)  # type: ignore[arg-type]
    result.faults = [Met(**one) for one in result.faults]  # type: ignore[arg-type]
    result.violations = [Violation(**one) for one in result.violations]  # type: ignore[arg-type]
    return result


def _stop(running: "set[subprocess.Popen[str]]") -> None:
    for process in list(running):
        process.terminate()
    for process in list(running):
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
