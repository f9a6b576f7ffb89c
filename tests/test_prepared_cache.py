"""The prepared cache: a content that was decoded once is scored again without its file, and nothing damaged is trusted;
real files, real decoders, the real ledger."""

import dataclasses
import json
import logging
import os
import stat
import subprocess
import sys
from hashlib import sha256

import builders
import numpy as np
import pytest
from click.testing import CliRunner
from night_shift import SIZE, Night, stub_scorer
from ready_home import STUB

from db.errors import Refused, UnreadableImage
from db.settings import Settings, settings
from db.store import models
from db.words import Exit, Kind, Reason
from deploy import backup
from workers import cache_command, decoding, prepared_cache
from workers.decoding import DecoderPool, Source
from workers.prepared_cache import Eyes, PreparedCache
from workers.preprocessing import DEFAULT_BORDER, VERSION
from workers.provisions import limits
from workers.shift import Loaded, Shift
from workers.trained_models import File, Preprocessing

EYES = Eyes(SIZE, Preprocessing(VERSION, "exact", DEFAULT_BORDER))


@pytest.fixture(scope="module")
def decoders():
    with DecoderPool(2, limits(Settings()), memory_bytes=2_000_000_000, seconds=30) as pool:
        yield pool


@pytest.fixture
def cache(tmp_path):
    return PreparedCache(tmp_path / "prepared", limits(Settings()))


@pytest.fixture
def scan(decoders, tmp_path):
    """A decoded scan: the digest of its file, and what the decoder gave."""
    data = builders.dicom(builders.CHEST.astype(np.uint16) * 16, BitsStored=12, HighBit=11, WindowCenter=2000)
    (tmp_path / "a.dcm").write_bytes(data)
    digest = sha256(data).hexdigest()
    return digest, decoders.prepare(Source(str(tmp_path), "a.dcm", digest), SIZE)


@pytest.fixture
def night(home, queue_server, decoders, tmp_path, monkeypatch):
    monkeypatch.setenv("NIGHTREAD_PREPARED_CACHE", "prepared")
    settings.cache_clear()
    made = Night(settings(), decoders, tmp_path / "scans")
    yield made
    made.db.engine.dispose()


def files(cache):
    return [path for path in cache.folder.rglob("*") if path.is_file()]


def only_file(cache):
    (found,) = files(cache)
    return found


def as_told(prepared):
    return prepared.pixels.tobytes(), dataclasses.asdict(prepared.evidence)


def new_model(night):
    """A second trained model, active from now on, which sees as the first one does."""
    given = dataclasses.replace(STUB, version="2", weights_sha256="e" * 64)
    models.activate(night.db, models.register(night.db, given, by="test"), why="a trial", by="test")
    night.model = models.active(night.db)
    scorer = stub_scorer(night, night.hand.full_batch)
    other = dataclasses.replace(scorer.model, version="2", weights=File("", given.weights_sha256))
    loaded = Loaded(night.model, dataclasses.replace(scorer, model=other), night.hand.full_batch)
    night.hand._loaded[night.model.id] = loaded


def test_what_is_kept_comes_back_as_the_decoder_gave_it(cache, scan):
    digest, prepared = scan
    assert cache.find(EYES, digest) is None

    cache.keep(EYES, digest, prepared)

    assert as_told(cache.find(EYES, digest)) == as_told(prepared)
    assert prepared.evidence.display["bits"] == 12
    assert cache.has(EYES, digest)


def test_only_its_owner_may_look_at_it(cache, scan):
    old = os.umask(0)
    try:
        cache.keep(EYES, *scan)
    finally:
        os.umask(old)

    file = only_file(cache)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (cache.folder, file.parent, file.parents[1])}
    assert modes == {0o700}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(EYES, size=SIZE * 2),
        dataclasses.replace(EYES, reduce=("jpeg",)),
        Eyes(SIZE, Preprocessing("another", "exact", DEFAULT_BORDER)),
        Eyes(SIZE, Preprocessing(VERSION, "paper", DEFAULT_BORDER)),
        Eyes(SIZE, Preprocessing(VERSION, "exact", dataclasses.replace(DEFAULT_BORDER, black_level=21))),
    ],
    ids=["size", "reduced", "version", "mode", "border"],
)
def test_other_eyes_see_nothing_of_it(cache, scan, other):
    cache.keep(EYES, *scan)

    assert cache.find(other, scan[0]) is None


def test_an_upgrade_of_a_codec_begins_anew(cache, scan, monkeypatch):
    cache.keep(EYES, *scan)

    monkeypatch.setattr(prepared_cache, "_made_by", lambda: {"pydicom": "99"})

    assert cache.find(dataclasses.replace(EYES), scan[0]) is None


