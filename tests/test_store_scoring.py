"""The ledger of the night: claimed on a lease, completed once, never lost, whatever dies."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from ledger import LEASE, claim, complete, expire, folder, found, lose, lose_in_hand, scored, submitted
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from db.schema import Chunk, Outcome, Scan
from db.store import heartbeats, reading, recovery, scoring
from db.words import PROTOCOL, Cause, Reason


def lines(db, batch):
    return {line.path: line for line in reading.report_lines(db, batch)}


def test_a_chunk_is_held_by_one_worker_at_a_time(db):
    submitted(db, folder(4))

    assert len(claim(db).scans) == 4
    assert claim(db) is None
    assert scoring.waiting_chunks(db) == 0


def test_workers_that_claim_at_once_get_different_chunks(db):
    submitted(db, folder(120), chunk_size=2)

    def take_all(worker):
        taken = []
        while (held := claim(db, f"host:{worker}")) is not None:
            taken += [scan.id for scan in held.scans]
        return taken

    with ThreadPoolExecutor(6) as workers:
        scans = [scan for taken in workers.map(take_all, range(6)) for scan in taken]

    assert len(scans) == len(set(scans)) == 120


def test_a_completed_chunk_has_an_outcome_for_each_scan(db):
    batch = submitted(db, folder(4))

    assert complete(db, claim(db))

    totals = reading.totals(db, batch)
    assert (totals.scored, totals.waiting, totals.is_done) == (4, 0, True)
    assert claim(db) is None


@pytest.mark.parametrize(("score", "flagged"), [(0.4999, False), (0.5, True), (1.0, True), (0.0, False)])
def test_a_score_at_the_threshold_is_flagged(db, score, flagged):
    batch = submitted(db, folder(1))

    complete(db, claim(db), score)

    (line,) = lines(db, batch).values()
    assert (line.flagged, line.threshold, line.score) == (flagged, 0.5, pytest.approx(score))


def test_scored_rejected_and_failed_go_in_together(db):
    batch = submitted(db, folder(3))
    held = claim(db)
    first, second, third = held.scans

    results = [
        scored(first),
        scoring.Rejected(second.id, Reason.BLANK, "nothing in the frame"),
        scoring.Failed(third.id, Cause.OUT_OF_MEMORY, "even alone"),
    ]
    assert scoring.complete_chunk(db, held, results)

    totals = reading.totals(db, batch)
    assert (totals.scored, totals.rejected, totals.failed) == (1, 1, 1)
    assert totals.reasons == {"blank": 1, "out_of_memory": 1}


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.5])
def test_what_is_no_probability_is_never_stored_as_a_score(db, score):
    batch = submitted(db, folder(1))
    held = claim(db)

    with pytest.raises(DBAPIError):
        complete(db, held, score)

    assert reading.totals(db, batch).waiting == 1
    assert complete(db, held)


def test_completing_twice_counts_once(db):
    batch = submitted(db, folder(4))
    held = claim(db)

    assert complete(db, held)
    assert not complete(db, held)

    assert reading.totals(db, batch).scored == 4


def test_part_of_a_chunk_is_given_back_at_no_cost(db):
    batch = submitted(db, folder(4))
    held = claim(db)

    assert scoring.complete_chunk(db, held, [scored(scan) for scan in held.scans[:1]])

    again = claim(db)
    assert [scan.id for scan in again.scans] == [scan.id for scan in held.scans[1:]]
    assert again.attempts == 1
    complete(db, again)
    assert reading.totals(db, batch).scored == 4


def test_a_lease_that_did_not_end_is_left_alone(db):
    submitted(db, folder(4))
    held = claim(db)

    assert recovery.free_expired(db) == recovery.Swept()
    assert scoring.renew(db, held, lease_seconds=LEASE)


def test_a_lease_ends_on_the_clock_of_the_database(db):
    submitted(db, folder(4))
    claim(db, lease=0.2)
    assert recovery.free_expired(db) == recovery.Swept()

    time.sleep(0.3)

    assert recovery.free_expired(db).freed == 1


def test_renewing_keeps_a_chunk_beyond_its_first_lease(db):
    submitted(db, folder(4))
    held = claim(db, lease=0.2)
    assert scoring.renew(db, held, lease_seconds=LEASE)

    time.sleep(0.3)

    assert recovery.free_expired(db) == recovery.Swept()
    assert complete(db, held)


def test_an_expired_chunk_goes_to_another_worker(db):
    batch = submitted(db, folder(4))

    lost, swept = lose(db)

    assert swept == recovery.Swept(freed=1)
    again = claim(db, "other:cpu")
    assert (again.chunk_id, again.attempts) == (lost.chunk_id, 2)
    complete(db, again)
    assert reading.totals(db, batch).scored == 4


def test_a_worker_that_wakes_after_its_lease_writes_nothing(db):
    batch = submitted(db, folder(4))
    zombie, _ = lose(db)
    heir = claim(db)

    assert not scoring.renew(db, zombie, lease_seconds=LEASE)
    assert not complete(db, zombie, 0.1)
    assert complete(db, heir, 0.9)
    assert not complete(db, zombie, 0.1)

    assert {line.score for line in lines(db, batch).values()} == {0.9}


def test_a_worker_that_wakes_before_anybody_noticed_may_still_finish(db):
    batch = submitted(db, folder(4))
    held = claim(db)
    expire(db, held)

    assert complete(db, held)

    assert recovery.free_expired(db) == recovery.Swept()
    assert reading.totals(db, batch).scored == 4


def test_the_scan_in_hand_when_a_worker_died_is_set_apart_and_the_others_are_not_blamed(db):
    submitted(db, folder(4))
    held = claim(db)
    culprit = held.scans[2].id
    scoring.renew(db, held, lease_seconds=LEASE, breadcrumb=culprit)
    expire(db, held)

    assert recovery.free_expired(db) == recovery.Swept(split=1)

    others, apart = claim(db), claim(db)
    assert [scan.id for scan in apart.scans] == [culprit]
    assert len(others.scans) == 3
    assert (others.attempts, apart.attempts) == (1, 2)


def test_a_scan_that_kills_three_workers_has_failed_and_every_other_is_scored(db):
    batch = submitted(db, folder(4))
    held, _ = lose(db)
    poison = held.scans[1].id
    deaths = 1

    while (held := claim(db)) is not None:
        if poison not in [scan.id for scan in held.scans]:
            complete(db, held)
            continue
        scoring.renew(db, held, lease_seconds=LEASE, breadcrumb=poison)
        expire(db, held)
        recovery.free_expired(db)
        deaths += 1

    totals = reading.totals(db, batch)
    assert deaths == 3
    assert (totals.scored, totals.failed, totals.waiting) == (3, 1, 0)
    assert totals.reasons == {"worker_died": 1}


def test_without_a_breadcrumb_the_chunk_is_cut_in_half_until_the_culprit_is_alone(db):
    batch = submitted(db, folder(8), chunk_size=8)
    poison = None
    deaths = 0

    while (held := claim(db)) is not None:
        poison = poison or held.scans[5].id
        if poison not in [scan.id for scan in held.scans]:
            complete(db, held)
            continue
        if len(held.scans) == 1:
            break
        expire(db, held)
        recovery.free_expired(db)
        deaths += 1

    assert deaths < 10
    assert [scan.id for scan in held.scans] == [poison]
    assert (reading.totals(db, batch).scored, reading.totals(db, batch).waiting) == (7, 1)


def test_a_scan_that_outlives_its_lease_under_a_living_worker_has_timed_out(db):
    batch = submitted(db, folder(1))
    for _ in range(recovery.VOUCHERS):
        heartbeats.beat(db, name="host:cpu", host="host", device="cpu", pid=1, doing="scoring", scans=0)
        lose_in_hand(db, pid=1)

    assert reading.totals(db, batch).reasons == {"timed_out": 1}


def test_a_scan_whose_worker_was_followed_by_another_of_its_name_has_lost_it_to_death(db):
    batch = submitted(db, folder(1))
    for pid in (1, 2):
        lose_in_hand(db, pid=pid, sweep=False)
        heartbeats.beat(db, name="host:cpu", host="host", device="cpu", pid=pid + 1, doing="waiting", scans=0)
        recovery.free_expired(db)

    assert reading.totals(db, batch).reasons == {"worker_died": 1}


def test_a_worker_that_was_only_stalled_may_still_finish_a_scan_that_one_was_lost_with(db):
    batch = submitted(db, folder(1))
    lose_in_hand(db)
    held = claim(db, pid=7)
    scoring.renew(db, held, lease_seconds=0.2, breadcrumb=held.scans[0].id)
    time.sleep(0.4)
    heartbeats.beat(db, name="host:cpu", host="host", device="cpu", pid=7, doing="scoring", scans=0)

    assert recovery.free_expired(db) == recovery.Swept()
    assert complete(db, held)

    assert (reading.totals(db, batch).scored, reading.totals(db, batch).failed) == (1, 0)


def test_a_worker_that_beats_on_long_after_its_lease_hangs(db):
    batch = submitted(db, folder(1))
    lose_in_hand(db)
    lose_in_hand(db, sweep=False)
    heartbeats.beat(db, name="host:cpu", host="host", device="cpu", pid=7, doing="scoring", scans=0)

    assert recovery.free_expired(db) == recovery.Swept(failed=1)

    assert reading.totals(db, batch).reasons == {"timed_out": 1}


def test_a_scan_is_never_blamed_for_workers_that_did_not_vouch_for_themselves(db):
    batch = submitted(db, folder(1))

    for _ in range(50):
        lose(db)

    assert (reading.totals(db, batch).failed, reading.totals(db, batch).waiting) == (0, 1)
    complete(db, claim(db))


def test_between_two_scans_nobody_is_to_blame(db):
    batch = submitted(db, folder(1))
    for _ in range(10):
        held = claim(db)
        scoring.renew(db, held, lease_seconds=LEASE, breadcrumb=held.scans[0].id)
        scoring.renew(db, held, lease_seconds=LEASE, breadcrumb=scoring.NOBODY)
        expire(db, held)
        recovery.free_expired(db)

    assert reading.totals(db, batch).failed == 0


def test_one_sound_worker_lost_with_a_scan_is_not_enough_and_a_release_forgets_nothing(db):
    batch = submitted(db, folder(1))
    lose_in_hand(db)
    assert reading.totals(db, batch).failed == 0
    scoring.complete_chunk(db, claim(db), [])  # given back in good order
    lose(db)  # killed before it named the scan

    lose_in_hand(db)

    (line,) = lines(db, batch).values()
    assert line.reason == Cause.WORKER_DIED
    assert line.detail.startswith("2 workers that had scored the golden image")


def test_a_failed_scan_that_is_retried_needs_two_sound_workers_again(db):
    batch = submitted(db, folder(1))
    for _ in range(recovery.VOUCHERS):
        lose_in_hand(db)

    assert recovery.retry_failed(db, batch, by="admin") == 1
    lose_in_hand(db)

    assert (reading.totals(db, batch).failed, reading.totals(db, batch).waiting) == (0, 1)
    complete(db, claim(db), 0.9)
    assert reading.totals(db, batch).scored == 1


def test_an_urgent_scan_that_is_retried_is_still_urgent(db):
    urgent = submitted(db, folder(1), "/urgent", urgent=True)
    for _ in range(recovery.VOUCHERS):
        lose_in_hand(db)
    submitted(db, folder(4, "other"), "/routine")

    recovery.retry_failed(db, urgent, by="admin")

    assert claim(db).batch_id == urgent


@pytest.mark.parametrize("sweeps", [4])
def test_however_many_sweeps_run_at_once_a_chunk_is_taken_back_once(db, sweeps):
    submitted(db, folder(600), chunk_size=2)
    while (held := claim(db, lease=-1)) is not None:
        lost = held
    start = Barrier(sweeps)

    def sweep(_):
        start.wait()
        return recovery.free_expired(db)

    with ThreadPoolExecutor(sweeps) as pool:
        swept = sum(pool.map(sweep, range(sweeps)), recovery.Swept())
    swept += recovery.free_expired(db)  # those that one of them left to another

    assert lost.attempts == 1
    assert swept == recovery.Swept(freed=300)
    with db.reading() as session:
        rows = session.execute(select(Chunk.attempts, Chunk.token, Chunk.completed_at)).all()
    assert rows == [(1, None, None)] * 300


def test_on_postgresql_a_sweep_leaves_the_work_to_the_one_that_is_at_it(db):
    if db.is_sqlite:
        pytest.skip("one transaction writes at a time there")
    submitted(db, folder(4))
    claim(db, lease=-1)

    with db.writing() as session:
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": recovery.SWEEP_LOCK})
        assert recovery.free_expired(db) == recovery.Swept()

    assert recovery.free_expired(db) == recovery.Swept(freed=1)


def test_a_sweep_never_waits_for_a_chunk_that_is_just_being_completed(db):
    if db.is_sqlite:
        pytest.skip("one transaction writes at a time there")
    submitted(db, folder(4), chunk_size=2)
    busy, lost = claim(db, lease=-1), claim(db, lease=-1)

    with db.writing() as session:
        session.scalar(select(Chunk.id).where(Chunk.id == busy.chunk_id).with_for_update())
        assert recovery.free_expired(db) == recovery.Swept(freed=1)

    assert claim(db).chunk_id == lost.chunk_id


def test_a_chunk_of_a_newer_protocol_is_left_to_newer_workers(db):
    batch = submitted(db, folder(1))
    with db.writing() as session:
        session.execute(update(Chunk).values(protocol=PROTOCOL + 1))

    assert scoring.most_urgent_model(db) is None
    assert claim(db) is None
    assert reading.totals(db, batch).waiting == 1


def test_new_chunks_say_which_protocol_they_need(db):
    submitted(db, folder(4), chunk_size=4)
    lost = claim(db)
    scoring.renew(db, lost, lease_seconds=LEASE, breadcrumb=lost.scans[0].id)
    expire(db, lost)
    recovery.free_expired(db)  # cut apart

    with db.reading() as session:
        assert session.scalars(select(Chunk.protocol)).all() == [PROTOCOL] * 2


def test_outcomes_of_the_first_part_survive_the_loss_of_the_rest(db):
    batch = submitted(db, folder(4))
    held = claim(db)
    scoring.complete_chunk(db, held, [scored(scan, 0.9) for scan in held.scans[:2]])
    lose(db)

    complete(db, claim(db), 0.1)

    scores = sorted(line.score for line in lines(db, batch).values())
    assert scores == [0.1, 0.1, 0.9, 0.9]


def test_batches_whose_root_does_not_answer_are_left_alone(db):
    away = submitted(db, folder(2, "away"), "/away", urgent=True)
    here = submitted(db, folder(2, "here"), "/here")

    held = claim(db, not_batches={away})

    assert held.batch_id == here
    assert claim(db, not_batches={away}) is None
    assert scoring.most_urgent_model(db, not_batches={away}) is None
    assert scoring.most_urgent_model(db) is not None


def test_no_scan_is_ever_outside_the_sum(db):
    batch = submitted(db, [*folder(10), found("bad.txt", reason=Reason.EMPTY)], chunk_size=3)
    for step in range(40):
        held = claim(db)
        if held is None:
            break
        if step % 3 == 0:
            expire(db, held)
            recovery.free_expired(db)
        else:
            scoring.complete_chunk(db, held, [scored(scan) for scan in held.scans[: 1 + step % 2]])
        totals = reading.totals(db, batch)
        assert totals.found == totals.scored + totals.rejected + totals.failed + totals.waiting == 11

    assert reading.totals(db, batch).waiting == 0
    with db.reading() as session:
        open_chunks = session.scalars(select(Chunk.id).where(Chunk.completed_at.is_(None))).all()
    assert open_chunks == []


def test_a_scan_of_a_lost_generation_cannot_be_completed(db):
    submitted(db, folder(1))
    held = claim(db)
    with db.writing() as session:
        session.execute(update(Scan).values(generation=5))

    complete(db, held)

    with db.reading() as session:
        assert session.scalars(select(Outcome.generation)).one() == 5
