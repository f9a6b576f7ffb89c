"""A scan that kills whoever scores it, and workers that are killed though no scan is at fault; real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import builders
import pytest
from sqlalchemy import text, update

from db.schema import Chunk
from db.settings import Settings
from db.store import audit, models, reading
from db.store.connection import connect
from db.words import Kind
from deploy.drill import stub
from producer import submission
from workers import sweep
from workers.decoding import DecoderPool, Source
from workers.provisions import limits

PATIENCE = 250  # seconds; the machine may be busy
LEASE_SECONDS = 4
CLAIMED = "SELECT attempts, token IS NOT NULL, breadcrumb FROM chunks"
BATCH = 4  # images in one call of the engine, and so golden images in a proof


class House:
    """A home with the stub as its model, and one real worker on it; the test itself is the sweep."""

    def __init__(self, home, queue_url, folder):
        self.db, self.folder, self.log = connect(home), folder, folder.parent / "worker.log"
        folder.mkdir()
        models.activate(self.db, models.register(self.db, stub.REGISTRATION, by="test"), why="a test", by="test")
        self.environment = {
            **os.environ,
            "NIGHTREAD_HOME": str(home.home),
            "NIGHTREAD_QUEUE_URL": queue_url,
            "NIGHTREAD_LEASE_SECONDS": str(LEASE_SECONDS),
            "NIGHTREAD_ENGINE_BATCH": str(BATCH),
            "NIGHTREAD_DECODERS": "1",
            stub.SCRIPT: str(folder.parent / "script.json"),
        }
        self.script()
        self.worker = None

    def script(self, *, pace=0.0, **marks):
        """How slow the stub is, and over which files it misbehaves."""
        digests = {stub.digest(self.pixels(name.replace("_", "."))).hex(): how for name, how in marks.items()}
        draft = self.folder.parent / "draft.json"
        draft.write_text(json.dumps({"pace": pace, "marks": digests}))
        draft.replace(self.environment[stub.SCRIPT])

    def pixels(self, name):
        """What the stub sees of a file."""
        with DecoderPool(1, limits(Settings()), memory_bytes=2_000_000_000, seconds=60) as decoders:
            return decoders.prepare(Source(str(self.folder), name), stub.INPUT_SIZE).pixels

    def submit(self, count):
        for number in range(count):
            picture = builders.encoded(".png", builders.chest(seed=number))
            (self.folder / f"s{number}.png").write_bytes(picture)
        self.batch = submission.submit(self.db, self.folder, site_name="local").batch_id

    def start(self):
        command = [sys.executable, str(Path(__file__).with_name("impatient_worker.py")), "worker", "--device", "cpu"]
        environment = {**self.environment, "PYTHONPATH": str(Path(__file__).parents[1])}
        with self.log.open("ab") as log:
            self.worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def stop(self):
        if self.worker is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.worker.pid, signal.SIGKILL)
            self.worker.wait(30)
        self.db.engine.dispose()

    def child(self):
        """The process that scores, as its heartbeat tells."""
        return self.ask("SELECT pid FROM workers WHERE stopped_at IS NULL")

    def kill_child(self):
        pid = self.child()[0][0]
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: self.child() != [(pid,)], "another child", is_sweeping=False)

    def until_idle(self):
        """Until the child has loaded and proved its model."""
        doing = "SELECT doing FROM workers"
        self.until(lambda: self.ask(doing) == [("waiting",)], "an idle worker", is_sweeping=False)

    def ask(self, question):
        with self.db.reading() as session:
            return [tuple(row) for row in session.execute(text(question))]

    def expire(self):
        with self.db.writing() as session:
            session.execute(update(Chunk).where(Chunk.token.is_not(None)).values(lease_until=1.0))

    def until(self, condition, why, *, is_sweeping=True):
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {why}: {self.log.read_text()[-2000:]}"
            assert self.worker.poll() is None, self.log.read_text()[-2000:]
            if is_sweeping:
                sweep.sweep(self.db)
            time.sleep(0.2)

    def until_nothing_waits(self):
        self.until(lambda: reading.totals(self.db, self.batch).waiting == 0, "outcomes")

    def crashes(self):
        return self.log.read_text().count("exited with 'signal 9 (SIGKILL)'")

    def lines(self):
        return {line.path: line for line in reading.report_lines(self.db, self.batch)}


@pytest.fixture
def house(home, queue_server, tmp_path, request):
    made = House(request.getfixturevalue("home"), queue_server, tmp_path / "scans")
    yield made
    made.stop()


def test_a_scan_that_kills_its_worker_fails_after_three_crashes_and_its_neighbours_are_scored(house):
    house.submit(12)
    house.script(s5_png="kill")

    house.start()
    house.until_nothing_waits()

    lines = house.lines()
    poison = lines.pop("s5.png")
    assert house.crashes() == 3
    assert (poison.outcome, poison.reason) == (Kind.FAILED, "worker_died")
    assert poison.detail == (
        "2 workers that had scored the golden image were lost with this scan alone in hand; claimed 3 times"
    )
    assert {path: line.score for path, line in lines.items()} == {
        path: pytest.approx(stub.score(house.pixels(path)), abs=1e-12) for path in lines
    }

    house.script()  # mended
    retried = nightread(house, "retry", str(house.batch), "--json")
    house.until_nothing_waits()

    assert json.loads(retried.stdout)["retried"] == 1
    assert [(event["action"], event["detail"]) for event in audit.events(house.db)][-1] == (
        "batch_retried",
        {"scans": 1},
    )
    assert house.lines()["s5.png"].score == pytest.approx(stub.score(house.pixels("s5.png")), abs=1e-12)
    assert house.ask("SELECT generation, kind FROM outcomes WHERE generation > 0 OR kind = 'failed' ORDER BY id") == [
        (0, Kind.FAILED),
        (1, Kind.SCORED),
    ]
    assert house.crashes() == 3


def test_a_healthy_worker_killed_again_and_again_before_it_proved_sound_blames_no_scan(house):
    house.start()
    house.until_idle()
    house.submit(1)

    for claims in range(1, 4):
        house.script(pace=3.0)  # so that it is killed in the middle, at its second claim while it proves sound
        house.until(lambda claims=claims: house.ask(CLAIMED) == [(claims, 1, None)], f"claim {claims}")
        house.script()
        house.kill_child()
        house.until_idle()
        house.expire()
    house.until_nothing_waits()

    assert house.crashes() == 3
    assert house.lines()["s0.png"].outcome == Kind.SCORED
    assert house.ask("SELECT vouched FROM chunks") == [(0,)]


def test_a_worker_whose_device_hangs_ends_when_it_is_told_to_and_its_scan_is_scored_by_the_next(house):
    house.submit(2)
    house.script(s1_png="hang")
    house.start()
    house.until(lambda: house.ask("SELECT count(token) FROM chunks") == [(1,)], "a claim")
    time.sleep(1.0)

    house.worker.terminate()
    house.worker.wait(PATIENCE)
    house.script()
    house.start()
    house.until_nothing_waits()

    assert {line.outcome for line in house.lines().values()} == {Kind.SCORED}


def nightread(house, *arguments):
    command = [sys.executable, "-m", "producer", *arguments]
    return subprocess.run(command, env=house.environment, capture_output=True, text=True, timeout=PATIENCE, check=True)
