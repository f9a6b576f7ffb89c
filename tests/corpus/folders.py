"""What a folder can hold besides sound files: names, links, pipes, devices, what may not be read or is gone."""

import contextlib
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from builders import encoded

from corpus import SCORED, Draw
from db.words import Reason


@dataclass(frozen=True)
class Case:
    """A class of entries: `place` puts one into a folder and says what is found there, byte for byte, with the outcome
    of each; `later` happens between submission and scoring."""

    name: str
    about: str
    place: Callable[[Path, Draw], dict[bytes, Reason | None]]
    later: Callable[[Path, Draw], None] = lambda folder, draw: None


def _picture(draw: Draw) -> bytes:
    return encoded(".png", draw.grey)


def _put(folder: Path, name: bytes, data: bytes) -> bytes:
    (folder / os.fsdecode(name)).write_bytes(data)
    return name


def _named(make: Callable[[Draw], bytes]):
    return lambda folder, draw: {_put(folder, make(draw), _picture(draw)): SCORED}


def _link(target: Callable[[Path], str], name: str):
    def place(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
        (folder / name).symlink_to(target(folder))
        return {name.encode(): Reason.OUTSIDE_ROOT}

    return place


def _sound_link(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
    """A link to a picture beside it: the picture scores, once, under its own name."""
    _put(folder, b"linked-to.png", _picture(draw))
    (folder / "link-inside.png").symlink_to("linked-to.png")
    return {b"linked-to.png": SCORED, b"link-inside.png": Reason.OUTSIDE_ROOT}


def _linked_folder(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
    (folder / "linked-folder").symlink_to("/usr", target_is_directory=True)
    return {b"linked-folder": Reason.OUTSIDE_ROOT}


def _round(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
    (folder / "round-1").symlink_to("round-2")
    (folder / "round-2").symlink_to("round-1")
    return {b"round-1": Reason.OUTSIDE_ROOT, b"round-2": Reason.OUTSIDE_ROOT}


def _pipe(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
    os.mkfifo(folder / "pipe.png")
    return {b"pipe.png": Reason.NOT_A_FILE}


def _socket(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(folder):  # a socket's path may hold 107 bytes
        listening.bind("socket.png")
    return {b"socket.png": Reason.NOT_A_FILE}


def _device(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
    """Only root may make one; elsewhere there is none."""
    with contextlib.suppress(PermissionError):
        os.mknod(folder / "device.png", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        return {b"device.png": Reason.NOT_A_FILE}
    return {}


def _folder_named(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
    (folder / "folder.png").mkdir()
    return {b"folder.png/" + _put(folder / "folder.png", b"inside.png", _picture(draw)): SCORED}


def _deep(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
    below = Path(*["d"] * 40)
    (folder / below).mkdir(parents=True)
    return {os.fsencode(below) + b"/" + _put(folder / below, b"deep.png", _picture(draw)): SCORED}


def _forbidden(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
    """Root reads everything; anybody else gets its reason."""
    name = _put(folder, b"forbidden.png", _picture(draw))
    (folder / "forbidden.png").chmod(0)
    return {name: SCORED if os.getuid() == 0 else Reason.NO_PERMISSION}


def _twins(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
    data = _picture(draw)
    return {_put(folder, b"twin-1.png", data): SCORED, _put(folder, b"twin-2.png", data): Reason.DUPLICATE}


def _long(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
    """A file longer than is read, nearly all of it a hole."""
    name = _put(folder, b"long.png", _picture(draw))
    os.truncate(folder / "long.png", 300_000_000)
    return {name: Reason.TOO_LARGE}


def _goes(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
    return {_put(folder, b"goes.png", _picture(draw)): Reason.MISSING}


def _changes(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
    return {_put(folder, b"changes.png", _picture(draw)): Reason.CHANGED_SINCE_SUBMISSION}


def _becomes(name: bytes):
    def place(folder: Path, draw: Draw) -> dict[bytes, Reason | None]:
        reason = Reason.OUTSIDE_ROOT if name == b"becomes-link.png" else Reason.NOT_A_FILE
        return {_put(folder, name, _picture(draw)): reason}

    return place


def _to_link(folder: Path, draw: Draw) -> None:
    (folder / "becomes-link.png").rename(folder.parent / f"moved-{draw.seed}.png")
    (folder / "becomes-link.png").symlink_to(folder.parent / f"moved-{draw.seed}.png")


def _to_pipe(folder: Path, draw: Draw) -> None:
    (folder / "becomes-pipe.png").unlink()
    os.mkfifo(folder / "becomes-pipe.png")


def _to_other(folder: Path, draw: Draw) -> None:
    (folder / "changes.png").write_bytes(encoded(".png", draw.grey[::-1]))


CASES = [
    Case("newline", "a newline in the name", _named(lambda d: b"new\nline.png")),
    Case("not_utf8", "a name that is not UTF-8", _named(lambda d: b"latin-\xe9\xff.png")),
    Case("longest", "a name of 255 bytes", _named(lambda d: b"n" * 251 + b".png")),
    Case("dash", "a name that looks like an option", _named(lambda d: b"--reader=all.png")),
    Case("override", "a name with a right-to-left override", _named(lambda d: "\u202egnp.exe".encode())),
    Case("markup", "a name with markup and quotes", _named(lambda d: b"<img src=x onerror=\"alert('1')\">%s.png")),
    Case("spaces", "a name of spaces and a dot", _named(lambda d: b" .png ")),
    Case("control", "control characters in the name", _named(lambda d: b"\x1b[31m\x07.png")),
    Case("link_outside", "a link out of the folder", _link(lambda folder: "/etc/passwd", "passwd.png")),
    Case("link_inside", "a link to a picture beside it", _sound_link),
    Case("link_to_folder", "a link to a folder outside", _linked_folder),
    Case("link_up", "a link to the folder that holds it", _link(str, "up")),
    Case("link_round", "links that lead to each other", _round),
    Case("link_to_nothing", "a link to nothing", _link(lambda folder: "nowhere", "nowhere.png")),
    Case("link_to_device", "a link to a device", _link(lambda folder: "/dev/zero", "zero.png")),
    Case("pipe", "a named pipe", _pipe),
    Case("socket", "a socket", _socket),
    Case("device", "a device", _device),
    Case("folder", "a folder with a picture's name", _folder_named),
    Case("deep", "a picture 40 folders down", _deep),
    Case("forbidden", "a file that may not be read", _forbidden),
    Case("twins", "the same content twice", _twins),
    Case("long", "more bytes than are read", _long),
    Case("goes", "gone between submission and scoring", _goes, lambda f, d: (f / "goes.png").unlink()),
    Case("changes", "changed between submission and scoring", _changes, _to_other),
    Case("becomes_link", "a link between submission and scoring", _becomes(b"becomes-link.png"), _to_link),
    Case("becomes_pipe", "a pipe between submission and scoring", _becomes(b"becomes-pipe.png"), _to_pipe),
]