DAMAGE = {
    "empty": lambda data: b"",
    "cut short": lambda data: data[:-1],
    "only its head": lambda data: data[:200],
    "one bit of a pixel": lambda data: data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:],
    "one bit of what was cut": lambda data: data.replace(b'"top": 0', b'"top": 1'),
    "zeros, as a power cut leaves them": lambda data: bytes(len(data)),
    "longer": lambda data: data + b"\0",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_not_trusted_and_written_anew(cache, scan, how):
    cache.keep(EYES, *scan)
    whole = only_file(cache).read_bytes()
    assert DAMAGE[how](whole) != whole
    only_file(cache).write_bytes(DAMAGE[how](whole))

    assert cache.find(EYES, scan[0]) is None
    cache.keep(EYES, *scan)

    assert only_file(cache).read_bytes() == whole


def test_a_file_under_another_contents_name_is_not_trusted(cache, scan):
    cache.keep(EYES, *scan)
    other = "0" * 64
    (only_file(cache).parents[1] / "00").mkdir()
    only_file(cache).rename(only_file(cache).parents[1] / "00" / other)

    assert cache.find(EYES, other) is None


def test_no_path_can_be_named_by_what_is_no_digest(cache, scan):
    for name in ("", None, "../../etc/passwd", "0" * 63, "A" * 64, f"..{'/' * 62}"):
        cache.keep(EYES, name, scan[1])

        assert cache.find(EYES, name) is None
        assert not cache.has(EYES, name)
    assert files(cache) == []


def test_settings_that_became_narrower_hold_for_what_is_kept(scan, tmp_path):
    wide = PreparedCache(tmp_path / "c", limits(Settings()))
    wide.keep(EYES, *scan)

    for name, value in (("min_side", 2000), ("max_pixels", 10_000)):
        narrow = dataclasses.replace(limits(Settings()), **{name: value})
        assert PreparedCache(tmp_path / "c", narrow).find(EYES, scan[0]) is None
    assert wide.find(EYES, scan[0]) is not None


def test_a_folder_that_others_may_enter_is_refused_and_scoring_goes_on_without(tmp_path, home, decoders):
    open_folder = tmp_path / "open"
    open_folder.mkdir(mode=0o755)
    open_folder.chmod(0o755)

    with pytest.raises(Refused, match="not private"):
        PreparedCache(open_folder, limits(Settings()))
    hand = Shift(home.model_copy(update={"prepared_cache": str(open_folder)}), None, "cpu", decoders)

    assert hand.cache is None


def test_a_full_disk_is_told_once_and_fails_no_scan(cache, scan, monkeypatch, caplog):
    monkeypatch.setattr(prepared_cache, "LEAST_FREE_BYTES", 2**62)

    with caplog.at_level(logging.ERROR):
        cache.keep(EYES, *scan)
        cache.keep(EYES, *scan)

    assert files(cache) == []
    assert len(caplog.records) == 1
    assert scan[0] not in caplog.text


def test_a_folder_that_cannot_be_written_is_told_once_and_leaves_no_draft(cache, scan, caplog):
    cache.keep(EYES, *scan)
    where = only_file(cache)
    where.unlink()
    where.mkdir()  # a name that no draft can take over

    with caplog.at_level(logging.ERROR):
        cache.keep(EYES, *scan)
        cache.keep(EYES, *scan)

    assert files(cache) == []
    assert len(caplog.records) == 1


def test_a_night_is_scored_again_by_another_model_without_its_files(night):
    for seed in range(5):
        night.scan(f"{seed}.png", seed=seed)
    night.device = lambda batch: np.full(len(batch), 0.1)
    first = night.submit()
    night.work()
    assert set(night.outcomes().values()) == {Kind.SCORED}
    new_model(night)
    night.device = lambda batch: np.full(len(batch), 0.2)

    second = night.submit()
    for path in night.folder.iterdir():
        path.unlink()
    (night.folder / "kept").touch()  # an empty root would be storage that is gone
    night.work()

    assert second != first
    assert [line.score for line in night.lines().values()] == [pytest.approx(0.2)] * 5


def test_the_cache_gives_the_engine_the_same_pixels_as_the_file(night):
    seen = []
    night.device = lambda batch: seen.append(batch[:1].copy()) or np.full(len(batch), 0.1)
    night.scan("a.png")
    night.submit()
    night.work()
    new_model(night)
    night.submit()

    night.work()

    before, after = [one for one in seen if one.any()][:1] + [one for one in seen if one.any()][-1:]
    assert np.array_equal(before, after)


def test_the_picture_of_a_flagged_scan_is_made_from_its_file_which_must_still_be_the_one_submitted(night):
    night.device = lambda batch: np.full(len(batch), 0.9)
    for seed, name in enumerate(("changed.png", "same.png")):
        night.scan(name, seed=seed)
    night.submit()
    night.work()
    new_model(night)
    night.submit()
    night.scan("changed.png", seed=99)

    night.work()

    reasons = {path: line.reason for path, line in night.lines().items()}
    assert reasons == {"changed.png": Reason.CHANGED_SINCE_SUBMISSION, "same.png": None}


