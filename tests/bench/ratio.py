"""Ratios of two things measured in turn in one run, and the table of them: RESULTS.md, which only benches write.

A figure is the median of its rounds, with the least and the largest beside it, under the machine that it was reached
on; a bench that runs again replaces its own rows and no others.
"""

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
RESULTS = Path(os.environ.get("BENCH_RESULTS") or Path(__file__).with_name("RESULTS.md"))
CORES = len(os.sched_getaffinity(0))
HEAD = """# What was reached

Written by the benches, never by hand: `make bench`, or the command in a row. Each figure is the ratio of two things
measured in turn in one run: the median of its rounds (least to largest). What each row compares is said in the script
that its command names.
"""
COLUMNS = ("figure", "goal", "reached", "rounds", "what else was seen", "command", "when, commit")
ENGINES = ("openvino", "tensorflow", "keras", "opencv-python-headless", "numpy", "celery", "sqlalchemy")


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def record(figure: str, goal: str, values: Sequence[float], *, note: str = "") -> None:
    """Print a figure and put it in the table; `goal` as people write it, "" where there is none."""
    reached = f"{_short(statistics.median(values))} ({_short(min(values))} to {_short(max(values))})"
    print(f"{figure}: {reached}, goal {goal or 'none'}; {len(values)} rounds; {note}", flush=True)
    cells = (
        figure,
        goal,
        reached,
        str(len(values)),
        note,
        f"`{command()}`",
        f"{datetime.now(UTC):%Y-%m-%d}, {commit()}",
    )
    tables = read_tables()
    tables.setdefault(machine(), {})[figure] = tuple(cell.replace("|", "/") for cell in cells)
    write_tables(tables)


def read_tables() -> dict[str, dict[str, tuple[str, ...]]]:
    """What RESULTS.md holds: by machine, by figure, the cells of a row."""
    tables: dict[str, dict[str, tuple[str, ...]]] = {}
    rows: dict[str, tuple[str, ...]] = {}
    for line in RESULTS.read_text("utf-8").splitlines() if RESULTS.exists() else []:
        if line.startswith("## "):
            rows = tables.setdefault(line.removeprefix("## "), {})
        elif line.startswith("| ") and not line.startswith((f"| {COLUMNS[0]} |", "| ---")):
            cells = tuple(cell.strip() for cell in line.strip("| ").split(" | "))
            rows[cells[0]] = cells
    return tables


def write_tables(tables: dict[str, dict[str, tuple[str, ...]]]) -> None:
    """Write RESULTS.md anew, figures in alphabetical order."""
    lines = [HEAD]
    for title, rows in tables.items():
        lines += [f"## {title}", "", _row(COLUMNS), _row(["---"] * len(COLUMNS))]
        lines += [_row(rows[figure]) for figure in sorted(rows)]
        lines.append("")
    RESULTS.write_text("\n".join(lines), "utf-8")


def machine() -> str:
    """Processor, cores, memory, and the versions of what computes."""
    info = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in info)}
    model = f"{told.get('model name', platform.machine())} (family {told.get('cpu family')}, model {told.get('model')})"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ENGINES if _is_there(name))
    return f"{model}, {CORES} cores, {memory:.0f} GiB; Python {platform.python_version()}, {versions}"


def command() -> str:
    """What was typed, from the repository."""
    script = Path(sys.argv[0]).resolve()
    given = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("BENCH_")]
    project = Path(__file__).parents[2]
    name = script.relative_to(project) if script.is_relative_to(project) else script.name
    return " ".join([*(word for word in given if "RESULTS" not in word), "python", str(name), *sys.argv[1:]])


def commit() -> str:
    """The commit that was measured; with a plus sign where the tree was not clean."""
    here = Path(__file__).parent
    said = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=here, capture_output=True, text=True)
    return said.stdout.strip() or "no commit"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.3f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell or '-' for cell in cells)} |"


def _is_there(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False
