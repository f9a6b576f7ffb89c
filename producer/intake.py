"""A folder's files: found, read once, hashed, recognised by content. Nothing is left out in silence."""

import errno
import hashlib
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from db.errors import RootUnavailable, UnreadableImage
from db.files import open_in_folder
from db.store.intake import FoundFile
from db.words import Reason
from producer.manifest import Manifest
from workers import images

BLOCK = images.HEADER_BYTES  # bytes read at once
READERS = 4  # threads: reading from network storage waits more than it works
LONG = 256_000  # bytes: a file whose hash takes longer than the rest of what is done with it
SLICE, SLICE_BYTES = 64, 64_000_000  # files that are read at once, and about how much
FIRST_SLICE = 4  # of a folder: its time tells early whether storage is slow, and how long its files are
OWN_COLUMNS = {"patient_id", "study_uid", "age_years"}  # of the scan's row; the other tags are kept together
DEEPEST = 200  # folders in folders; each holds a descriptor while it is walked
# What is this folder's own; any other error is the storage's.
_FOLDER_REASONS = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), Reason.NO_PERMISSION),
    **dict.fromkeys((errno.ELOOP, errno.ENOTDIR), Reason.OUTSIDE_ROOT),  # swapped for a link while it was looked at
    errno.ENOENT: Reason.MISSING,
}
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
    if manifest.file is None:
        yield from _examined(root, max_bytes)
        return
    missing = set(manifest.paths())
    own = os.path.relpath(manifest.file, root)  # the manifest itself is no scan
    for found in _examined(root, max_bytes):
        if found.path != own:
            missing.discard(found.path)
            yield manifest.link(found)
    for path in sorted(missing):
        yield manifest.link(FoundFile(path, 0, None, Reason.MISSING, "named by the manifest, not in the folder"))


def _examined(root: Path, max_bytes: int) -> Iterator[FoundFile]:
    """Walk in this thread, and read in it or, where that helps, in several others; what is found keeps its order."""
    running: deque[Callable[[], list[FoundFile]]] = deque()
    pace = _Pace()
    with ThreadPoolExecutor(READERS, "read") as threads:
        for part in walk(root, pace):
            if isinstance(part, FoundFile):
                yield part
                continue
            several = pace.is_slow
            reads = partial(examine, part, max_bytes)
            running.append(threads.submit(reads).result if several or running else reads)
            while len(running) > (2 * READERS if several else 0):
                yield from pace.taken(running.popleft())
        while running:
            yield from running.popleft()()


@dataclass
class _Pace:
    """How reading goes, for one of the latest files: seconds, seconds of work in this process, bytes.

    Several threads help where storage is waited for, and where files are so long that hashing them, which needs no
    interpreter lock, is most of the work. Over short files at hand they would only wait for each other's lock."""

    seconds: float = 0.0
    work: float = 0.0
    size: float = 0.0

    @property
    def is_slow(self) -> bool:
        return self.size > LONG or self.work < self.seconds / 4

    @property
    def slice(self) -> int:
        """Files in the next slice: of long ones few, so that the first are scored while the others are read."""
        return max(1, min(SLICE, int(SLICE_BYTES / max(self.size, 1))))

    def taken(self, read: Callable[[], list[FoundFile]]) -> list[FoundFile]:
        """What `read` gives, once it is there."""
        since, worked = time.perf_counter(), time.process_time()
        found = read()
        weight = len(found) / SLICE  # what a few files took may be a hiccup
        self.seconds += weight * ((time.perf_counter() - since) / len(found) - self.seconds)
        self.work += weight * ((time.process_time() - worked) / len(found) - self.work)
        self.size += (sum(one.size for one in found) / len(found) - self.size) / 2
        return found


def walk(root: Path, pace: _Pace) -> Iterator[Slice | FoundFile]:
    """The tree below `root` in slices as long as `pace` says; a folder that cannot be listed is a finding of its own.
    Links are not followed: each is read, and rejected, like a file. Raises RootUnavailable."""
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RootUnavailable(f"{root} cannot be listed ({error.strerror}): check the path") from error
    yield from _walk(descriptor, "", 0, pace)


def examine(part: Slice, max_bytes: int) -> list[FoundFile]:
    """Read each file of a slice once."""
    try:
        return [_examine(part.descriptor, part.prefix + name, name, max_bytes) for name in part.names]
    finally:
        os.close(part.descriptor)


