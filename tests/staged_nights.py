"""Hostile nights, each the same every time: what goes wrong in it is staged, and a sound protocol ends it well.

A night runs in one child of a stage; its workers and producers are forks of that child, so that they may be killed. It
returns what people would have seen go wrong by then; the auditor comes after it."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import redis
from sqlalchemy import event, text
from sqlalchemy.orm import Session
from staged_child import StubScorer, shift

from db.settings import settings
from db.store import heartbeats, intake, recovery, scoring
from db.store.connection import database
from deploy.drill import mutants
from deploy.drill.stub import digest
from producer import submission
from workers import golden, queue, sweep, tasks
from workers.line import Line
from workers.shift import Shift

PREDICT = StubScorer.predict
CLAIMS = 12  # of one worker in one ring: a mutant that goes in circles must come to an end


class Night:
    """The folder, the ledger and the queue of one night; `seen` is what went wrong before anybody audits."""

    def __init__(self, told):
        self.folder = Path(told["folder"])
        self.poison, self.broken = told.get("poison", []), told.get("broken", [])
        self.db = database()
        self.redis = redis.Redis(unix_socket_path=settings().queue.removeprefix("redis+socket://"))
        self.seen = []

    def expect(self, true, otherwise):
        if not true:
            self.seen.append(otherwise)

    def sql(self, statement):
        with self.db.writing() as session:
            done = session.connection().execute(text(statement))
            return done.all() if done.returns_rows else []

    def fork(self, does):
        """Run `does()` in a process of its own; True where it ended by itself."""
        self.db.engine.dispose()
        self.redis.close()
        pid = os.fork()
        if pid == 0:
            try:
                does()
                os._exit(0)
            except BaseException:  # noqa: BLE001
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        return not os.WIFSIGNALED(status)

    def submit(self):
        return submission.submit(self.db, self.folder, site_name="local")

    def hours_pass(self, seconds=31.0):
        """Leases of 30 s end, whoever holds them."""
        self.sql(f"UPDATE chunks SET lease_until = lease_until - {seconds}")

    def sweep(self):
        return sweep.sweep(self.db)

    def work(self, device=None, *, stop_after=None):
        """One worker answers a ring, if one is there; whether it lived. `device(pixels)` runs before each prediction;
        after `stop_after` predictions the worker is told to stop."""
        if self.redis.lpop(queue.QUEUE) is None:
            return True
        return self.fork(lambda: work(device, stop_after))

    def dawn(self, device=None, *, rounds=4):
        """Time passes, sweeps come by, workers answer what rings there are."""
        for _ in range(rounds):
            self.hours_pass()
            self.sweep()
            self.work(device)

    def waiting(self):
        return self.sql("SELECT count(*) FROM chunks WHERE completed_at IS NULL")[0][0]


def work(device=None, stop_after=None):
    """What a worker's process does."""
    hand = BoundedShift.like(shift())
    said = []

    def predict(self, pixels):
        if device is not None:
            device(pixels)
        said.append(len(pixels))
        hand.stop = stop_after is not None and len(said) > stop_after
        return PREDICT(self, pixels)

    StubScorer.predict = predict
    heartbeats.beat(hand.db, name=hand.name, host="h", device="cpu", pid=os.getpid(), doing=hand.doing, scans=0)
    tasks.work(hand)


class BoundedShift(Shift):
    """A shift that ends after CLAIMS claims, or when it is told to."""

    claims, stop = 0, False

    @classmethod
    def like(cls, hand):
        return cls(hand.config, hand.db, hand.device, hand.decoders, name=hand.name, _renewed=hand._renewed)

    def claim(self, model_id):
        self.claims += 1
        return super().claim(model_id)

    def is_stopping(self):
        return self.stop or self.claims >= CLAIMS


def die(*pixels):
    os.kill(os.getpid(), signal.SIGKILL)


def is_golden(pixels):
    return bool((pixels[0] == golden.picture(pixels.shape[1])).all())


