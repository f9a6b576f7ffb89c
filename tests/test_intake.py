"""A folder's files: each is found once, and what cannot be screened says why."""

import errno
import hashlib
import os
import socket
import subprocess
import sys

import pytest
import redis

from db.errors import RootUnavailable, UnreadableImage
from db.store.connection import database
from db.words import Reason
from producer import intake, submission
from producer.intake import find_files
from producer.manifest import Manifest
from workers import queue

PNG = b"\x89PNG\r\n\x1a\n" + b"not looked at here"


def found_in(root, *, max_bytes=10_000, manifest=None):
    files = list(find_files(root, max_bytes=max_bytes, manifest=manifest or Manifest()))
    assert len({found.path for found in files}) == len(files)
    return {found.path: found for found in files}


def test_every_file_of_every_folder_is_found_with_the_hash_of_its_bytes(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one.png").write_bytes(PNG)
    (tmp_path / "two").write_bytes(PNG + b"2")

    found = found_in(tmp_path)

    assert found["a/b/one.png"].sha256 == hashlib.sha256(PNG).hexdigest()
    assert found["two"].reason is None
    assert found.keys() == {"a/b/one.png", "two"}


def test_content_decides_what_is_an_image_and_the_suffix_does_not(tmp_path):
    (tmp_path / "picture.txt").write_bytes(PNG)
    (tmp_path / "words.png").write_bytes(b"<html>")

    found = found_in(tmp_path)

    assert found["picture.txt"].reason is None
    assert found["words.png"].reason is Reason.NOT_AN_IMAGE
    assert "3c 68 74 6d 6c" in found["words.png"].detail


def test_what_is_no_regular_file_is_found_and_not_opened(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.png").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "large.png").write_bytes(PNG * 1000)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        found = found_in(tmp_path)

    assert {path: one.reason for path, one in found.items()} == {
        "empty": Reason.EMPTY,
        "pipe": Reason.NOT_A_FILE,
        "socket": Reason.NOT_A_FILE,
        "link.png": Reason.OUTSIDE_ROOT,
        "loop": Reason.OUTSIDE_ROOT,
        "large.png": Reason.TOO_LARGE,
    }


@pytest.mark.parametrize("longest", [10**9, -1])
def test_one_reader_or_several_find_the_same_in_the_same_order(tmp_path, monkeypatch, longest):
    monkeypatch.setattr(intake, "LONG", longest)  # below that, files at hand are read by one
    names = [f"{folder}/{n:03}.png" for folder in "ab" for n in range(300)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PNG + name.encode())

    files = list(find_files(tmp_path, max_bytes=10_000, manifest=Manifest()))

    assert [found.path for found in files] == names
    assert all(found.sha256 == hashlib.sha256(PNG + found.path.encode()).hexdigest() for found in files)


def test_the_first_page_is_rung_for_at_once_and_the_last_one_too(home, queue_server, tmp_path):
    for n in range(submission.FIRST_PAGE + 1):
        (tmp_path / f"{n:04}.png").write_bytes(PNG + str(n).encode())
    rings = []

    def answered(found):
        rings.append(queue.length())
        redis.Redis.from_url(queue_server.replace("redis+socket", "unix")).flushall()

    submission.submit(database(), tmp_path, site_name="local", progress=answered)

    assert rings[0] == 0 < rings[1]
    assert queue.length() > 0


def test_names_survive_byte_by_byte(tmp_path):
    names = [b"line\nbreak.png", b"not-utf8-\xff\xfe.png", "\u202egnp.ürün".encode(), b"x" * 255]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(PNG + name)

    assert {os.fsencode(path) for path in found_in(tmp_path)} == set(names)


def test_what_the_operator_may_not_read_is_found_and_says_so(tmp_path):
    (tmp_path / "mine.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "secret.png").chmod(0)
    (tmp_path / "closed").mkdir(mode=0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder == tmp_path or folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o755)
    # Root reads everything: ask as somebody who does not.
    asking = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from producer.intake import find_files\n"
        "from producer.manifest import Manifest\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "for f in find_files(Path(sys.argv[1]), max_bytes=10_000, manifest=Manifest()): print(f.path, f.reason)\n"
    )

    answer = subprocess.run([sys.executable, "-c", asking, tmp_path], capture_output=True, text=True, check=True)

    assert set(answer.stdout.splitlines()) == {
        "mine.png None",
        "secret.png no_permission",
        "closed no_permission",
    }


def test_a_root_that_does_not_answer_is_machinery_and_not_an_empty_folder(tmp_path):
    with pytest.raises(RootUnavailable):
        found_in(tmp_path / "unmounted")


@pytest.mark.parametrize(
    "listings", [1, 2], ids=["a folder does not list", "a file does not open, nor its folder list"]
)
def test_storage_that_fails_in_the_middle_is_machinery_and_rejects_nothing(tmp_path, monkeypatch, listings):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "one.png").write_bytes(PNG)
    monkeypatch.setattr(intake, "open_in_folder", refused_as_unreadable)
    monkeypatch.setattr(intake.os, "scandir", scandir_that_fails_after(listings, OSError(errno.ESTALE, "Stale")))

    with pytest.raises(RootUnavailable, match="repair it, then resume"):
        found_in(tmp_path)


def refused_as_unreadable(name, folder):
    raise UnreadableImage(Reason.UNREADABLE, "opening it fails: Stale file handle")


def scandir_that_fails_after(count, error):
    """What storage does that goes away after some listings."""
    listings, real = iter(range(count)), os.scandir

    def scandir(folder):
        if next(listings, None) is None:
            raise error
        return real(folder)

    return scandir


def test_one_file_that_cannot_be_read_is_its_own_fault_where_its_folder_answers(tmp_path, monkeypatch):
    (tmp_path / "bad.png").write_bytes(PNG)
    monkeypatch.setattr(intake, "open_in_folder", refused_as_unreadable)

    assert found_in(tmp_path)["bad.png"].reason is Reason.UNREADABLE


def test_folders_too_deep_to_walk_are_a_finding_and_what_lies_above_is_found(tmp_path):
    below = os.open(tmp_path, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=below)
        deeper = os.open("d", os.O_RDONLY, dir_fd=below)
        os.close(below)
        below = deeper
    os.close(below)
    (tmp_path / "d" / "one.png").write_bytes(PNG)

    found = found_in(tmp_path)

    assert found.pop("d/one.png").reason is None
    (deep,) = found.values()
    assert deep.reason is Reason.UNREADABLE
    assert "201 levels down" in deep.detail


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end_or_found_too_large(tmp_path, monkeypatch):
    (tmp_path / "growing.png").write_bytes(PNG)
    real, grown = os.fstat, PNG + bytes(3_000)

    def before_it_grew(descriptor):
        about = real(descriptor)
        (tmp_path / "growing.png").write_bytes(grown)
        return about

    monkeypatch.setattr(intake.os, "fstat", before_it_grew)

    assert found_in(tmp_path)["growing.png"].sha256 == hashlib.sha256(grown).hexdigest()
    (tmp_path / "growing.png").write_bytes(PNG)
    assert found_in(tmp_path, max_bytes=1_000)["growing.png"].reason is Reason.TOO_LARGE


def test_the_manifest_links_patients_and_names_what_is_missing(tmp_path):
    (tmp_path / "here.png").write_bytes(PNG)
    (tmp_path / "other.png").write_bytes(PNG + b"2")
    (tmp_path / "m.csv").write_text(
        "path,patient,study,age,urgent\nhere.png,P1,S1,61.5,yes\n./gone.png,P2,,,\n", encoding="utf-8"
    )

    found = found_in(tmp_path, manifest=Manifest.read(tmp_path / "m.csv"))

    here = found["here.png"]
    assert (here.patient, here.study, here.age, here.urgent) == ("P1", "S1", 61.5, True)
    assert (found["gone.png"].reason, found["gone.png"].patient) == (Reason.MISSING, "P2")
    assert found["other.png"].patient is None
    assert "m.csv" not in found


@pytest.mark.parametrize(
    "lines",
    [
        "file,patient\na.png,P\n",
        "path,age\na.png,old\n",
        "path,urgent\na.png,perhaps\n",
        "path\na\na\n",
        "path\n,\n",
        "",
    ],
)
def test_a_manifest_that_is_half_understood_is_refused(tmp_path, lines):
    import click

    (tmp_path / "m.csv").write_text(lines)

    with pytest.raises(click.BadParameter, match=r"m\.csv"):
        Manifest.read(tmp_path / "m.csv")
