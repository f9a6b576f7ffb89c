"""Which files the machine is measured on, and the measurement, which loads the engine in a process of its own."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from db.errors import NightreadError, Refused
from db.settings import Settings
from db.store import tonight
from db.store.connection import Database
from db.store.scoring import WaitingScan
from db.words import Exit
from workers import devices

FILES = 256  # of a sample
MOST_LISTED = 200_000  # files of a folder that are looked at for a sample
START_SECONDS = 300.0  # to load an engine on a slow machine
SAMPLES = Path(__file__).parents[1] / "samples" / "scans"
QUEUE, LAST, FOLDER, SHIPPED = "scans that wait", "scans of the last batches", "files of {}", "samples that ship"
_random = secrets.SystemRandom()


@dataclass(frozen=True)
class Sample:
    """Files to measure on, and what they are, in words."""

    name: str
    scans: list[WaitingScan]

    def as_order(self) -> dict[str, Any]:
        named = ("root", "path", "sha256", "age", "sample_share")
        return {"name": self.name, "scans": [{name: getattr(scan, name) for name in named} for scan in self.scans]}


class NotMeasured(NightreadError):
    """The measurement gave no figures; its exit code is that of what went wrong."""

    def __init__(self, sentence: str, code: int = Exit.PARTIAL) -> None:
        super().__init__(sentence)
        self.exit_code = Exit(code)


def samples(db: Database | None, folder: Path | None) -> list[Sample]:
    """The samples to try, in this order: the named folder alone; else what waits, what was scored last, what ships.
    Raises Refused for a folder without files."""
    if folder is not None:
        name = FOLDER.format(folder)
        found = of_folder(name, folder)
        if not found.scans:
            raise Refused(f"{folder} holds no file to measure on")
        return [found]
    queued = (
        []
        if db is None
        else [
            Sample(QUEUE, tonight.some_waiting(db, FILES)),
            Sample(LAST, tonight.some_of_the_last(db, FILES)),
        ]
    )
    return [*(one for one in queued if one.scans), of_folder(SHIPPED, SAMPLES)]


def of_folder(name: str, folder: Path) -> Sample:
    """A random sample of the files below a folder (of the first MOST_LISTED)."""
    root = folder.absolute()
    listed = islice(((place, file) for place, _, files in os.walk(root) for file in files), MOST_LISTED)
    paths = [os.path.relpath(os.path.join(place, file), root) for place, file in listed]  # noqa: PTH118 (bytes kept)
    drawn = _random.sample(paths, min(FILES, len(paths)))
    return Sample(name, [WaitingScan(0, "", str(root), path, "", None) for path in drawn])


def measure(
    config: Settings, wanted: Sequence[Sample], *, model: Path, threshold: float | None, seconds: float
) -> dict[str, Any]:
    """What `workers.measuring` says of this machine's first device. Raises NotMeasured, and ModuleNotFoundError where
    no engine is installed here."""
    device = devices.devices()[0]
    with tempfile.TemporaryDirectory(prefix=".plan-", dir=config.home if config.home.is_dir() else None) as folder:
        order = {
            "device": device,
            "model": str(model),
            "threshold": threshold,
            "home": folder,
            "seconds": seconds,
            "samples": [sample.as_order() for sample in wanted],
        }
        return _answered(_run(order, device, seconds))


def _run(order: dict[str, Any], device: str, seconds: float) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            [sys.executable, "-m", "workers.measuring"],
            input=json.dumps(order),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **devices.pinned(device), "PYTHONPATH": _project()},
            timeout=START_SECONDS + 10 * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotMeasured(f"{device} gave no figures within {error.timeout:,.0f} s: `nightread doctor`") from error


def _answered(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NotMeasured(f"measuring ended with {done.returncode}: {last[:200]}") from error
    if "missing" in said:
        raise ModuleNotFoundError(name=said["missing"])
    if "error" in said:
        raise NotMeasured(said["error"], said["exit_code"])
    return said


def _project() -> str:
    """Where our packages are, from whatever folder the command was given."""
    return os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")]))