def on_scans(does, *, after=0):
    """A device that does something over scans (not over the golden image), after so many predictions of them."""
    said = []

    def device(pixels):
        if not is_golden(pixels):
            said.append(1)
            if len(said) > after:
                does(pixels)

    return device


def run(told):
    """The night `told["night"]`, with a mutant where one is named; what was seen goes to a file."""
    mutants.arm(told["mutant"])
    night = Night(told)
    try:
        globals()[told["night"]](night)
    except Exception as error:  # noqa: BLE001 - a mutant may break anything: that is seen, too
        night.seen.append(f"the night broke off: {type(error).__name__}: {error}"[:300])
    Path(told["report"]).write_text(json.dumps(night.seen))


# The nights.


def quiet(night):
    night.submit()
    night.dawn()


def a_worker_is_killed(night):
    night.submit()
    night.expect(not night.work(on_scans(die, after=1)), "the worker was to die")
    night.dawn()


def a_sleeper_wakes_with_wrong_results(night):
    night.submit()
    sleeper = shift("sleeper:cpu")
    loaded = sleeper.model(1)
    claim = sleeper.claim(1)
    night.hours_pass()
    night.sweep()
    other = shift("other:cpu")
    chunk = tasks.next_chunk(other, time.monotonic() + 600)
    wrong = [scoring.Scored(scan.id, 0.123, {}, {}, "stub", "exact", "none", 0.1) for scan in claim.scans]
    night.expect(chunk.claim.chunk_id == claim.chunk_id and loaded.view.id == 1, "the other was to hold that chunk")
    night.expect(not _tried(scoring.complete_chunk, night.db, claim, wrong), "a lost claim was completed")
    _tried(attend, other, chunk)
    night.expect(not _tried(scoring.complete_chunk, night.db, claim, wrong), "a lost claim was completed later")
    night.dawn()


def a_sleeper_goes_on_renewing(night):
    night.submit()
    sleeper = scoring.claim_chunk(night.db, "sleeper", trained_model_id=1, lease_seconds=30.0)
    night.hours_pass()
    night.sweep()
    scoring.claim_chunk(night.db, "dies", trained_model_id=1, lease_seconds=30.0)
    holds = True
    for _ in range(6):
        night.hours_pass(20.0)
        holds = holds and scoring.renew(night.db, sleeper, lease_seconds=30.0)
        night.sweep()
        night.work()


def two_workers_at_once(night):
    night.submit()
    slow = shift("slow:cpu")
    slow.model(1)
    chunk = tasks.next_chunk(slow, time.monotonic() + 600)
    night.work()
    night.expect(scoring.renew(night.db, chunk.claim, lease_seconds=30.0), "a claim was lost within its lease")
    _tried(attend, slow, chunk)
    night.dawn()


def the_queue_is_wiped(night):
    night.submit()
    night.redis.flushall()
    night.dawn()


def a_worker_with_a_wrong_clock_dies(night):
    night.submit()
    right = time.time

    def does():
        time.time = lambda: right() + 7200.0
        work(on_scans(die, after=1))

    night.redis.lpop(queue.QUEUE)
    night.fork(does)
    night.dawn()


def a_worker_is_told_to_stop(night):
    night.submit()
    night.work(stop_after=1)
    held = night.sql("SELECT count(*) FROM chunks WHERE token IS NOT NULL")[0][0]
    night.expect(held == 0, "a worker that stopped in good order still holds chunks")
    night.dawn()


def a_worker_dies_at_its_first_commit_of_a_completion(night):
    night.submit()

    def complete(hand, claim, results, complete=Shift.complete):
        here = threading.get_ident()  # the chunk ahead is claimed meanwhile, in another thread
        event.listen(Session, "after_commit", lambda session: here == threading.get_ident() and die())
        return complete(hand, claim, results)

    def does():
        Shift.complete = complete
        work()

    night.redis.lpop(queue.QUEUE)
    night.expect(not night.fork(does), "the worker was to die")
    night.dawn()


