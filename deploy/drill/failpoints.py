"""Faults at named steps of the protocol, from outside the product: a process of a drill arms one and meets it.

A point is the beginning or the end of a named function, or the commit inside it: everything was sent to the database,
and nothing counts yet. The product holds no hook for any of this."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import event
from sqlalchemy.orm import Session

from deploy.drill.patches import replace

FAIL = "NIGHTREAD_DRILL_FAIL"  # what to arm: name:action[:nth], several with commas between
MARKS = "NIGHTREAD_DRILL_MARKS"  # a folder: each fault happens once a folder, however often its process starts again

When = Literal["before", "commit", "after"]
Step = Callable[[], None]


class Fault(Exception):
    """What the action `raise` raises: nothing that the product knows how to name."""


@dataclass(frozen=True)
class Point:
    """One step: `target` as patches.replace reads it; `process` is the kind of process that comes by."""

    target: str
    when: When
    process: Literal["producer", "worker", "sweep", "operator"]


_PRODUCER = {
    "intake.read": ("producer.intake:examine", "before after"),
    "intake.page": ("db.store.intake:add_page", "before commit after"),
    "intake.seal": ("db.store.intake:seal", "before commit after"),
}
_WORKER = {
    "claim": ("db.store.scoring:claim_chunk", "before commit after"),
    "load": ("workers.shift:Shift.model", "before"),
    "prepare": ("workers.tasks:prepare", "before after"),
    "decode": ("workers.preparing:answered", "before after"),
    "predict": ("workers.tasks:predict", "before after"),
    "keep": ("workers.derived:keep", "before after"),
    "picture": ("workers.derived:_write", "before after"),
    "renew": ("db.store.scoring:renew", "before commit after"),
    "complete": ("db.store.scoring:complete_chunk", "before commit after"),  # after: committed, not acknowledged
    "golden": ("workers.golden:check", "before after"),
    "work": ("workers.tasks:work", "before after"),  # after: the whole ring's work is done, and not acknowledged
    "beat": ("db.store.heartbeats:beat", "before commit after"),
}
_SWEEP = {
    "sweep": ("db.store.recovery:free_expired", "before commit after"),
    "ring": ("workers.queue:ring", "before after"),
}
_OPERATOR = {
    "retry": ("db.store.recovery:retry_failed", "before commit after"),
    "head": ("db.store.audit:_keep_head", "before after"),  # the record is committed, its head not noted yet
}

POINTS: dict[str, Point] = {
    f"{name}.{when}": Point(target, when, process)  # type: ignore[arg-type]
    for process, steps in (
        ("producer", _PRODUCER),
        ("worker", _WORKER),
        ("sweep", _SWEEP),
        ("operator", _OPERATOR),
    )
    for name, (target, whens) in steps.items()
    for when in whens.split()
}


def arm(spec: str, *, marks: Path | None = None) -> None:
    """Arm what `spec` names: `name:action[:nth]`, by commas. The fault happens once: at the nth time that this
    process comes by (1 by default) and, where there is a folder of `marks`, if no process left the fault's mark yet.
    Raises ValueError for a point or an action that does not exist, LookupError for a point that the product lost."""
    for one in filter(None, spec.split(",")):
        name, action, nth = [*one.split(":"), "1"][:3]
        if name not in POINTS or action not in ACTIONS:
            raise ValueError(f"{one!r}: no such failpoint or action (deploy.drill.failpoints.POINTS and ACTIONS)")
        _install(POINTS[name], _Armed(name, action, int(nth), marks))


def arm_from_environment() -> None:
    """Arm what the environment asks for; nothing where it does not."""
    folder = os.environ.get(MARKS)
    arm(os.environ.get(FAIL, ""), marks=Path(folder) if folder else None)


def watch() -> Counter[str]:
    """Count, from now on, how often this process comes by each point; nothing fails."""
    reached: Counter[str] = Counter()
    for name, point in POINTS.items():
        _install(point, lambda name=name: reached.update([name]))  # type: ignore[misc]
    return reached


@dataclass
class _Armed:
    """A fault that waits for its moment."""

    name: str
    action: str
    nth: int
    marks: Path | None
    _passed: "count[int]" = field(default_factory=lambda: count(1))  # its next() is atomic: threads come by

    def __call__(self) -> None:
        if next(self._passed) == self.nth and self._is_first():
            ACTIONS[self.action](self._mark())

    def _mark(self) -> Path | None:
        return self.marks / f"{self.name}.{self.action}" if self.marks else None

    def _is_first(self) -> bool:
        mark = self._mark()
        if mark is None:
            return True
        try:
            with mark.open("x") as out:
                out.write(f"{os.getpid()}\n")
        except FileExistsError:
            return False
        return True


def _kill(mark: Path | None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise(mark: Path | None) -> None:
    raise Fault("a drill's fault")


def _hang(mark: Path | None) -> None:
    """Stand still in this thread; go on once a file beside the mark, named `.wake`, says so."""
    while mark is None or not mark.with_name(f"{mark.name}.wake").exists():
        time.sleep(0.02)


ACTIONS: dict[str, Callable[[Path | None], None]] = {"kill": _kill, "raise": _raise, "hang": _hang}


def _install(point: Point, step: Step) -> None:
    if point.when == "commit":
        _at_commit(point.target, step)
    else:
        replace(point.target, lambda original: _beside(original, point.when, step))


def _beside(original: Callable[..., Any], when: When, step: Step) -> Callable[..., Any]:
    @wraps(original)
    def stepped(*arguments: Any, **named: Any) -> Any:
        if when == "before":
            step()
        result = original(*arguments, **named)
        if when == "after":
            step()
        return result

    return stepped


def _at_commit(target: str, step: Step) -> None:
    """Run `step` between the last statement of a transaction inside `target` and its COMMIT, in the same thread."""
    inside = threading.local()

    def within(original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def entered(*arguments: Any, **named: Any) -> Any:
            inside.depth = getattr(inside, "depth", 0) + 1
            try:
                return original(*arguments, **named)
            finally:
                inside.depth -= 1

        return entered

    def before_commit(session: Session) -> None:
        if getattr(inside, "depth", 0):
            session.flush()
            step()

    replace(target, within)
    event.listen(Session, "before_commit", before_commit)
