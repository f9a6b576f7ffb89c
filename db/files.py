"""Open a submitted file without leaving its root: symbolic links are not followed, only regular files are opened.

Imports nothing but the closed sets, so that the producer and the decoders share it.
"""

import errno
import os
import stat
from pathlib import Path

from db.errors import RootUnavailable, UnreadableImage
from db.words import Reason

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe that nobody writes to must not hang.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_REASONS = {
    errno.ENOENT: (Reason.MISSING, "no such file under the root"),
    errno.ENOTDIR: (Reason.MISSING, "a folder of its path is a file now"),
    errno.ENAMETOOLONG: (Reason.MISSING, "no file system keeps a name that long"),
    errno.ELOOP: (Reason.OUTSIDE_ROOT, "a symbolic link"),
    errno.EACCES: (Reason.NO_PERMISSION, "this user may not read it"),
    errno.EPERM: (Reason.NO_PERMISSION, "this user may not read it"),
    errno.ENXIO: (Reason.NOT_A_FILE, "a socket or device"),
}


def open_beneath(root: Path, relative: str) -> int:
    """Open `relative` (a str with surrogate escapes, as os.fsdecode gives) below `root`; return a file descriptor.

    The root itself may be a symbolic link; nothing below it may. The caller closes the descriptor.
    Raises UnreadableImage (missing, outside_root, no_permission, not_a_file), and RootUnavailable where the root
    or the file system under it does not answer.
    """
    names = relative.split("/")
    if relative.startswith("/") or any(name in ("", ".", "..") for name in names):
        raise UnreadableImage(Reason.OUTSIDE_ROOT, "not a plain path below the root")
    if "\0" in relative:
        raise UnreadableImage(Reason.MISSING, "no file system keeps a name with a zero byte")
    try:
        folder = os.open(root, _FOLDER)
    except OSError as error:
        raise RootUnavailable(f"root {root} does not answer ({error.strerror}): mount it, then resume") from error
    try:
        return _walk(folder, names)
    except OSError as error:
        if error.errno == errno.ENOENT and _is_empty(root):
            # What an unmounted file system leaves behind: its scans are not missing, they are out of reach.
            raise RootUnavailable(f"root {root} is empty: mount it, then resume") from error
        if error.errno not in _REASONS:
            raise RootUnavailable(f"root {root} fails ({error.strerror}): repair it, then resume") from error
        raise UnreadableImage(*_REASONS[error.errno]) from error


def _is_empty(root: Path) -> bool:
    """Whether nothing lies in it, or it is gone by now."""
    try:
        with os.scandir(root) as listing:
            return next(listing, None) is None
    except OSError:
        return True


def _walk(folder: int, names: list[str]) -> int:
    """Step down from `folder`, which is closed here, to the file."""
    try:
        for name in names[:-1]:
            _refuse_link(name, folder)
            below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        return _open_regular(names[-1], folder)
    finally:
        os.close(folder)


def _refuse_link(name: str, folder: int) -> None:
    # O_DIRECTORY reports a link as "not a directory": ask first, to tell the two apart.
    if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        raise UnreadableImage(Reason.OUTSIDE_ROOT, "a symbolic link in its path")


def _open_regular(name: str, folder: int) -> int:
    _refuse_link(name, folder)
    # Asked before opening, because opening a device can act on it; and after, because it may have been swapped.
    _refuse_special(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    file = os.open(name, _FILE, dir_fd=folder)
    try:
        _refuse_special(os.fstat(file).st_mode)
    except UnreadableImage:
        os.close(file)
        raise
    return file


def _refuse_special(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise UnreadableImage(Reason.NOT_A_FILE, "a folder, device, pipe or socket")


def open_in_folder(name: str, folder: int) -> int:
    """Open a file of an open folder, not through a link; return its descriptor, which the caller closes.
    Raises UnreadableImage as `open_beneath` does, also for a fault of the disk under this one file (unreadable)."""
    try:
        return os.open(name, _FILE, dir_fd=folder)
    except OSError as error:
        code, why = _REASONS.get(error.errno or 0, (Reason.UNREADABLE, f"opening it fails: {error.strerror}"))
        raise UnreadableImage(code, why) from error


def derived_path(folder: Path, key: str, kind: str) -> Path:
    """Where what scoring keeps of a scan lies below the folder of derived files: `kind` is "image" (the lossless
    review copy), "input" (what the model saw) or "heat" (the overlay). Raises ValueError for a key that is not 32
    hexadecimal digits."""
    if len(key) != 32 or not set(key) <= set("0123456789abcdef"):
        raise ValueError("not a scan's key")
    suffix = {"image": ".png", "input": ".input.png", "heat": ".heat.png"}[kind]
    return folder / key[:2] / f"{key}{suffix}"