def a_scan_kills_its_workers(night):
    """Named in `poison`: it must be given up within three deaths, and its neighbours scored."""
    night.submit()
    deaths = 0
    for _ in range(12):
        deaths += not night.work(on_scans(lambda pixels: _dies_over(night.poison, pixels)))
        night.hours_pass()
        night.sweep()
        if deaths > 3 or not night.waiting():
            break
    night.expect(deaths == 3, f"{deaths} workers died of one scan")
    night.expect(not night.waiting(), "scans wait behind one that kills its workers")


def a_sick_device_kills_its_workers(night):
    """Whatever it scores, the golden image too."""
    night.submit()
    night.work(on_scans(die))
    for _ in range(6):
        night.hours_pass()
        night.sweep()
        night.work(die)
        night.sweep()
    night.dawn()


def a_sound_worker_is_killed_once_with_a_scan_in_hand(night):
    night.submit()
    for _ in range(2):  # the first has named no scan yet
        night.expect(not night.work(on_scans(die)), "the worker was to die")
        night.hours_pass()
        night.sweep()
    night.dawn()


def the_engine_fails_over_one_scan(night):
    """Named in `broken`: it fails, alone."""
    night.submit()
    night.dawn(on_scans(lambda pixels: _fails_over(night.broken, pixels)))


def what_failed_is_tried_again(night):
    the_engine_fails_over_one_scan(night)
    recovery.retry_failed(night.db, 1, by="operator")
    night.dawn()


def a_producer_is_killed_between_pages(night):
    submission.FIRST_PAGE = submission.PAGE = 4
    add_page, pages = intake.add_page, []

    def add_the_first(*told):
        if pages:
            die()
        pages.append(add_page(*told))
        return pages[0]

    def does():
        intake.add_page = add_the_first
        night.submit()

    night.expect(not night.fork(does), "the producer was to die")
    submission.resume(night.db)
    night.dawn()


def a_producer_is_killed_within_a_page(night):
    def does():
        intake._add_rejections = die
        night.submit()

    night.expect(not night.fork(does), "the producer was to die")
    night.submit()
    night.dawn()


def a_folder_is_submitted_twice(night):
    first = night.submit()
    night.expect(night.submit().batch_id == first.batch_id, "one folder, two batches")
    night.dawn()
    night.submit()


def a_file_changes_after_submission(night):
    night.submit()
    changed, other = sorted(night.folder.glob("*.png"))[:2]
    changed.write_bytes(other.read_bytes())
    night.dawn()


def the_storage_is_away_for_a_while(night):
    night.submit()
    away = night.folder.with_name("unmounted")
    night.folder.rename(away)
    night.work()
    away.rename(night.folder)
    night.dawn()


def the_device_is_slow_and_the_sweep_quick(night):
    night.submit()

    def device(pixels):
        night.hours_pass(20.0)
        recovery.free_expired(night.db)

    for _ in range(3):
        night.sweep()
        night.work(on_scans(device))
    claims = night.sql("SELECT max(attempts) FROM chunks")[0][0]
    night.expect(claims == 1, f"a chunk was taken from a living worker: claimed {claims} times")


def many_chunks_wait(night):
    night.submit()
    for _ in range(6):
        night.sweep()
        night.work()


def attend(hand, chunk):
    with Line(1) as line:
        tasks.attend(hand, chunk, line)
        line.settle()


def _tried(does, *told):
    """What it returns; None where a mutant's transaction fails."""
    try:
        return does(*told)
    except Exception:  # noqa: BLE001
        return None


def _dies_over(digests, pixels):
    if any(digest(one).hex() in digests for one in pixels):
        die()


def _fails_over(digests, pixels):
    if any(digest(one).hex() in digests for one in pixels):
        raise RuntimeError("the device failed")
