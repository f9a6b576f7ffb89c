"""A batch's folder looked at again: every registered file once more, and whatever lies there that no batch knows.

The walk and the comparison are its own, apart from intake's, so that what intake overlooked shows."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from db.errors import RootUnavailable, UnreadableImage
from db.files import open_beneath
from db.store import registered
from db.store.connection import Database
from db.store.problems import Problem, Problems, What
from db.store.reading import printable
from db.store.registered import Registered
from db.words import Reason

READERS = 4  # threads: hashing needs no interpreter lock, and network storage is mostly waited for
PAGE = 1000  # names in one question
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Refound:
    """How many registered files were looked at again, and what is different from what was registered."""

    files: int
    problems: tuple[Problem, ...]


def look_again(db: Database, batch_id: int, *, progress: Callable[[int], None] = lambda count: None) -> Refound:
    """Compare a batch's folder, as it is now, with what was registered of it; a difference that the file's own
    outcome tells (missing, changed since submission) is none."""
    root, manifest = registered.folder(db, batch_id)
    problems, count = Problems(), 0
    try:
        with ThreadPoolExecutor(READERS, "certify") as threads:
            for page in registered.files(db, batch_id):
                for file, what in zip(page, threads.map(partial(compare, Path(root)), page), strict=True):
                    if what is not None:
                        problems.add(what, printable(file.path))
                count += len(page)
                progress(count)
        for path in _unknown(db, batch_id, Path(root), manifest):
            problems.add(What.CAME, printable(path))
    except RootUnavailable as error:
        problems.add(What.ROOT, str(error))
    return Refound(count, problems.found())


def compare(root: Path, file: Registered) -> What | None:
    """What is different about one registered file; None where nothing is. Raises RootUnavailable."""
    try:
        descriptor = open_beneath(root, file.path)
    except UnreadableImage as error:
        return _unopened(file, error.code)
    try:
        return _opened(file, descriptor)
    except OSError:
        return What.CLOSED
    finally:
        os.close(descriptor)


def entries(root: Path) -> Iterator[str]:
    """The path of everything below `root` that is no folder, and of folders that cannot be listed; in no order, and
    never more than one name of a folder in memory. Raises RootUnavailable."""
    stack: list[_Listing] = []
    try:
        stack.append(_Listing(os.open(root, _FOLDER & ~os.O_NOFOLLOW), ""))
        while stack:
            entry = next(stack[-1].names, None)
            if entry is None:
                stack.pop().close()
                continue
            path = stack[-1].prefix + entry.name
            below = _below(stack[-1].folder, entry) if entry.is_dir(follow_symlinks=False) else None
            if below is None:
                yield path
            else:
                stack.append(_Listing(below, f"{path}/"))
    except OSError as error:
        raise RootUnavailable(f"{root} cannot be listed ({error.strerror}): check the path") from error
    finally:
        for listing in stack:
            listing.close()


class _Listing:
    """An open folder half-way through its names."""

    def __init__(self, folder: int, prefix: str) -> None:
        self.folder, self.prefix = folder, prefix
        self.names = os.scandir(folder)

    def close(self) -> None:
        self.names.close()
        os.close(self.folder)


def _unknown(db: Database, batch_id: int, root: Path, manifest: str | None) -> Iterator[str]:
    own = None if manifest is None else os.path.relpath(manifest, root)  # the manifest itself is no scan
    names = (path for path in entries(root) if path != own)
    while page := list(islice(names, PAGE)):
        yield from registered.unregistered(db, batch_id, page)


def _below(folder: int, entry: "os.DirEntry[str]") -> int | None:
    try:
        return os.open(entry.name, _FOLDER, dir_fd=folder)
    except OSError:
        return None


def _unopened(file: Registered, code: Reason) -> What | None:
    if file.reason == Reason.MISSING:
        return None if code == Reason.MISSING else What.CAME
    if code == Reason.MISSING:
        return What.GONE
    # It was never read, or the worker saw what it became.
    is_told = file.sha256 is None or file.reason in (code, Reason.CHANGED_SINCE_SUBMISSION)
    return None if is_told else What.CLOSED


def _opened(file: Registered, descriptor: int) -> What | None:
    if file.reason == Reason.MISSING:
        return What.CAME
    size = os.fstat(descriptor).st_size
    if file.sha256 is None:  # intake could not read it, or would not
        is_told = file.reason == Reason.UNREADABLE or (file.reason == Reason.TOO_LARGE and size == file.size)
        return None if is_told else What.CHANGED
    is_same = size == file.size and _sha256(descriptor) == file.sha256
    return None if is_same or file.reason == Reason.CHANGED_SINCE_SUBMISSION else What.CHANGED


def _sha256(descriptor: int) -> str:
    with open(descriptor, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
