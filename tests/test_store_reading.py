"""What people ask of the ledger: retries on record, models, workers."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from ledger import claim, complete, folder, newer_model, scored, submitted
from sqlalchemy import select

from db.schema import AuditEvent, Outcome
from db.store import heartbeats, reading, recovery, scoring
from db.words import Cause, Reason


def test_failed_scans_are_tried_again_on_record_and_nothing_else_is(db):
    batch = submitted(db, folder(3))
    held = claim(db)
    failed = held.scans[0]
    results = [scored(held.scans[1]), scoring.Rejected(held.scans[2].id, Reason.BLANK, "")]
    scoring.complete_chunk(db, held, [scoring.Failed(failed.id, Cause.WORKER_DIED, "thrice"), *results])

    assert recovery.retry_failed(db, batch, by="admin") == 1

    assert reading.totals(db, batch).waiting == 1
    again = claim(db)
    assert [scan.id for scan in again.scans] == [failed.id]
    complete(db, again, 0.8)
    totals = reading.totals(db, batch)
    assert (totals.scored, totals.rejected, totals.failed, totals.waiting) == (2, 1, 0, 0)
    with db.reading() as session:
        retried = session.scalars(select(AuditEvent).where(AuditEvent.action == "batch_retried")).one()
        assert (retried.actor, retried.detail) == ("admin", {"scans": 1})
        kept = session.scalars(select(Outcome.kind).where(Outcome.scan_id == failed.id).order_by(Outcome.id))
        assert list(kept) == ["failed", "scored"]


def test_retrying_a_batch_without_failures_does_nothing(db):
    batch = submitted(db, folder(2))
    complete(db, claim(db))

    assert recovery.retry_failed(db, batch, by="admin") == 0
    assert claim(db) is None


def test_a_batch_finishes_with_the_model_it_started_with(db):
    batch = submitted(db, folder(1))
    newer = newer_model(db)

    assert claim(db) is None
    assert scoring.most_urgent_model(db) != newer
    assert reading.totals(db, batch).model == "stub 1"


def test_the_same_files_under_a_new_model_are_a_new_batch(db):
    first = submitted(db, folder(2))
    complete(db, claim(db))
    newer_model(db)

    second = submitted(db, folder(2))

    assert second != first
    complete(db, claim(db), 0.1)
    assert reading.totals(db, second).flagged == 0
    assert reading.totals(db, first).flagged == 2


def test_a_worker_is_alive_while_its_heart_beats(db):
    heartbeats.beat(db, name="host:cpu", host="host", device="cpu", pid=7, doing="waiting", scans=3)
    (worker,) = reading.workers(db)
    assert (worker.alive, worker.doing, worker.scans) == (True, "waiting", 3)

    heartbeats.worker_stopped(db, "host:cpu")

    assert not reading.workers(db)[0].alive


def test_a_worker_started_again_replaces_its_row(db):
    for pid in (7, 8):
        heartbeats.beat(db, name="host:cpu", host="host", device="cpu", pid=pid, doing="waiting", scans=0)

    assert [worker.pid for worker in reading.workers(db)] == [8]


def test_processes_that_share_a_name_by_mistake_both_go_on_beating(db):
    start = Barrier(4)

    def beat(pid):
        start.wait()
        for _ in range(15):
            heartbeats.beat(db, name="host:cpu", host="host", device="cpu", pid=pid, doing="waiting" * 99, scans=0)

    with ThreadPoolExecutor(4) as processes:
        list(processes.map(beat, range(4)))  # raises what a beat raised

    (worker,) = reading.workers(db)
    assert worker.alive
    assert len(worker.doing) == 100
