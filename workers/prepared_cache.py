"""The prepared cache: what decoding made of a scan, kept by its content, so that it is scored again at engine speed.

Off unless PREPARED_CACHE names a folder. One small file a scan (S * S bytes of pixels and some 300 of evidence) lies in
EYES/ab/ab12...: EYES is everything else that decides the pixels (`Eyes`), the rest the sha256 of the file's content as
it was submitted. It is patients' pictures. What is damaged is never trusted: it is decoded anew and written again.
"""

import hashlib
import json
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.metadata import Distribution, version
from pathlib import Path
from typing import Any

import numpy as np

from db.errors import Refused
from db.settings import Settings
from workers.decoding import Prepared, evidence_of
from workers.images import Limits
from workers.preprocessing import Pixels
from workers.trained_models import Preprocessing

log = logging.getLogger(__name__)

MAGIC = b"nightread prepared 1\n"
LEAST_FREE_BYTES = 4_000_000_000  # left on its disk: the database and the readers' pictures may lie there, too
_LENGTH, _CHECKSUM = 4, 32
_MOST_HEADER = 2**18
# Distributions that decode or resize: a change of any may change pixels.
_READ_WITH = (
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pillow",
    "pydicom",
    "pyjpegls",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "python-gdcm",
    "simplejpeg",
)
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Eyes:
    """All that decides the pixels besides the file's content: `size` is S, the model's input; `reduce` names the codecs
    that are read at a reduced size."""

    size: int
    preprocessing: Preprocessing
    reduce: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """32 hexadecimal digits; others after an upgrade of nightread or of a codec, which may change pixels."""
        return hashlib.sha256(json.dumps([asdict(self), _made_by()], sort_keys=True).encode()).hexdigest()[:32]


@cache
def _made_by() -> dict[str, str]:
    """What the pixels come out of, each with its version."""
    return {name: version(name) for name in ("nightread", *_READ_WITH) if _is_installed(name)}


def _is_installed(name: str) -> bool:
    return next(iter(Distribution.discover(name=name)), None) is not None


@dataclass(frozen=True)
class Kept:
    """What lies in a cache: files and their bytes."""

    files: int
    bytes: int


