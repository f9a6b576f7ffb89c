import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import builders
import numpy as np
import pytest
from builders import CHEST

from db.errors import DecodersUnavailable, RootUnavailable, UnreadableImage
from db.words import Reason
from workers.decoding import DecoderPool, Source
from workers.images import Limits
from workers.preprocessing import Border, prepare

LIMITS = Limits(max_bytes=64 * 2**20, max_pixels=64_000_000)
MEMORY = 1_500_000_000
PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(2, LIMITS, memory_bytes=MEMORY, seconds=20) as decoders:
        yield decoders


@pytest.fixture
def own_pool():
    """One decoder that a test may kill."""
    with DecoderPool(1, LIMITS, memory_bytes=MEMORY, seconds=20) as decoders:
        yield decoders


def put(folder, name, data):
    (folder / name).write_bytes(data)
    return Source(str(folder), name, sha256(data).hexdigest())


def reason_for(pool, source):
    with pytest.raises(UnreadableImage) as refused:
        pool.prepare(source, 224)
    return refused.value.code


def decoders_of(parent):
    """Process ids of the decoders that a process has."""
    found = set()
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in children.read_text().split():
            with contextlib.suppress(OSError):
                if b"workers.decoder\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.add(int(pid))
    return found


def the_decoder(pool, source):
    """The process id of the only decoder of a pool, once it has worked."""
    others = decoders_of(os.getpid())
    pool.prepare(source, 224)
    (pid,) = decoders_of(os.getpid()) - others
    return pid


def test_the_pool_gives_what_preprocessing_gives(pool, tmp_path):
    source = put(tmp_path, "a.png", builders.encoded(".png", CHEST))

    prepared = pool.prepare(source, 224)

    pixels, evidence = prepare(CHEST, 224)
    assert np.array_equal(prepared.pixels, pixels)
    assert replace(prepared.evidence, display=None) == evidence
    assert 0 < prepared.seconds < 5


def test_border_and_mode_reach_the_decoder(pool, tmp_path):
    framed = np.pad(CHEST, ((40, 0), (0, 0)))
    source, border = put(tmp_path, "a.png", builders.encoded(".png", framed)), Border(line_threshold=1.1)

    cut, paper, uncut = (
        pool.prepare(source, 224).evidence,
        pool.prepare(source, 224, mode="paper").evidence,
        pool.prepare(source, 224, border=border).evidence,
    )

    assert (cut.top, uncut.top) == (40, 0)
    assert replace(paper, display=None) == prepare(framed, 224, mode="paper")[1]


@pytest.mark.parametrize(
    "name", [b"plain.png", b"caf\xc3\xa9.png", b"latin\xe9.png", b"new\nline.png", b'q"uote\\.png']
)
def test_any_name_that_a_file_system_allows_is_opened(pool, tmp_path, name):
    data = builders.encoded(".png", CHEST)
    (tmp_path / os.fsdecode(name)).write_bytes(data)

    prepared = pool.prepare(Source(str(tmp_path), os.fsdecode(name), sha256(data).hexdigest()), 224)

    assert prepared.pixels.shape == (224, 224)


def test_every_bad_file_comes_back_with_its_code(pool, tmp_path):
    expected = {name: reason for name, (reason, _) in builders.bad_files().items()}
    sources = {name: put(tmp_path, name, data) for name, (_, data) in builders.bad_files().items()}

    with ThreadPoolExecutor(4) as threads:
        found = dict(zip(sources, threads.map(lambda source: reason_for(pool, source), sources.values()), strict=True))

    # The pool's byte limit is below what the deflated bomb unfolds to, as the reader's own test has it.
    assert found == expected


def test_blank_and_too_narrow_pictures_come_back_with_their_codes(pool, tmp_path):
    blank = put(tmp_path, "blank.png", builders.encoded(".png", np.zeros_like(CHEST)))
    narrow = put(tmp_path, "narrow.png", builders.encoded(".png", np.pad(CHEST[:50, :50], 100)))

    assert reason_for(pool, blank) is Reason.BLANK
    assert reason_for(pool, narrow) is Reason.TOO_SMALL


