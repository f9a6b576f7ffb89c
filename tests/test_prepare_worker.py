"""Prepare workers: cores that fill the prepared cache ahead of the workers that score, and claim nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import builders
import numpy as np
import pytest
from click.testing import CliRunner
from night_shift import Night
from ready_home import STUB
from sqlalchemy import select

from db.schema import Chunk
from db.settings import Settings, settings
from db.store import heartbeats, models, reading
from db.store.heartbeats import PREPARES
from db.store.reading import Totals
from db.store.upcoming import upcoming
from db.words import Exit, Kind
from deploy import doctor
from deploy.standstill import Standstill
from producer import submission
from workers import cli, prepare_worker
from workers.decoding import DecoderPool
from workers.prepare_worker import Preparer, is_taken_by_us
from workers.provisions import limits
from workers.read_ahead import ReadAhead


@pytest.fixture(scope="module")
def decoders():
    with DecoderPool(1, limits(Settings()), memory_bytes=2_000_000_000, seconds=30) as pool:
        yield pool


@pytest.fixture
def night(home, queue_server, decoders, tmp_path, monkeypatch):
    monkeypatch.setenv("NIGHTREAD_PREPARED_CACHE", "prepared")
    monkeypatch.setenv("NIGHTREAD_CHUNK_SIZE", "2")
    settings.cache_clear()
    made = Night(settings(), decoders, tmp_path / "scans")
    made.device = lambda batch: np.full(len(batch), 0.1)
    yield made
    made.db.engine.dispose()


@pytest.fixture
def preparer(night, decoders, monkeypatch):
    """A prepare worker over the same home; the stub model has no folder, so its eyes are given."""
    from workers import preparing

    loaded = night.hand._loaded[night.model.id]
    monkeypatch.setattr(prepare_worker, "eyes_of_model", lambda view, decode: preparing.eyes_of(loaded))
    (night.hand.cache.folder / "taken").mkdir()
    return Preparer(night.db, night.hand.cache, decoders, ReadAhead(0))


def prepared(night):
    return [path for path in night.hand.cache.folder.glob("*/*/*") if path.is_file()]


def chunks(db):
    with db.reading() as session:
        rows = session.scalars(select(Chunk).order_by(Chunk.id))
        return [(row.token, row.worker, row.attempts, row.completed_at) for row in rows]


def test_it_prepares_what_waits_and_touches_nothing_in_the_ledger(night, preparer):
    for seed in range(5):
        night.scan(f"{seed}.png", seed=seed)
    night.submit()
    before = chunks(night.db)

    assert preparer.round() == 5
    assert preparer.round() == 0

    assert len(prepared(night)) == 5
    assert chunks(night.db) == before == [(None, None, 0, None)] * 3
    assert list((night.hand.cache.folder / "taken").iterdir()) == []


def test_what_it_prepared_is_scored_without_decoding(night, preparer):
    for seed in range(3):
        night.scan(f"{seed}.png", seed=seed)
    night.submit()
    preparer.round()
    for path in night.folder.glob("*.png"):
        path.unlink()
    (night.folder / "notes").touch()  # an empty root would be storage that is gone

    night.work()

    assert night.outcomes() == {f"{seed}.png": Kind.SCORED for seed in range(3)}


def test_what_it_cannot_read_is_left_to_the_worker_that_scores(night, preparer):
    night.scan("good.png")
    night.scan("broken.png", content=builders.bad_files()["cut.png"][1])
    night.submit()

    assert preparer.round() == 1
    assert preparer.round() == 0
    night.work()

    assert night.outcomes() == {"good.png": Kind.SCORED, "broken.png": Kind.REJECTED}


def test_urgent_chunks_come_first_and_those_about_to_be_claimed_are_left_alone(night):
    for seed in range(4):
        night.scan(f"{seed}.png", seed=seed)
    night.submit()
    other = night.folder.parent / "urgent"
    other.mkdir()
    (other / "u.png").write_bytes(builders.encoded(".png", builders.chest(seed=50)))
    urgent = submission.submit(night.db, other, site_name="local", urgent=True).batch_id

    batches = [one.batch_id for one in upcoming(night.db)]
    later = [one.batch_id for one in upcoming(night.db, skip=1)]

    assert batches == [urgent, night.batch, night.batch]
    assert later == [night.batch, night.batch]


def test_it_leaves_a_chunk_to_each_worker_that_scores(night, preparer):
    for seed in range(4):
        night.scan(f"{seed}.png", seed=seed)
    night.submit()
    heartbeats.beat(night.db, name="h:cpu", host="h", device="cpu", pid=1, doing="", scans=0)
    heartbeats.beat(night.db, name="h:prepare", host="h", device=PREPARES, pid=2, doing="", scans=0)

    assert preparer.round() == 2


def test_two_of_them_share_the_work(night, preparer, tmp_path):
    for seed in range(4):
        night.scan(f"{seed}.png", seed=seed)
    night.submit()
    first = preparer._take(upcoming(night.db)[:1])

    other = Preparer(night.db, night.hand.cache, preparer.decoders, ReadAhead(0))
    assert other.round() == 2

    preparer._prepare(first)
    assert preparer.scans == 2
    assert len(prepared(night)) == 4


def test_a_mark_whose_maker_is_gone_is_taken_over(tmp_path):
    mark = tmp_path / "mark"
    assert is_taken_by_us(mark)
    assert not is_taken_by_us(mark)

    os.utime(mark, (time.time() - 1000, time.time() - 1000))

    assert is_taken_by_us(mark)


def test_a_root_that_does_not_answer_costs_only_its_batch(night, preparer):
    night.scan("a.png")
    night.submit()
    away = night.folder.parent / "away"
    away.mkdir()
    (away / "b.png").write_bytes(builders.encoded(".png", builders.chest(seed=50)))
    submission.submit(night.db, away, site_name="local", urgent=True)
    away.rename(night.folder.parent / "elsewhere")

    assert preparer.round() == 1
    (night.folder.parent / "elsewhere").rename(away)
    preparer._avoided.clear()

    assert preparer.round() == 1


def test_it_waits_while_the_disk_is_full(night, preparer, monkeypatch):
    night.scan("a.png")
    night.submit()
    monkeypatch.setattr("workers.prepared_cache.LEAST_FREE_BYTES", 2**62)

    assert preparer.round() == 0

    assert "disk is full" in preparer.doing
    assert prepared(night) == []


def test_nothing_takes_it_for_a_worker_that_scores(night):
    night.scan("a.png")
    night.submit()
    heartbeats.beat(night.db, name="h:prepare", host="h", device=PREPARES, pid=2, doing="waiting", scans=7)

    shown = CliRunner().invoke(cli.workers, ["--json"], standalone_mode=False)

    (one,) = json.loads(shown.output)
    assert (one["alive"], one["scores"], one["scans"]) == (True, False, 7)
    assert shown.return_value == Exit.PARTIAL
    totals: Totals = reading.totals(night.db, night.batch)
    refusing = f"refuses {totals.model}"
    heartbeats.beat(night.db, name="h:cpu", host="h", device="cpu", pid=3, doing=refusing, scans=0)
    with pytest.raises(Exception, match="every worker refuses"):
        Standstill(night.db, stage=2).look(totals, None)


def child(*arguments, home, **more):
    given = os.environ | {"NIGHTREAD_HOME": str(home), **more}
    return subprocess.Popen(
        [sys.executable, "-m", "producer", "worker", *arguments], env=given, stderr=subprocess.PIPE, text=True
    )


def test_without_a_cache_it_refuses_with_one_sentence(home):
    process = child("--prepare", home=home.home)

    said = process.communicate(timeout=60)[1]

    assert process.returncode == Exit.REFUSED
    assert said.count("\n") == 1
    assert "NIGHTREAD_PREPARED_CACHE" in said


def test_as_a_process_it_prepares_beats_and_ends_in_seconds(night, tmp_path):
    from plain_models import write_plain

    from workers import model_folders

    folder = tmp_path / "plain"
    write_plain(folder)
    view = model_folders.take_in(night.db, folder, by="test")
    models.activate(night.db, view.id, why="a trial", by="test")
    for seed in range(5):
        night.scan(f"{seed}.png", seed=seed)
    night.submit()
    process = child("--prepare", home=night.hand.config.home, NIGHTREAD_PREPARED_CACHE="prepared")
    try:
        deadline = time.monotonic() + 60
        while len(prepared(night)) < 5 or not reading.workers(night.db):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, "nothing was prepared"
            time.sleep(0.05)
        (beating,) = reading.workers(night.db)
        second = child("--prepare", home=night.hand.config.home, NIGHTREAD_PREPARED_CACHE="prepared")
        assert "already" in second.communicate(timeout=60)[1]
        assert second.returncode == Exit.REFUSED

        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=20)[1]
    finally:
        process.kill()
        process.wait()

    assert process.returncode == Exit.DONE
    assert (beating.device, beating.alive) == (PREPARES, True)
    assert [one.stopped for one in reading.workers(night.db)] == [True]
    assert str(night.folder) not in said


def test_it_loads_no_engine():
    code = (
        "import sys, workers.prepare_worker\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'openvino', 'jax'}))"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert said.stdout.strip() == "[]"


def test_the_doctor_advises_an_encrypted_disk_and_sees_a_cache_that_others_may_enter(night):
    told = doctor.check_cache(night.db)
    assert told.ok
    assert "encrypted" in told.fix

    night.hand.cache.folder.chmod(0o755)

    found = doctor.check_cache(night.db)
    assert not found.ok
    assert found.fix
    assert STUB.name not in found.said
