"""Which process is what, read from /proc (Linux): the drill looks from outside and asks no part."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy.drill.parts import House


def of(house: "House", kind: str) -> list[int]:
    """The processes of a kind that run now: worker (Celery's parent), child (the one that scores), decoder, sweep,
    producer, or any part's name."""
    if kind in ("child", "decoder"):
        parents = [pid for name in house.worker_names if (pid := house.supervisor.pid(name))]
        children = [child for parent in parents for child in _children(parent) if b"spawn_main" in _command(child)]
        if kind == "child":
            return children
        return [pid for child in children for pid in _children(child) if b"workers.decoder" in _command(pid)]
    if kind == "producer":
        return [pid for name in house.errands if (pid := house.supervisor.pid(name))]
    names = {"worker": house.worker_names, "sweep": [f"sweep-{number}" for number in (1, 2)]}.get(kind, [kind])
    return [pid for name in names if (pid := house.supervisor.pid(name))]


def descendants(pid: int) -> list[int]:
    """Every process below this one."""
    return [below for child in _children(pid) for below in (child, *descendants(child))]


def _children(parent: int) -> list[int]:
    found: list[int] = []
    for folder in Path(f"/proc/{parent}/task").glob("*/children"):
        try:
            found += map(int, folder.read_text().split())
        except OSError:
            continue
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
