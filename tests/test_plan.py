"""`nightread plan`: what a night needs, worked out from what this machine was measured to give."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import builders
import pytest
from click.testing import CliRunner
from ledger import claim, complete, folder, submitted
from night_shift import Night
from sqlalchemy import text, update

from db.errors import Refused
from db.schema import Chunk
from db.settings import Settings
from db.store import heartbeats, reading, tonight
from db.store.connection import connect, now
from db.store.scoring import WaitingScan
from db.store.tonight import Queue
from deploy.plan import words
from deploy.plan.capacity import Binds, Measured, Spread, answer, most
from deploy.plan.command import plan, tonight_of
from deploy.plan.deadline import Deadline, length, seconds_until, zone
from deploy.plan.machine import Machine, look
from deploy.plan.sampling import LAST, QUEUE, SAMPLES, SHIPPED, NotMeasured, Sample, measure, of_folder, samples
from producer import submission
from workers import measuring
from workers.provisions import decoder_pool
from workers.reading_speed import read_for

HOUR = 3600.0
# Two cores: 20 core-ms an image, 5 a scan to prepare; so at best 2 / 0.025 = 80 scans a second, and 76 were seen.
NODE = Measured(
    is_gpu=False,
    cores=2,
    threads=2,
    decoders=2,
    devices=1,
    engine=Spread(100.0, 98.0, 101.0),
    preparation=Spread(400.0, 390.0, 410.0),
    together=Spread(76.0, 75.0, 77.0),
    reading=Spread(500e6, 400e6, 600e6),
    mean_bytes=1e6,
)
# A GPU at 1,000 images a second beside 16 cores, of which a scan takes 40 ms: they feed it 400.
FED = replace(
    NODE,
    is_gpu=True,
    cores=16,
    threads=16,
    decoders=16,
    engine=Spread(1000.0, 990.0, 1010.0),
    together=Spread(380, 1, 2),
)
SAID = {
    "sample": QUEUE,
    "passed_over": [],
    "rejected": {},
    "looked": 100,
    "memory_bytes": 1e9,
    "cache_left_out": False,
}
MACHINE = Machine("a processor", 2, 16 * 10**9, 12 * 10**9, (), 0.0)
EVENING = Deadline(8 * HOUR, datetime(2026, 11, 24, 20, 0, tzinfo=UTC), UTC)


@pytest.fixture
def whole(short_folder):
    """A home as `nightread init` makes it, with the model that ships."""
    from deploy import home

    config = Settings(home=short_folder / f"plan{os.urandom(3).hex()}")
    db = connect(config)
    home.make_ready(db)
    yield db
    db.engine.dispose()
    shutil.rmtree(config.home)


@pytest.fixture
def night(home, tmp_path):
    with decoder_pool(home.model_copy(update={"decoders": 2})) as decoders:
        made = Night(home, decoders, tmp_path / "scans")
        yield made
        made.db.engine.dispose()


def command(home, *arguments):
    environment = {**os.environ, "NIGHTREAD_HOME": str(home)}
    given = [sys.executable, "-m", "producer", "plan", *arguments]
    return subprocess.run(given, capture_output=True, text=True, timeout=250, env=environment, check=False)


def said(lines):
    return "\n".join(f"{label} {line}" for label, line in lines)


def test_a_core_shares_its_time_between_inference_and_preparation():
    assert NODE.inference_seconds == pytest.approx(0.020)
    assert NODE.preparation_seconds == pytest.approx(0.005)
    assert NODE.ideal == pytest.approx(80.0)
    assert NODE.efficiency == pytest.approx(0.95)
    assert NODE.inference_share == pytest.approx(0.8)
    assert NODE.binds == Binds.ENGINE


def test_a_quiet_night_is_met_by_one_machine():
    found = answer(NODE, scans=20_000, seconds=8 * HOUR)

    assert found.needed == pytest.approx(0.6944, abs=1e-4)
    assert found.wanted == pytest.approx(0.8333, abs=1e-4)
    assert (found.meets, found.machines, found.cores, found.gpus) == (True, 1, 1, 0)
    assert found.alone_seconds == pytest.approx(263.16, abs=0.01)
    assert found.bytes_per_second == pytest.approx(833_333, abs=1)


def test_a_million_in_an_hour_takes_five_machines():
    found = answer(NODE, scans=1_000_000, seconds=HOUR)

    # 277.8 scans/s, 333.3 with a fifth to spare; 76 a machine; 25 core-ms each at 95 %.
    assert (found.meets, found.machines, found.cores) == (False, 5, 9)
    assert found.alone_seconds == pytest.approx(1_000_000 / 76)


def test_in_time_without_anything_to_spare_does_not_meet_a_deadline():
    found = answer(NODE, scans=70, seconds=1.0)

    assert found.alone_seconds < 1.0
    assert not found.meets
    assert "in time, but without 20% to spare" in said(words.answer_lines(found, NODE, EVENING))


def test_a_gpu_is_worth_what_the_cores_beside_it_can_prepare():
    found = answer(FED, scans=1_000_000, seconds=HOUR)

    assert (FED.ideal, FED.binds) == (400.0, Binds.PREPARATION)
    assert (found.gpus, found.cores) == (1, 15)  # 333.3 scans/s of 40 core-ms each at 95 %
    assert "1 GPU like this one, with 15 cores like these" in said(words.answer_lines(found, FED, EVENING))


def test_a_second_gpu_helps_only_where_cores_are_left_to_feed_it():
    fast = Spread(150.0, 150.0, 150.0)
    hungry, fed = replace(FED, devices=2), replace(FED, devices=2, engine=fast, together=Spread(142.5, 140, 145))

    assert hungry.workers == pytest.approx(FED.workers)
    assert fed.workers == pytest.approx(0.95 * 300)
    assert fed.binds == Binds.ENGINE


def test_slow_storage_binds_whatever_the_cores_can_do():
    slow = replace(NODE, reading=Spread(100e6, 100e6, 100e6), mean_bytes=20e6)

    found = answer(slow, scans=200_000, seconds=8 * HOUR)

    assert (slow.storage, slow.machine, slow.binds) == (5.0, 5.0, Binds.STORAGE)
    assert not found.meets
    assert "166.7 MB/s needed in all; NOT met here" in said(words.answer_lines(found, slow, EVENING))


def test_files_that_could_not_be_read_tell_nothing_of_the_storage():
    assert replace(NODE, mean_bytes=0.0).storage == math.inf


def test_without_a_number_it_says_what_the_machine_can_do():
    assert most(NODE, seconds=8 * HOUR) == int(76 * 8 * 3600 / 1.2)
    assert f"{most(NODE, seconds=8 * HOUR):,} scans in 8.0 h" in said(words.ability_lines(NODE, seconds=8 * HOUR))


def test_a_spread_is_the_median_between_the_lowest_and_the_highest():
    assert Spread.of([3.0, 1.0, 2.0, 9.0, 2.5]) == Spread(2.5, 1.0, 9.0)


def test_a_busy_machine_and_uneven_rounds_are_said():
    uneven = replace(NODE, together=Spread(76.0, 40.0, 80.0))

    assert said(words.cautions(SAID, NODE, MACHINE, is_scoring=False)) == ""
    assert "1.5 cores busy" in said(words.cautions(SAID, NODE, replace(MACHINE, busy=1.5), is_scoring=True))
    assert "rounds differ" in said(words.cautions(SAID, uneven, MACHINE, is_scoring=False))


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"sample": SHIPPED}, "these samples stand in"),
        ({"rejected": {"truncated": 20}}, "20% of the scans"),
        ({"memory_bytes": 15e9}, "nearly all the memory"),
        ({"cache_left_out": True}, "without the prepared cache"),
    ],
)
def test_what_the_figures_are_not_to_be_trusted_for_is_said(changed, line):
    assert line in said(words.cautions({**SAID, **changed}, NODE, MACHINE, is_scoring=False))


def test_a_queue_that_nobody_works_at_is_not_called_done():
    waits = Queue(7600, 2, 0, ("UTC",), None, None)

    lines = said(words.queue_lines(waits, 0, NODE, EVENING))

    assert "7,600 scans wait in 2 batches" in lines
    assert "no worker is alive, so nothing gets done" in lines
    assert "takes 2 min: done at 20:01 UTC, before the deadline (2026-11-25 04:00 UTC)" in lines


def test_a_queue_that_comes_too_late_says_by_how_much():
    waits = Queue(36_000, 1, 1, ("UTC",), 1.0, None)

    lines = said(words.queue_lines(waits, 3, NODE, EVENING))

    assert "3 workers alive, 1.00 scans/s" in lines
    assert "and more to come" in lines
    assert "done at 2026-11-25 06:00 UTC, 2.0 h AFTER the deadline (2026-11-25 04:00 UTC)" in lines


def test_until_there_is_a_rate_of_late_the_one_since_submission_counts():
    assert words.expected_seconds(Queue(100, 1, 0, (), None, 50.0)) == 50.0
    assert words.expected_seconds(Queue(100, 1, 0, (), 4.0, 50.0)) == 25.0
    assert words.expected_seconds(Queue(100, 1, 0, (), None, None)) is None


@pytest.mark.parametrize(
    ("clock", "hours"),
    [("07:00", 8.0), ("23:30", 0.5), ("23:00", 24.0), ("22:59", 24 - 1 / 60)],
)
def test_by_is_the_next_time_that_the_sites_clock_shows_it(clock, hours):
    evening = datetime(2026, 11, 24, 22, 0, tzinfo=UTC)  # 23:00 in Rome

    assert seconds_until(clock, evening, zone(("Europe/Rome",))) == pytest.approx(hours * HOUR)


def test_the_night_in_which_clocks_go_back_is_an_hour_longer():
    evening = datetime(2026, 10, 24, 20, 0, tzinfo=UTC)  # 22:00 in Rome, still summer

    assert seconds_until("07:00", evening, zone(("Europe/Rome",))) == 10 * HOUR


@pytest.mark.parametrize("clock", ["25:00", "7", "", "07:00:00", "tomorrow"])
def test_what_is_no_time_of_day_is_refused(clock):
    with pytest.raises(ValueError, match=r"time data|unconverted"):
        seconds_until(clock, now(), UTC)


def test_times_are_the_sites_where_they_share_a_zone_and_this_machines_where_not():
    assert str(zone(("Europe/Rome",))) == "Europe/Rome"
    assert zone(("Europe/Rome", "Asia/Tokyo")) is None
    assert zone(()) is None


@pytest.mark.parametrize(("seconds", "told"), [(0.2, "under a second"), (90, "2 min"), (5 * 86400, "5.0 days")])
def test_lengths_are_told_in_what_people_count_in(seconds, told):
    assert length(seconds) == told


def test_a_queue_counts_what_has_no_outcome(db):
    submitted(db, folder(10, "a"))
    submitted(db, folder(6, "b"), root="/other")
    complete(db, claim(db))

    found = tonight.queue(db)

    assert (found.waiting, found.batches, found.still_submitting) == (12, 2, 0)
    assert found.zones == ("UTC",)


def test_an_empty_queue_waits_for_nothing(db):
    assert tonight.queue(db) == Queue(0, 0, 0, (), None, None)


def test_the_rate_of_late_is_that_of_the_chunks_after_the_first(db):
    submitted(db, folder(20))
    for minutes in (15, 4, 2, 1):  # ago; the first is too long ago to count
        complete(db, held := claim(db))
        moment = now() - timedelta(minutes=minutes)
        with db.writing() as session:
            session.execute(update(Chunk).where(Chunk.id == held.chunk_id).values(completed_at=moment))

    # Two chunks of 4 scans in the four minutes since the one before them.
    assert tonight.lately(db) == pytest.approx(8 / 240, rel=0.02)
    assert tonight.lately(db, since=now() - timedelta(seconds=90)) is None


def test_samples_are_drawn_from_what_waits_and_from_what_was_scored_last(db):
    submitted(db, folder(10))
    complete(db, claim(db))

    waiting, done = tonight.some_waiting(db, 4), tonight.some_of_the_last(db, 100)

    assert len({scan.path for scan in waiting}) == 4
    assert {scan.path for scan in done} == {f"scan{number:04}.png" for number in range(4)}
    assert not {scan.path for scan in waiting} & {scan.path for scan in done}


def test_a_named_folder_is_measured_before_anything_else(db, tmp_path):
    submitted(db, folder(10))
    complete(db, claim(db))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "scan.png").write_bytes(b"x")

    (named,) = samples(db, tmp_path)

    assert [scan.path for scan in named.scans] == ["below/scan.png"]
    assert [one.name for one in samples(db, None)] == [QUEUE, LAST, SHIPPED]
    assert [one.name for one in samples(None, None)] == [SHIPPED]


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(Refused, match="holds no file"):
        samples(None, tmp_path)


def test_reading_counts_files_and_bytes_and_passes_over_what_is_gone(tmp_path):
    (tmp_path / "scan").write_bytes(bytes(3_000_000))
    scans = [WaitingScan(n, "", str(tmp_path), name, "", None) for n, name in enumerate(("scan", "gone"))]

    found = read_for(0.05, scans, at_once=2)

    assert found.files > 0
    assert found.bytes == 3_000_000 * found.files
    assert found.seconds > 0


def test_this_machine_says_what_it_has():
    found = look(seconds=0.01)

    assert found.cores == len(os.sched_getaffinity(0))
    assert found.memory > found.memory_free > 0
    assert found.busy is None or 0 <= found.busy <= os.cpu_count()


def test_a_database_that_is_not_there_yet_is_not_made_and_the_machine_is_planned_for(short_folder):
    nowhere = connect(Settings(home=short_folder / "nowhere"))

    night = tonight_of(nowhere)

    assert (night.db, night.queue, night.alive) == (None, None, 0)
    assert "does not exist yet: run `nightread init`" in night.why
    assert not (short_folder / "nowhere").exists()


def test_workers_that_are_alive_are_counted(db):
    submitted(db, folder(4))
    heartbeats.beat(db, name="host:cpu", host="host", device="cpu", pid=1, doing="batch 1", scans=0)
    heartbeats.beat(db, name="old:cpu", host="old", device="cpu", pid=1, doing="", scans=0)
    with db.writing() as session:
        session.execute(text("UPDATE workers SET beat = 1 WHERE name = 'old:cpu'"))

    night = tonight_of(db)

    assert (night.alive, night.is_scoring, night.queue.waiting) == (1, True, 4)


def test_the_command_plans_on_what_waits_and_leaves_it_waiting(whole):
    batch = submission.submit(whole, SAMPLES, site_name="local").batch_id
    before = sorted(path.name for path in whole.config.home.iterdir())

    done = command(whole.config.home, "--scans", "20000", "--hours", "8", "--seconds", "1", "--json")

    told = json.loads(done.stdout)
    measured, found = told["measured"], told["answer"]
    assert measured["sample"] == QUEUE
    assert measured["rounds"] >= measuring.LEAST_ROUNDS
    assert (measured["engine_name"], measured["precision"]) in {("openvino", "two_stage"), ("openvino", "float32")}
    assert measured["engine"]["low"] <= measured["engine"]["median"] <= measured["engine"]["high"]
    assert found["machines"] >= 1
    assert done.returncode == (0 if found["meets"] else 1)
    assert told["queue"]["waiting"] == reading.totals(whole, batch).waiting > 0
    assert told["queue"]["seconds_left"] is None  # nobody is at it
    assert sorted(path.name for path in whole.config.home.iterdir()) == before


def test_files_that_are_no_pictures_are_told_and_nothing_is_left_behind(whole, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    before = sorted(path.name for path in whole.config.home.iterdir())

    done = command(whole.config.home, "--seconds", "1", "--folder", str(tmp_path))

    assert done.returncode == 4
    assert "no picture could be prepared (1 not_an_image)" in done.stderr
    assert done.stdout == ""
    assert sorted(path.name for path in whole.config.home.iterdir()) == before


def test_files_that_were_moved_away_give_way_to_the_next_sample(tmp_path, night):
    gone = Sample("moved", [WaitingScan(1, "", str(tmp_path / "gone"), "scan.png", "", None)])
    night.scan("there.png")
    lost = Sample("lost", [WaitingScan(1, "", str(night.folder), "missing.png", "", None)])
    there = Sample("there", [WaitingScan(1, "", str(night.folder), "there.png", "", None)])
    orders = [one.as_order() for one in (gone, lost, there)]

    name, bench, passed_over = measuring._choose(night.hand, night.hand.model(night.model.id), orders)

    assert (name, len(bench.scans)) == ("there", 1)
    assert [one["sample"] for one in passed_over] == ["moved", "lost"]
    assert "its folder does not answer" in passed_over[0]["why"]
    assert "1 missing" in passed_over[1]["why"]


def test_each_part_of_a_night_is_measured_as_often_as_the_others(night):
    for number in range(3):
        night.scan(f"{number}.png", seed=number)
    night.scan("cut.png", content=builders.bad_files()["cut.png"][1])
    hand = measuring.Rehearsal(night.hand.config, night.db, "cpu", night.hand.decoders)
    hand._loaded = night.hand._loaded
    given = of_folder("these", night.folder).as_order()

    _, bench, _ = measuring._choose(hand, hand.model(night.model.id), [given])
    found = measuring._in_rounds(bench, 0.1)

    parts = [found[name] for name in measuring.SHARES]
    assert {len(part) for part in parts} <= set(range(measuring.LEAST_ROUNDS, measuring.ROUNDS + 1))
    assert len({len(part) for part in parts}) == 1
    assert all(rate > 0 for part in parts for rate in part)
    assert set(bench.rejected) == {"truncated"}
    assert found["mean_bytes"] > 0
    assert reading.batches(night.db) == []


@pytest.mark.parametrize("arguments", [["--scans", "0"], ["--hours", "0"], ["--by", "7"], ["--folder", "/nowhere"]])
def test_what_makes_no_sense_is_said_before_anything_is_measured(home, arguments):
    done = CliRunner().invoke(plan, arguments)

    assert done.exit_code == 2
    assert "measuring" not in done.stderr


def test_planning_loads_no_engine_itself():
    code = (
        "import sys, deploy.plan.command\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'openvino', 'jax'}))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_measurement_that_breaks_says_how(home, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(NotMeasured, match="ended with 1: it said nothing"):
        measure(home, samples(None, None), model=Path("model"), threshold=None, seconds=1.0)
