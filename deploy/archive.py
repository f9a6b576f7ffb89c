"""The file that a backup is: a plain tar (any `tar` reads it) with a manifest as its last member and a seal after it.

Reading trusts nothing of it: the seal covers every byte, the manifest names every part with its size and SHA-256, and a
part is a plain file below the folder or nothing is unpacked."""

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from db.errors import Refused

MANIFEST = "nightread-backup.json"
MANIFEST_BYTES = 1 << 30  # far more than a night of a million scans needs
SEAL = b"nightread-backup sha256 "  # then the digest of everything before, in hex, and a line feed
SEAL_BYTES = len(SEAL) + 65
BLOCK = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Part:
    """One file of a backup; `name` is its path below the home folder."""

    name: str
    size: int
    sha256: str


@dataclass
class Writer:
    """Takes parts; `finish` writes manifest and seal and gives the digest of the whole file, as `sha256sum` does."""

    out: IO[bytes]
    parts: list[Part] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()
        sink: Any = self  # all that tarfile asks of it is `write`
        self._tar = tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115 (finish closes it)

    def write(self, block: bytes) -> int:
        """What tarfile calls."""
        self._digest.update(block)
        return self.out.write(block)

    def add(self, name: str, content: IO[bytes]) -> None:
        """Copy an open file, as long as it is now."""
        size = os.fstat(content.fileno()).st_size
        reading: Any = _Hashed(content)
        self._tar.addfile(_member(name, size), reading)
        self.parts.append(Part(name, size, reading.digest.hexdigest()))

    def finish(self, facts: dict[str, Any]) -> str:
        """End the file with its manifest: `facts` and the parts."""
        parts = [vars(part) for part in self.parts]
        said = json.dumps({**facts, "parts": parts}, indent=1).encode()
        self._tar.addfile(_member(MANIFEST, len(said)), io.BytesIO(said))
        self._tar.close()
        seal = SEAL + self._digest.hexdigest().encode() + b"\n"
        self.write(seal)
        self.out.flush()
        os.fsync(self.out.fileno())
        return self._digest.hexdigest()


def is_archive(path: Path) -> bool:
    """Whether a file ends as a backup does."""
    try:
        with path.open("rb") as file:
            file.seek(-SEAL_BYTES, os.SEEK_END)
            return file.read(len(SEAL)) == SEAL
    except OSError:
        return False


def check(path: Path) -> str:
    """Read the whole file against its seal; its digest, as `sha256sum` gives it. Raises Refused."""
    digest = hashlib.sha256()
    with _readable(path) as file:
        left = os.fstat(file.fileno()).st_size - SEAL_BYTES
        while left > 0 and (block := file.read(min(BLOCK, left))):
            digest.update(block)
            left -= len(block)
        seal = file.read()
    if seal != SEAL + digest.hexdigest().encode() + b"\n":
        raise Refused(f"{path} is not a whole backup: it was cut short or altered since it was written")
    digest.update(seal)
    return digest.hexdigest()


def unpack(path: Path, folder: Path) -> dict[str, Any]:
    """Write every part below `folder`, which is empty and ours alone, and compare it with the manifest, which is given
    back. Raises Refused; what was written by then stays for the caller to remove."""
    written: dict[str, Part] = {}
    manifest: dict[str, Any] | None = None
    try:
        with _readable(path) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                name = _plain(member)
                if manifest is not None or name in written:
                    raise Refused(f"{path}: {name!r} comes twice, or after the manifest")
                content = tar.extractfile(member)
                if content is None:
                    raise Refused(f"{path}: {name!r} has no content")
                if name == MANIFEST:
                    manifest = _manifest(content, member.size)
                else:
                    written[name] = _write(folder, name, content)
        named = None if manifest is None else {part["name"]: Part(**part) for part in manifest["parts"]}
    except (tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path} is not a backup: {error}") from error
    if manifest is None or named != written:
        raise Refused(f"{path}: its parts are not those of its manifest")
    return manifest


class _Hashed:
    """A file that hashes what is read of it."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content, self.digest = content, hashlib.sha256()

    def read(self, size: int) -> bytes:
        block = self._content.read(size)
        self.digest.update(block)
        return block


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(time.time())
    return member


def _plain(member: tarfile.TarInfo) -> str:
    """The member's name, where it is a plain file below the folder. Raises Refused."""
    names = member.name.split("/")
    is_below = not any(name in ("", ".", "..") or "\0" in name for name in names)
    if not (member.type == tarfile.REGTYPE and not member.issparse() and is_below):
        raise Refused(f"this is no backup of nightread's: {member.name!r} is not a plain file below the home folder")
    return member.name


def _manifest(content: IO[bytes], size: int) -> dict[str, Any]:
    if size > MANIFEST_BYTES:
        raise ValueError("its manifest is too large")
    manifest = json.loads(content.read())
    if not isinstance(manifest, dict) or not isinstance(manifest["parts"], list):
        raise ValueError("its manifest is none")
    return manifest


def _write(folder: Path, name: str, content: IO[bytes]) -> Part:
    path = folder / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with os.fdopen(os.open(path, _NEW, 0o600), "wb") as out:
        while block := content.read(BLOCK):
            digest.update(block)
            size += len(block)
            out.write(block)
    return Part(name, size, digest.hexdigest())


@contextmanager
def _readable(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise Refused(f"{path}: {error.strerror or error}") from error