def test_a_file_changed_since_submission_is_not_scored(pool, tmp_path):
    source = put(tmp_path, "a.png", builders.encoded(".png", CHEST))
    put(tmp_path, "a.png", builders.encoded(".png", CHEST[::-1]))

    assert reason_for(pool, source) is Reason.CHANGED_SINCE_SUBMISSION


def test_the_decoder_opens_nothing_outside_the_root(pool, tmp_path):
    put(tmp_path, "outside.png", builders.encoded(".png", CHEST))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "outside.png")

    for path in ("link.png", "../outside.png", str(tmp_path / "outside.png")):
        assert reason_for(pool, Source(str(tmp_path / "root"), path)) is Reason.OUTSIDE_ROOT
    assert reason_for(pool, Source(str(tmp_path / "root"), "gone.png")) is Reason.MISSING


def test_a_root_that_does_not_answer_is_machinery(pool, tmp_path):
    with pytest.raises(RootUnavailable):
        pool.prepare(Source(str(tmp_path / "not mounted"), "a.png"), 224)


def test_many_callers_share_few_decoders(pool, tmp_path):
    good = [put(tmp_path, f"{n}.png", builders.encoded(".png", builders.chest(96, 96, seed=n))) for n in range(40)]
    bad = put(tmp_path, "bad.png", b"not an image")

    def outcome(source):
        try:
            return pool.prepare(source, 64).pixels.tobytes()
        except UnreadableImage as error:
            return error.code

    before = decoders_of(os.getpid())  # this pool's idle ones, and other pools'
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(outcome, [source for pair in zip(good, [bad] * 40, strict=True) for source in pair]))

    assert found[1::2] == [Reason.NOT_AN_IMAGE] * 40
    assert found[::2] == [prepare(builders.chest(96, 96, seed=n), 64)[0].tobytes() for n in range(40)]
    assert len(decoders_of(os.getpid()) - before) <= 2


def test_a_decoder_killed_while_idle_is_replaced(own_pool, tmp_path):
    source = put(tmp_path, "a.png", builders.encoded(".png", CHEST))

    os.kill(the_decoder(own_pool, source), signal.SIGKILL)

    assert own_pool.prepare(source, 224).pixels.shape == (224, 224)


def test_a_decoder_killed_in_the_middle_of_a_file_costs_nothing_the_first_time(own_pool, tmp_path):
    source = put(tmp_path, "a.png", builders.encoded(".png", CHEST))
    pid = the_decoder(own_pool, source)
    os.kill(pid, signal.SIGSTOP)

    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(own_pool.prepare, source, 224)
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        assert asked.result().pixels.shape == (224, 224)


def kill_over(path, stop):
    """Kill every decoder that holds a file open."""
    while not stop.is_set():
        for pid in decoders_of(os.getpid()):
            with contextlib.suppress(OSError):
                if any(fd.resolve() == path for fd in Path(f"/proc/{pid}/fd").iterdir()):
                    os.kill(pid, signal.SIGKILL)


def test_a_file_over_which_decoders_keep_dying_is_unreadable_and_others_are_not(tmp_path):
    poison = put(tmp_path, "poison.bmp", builders.encoded(".bmp", CHEST))
    os.truncate(tmp_path / "poison.bmp", 300_000_000)  # zeros: it is open long enough to be found
    good = put(tmp_path, "good.png", builders.encoded(".png", CHEST))
    stop = threading.Event()
    killer = threading.Thread(target=kill_over, args=(tmp_path / "poison.bmp", stop), daemon=True)

    with DecoderPool(1, replace(LIMITS, max_bytes=300_000_000), memory_bytes=MEMORY, seconds=20) as decoders:
        killer.start()
        with pytest.raises(UnreadableImage, match="was ended by SIGKILL, 5 times") as refused:
            decoders.prepare(poison, 224)
        stop.set()
        killer.join()

        assert refused.value.code is Reason.UNREADABLE
        assert decoders.prepare(good, 224).pixels.shape == (224, 224)


