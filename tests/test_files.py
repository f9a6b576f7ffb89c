import contextlib
import os
import socket
import tempfile
from pathlib import Path

import pytest

from db.errors import RootUnavailable, UnreadableImage
from db.files import open_beneath
from db.words import Reason


def reason_for(root, path):
    with pytest.raises(UnreadableImage) as refused:
        open_beneath(root, path)
    return refused.value.code


def test_a_file_below_the_root_is_opened_also_when_the_root_is_a_link(tmp_path):
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    (tmp_path / "root" / "a" / "b" / "scan.png").write_bytes(b"pixels")
    (tmp_path / "link").symlink_to(tmp_path / "root")

    for root in ("root", "link"):
        with os.fdopen(open_beneath(tmp_path / root, "a/b/scan.png"), "rb") as file:
            assert file.read() == b"pixels"


def test_no_descriptor_is_left_open(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to("/etc/hostname")
    before = len(list(Path("/proc/self/fd").iterdir()))

    for path in ("a", "a/link", "a/gone", "gone/a", "../a"):
        reason_for(tmp_path, path)

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_missing_root_is_machinery(tmp_path):
    with pytest.raises(RootUnavailable):
        open_beneath(tmp_path / "not mounted", "a.png")


def test_only_regular_files_below_the_root_are_opened(tmp_path):
    (tmp_path / "outside.png").write_bytes(b"x")
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "way_out").symlink_to(tmp_path)
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket.png"))
    (root / "file").write_bytes(b"x")
    (root / "folder" / "scan.png").write_bytes(b"pixels")

    expected = {
        "gone.png": Reason.MISSING,
        "gone/away.png": Reason.MISSING,
        "file/below.png": Reason.MISSING,
        "n" * 300: Reason.MISSING,
        "link.png": Reason.OUTSIDE_ROOT,
        "way_out/outside.png": Reason.OUTSIDE_ROOT,
        "loop/a.png": Reason.OUTSIDE_ROOT,
        "../outside.png": Reason.OUTSIDE_ROOT,
        "folder/../../outside.png": Reason.OUTSIDE_ROOT,
        str(tmp_path / "outside.png"): Reason.OUTSIDE_ROOT,
        "": Reason.OUTSIDE_ROOT,
        "folder": Reason.NOT_A_FILE,
        "pipe.png": Reason.NOT_A_FILE,
        "socket.png": Reason.NOT_A_FILE,
    }
    found = {path: reason_for(root, path) for path in expected}
    assert found == expected


@contextlib.contextmanager
def nobody():
    """As a user whom permissions bind: root reads everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_read_says_so():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        Path(folder, "a.png").write_bytes(b"secret")
        Path(folder, "a.png").chmod(0)

        with nobody(), pytest.raises(UnreadableImage) as refused:
            open_beneath(Path(folder), "a.png")

    assert refused.value.code is Reason.NO_PERMISSION
