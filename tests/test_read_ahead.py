"""Reading ahead: advice to storage that proved slow, bounded in bytes; it fails no scan and holds nobody."""

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from workers.decoding import Source
from workers.read_ahead import MEASURED, SLOW_SECONDS, ReadAhead
from workers.reader import Ahead

MB = 1_000_000
BIG = 300_000  # bytes: more than the storage reads ahead by itself in one go


@pytest.fixture
def ahead(tmp_path):
    made = ReadAhead(100 * MB)
    prove_slow(made, tmp_path)
    yield made
    made.close()


def prove_slow(ahead, root, waited=1.0):
    for _ in range(MEASURED):
        ahead.read(Source(str(root), "before"), waited)


def put(folder, name, size=BIG):
    """A file of which nothing is in memory."""
    path = folder / name
    path.write_bytes(os.urandom(size))
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    if resident(path):
        pytest.skip("this file system keeps everything in memory")
    return Source(str(folder), name)


def resident(path):
    """How many pages of a file are in memory."""
    size, both = path.stat().st_size, mmap.PROT_READ | mmap.PROT_WRITE
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, both) as mapped:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        assert ctypes.CDLL(None).mincore(ctypes.byref(start), ctypes.c_size_t(size), pages) == 0
        del start
        return sum(page & 1 for page in pages)


def runs(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def eventually(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "never came"
        time.sleep(0.02)


def test_files_of_a_slow_root_are_in_memory_before_a_decoder_wants_them(ahead, tmp_path):
    sources = [put(tmp_path, name) for name in ("a", "b", os.fsdecode(b"caf\xe9"))]

    ahead.want(sources)

    eventually(lambda: all(resident(tmp_path / one.path) * mmap.PAGESIZE >= BIG for one in sources))


def test_a_quick_root_is_left_alone(tmp_path):
    quick = ReadAhead(100 * MB)
    prove_slow(quick, tmp_path, waited=SLOW_SECONDS / 2)

    quick.want([put(tmp_path, "a")])

    assert not quick.is_slow(str(tmp_path))
    assert quick._process is None


def test_with_the_setting_at_0_nothing_is_asked_for(tmp_path):
    off = ReadAhead(0)
    prove_slow(off, tmp_path)

    off.want([put(tmp_path, "a")])

    assert off._process is None


def test_a_link_out_of_the_root_is_not_followed(ahead, tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    put(outside, "secret")
    (root / "link").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    prove_slow(ahead, root)
    last = put(root, "last")

    ahead.want([Source(str(root), name) for name in ("link", "folder/secret", "../outside/secret")] + [last])

    eventually(lambda: resident(root / "last"))
    assert resident(outside / "secret") == 0


def test_missing_files_and_names_that_no_line_holds_cost_only_themselves(ahead, tmp_path):
    last = put(tmp_path, "last")

    ahead.want([Source(str(tmp_path), "gone"), Source(str(tmp_path), "n" * 5000), last])

    eventually(lambda: resident(tmp_path / "last"))


def test_no_more_than_the_bound_is_asked_for_ahead_of_the_decoders():
    queue = Ahead(100)
    queue.want(0, [("r", name) for name in "abcd"])

    asked = []
    for _ in range(2):
        number, _, path = queue.next()
        assert queue.asked(number, 60)
        asked.append(path)
    assert asked == ["a", "b"]
    assert not queue.has_room()

    queue.read(1)
    assert queue.has_room()
    assert queue.next()[2] == "c"


def test_what_decoders_have_overtaken_is_not_asked_for():
    queue = Ahead(100)
    queue.want(0, [("r", name) for name in "abcd"])
    number, _, _ = queue.next()

    queue.read(3)

    assert not queue.asked(number, 60)
    assert queue.next()[2] == "d"


def test_a_lost_line_does_not_confuse_what_follows():
    queue = Ahead(100)
    queue.want(5, [("r", "f"), ("r", "g")])  # 0 to 4 were never told

    queue.read(6)

    assert queue.next()[2] == "g"


def test_a_reader_that_hangs_holds_nobody(ahead, tmp_path):
    ahead.want([put(tmp_path, "a")])
    pid = ahead._process.pid
    os.kill(pid, signal.SIGSTOP)
    names = [Source(str(tmp_path), f"{number:0>200}") for number in range(1000)]  # more than its pipe holds

    ahead.want(names)
    for name in names:
        ahead.read(name, 1.0)
    ahead.close()

    eventually(lambda: not runs(pid))


def test_a_reader_that_died_is_started_again(ahead, tmp_path):
    ahead.want([put(tmp_path, "a")])
    ahead._process.kill()
    ahead._process.wait()

    ahead.want([put(tmp_path, "b")])

    eventually(lambda: resident(tmp_path / "b"))


def test_where_no_reader_starts_decoders_read_by_themselves(ahead, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")

    ahead.want([put(tmp_path, "a")])
    ahead.read(Source(str(tmp_path), "a"), 1.0)

    assert ahead._process is None