def _walk(descriptor: int, prefix: str, depth: int, pace: _Pace) -> Iterator[Slice | FoundFile]:
    try:
        files, folders, others = _listed(descriptor, prefix)
        start, end = 0, FIRST_SLICE
        while start < len(files):
            yield Slice(os.dup(descriptor), prefix, files[start:end])
            start, end = end, end + pace.slice
        for name in folders:
            yield from _enter(descriptor, prefix, name, depth + 1, pace)
        yield from others
    finally:
        os.close(descriptor)


def _listed(descriptor: int, prefix: str) -> tuple[list[str], list[str], list[FoundFile]]:
    """A folder's files and folders by name, and what is neither."""
    try:
        with os.scandir(descriptor) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        files = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise RootUnavailable(
            f"listing {prefix or 'the root'} fails ({error.strerror}): repair it, then resume"
        ) from error
    known = {*files, *folders}
    return files, folders, [_not_opened(prefix, entry) for entry in entries if entry.name not in known]


def _enter(descriptor: int, prefix: str, name: str, depth: int, pace: _Pace) -> Iterator[Slice | FoundFile]:
    if depth > DEEPEST:
        why = f"a folder {depth} levels down: nothing in it was read"
        yield FoundFile(prefix + name, 0, None, Reason.UNREADABLE, why)
        return
    try:
        below = os.open(name, _FOLDER, dir_fd=descriptor)
    except OSError as error:
        reason = _FOLDER_REASONS.get(error.errno or 0)
        if reason is None:
            raise RootUnavailable(f"{prefix}{name} fails ({error.strerror}): repair it, then resume") from error
        why = f"a folder that cannot be listed ({error.strerror}): nothing in it was read"
        yield FoundFile(prefix + name, 0, None, reason, why)
        return
    yield from _walk(below, f"{prefix}{name}/", depth, pace)


def _not_opened(prefix: str, entry: "os.DirEntry[str]") -> FoundFile:
    if entry.is_symlink():
        return FoundFile(prefix + entry.name, 0, None, Reason.OUTSIDE_ROOT, "a symbolic link: submit what it points to")
    return FoundFile(prefix + entry.name, 0, None, Reason.NOT_A_FILE, "a device, pipe or socket")


def _examine(folder: int, path: str, name: str, max_bytes: int) -> FoundFile:
    try:
        descriptor = open_in_folder(name, folder)
    except UnreadableImage as error:
        if error.code == Reason.UNREADABLE:
            _require_answer(folder, path)
        return FoundFile(path, 0, None, error.code, error.detail)
    try:
        return _read(path, descriptor, max_bytes)
    except OSError as error:
        _require_answer(folder, path)
        return FoundFile(path, 0, None, Reason.UNREADABLE, f"reading it fails: {error.strerror}")
    finally:
        os.close(descriptor)


def _require_answer(folder: int, path: str) -> None:
    """Tell a file that cannot be read from storage that is gone: list its folder. Raises RootUnavailable."""
    try:
        with os.scandir(folder) as listing:
            next(listing, None)
    except OSError as error:
        raise RootUnavailable(f"the folder of {path} fails ({error.strerror}): repair it, then resume") from error


def _read(path: str, descriptor: int, max_bytes: int) -> FoundFile:
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        return FoundFile(path, 0, None, Reason.NOT_A_FILE, "swapped for something else while it was looked at")
    size = about.st_size
    if size > max_bytes:
        return FoundFile(path, size, None, Reason.TOO_LARGE, f"{size:,} bytes; the limit is {max_bytes:,}")
    beginning = os.read(descriptor, min(BLOCK, size + 1))
    digest, read = hashlib.sha256(beginning), len(beginning)
    # One byte more than it had shows without another read that it has not grown; one that has is read on, to its end.
    while read != size and (block := os.read(descriptor, BLOCK if read > size else min(BLOCK, size + 1 - read))):
        digest.update(block)
        if len(beginning) == read < BLOCK:  # storage that gives less than it is asked for
            beginning += block
        read += len(block)
        if read > max_bytes:
            return FoundFile(path, read, None, Reason.TOO_LARGE, f"still growing; the limit is {max_bytes:,}")
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
