"""What a tree of processes uses: processor time and memory, read from /proc."""

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")
EVERY_SECONDS = 0.5


def below(ancestor: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _fields(int(folder.name))):
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found, left = [], [ancestor]
    while left:
        found.append(left.pop())
        left += parents.get(found[-1], [])
    return found


def named(*words: str) -> list[int]:
    """This process's descendants whose command line has all the words, outermost only."""
    mine = [pid for pid in below(os.getpid()) if pid != os.getpid() and all(word in command(pid) for word in words)]
    inner = {pid for one in mine for pid in below(one) if pid != one}
    return [pid for pid in mine if pid not in inner]


def core_seconds(ancestors: list[int]) -> float:
    """Processor time of trees so far, with that of children that ended."""
    return sum(sum(ticks_below(ancestor).values()) for ancestor in ancestors) / TICKS


class Memory:
    """The most memory that trees used while a block lasts, shared pages counted once: `peak`, in bytes."""

    def __init__(self, ancestors: list[int]) -> None:
        self.peak = 0
        self._ancestors = ancestors
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            self.peak = max(self.peak, sum(_proportional(pid) for one in self._ancestors for pid in below(one)))


class Others:
    """How much of the machine was used by what is neither this process nor below it, since it was made: whoever shares
    the machine falsifies what is measured, and a worker, which gives way, suffers first."""

    def __init__(self) -> None:
        self._started, self._busy, self._ours = time.monotonic(), _busy_seconds(), ticks_below()

    def share(self) -> float:
        """Of all cores, 0 to 1."""
        now = ticks_below()
        ours = sum(max(0, ticks - self._ours.get(pid, 0)) for pid, ticks in now.items()) / TICKS
        others = _busy_seconds() - self._busy - ours
        return max(0.0, others / (time.monotonic() - self._started) / (os.cpu_count() or 1))


def ticks_below(ancestor: int = 0) -> dict[int, int]:
    """Processor time of each process of a tree, with that of its children that ended; of this process's where none is
    named."""
    return {pid: own + ended for pid, (own, ended) in times_below(ancestor).items()}


def times_below(ancestor: int = 0) -> dict[int, tuple[int, int]]:
    """The same apart: ticks of each process, and of its children that ended."""
    found = {pid: _fields(pid) for pid in below(ancestor or os.getpid())}
    return {
        pid: (sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))) for pid, fields in found.items() if fields
    }


def _busy_seconds() -> float:
    """Processor time of everything on this machine, and what the hypervisor took away."""
    fields = [int(value) for value in Path("/proc/stat").read_text("utf-8").splitlines()[0].split()[1:9]]
    user, nice, system, _, _, hard, soft, stolen = fields
    return (user + nice + system + hard + soft + stolen) / TICKS


def _fields(pid: int) -> list[str]:
    """From the state on, so that [1] is the parent and [11:15] are the ticks of itself and of children that ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return []


def command(pid: int) -> str:
    """What a process was started with; "" where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").replace("\0", " ")
    except OSError:
        return ""


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
