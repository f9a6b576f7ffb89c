"""A part of the house as a drill runs it: the real command line, started by `python -m deploy.drill.part COMMAND ...`.

What a drill changes, it changes here, from outside: the worker's engine becomes the stub, several workers of one
machine get names of their own, and where the environment asks for it a clock is wrong, an older protocol is spoken,
and failpoints or a mutant are armed. A worker's child is a fresh interpreter that imports its parent's main module,
this one, as `__mp_main__` before anything else (multiprocessing's documented rule, kept by billiard/spawn.py)."""

import os
import re
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import ModuleType

from deploy.drill.patches import replace

NUMBER = "NIGHTREAD_DRILL_WORKER"  # which of a machine's workers this is
PROTOCOL = "NIGHTREAD_DRILL_PROTOCOL"  # what an older worker speaks
SKEW = "NIGHTREAD_DRILL_SKEW"  # a file with the seconds by which this process's clock is wrong
ENGINE = "workers.engines.tensorflow"


def prepare() -> None:
    """Change this process; before anything of the product is imported."""
    bend_clock()
    rename()
    speak_an_older_protocol()
    if sys.argv[1:2] == ["worker"] or __name__ == "__mp_main__":
        put_the_stub_in()
    arm()


def bend_clock() -> None:
    """Let this process's wall clock be wrong, as `time.time` tells it and the product's `now`."""
    file = Path(os.environ.get(SKEW, "/nonexistent"))
    if not file.exists():
        return
    seconds, right = float(file.read_text()), time.time
    time.time = lambda: right() + seconds
    replace("db.store.connection:now", lambda moment: lambda: moment() + timedelta(seconds=seconds))


def rename() -> None:
    """Give this machine's second worker another name than its first."""
    number = os.environ.get(NUMBER)
    if number:
        replace("workers.devices:worker_name", lambda name: lambda device: f"{name(device)}.{number}")


def speak_an_older_protocol() -> None:
    """Listen where a worker of an earlier release would."""
    older = os.environ.get(PROTOCOL)
    if older:
        replace("workers.queue:QUEUE", lambda name: re.sub(r"\d+", older, name, count=1))


def put_the_stub_in() -> None:
    """In place of the scorer. Its engine is never imported, so that a worker starts in seconds."""
    engine = ModuleType(ENGINE)
    engine.Engine = object  # type: ignore[attr-defined]
    sys.modules[ENGINE] = engine
    from deploy.drill.stub import StubScorer

    replace("workers.scoring:Scorer", lambda scorer: StubScorer)


def arm() -> None:
    """Failpoints and mutants, as the environment asks for them."""
    from deploy.drill.failpoints import arm_from_environment as arm_failpoints

    arm_failpoints()
    if os.environ.get("NIGHTREAD_DRILL_MUTANT"):
        from deploy.drill.mutants import arm_from_environment as arm_mutants

        arm_mutants()


if __name__ in ("__main__", "__mp_main__"):
    prepare()

if __name__ == "__main__":
    from producer.cli import main

    main()