def test_a_file_that_is_rejected_is_not_kept(night):
    night.scan("broken.png", content=builders.bad_files()["cut.png"][1])
    night.submit()

    night.work()

    assert night.lines()["broken.png"].reason == Reason.TRUNCATED
    assert files(night.hand.cache) == []


def test_damage_between_two_nights_costs_decoding_and_nothing_else(night):
    for seed in range(3):
        night.scan(f"{seed}.png", seed=seed)
    night.submit()
    night.work()
    for path in files(night.hand.cache):
        path.write_bytes(path.read_bytes()[:100])
    new_model(night)
    night.submit()

    night.work()

    assert set(night.outcomes().values()) == {Kind.SCORED}
    assert {path.stat().st_size > 4000 for path in files(night.hand.cache)} == {True}


def test_the_command_counts_and_empties_it(night):
    night.scan("a.png")
    night.submit()
    night.work()
    draft = only_file(night.hand.cache).with_name(".left.0123abcd")
    draft.write_bytes(b"half")
    run = CliRunner()

    shown = json.loads(run.invoke(cache_command.cache, ["--json"], standalone_mode=False).output)
    kept = json.loads(run.invoke(cache_command.cache, ["clear", "--days", "1", "--json"], standalone_mode=False).output)
    gone = json.loads(run.invoke(cache_command.cache, ["clear", "--json"], standalone_mode=False).output)

    assert (shown["files"], kept["files"], gone["files"]) == (2, 0, 2)
    assert shown["bytes"] == gone["bytes"] > 4096
    assert list(night.hand.cache.folder.iterdir()) == []


def test_without_a_cache_the_command_says_how_to_have_one(home):
    said = subprocess.run(
        [sys.executable, "-m", "producer", "cache"],
        env=os.environ | {"NIGHTREAD_HOME": str(home.home)},
        capture_output=True,
        text=True,
    )

    assert said.returncode == Exit.REFUSED
    assert said.stderr.count("\n") == 1
    assert "NIGHTREAD_PREPARED_CACHE" in said.stderr


def test_a_backup_leaves_it_out(night, tmp_path):
    night.scan("a.png")
    night.submit()
    night.work()
    assert files(night.hand.cache)

    left_out = []
    kept = {name for name, _ in backup._files(night.hand.config.home, pictures=True, left_out=left_out)}
    without = backup._files(night.hand.config.home, pictures=True, left_out=[], cache=night.hand.config.prepared)

    assert {name for name in kept if name.startswith("prepared/")} == kept - {name for name, _ in without} != set()


# -- several files in one order to a decoder


def put(folder, name, data):
    (folder / name).write_bytes(data)
    return Source(str(folder), name, sha256(data).hexdigest())


def test_several_files_in_one_order_give_what_each_gives_alone(decoders, tmp_path):
    png = [put(tmp_path, f"{seed}.png", builders.encoded(".png", builders.chest(seed=seed))) for seed in range(3)]
    cut = put(tmp_path, "cut.png", builders.bad_files()["cut.png"][1])

    many = list(decoders.prepare_many([png[0], cut, png[1], png[2]], SIZE))

    assert isinstance(many[1], UnreadableImage)
    assert many[1].code is Reason.TRUNCATED
    assert [as_told(many[at]) for at in (0, 2, 3)] == [as_told(decoders.prepare(one, SIZE)) for one in png]


def test_a_file_that_crashes_its_decoder_costs_none_of_its_order(decoders, tmp_path):
    good = [put(tmp_path, f"{seed}.png", builders.encoded(".png", builders.chest(seed=seed))) for seed in range(4)]
    crasher = put(tmp_path, "crasher.dcm", builders.crashing_dicom())

    many = list(decoders.prepare_many([*good[:2], crasher, *good[2:]], SIZE))

    assert [getattr(one, "code", None) for one in many] == [None, None, Reason.UNREADABLE, None, None]


def test_whoever_takes_only_the_answers_leaves_the_decoder_to_others(tmp_path):
    sources = [put(tmp_path, f"{seed}.png", builders.encoded(".png", builders.chest(seed=seed))) for seed in range(3)]
    with DecoderPool(1, limits(Settings()), memory_bytes=2_000_000_000, seconds=30) as pool:
        answers = pool.prepare_many(sources, SIZE)

        taken = [next(answers) for _ in sources]

        assert as_told(pool.prepare(sources[-1], SIZE)) == as_told(taken[-1])


def test_slow_files_leave_the_decoder_to_others_between_two_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "QUICK_SECONDS", 0.0)
    sources = [put(tmp_path, f"{seed}.png", builders.encoded(".png", builders.chest(seed=seed))) for seed in range(3)]
    with DecoderPool(1, limits(Settings()), memory_bytes=2_000_000_000, seconds=30) as pool:
        answers = pool.prepare_many(sources, SIZE)

        first = next(answers)

        assert as_told(pool.prepare(sources[1], SIZE)) == as_told(next(answers))
        assert as_told(first) == as_told(pool.prepare(sources[0], SIZE))