def test_a_file_that_crashes_its_codec_is_unreadable_and_others_are_not(own_pool, tmp_path):
    crasher = put(tmp_path, "crasher.dcm", builders.crashing_dicom())
    good = put(tmp_path, "good.png", builders.encoded(".png", CHEST))

    assert reason_for(own_pool, crasher) is Reason.UNREADABLE
    assert own_pool.prepare(good, 224).pixels.shape == (224, 224)


def test_a_file_that_takes_too_long_is_unreadable(tmp_path):
    slow = put(tmp_path, "slow.png", builders.png_bomb(7_900))
    good = put(tmp_path, "good.png", builders.encoded(".png", CHEST))

    with DecoderPool(1, LIMITS, memory_bytes=MEMORY, seconds=0.05) as hasty:
        with pytest.raises(UnreadableImage, match=r"not decoded within 0\.05 s") as refused:
            hasty.prepare(slow, 224)
        assert refused.value.code is Reason.UNREADABLE
        assert hasty.prepare(good, 224).pixels.shape == (224, 224)


def test_storage_that_hangs_is_machinery(tmp_path):
    source = put(tmp_path, "a.png", builders.encoded(".png", CHEST))

    with DecoderPool(1, LIMITS, memory_bytes=MEMORY, seconds=0.5) as pool:
        os.kill(the_decoder(pool, source), signal.SIGSTOP)
        with pytest.raises(RootUnavailable):
            pool.prepare(source, 224)
        assert pool.prepare(source, 224).pixels.shape == (224, 224)


def test_a_picture_that_needs_more_memory_than_allowed_costs_itself_only(tmp_path):
    vast = put(tmp_path, "vast.png", builders.png_bomb(5_900, deep=True))
    good = put(tmp_path, "good.png", builders.encoded(".png", CHEST))

    with DecoderPool(1, Limits(max_pixels=36_000_000), memory_bytes=600_000_000, seconds=60) as pool:
        assert reason_for(pool, vast) is Reason.TOO_LARGE
        assert pool.prepare(good, 224).pixels.shape == (224, 224)


def test_too_little_memory_for_the_largest_picture_is_a_wrong_setting_not_a_bad_scan(tmp_path):
    source = put(tmp_path, "a.png", builders.encoded(".png", CHEST))

    with DecoderPool(1, LIMITS, memory_bytes=400_000_000, seconds=5) as pool, pytest.raises(DecodersUnavailable):
        pool.prepare(source, 224)


def test_decoders_die_with_their_worker(tmp_path):
    put(tmp_path, "a.png", builders.encoded(".png", CHEST))
    code = (
        "import sys, time; from workers.decoding import *; from workers.images import Limits\n"
        "pool = DecoderPool(1, Limits(), memory_bytes=10**9, seconds=20)\n"
        "pool.prepare(Source(sys.argv[1], 'a.png'), 224); print('ready', flush=True); time.sleep(60)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, cwd=PROJECT)
    assert worker.stdout.readline() == b"ready\n"
    (pid,) = decoders_of(worker.pid)

    worker.kill()
    worker.communicate()

    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()


def test_a_decoder_is_told_no_passwords_and_holds_no_network_or_core(pool, tmp_path, monkeypatch):
    monkeypatch.setenv("NIGHTREAD_DATABASE_URL", "postgresql://night:secret@db/night")
    source = put(tmp_path, "a.png", builders.encoded(".png", CHEST))

    with DecoderPool(1, LIMITS, memory_bytes=MEMORY, seconds=20) as fresh:
        pid = the_decoder(fresh, source)
        known = Path(f"/proc/{pid}/environ").read_bytes()
        limits = Path(f"/proc/{pid}/limits").read_text()
        descriptors = [fd.readlink().name for fd in Path(f"/proc/{pid}/fd").iterdir()]

    assert b"secret" not in known
    assert not [name for name in descriptors if name.startswith("socket:")]
    assert {line.split()[-3] for line in limits.splitlines() if "core file" in line or "file size" in line} == {"0"}


def test_a_decoder_needs_no_tensorflow_and_no_database():
    code = (
        "import sys, workers.decoder\n"
        "print([name for name in ('tensorflow', 'keras', 'openvino', 'sqlalchemy', 'celery') if name in sys.modules])"
    )

    said = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "[]"
