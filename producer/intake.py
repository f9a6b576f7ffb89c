"""A folder's files: found, read once, hashed, recognised by content. Nothing is left out in silence."""

import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from db.errors import RootUnavailable, UnreadableImage
from db.files import open_in_folder
from db.store.intake import FoundFile
from db.words import Reason
from producer.manifest import Manifest
from workers import images

BLOCK = images.HEADER_BYTES  # bytes read at once
READERS = 4  # threads: reading from network storage waits more than it works
SLICE = 64  # files that one thread takes at once
OWN_COLUMNS = {"patient_id", "study_uid", "age_years"}  # of the scan's row; the other tags are kept together
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Slice:
    """Names of one folder, not folders themselves. `descriptor` is the open folder; who reads the slice closes it.
    `prefix` is the folder's path below the root, with its slash."""

    descriptor: int
    prefix: str
    names: list[str]


def find_files(root: Path, *, max_bytes: int, manifest: Manifest) -> Iterator[FoundFile]:
    """Every file below `root`, folder by folder in order of name, with its hash and what its content is; then what
    the manifest names and the folder lacks. Raises RootUnavailable when the root cannot be listed."""
    missing = set(manifest.paths())
    own = os.path.relpath(manifest.file, root) if manifest.file else None  # the manifest itself is no scan
    for found in _examined(root, max_bytes):
        if found.path != own:
            missing.discard(found.path)
            yield manifest.link(found)
    for path in sorted(missing):
        yield manifest.link(FoundFile(path, 0, None, Reason.MISSING, "named by the manifest, not in the folder"))


def _examined(root: Path, max_bytes: int) -> Iterator[FoundFile]:
    """Walk in this thread, read in others; what is found keeps its order."""
    running: deque[Future[list[FoundFile]]] = deque()
    with ThreadPoolExecutor(READERS, "read") as threads:
        for part in walk(root):
            if isinstance(part, FoundFile):
                yield part
                continue
            running.append(threads.submit(examine, part, max_bytes))
            if len(running) > 2 * READERS:
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()


def walk(root: Path) -> Iterator[Slice | FoundFile]:
    """The tree below `root` in slices; a folder that cannot be listed is a finding of its own. Links are not
    followed: each is read, and rejected, like a file. Raises RootUnavailable."""
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RootUnavailable(f"{root} cannot be listed ({error.strerror}): check the path") from error
    yield from _walk(descriptor, "")


def examine(part: Slice, max_bytes: int) -> list[FoundFile]:
    """Read each file of a slice once."""
    try:
        return [_examine(part.descriptor, part.prefix + name, name, max_bytes) for name in part.names]
    finally:
        os.close(part.descriptor)


def _walk(descriptor: int, prefix: str) -> Iterator[Slice | FoundFile]:
    try:
        with os.scandir(descriptor) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        files = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        for start in range(0, len(files), SLICE):
            yield Slice(os.dup(descriptor), prefix, files[start : start + SLICE])
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _enter(descriptor, prefix, entry.name)
            elif not entry.is_file(follow_symlinks=False):
                yield _not_opened(prefix, entry)
    finally:
        os.close(descriptor)


def _enter(descriptor: int, prefix: str, name: str) -> Iterator[Slice | FoundFile]:
    try:
        below = os.open(name, _FOLDER, dir_fd=descriptor)
    except OSError as error:
        why = f"a folder that cannot be listed ({error.strerror}): nothing in it was read"
        yield FoundFile(prefix + name, 0, None, Reason.NO_PERMISSION, why)
        return
    yield from _walk(below, f"{prefix}{name}/")


def _not_opened(prefix: str, entry: "os.DirEntry[str]") -> FoundFile:
    if entry.is_symlink():
        return FoundFile(prefix + entry.name, 0, None, Reason.OUTSIDE_ROOT, "a symbolic link: submit what it points to")
    return FoundFile(prefix + entry.name, 0, None, Reason.NOT_A_FILE, "a device, pipe or socket")


def _examine(folder: int, path: str, name: str, max_bytes: int) -> FoundFile:
    try:
        descriptor = open_in_folder(name, folder)
    except UnreadableImage as error:
        return FoundFile(path, 0, None, error.code, error.detail)
    try:
        return _read(path, descriptor, max_bytes)
    except OSError as error:
        return FoundFile(path, 0, None, Reason.UNREADABLE, f"reading it fails: {error.strerror}")
    finally:
        os.close(descriptor)


def _read(path: str, descriptor: int, max_bytes: int) -> FoundFile:
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        return FoundFile(path, 0, None, Reason.NOT_A_FILE, "swapped for something else while it was looked at")
    size = about.st_size
    if size > max_bytes:
        return FoundFile(path, size, None, Reason.TOO_LARGE, f"{size:,} bytes; the limit is {max_bytes:,}")
    block = beginning = os.read(descriptor, min(BLOCK, size + 1))
    digest, read = hashlib.sha256(), 0
    while block:
        digest.update(block)
        read += len(block)
        block = os.read(descriptor, min(BLOCK, max(size + 1 - read, 1)))
    return _recognised(FoundFile(path, read, digest.hexdigest()), beginning)


def _recognised(found: FoundFile, beginning: bytes) -> FoundFile:
    if not beginning:
        return replace(found, reason=Reason.EMPTY, detail="no bytes")
    reader = images.reader_for(beginning[: images.SIGNATURE_BYTES])
    if reader is None:
        detail = f"not PNG, JPEG, TIFF, BMP, WebP or DICOM (starts with {beginning[:5].hex(' ')})"
        return replace(found, reason=Reason.NOT_AN_IMAGE, detail=detail)
    if reader.name != "dicom":
        return found
    try:
        tags = images.tags(beginning[: images.HEADER_BYTES])
    except UnreadableImage as error:
        return replace(found, reason=error.code, detail=error.detail)
    kept = {name: value for name, value in asdict(tags).items() if value is not None and name not in OWN_COLUMNS}
    return replace(found, patient=tags.patient_id, study=tags.study_uid, age=tags.age_years, tags=kept)
