"""Run files through intake and a real decoder, one after the other, and keep the account."""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from corpus import Draw, File, Kind
from db.errors import UnreadableImage
from db.settings import Settings
from db.store.intake import FoundFile
from db.words import Reason
from producer.intake import find_files
from producer.manifest import Manifest
from workers.decoding import DecoderPool, Source
from workers.provisions import limits

SIZE = 64


def pool(config: Settings | None = None) -> DecoderPool:
    """One decoder as the default settings have it."""
    config = config or Settings(home=Path("/nonexistent"))
    memory = config.decode_memory_mb * 1_000_000
    return DecoderPool(1, limits(config), memory_bytes=memory, seconds=config.decode_seconds)


def decoders_of(parent: int) -> set[int]:
    """Process ids of the decoders that a process has."""
    found = set()
    for name in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        with contextlib.suppress(OSError):
            if b"workers.decoder\0" in Path(f"/proc/{name}/cmdline").read_bytes():
                found.add(int(name))
    for task in Path(f"/proc/{parent}/task").iterdir():
        with contextlib.suppress(OSError):
            found |= {int(n) for n in (task / "children").read_text().split() if _is_decoder(n)}
    return found


def _is_decoder(process: str) -> bool:
    try:
        return b"workers.decoder\0" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def peak_mb(process: int) -> float:
    """The most memory that a process had in use, in MB; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


@dataclass
class Account:
    """What became of the files of a kind."""

    about: str
    files: int = 0
    codes: Counter = field(default_factory=Counter)
    silent: int = 0  # damaged, scored, and of a format that shows no damage
    hidden: int = 0  # damaged, of a format that shows no damage
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Run:
    """A run's accounts by kind, and what it cost the decoders."""

    kinds: dict[str, Account] = field(default_factory=dict)
    deaths: int = 0
    peak_mb: float = 0.0
    seconds: float = 0.0

    @property
    def files(self) -> int:
        return sum(account.files for account in self.kinds.values())

    @property
    def wrong(self) -> list[str]:
        return [line for account in self.kinds.values() for line in account.wrong]


class Runner:
    """Files of many kinds against one decoder."""

    def __init__(self, decoders: DecoderPool, folder: Path) -> None:
        self._decoders, self._folder, self.run = decoders, folder, Run()
        self._others = decoders_of(os.getpid())
        self._process = 0

    def work(self, files: list[tuple[Kind, int, File]]) -> None:
        """Put the files into an empty folder, find them, decode what intake lets through, account, clear away."""
        started = time.monotonic()
        names = {
            f"{number:05}-{seed}-{kind.name}": (kind, seed, file) for number, (kind, seed, file) in enumerate(files)
        }
        for name, (_, _, file) in names.items():
            (self._folder / name).write_bytes(file.data)
        for found in find_files(self._folder, max_bytes=self._decoders.limits.max_bytes, manifest=Manifest()):
            self._account(found, *names.pop(found.path))
        for kind, seed, _ in names.values():
            self._kind(kind).wrong.append(f"{kind.name} {seed}: not found")
        for path in self._folder.iterdir():
            path.unlink()
        self.run.seconds += time.monotonic() - started

    def _kind(self, kind: Kind) -> Account:
        return self.run.kinds.setdefault(kind.name, Account(kind.about))

    def _account(self, found: FoundFile, kind: Kind, seed: int, file: File) -> None:
        account, started = self._kind(kind), time.monotonic()
        reason, levels = (found.reason, None) if found.reason else self._outcome(found, file)
        account.slowest = max(account.slowest, time.monotonic() - started)
        account.files += 1
        account.codes[reason or "scored"] += 1
        account.hidden += file.silent
        account.silent += file.silent and reason is None
        if not file.allows(reason):
            account.wrong.append(f"{kind.name} {seed}: {reason or 'scored'}, not {file.reason or 'scored'}")
        elif levels is not None and not file.shows(levels):
            account.wrong.append(f"{kind.name} {seed}: other grey levels")
        self._watch()

    def _outcome(self, found: FoundFile, file: File) -> tuple[Reason | None, np.ndarray | None]:
        source = Source(str(self._folder), found.path, found.sha256 or "")
        try:
            display = self._decoders.prepare(source, SIZE).evidence.display
            return None, None if file.levels is None else shown(self._decoders.review_copy(source), display)
        except UnreadableImage as error:
            return error.code, None

    def _watch(self) -> None:
        """Whether the decoder that worked last is still there, and its greatest need of memory."""
        peak = peak_mb(self._process) if self._process else 0.0
        if not peak:
            now = decoders_of(os.getpid()) - self._others
            if not now:
                return  # none was needed yet, or the last one was ended
            self.run.deaths += bool(self._process)
            (self._process,) = now
            peak = peak_mb(self._process)
        self.run.peak_mb = max(self.run.peak_mb, peak)


def shown(copy: bytes, display: dict[str, Any] | None) -> np.ndarray:
    """The grey levels of a review copy as a viewer shows it at first, or as they are where no header wants a window."""
    assert display is not None
    samples = cv2.imdecode(np.frombuffer(copy, np.uint8), cv2.IMREAD_UNCHANGED).astype(float)
    low, high = display["low"], display["high"]
    if not display["windows"]:  # all of the bits that are used, but for burned-in letters
        low, high = 0, 2 ** int(high).bit_length() - 1
    return np.rint(np.clip((samples - low) / (high - low), 0, 1) * 255)


def drawn(kinds: list[Kind], files: int, first_seed: int) -> Iterator[list[tuple[Kind, int, File]]]:
    """About that many files, the kinds in turn, a hundred at a time."""
    some: list[tuple[Kind, int, File]] = []
    turns = (kind for turn in count() for kind in kinds if turn % kind.one_in == 0)
    for seed, kind in zip(range(first_seed, first_seed + files), turns, strict=False):
        some.append((kind, seed, kind.make(Draw(seed))))
        if len(some) == 100:
            yield some
            some = []
    if some:
        yield some
