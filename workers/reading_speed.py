"""How fast files can be read where they lie: past this machine's memory of them, as far as the system allows."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from db.errors import RootUnavailable, UnreadableImage
from db.files import open_beneath
from db.store.scoring import WaitingScan

_BLOCK = 2**20


@dataclass(frozen=True)
class Reading:
    """What was read: files, their bytes, and the seconds it took."""

    files: int
    bytes: int
    seconds: float


def read_for(seconds: float, scans: Sequence[WaitingScan], *, at_once: int) -> Reading:
    """Read these scans' files again and again for about `seconds`, at least `at_once` of them, `at_once` at a time."""
    started = time.perf_counter()
    sizes: list[int] = []
    turns, lock = cycle(scans), threading.Lock()

    def read_on() -> None:
        while True:
            with lock:
                scan = next(turns)
            with suppress(UnreadableImage, RootUnavailable, OSError):
                sizes.append(_read(scan))
            if time.perf_counter() - started >= seconds:
                return

    with ThreadPoolExecutor(at_once, "read") as readers:
        for reader in [readers.submit(read_on) for _ in range(at_once)]:
            reader.result()
    return Reading(len(sizes), sum(sizes), time.perf_counter() - started)


def _read(scan: WaitingScan) -> int:
    """The bytes of a file, which the system was asked to forget first."""
    file = open_beneath(Path(scan.root), scan.path)
    try:
        with suppress(OSError):
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        return sum(_blocks(file))
    finally:
        os.close(file)


def _blocks(file: int) -> Iterator[int]:
    while block := os.read(file, _BLOCK):
        yield len(block)
