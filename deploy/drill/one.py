"""One run in a process of its own, started by the command: `python -m deploy.drill.one`, its order as JSON on the first
line of standard input, its result as JSON on standard output. It ends, with all it started, when its input does."""

import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from db.errors import NightreadError
from deploy.drill.nemesis import Plan, Result, run
from deploy.drill.parts import House, leave_namespace
from deploy.drill.runs import Violation


def main() -> int:
    """Read the order, carry it out, tell what came of it."""
    may_mount = leave_namespace()
    order = json.loads(sys.stdin.readline())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    threading.Thread(target=_end_with_input, daemon=True).start()
    folder = Path(order["folder"])
    folder.mkdir(mode=0o711)
    plan = Plan(**{**order["plan"], "only": tuple(order["plan"]["only"])})
    programs = Path(order["programs"]) if order["programs"] else None
    result = _run(plan, folder, programs=programs, may_mount=may_mount, keep=order["keep"])
    print(json.dumps(result.as_json()))
    return 0


def _run(plan: Plan, folder: Path, *, programs: Path | None, may_mount: bool, keep: str | None) -> Result:
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with (folder / "history.jsonl").open("a") as history:

        def tell(line: str) -> None:
            history.write(line + "\n")
            history.flush()

        def say(line: str) -> None:
            tell(json.dumps({"at": round(time.monotonic(), 2), "supervisor": line}))

        house = House(folder, plan.database, lock=lock, say=say, programs=programs, may_mount=may_mount)
        try:
            return run(plan, house, tell=tell)
        except NightreadError as error:
            return Result(plan.seed, plan.database, plan.scans, violations=[Violation("W", f"no run: {error}")])
        finally:
            if keep:
                _keep(folder, Path(keep))
            house.close()


def _keep(folder: Path, into: Path) -> None:
    """Copy what a person may want to look at: all but sockets, PostgreSQL's own files and the scans."""
    no_copy = shutil.ignore_patterns("*.sock", "pg", "scans", "lock", "filler")
    shutil.copytree(folder, into / folder.name, ignore=no_copy, dirs_exist_ok=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for again in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(again, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_input() -> None:
    """Whoever ordered this run is gone once standard input ends."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