class PreparedCache:
    """A folder of prepared scans that only this user may enter. Thread-safe; any number of processes may share it."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        """Make the folder. Raises Refused where it cannot be made or is not private to this user."""
        self.folder = folder
        self._limits = limits
        self._has_complained = False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"the prepared cache {folder} cannot be had ({error.strerror}): PREPARED_CACHE") from error
        require_private(folder)

    def find(self, eyes: Eyes, sha256: str | None) -> Prepared | None:
        """What decoding made of this content; None where it is not here, is damaged, or is no longer allowed."""
        started = time.perf_counter()
        if sha256 is None or not _is_digest(sha256):
            return None
        try:
            head, pixels = _parsed(self._file(eyes, sha256).read_bytes(), eyes, sha256)
            evidence = evidence_of(head["evidence"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if evidence.height * evidence.width > self._limits.max_pixels:  # the settings became narrower meanwhile
            return None
        if min(evidence.height, evidence.width) < self._limits.min_side:
            return None
        return Prepared(pixels, evidence, time.perf_counter() - started)

    def has(self, eyes: Eyes, sha256: str | None) -> bool:
        """Whether there is a file for this content, good or not."""
        return sha256 is not None and _is_digest(sha256) and self._file(eyes, sha256).exists()

    def keep(self, eyes: Eyes, sha256: str | None, prepared: Prepared) -> None:
        """Write a prepared scan, whole or not at all. Never fails a scan: a full disk is told once, in the log."""
        if sha256 is None or not _is_digest(sha256):
            return
        try:
            if self.is_short_of_room():
                self._complain(f"less than {LEAST_FREE_BYTES / 1e9:g} GB would be left")
                return
            _write(self._file(eyes, sha256), _packed(eyes, sha256, prepared))
        except OSError as error:
            self._complain(error.strerror or "unknown error")

    def kept(self) -> Kept:
        """Count what lies here."""
        sizes = [size for _, size, _ in self._listed()]
        return Kept(len(sizes), sum(sizes))

    def clear(self, *, older_than: float = 0.0) -> Kept:
        """Remove what was written more than `older_than` seconds ago, drafts left behind included; what that was."""
        until, gone = time.time() - older_than, [0, 0]
        for path, size, at in self._listed():
            if at <= until:
                path.unlink(missing_ok=True)
                gone = [gone[0] + 1, gone[1] + size]
        for folder in sorted((path for path in self.folder.glob("*/*") if path.is_dir()), reverse=True):
            with suppress(OSError):  # not empty
                folder.rmdir()
                folder.parent.rmdir()
        return Kept(*gone)

    def _listed(self) -> Iterator[tuple[Path, int, float]]:
        """Every file: its path, bytes and when it was written."""
        for path in self.folder.glob("*/*/*"):
            with suppress(FileNotFoundError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    yield path, found.st_size, found.st_mtime

    def _file(self, eyes: Eyes, sha256: str) -> Path:
        return self.folder / eyes.key / sha256[:2] / sha256

    def is_short_of_room(self) -> bool:
        """Whether its disk has so little left that nothing more is kept. Raises OSError."""
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize < LEAST_FREE_BYTES

    def _complain(self, why: str) -> None:
        if not self._has_complained:
            log.error("scans are scored, but not kept in the prepared cache: %s", why)
        self._has_complained = True


def require_private(folder: Path) -> None:
    """Raises Refused where others may enter a cache's folder: who can write there decides what the model sees."""
    try:
        found = folder.stat()
    except OSError as error:
        raise Refused(f"the prepared cache {folder} cannot be had ({error.strerror}): PREPARED_CACHE") from error
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise Refused(f"the prepared cache {folder} is not private to this user: make it yours and `chmod 700` it")


def opened(config: Settings, limits: Limits) -> PreparedCache | None:
    """The cache that the settings name; None where they name none, or it cannot be used: scoring goes on without."""
    if config.prepared is None:
        return None
    try:
        return PreparedCache(config.prepared, limits)
    except Refused as error:
        log.error("no prepared cache: %s", error)
        return None


def _packed(eyes: Eyes, sha256: str, prepared: Prepared) -> bytes:
    said = {"eyes": eyes.key, "sha256": sha256, "evidence": vars(prepared.evidence)}
    head = json.dumps(said).encode()
    content = MAGIC + len(head).to_bytes(_LENGTH, "little") + head + prepared.pixels.tobytes()
    return content + hashlib.sha256(content).digest()


def _parsed(data: bytes, eyes: Eyes, sha256: str) -> tuple[dict[str, Any], Pixels]:
    """Header and pixels of a file. Raises ValueError, KeyError and TypeError where it is damaged, or another's."""
    content = memoryview(data)[:-_CHECKSUM]
    start = len(MAGIC) + _LENGTH
    if not data.startswith(MAGIC) or hashlib.sha256(content).digest() != data[-_CHECKSUM:]:
        raise ValueError("damaged")
    end = start + int.from_bytes(data[len(MAGIC) : start], "little")
    if end - start > _MOST_HEADER or len(content) - end != eyes.size**2:
        raise ValueError("of another shape")
    head: dict[str, Any] = json.loads(data[start:end])
    if (head["eyes"], head["sha256"]) != (eyes.key, sha256):
        raise ValueError("another scan's")
    return head, np.frombuffer(content[end:], np.uint8).reshape(eyes.size, eyes.size)


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        file = _create(draft)
    except FileNotFoundError:
        for folder in (path.parents[1], path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        file = _create(draft)
    try:
        with os.fdopen(file, "wb") as out:
            out.write(content)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _create(draft: Path) -> int:
    return os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= _HEX
