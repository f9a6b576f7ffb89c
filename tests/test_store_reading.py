"""What people ask of the ledger: retries on record, models, the worklist, workers."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from conftest import STUB
from ledger import claim, complete, folder, scored, submitted
from sqlalchemy import select

from db.schema import AuditEvent, Outcome
from db.store import heartbeats, models, people, reading, recovery, scoring, worklist
from db.words import Cause, Reason, Role, Verdict


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


def test_the_worklist_is_worst_first_in_pages_and_loses_what_was_read(db):
    submitted(db, folder(6), chunk_size=6)
    held = claim(db)
    scores = [0.6, 0.9, 0.2, 0.7, 0.9, 0.5]
    scoring.complete_chunk(db, held, [scored(scan, score) for scan, score in zip(held.scans, scores, strict=True)])
    mine = {"site_ids": {1}, "model_id": models.active(db).id}

    first = worklist.page(db, **mine, limit=2)
    second = worklist.page(db, **mine, limit=9, after=(first[-1].score, first[-1].scan_id))

    assert [item.score for item in [*first, *second]] == [0.9, 0.9, 0.7, 0.6, 0.5]
    assert worklist.unread(db, **mine) == 5
    people.add_user(db, "r", role=Role.READER, password_hash="x", site_ids={1}, by="test")
    reader = people.user_named(db, "r")
    people.add_review(db, first[0].scan_id, reader=reader, verdict=Verdict.CONFIRM, note="")
    assert worklist.unread(db, **mine) == 4
    assert worklist.page(db, **{**mine, "site_ids": set()}) == []


def newer_model(db, version="2"):
    """Another trained model, active from now on; its id."""
    newer = models.register(db, models.Registration(**{**vars(STUB), "version": version}), by="test")
    models.activate(db, newer, why="better", by="test")
    return newer


def test_scores_of_two_models_never_share_a_list(db):
    first = models.active(db).id
    submitted(db, folder(3))
    complete(db, claim(db), 0.9)
    second = newer_model(db)
    submitted(db, folder(2), root="/next")
    complete(db, claim(db), 0.8)

    to_read = worklist.models_to_read(db, site_ids={1})

    assert [(one.model_id, one.label, one.unread) for one in to_read] == [(second, "stub 2", 2), (first, "stub 1", 3)]
    for model_id, score, count in ((first, 0.9, 3), (second, 0.8, 2)):
        listed = worklist.page(db, site_ids={1}, model_id=model_id)
        assert [item.score for item in listed] == [score] * count
        assert worklist.unread(db, site_ids={1}, model_id=model_id) == count


def test_where_the_active_model_flagged_nothing_the_one_with_the_newest_batch_comes_first(db):
    older = models.active(db).id
    submitted(db, folder(1))
    complete(db, claim(db))
    newer = newer_model(db)
    submitted(db, folder(1), root="/next")
    complete(db, claim(db))
    newer_model(db, "3")

    assert [one.model_id for one in worklist.models_to_read(db, site_ids={1})] == [newer, older]
    assert worklist.models_to_read(db, site_ids=set()) == []


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
