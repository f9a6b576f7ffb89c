"""A lowered threshold: every flag stays a float32 decision, nobody is missed, and the record says what happened."""

import json

import click.testing
import pytest
from ledger import claim, folder, int8, scored, submitted
from reading_room import Found
from sqlalchemy import func, select

from db.schema import AuditEvent, Batch, Chunk, Entry, Outcome, Review, Scan
from db.store import (
    audit,
    certificate,
    entries,
    estimates,
    models,
    people,
    readers,
    reading,
    recovery,
    scoring,
    tallies,
    thresholds,
)
from db.store.problems import What
from db.store.sites import set_site
from db.words import Cause, Reason, Role, Stage, State, Verdict
from workers.model_commands import models as models_command

# Score of the first of two stages, and the threshold that it holds from, as a margin of 0.5 in log-odds gives it.
CLEAR, DOUBTFUL, LIKELY = (0.05, 0.08), (0.35, 0.47), (0.42, 0.49)


def lower(db, value=0.4):
    return thresholds.set_threshold(db, models.active(db).id, value, why="a test", by="test")


def a_night(db, *firsts, exact=(), **more):
    """A batch that ended: some scans cleared by the first stage alone (score, holds_from), others decided exactly."""
    batch = submitted(db, folder(len(firsts) + len(exact)), **more)
    results = []
    while held := claim(db):
        for scan in held.scans:
            place = len(results)
            results.append(
                int8(scan, *firsts[place]) if place < len(firsts) else scored(scan, exact[place - len(firsts)])
            )
        assert scoring.complete_chunk(db, held, results[-len(held.scans) :])
    return batch


def outcomes(db):
    """By scan: (generation, precision, score, flagged) of each of its outcomes."""
    found = {}
    with db.reading() as session:
        for row in session.scalars(select(Outcome).order_by(Outcome.scan_id, Outcome.generation)):
            found.setdefault(row.scan_id, []).append((row.generation, row.precision, row.score, row.flagged))
    return found


def listed(db):
    with db.reading() as session:
        rows = session.execute(select(Entry.scan_id, Entry.score, Entry.share, Entry.state).order_by(Entry.scan_id))
        return [tuple(row) for row in rows]


def look(db, **scores):
    """A worker looks at what waits; scores by the path's number."""
    held = claim(db)
    results = [scored(scan, scores.get(scan.path.removesuffix(".png"), 0.1)) for scan in held.scans]
    assert scoring.complete_chunk(db, held, results)
    return held


def test_what_int8_alone_cleared_is_flagged_by_no_lower_threshold_but_looked_at_again(db):
    batch = a_night(db, CLEAR, DOUBTFUL, LIKELY, exact=[0.45, 0.2])

    done = lower(db)

    assert (done.outcomes, done.newly_flagged, done.looked_again) == (5, 1, 2)
    assert listed(db) == [(4, 0.45, None, "unread")]
    totals = reading.totals(db, batch)
    assert (totals.scored, totals.flagged, totals.waiting, totals.is_done) == (3, 1, 2, False)

    held = look(db, scan0001=0.39, scan0002=0.44)

    assert [scan.id for scan in held.scans] == [2, 3]
    assert outcomes(db)[2] == [(0, "int8", 0.35, False), (1, "float32", 0.39, False)]
    assert outcomes(db)[3] == [(0, "int8", 0.42, False), (1, "float32", 0.44, True)]
    assert [row[:2] for row in listed(db)] == [(3, 0.44), (4, 0.45)]
    assert reading.totals(db, batch).is_done


def test_what_the_lower_threshold_does_not_call_in_question_keeps_its_score(db):
    a_night(db, CLEAR, DOUBTFUL)

    done = lower(db, 0.48)

    assert done.looked_again == 0
    assert {of[-1][3] for of in outcomes(db).values()} == {False}
    with db.reading() as session:
        assert set(session.scalars(select(Outcome.threshold))) == {0.48}


def test_a_score_that_meets_the_threshold_is_looked_at_again_though_the_margin_is_nothing(db):
    """Rounding can put holds_from a hair below the score itself."""
    a_night(db, (0.4, 0.39999999999999997))

    assert lower(db, 0.4).looked_again == 1


def test_one_asks_how_many_before_and_the_same_threshold_again_lets_nobody_wait(db):
    a_night(db, CLEAR, DOUBTFUL, LIKELY)
    model = models.active(db).id

    assert thresholds.looked_again(db, model, 0.4) == 2
    assert lower(db).looked_again == 2
    assert thresholds.looked_again(db, model, 0.4) == 0
    assert lower(db).looked_again == 0


def test_they_come_before_what_is_routine_and_after_what_is_urgent(db):
    again = a_night(db, LIKELY)
    routine = submitted(db, folder(1, prefix="new"), root="/routine")
    lower(db)
    urgent = submitted(db, folder(1, prefix="now"), root="/urgent", urgent=True)

    assert [claim(db).batch_id for _ in range(3)] == [urgent, again, routine]


def test_a_model_alone_is_looked_at_again_and_each_batch_of_it_on_record(db):
    first = a_night(db, LIKELY, LIKELY)
    second = submitted(db, folder(1, prefix="other"), root="/other")
    held = claim(db)
    scoring.complete_chunk(db, held, [int8(held.scans[0], *DOUBTFUL)])
    model = models.active(db).id
    newer = models.register(db, replace_version(models.get(db, model)), by="test")
    models.activate(db, newer, why="x", by="test")
    third = submitted(db, folder(1, prefix="new"), root="/new")
    held = claim(db)
    scoring.complete_chunk(db, held, [int8(held.scans[0], *LIKELY)])

    thresholds.set_threshold(db, model, 0.4, why="x", by="admin")

    with db.reading() as session:
        events = session.scalars(select(AuditEvent).where(AuditEvent.action == "batch_retried").order_by(AuditEvent.id))
        told = {event.object: (event.actor, event.detail["scans"]) for event in events}
    assert told == {f"batch {first}": ("admin", 2), f"batch {second}": ("admin", 1)}
    assert reading.totals(db, third).waiting == 0
    assert audit.verify(db)


def replace_version(view):
    kept = {name: getattr(view, name) for name in models.Registration.__dataclass_fields__ if hasattr(view, name)}
    return models.Registration(**kept | {"version": "2", "threshold_why": "x"})


def test_many_wait_again_in_chunks_and_none_is_forgotten(db):
    count = 2 * recovery.AGAIN + 3
    batch = a_night(db, *[LIKELY] * count, chunk_size=50)

    assert lower(db).looked_again == count

    sizes = []
    while held := claim(db):
        sizes.append(len(held.scans))
        scoring.complete_chunk(db, held, [scored(scan, 0.1) for scan in held.scans])
    assert sizes == [recovery.AGAIN, recovery.AGAIN, 3]
    assert reading.totals(db, batch).is_done


def test_the_certificate_waits_for_them_and_holds_then(db):
    batch = a_night(db, CLEAR, LIKELY)
    certify(db, batch)
    lower(db)

    assert {problem.what for problem in certificate.certify(db, batch).problems} == {What.WAITING, What.OPEN}
    look(db, scan0001=0.44)

    made = certificate.certify(db, batch)
    assert made.holds
    assert (made.scored, made.flagged) == (2, 1)


def certify(db, batch):
    made = certificate.certify(db, batch)
    assert made.holds
    certificate.put_on_record(db, made, files=None, by="test")


@pytest.mark.parametrize("holds_from", [None, 0.41])
def test_a_score_that_stood_and_is_tried_again_breaks_the_history(db, holds_from):
    batch = a_night(db, (0.3, holds_from))
    with db.writing() as session:  # by hand: nobody lowered a threshold that far
        scan = session.scalars(select(Scan)).one()
        scan.generation = 1
        chunk = Chunk(batch_id=batch, trained_model_id=models.active(db).id, priority=0)
        session.add(chunk)
        session.flush()
        scan.chunk_id = chunk.id
    look(db)

    assert What.HISTORY in {problem.what for problem in certificate.certify(db, batch).problems}


def test_a_scan_that_was_drawn_keeps_its_place_on_the_list_with_the_new_score_and_is_not_drawn_again(db):
    set_site(db, "local", {"sample_share": 0.5}, by="test")
    batch = submitted(db, folder(2))
    held = claim(db)
    drawn, other = held.scans
    scoring.complete_chunk(db, held, [int8(drawn, *LIKELY, share=0.5), int8(other, *DOUBTFUL)])
    lower(db)

    held = claim(db)

    assert [scan.sample_share for scan in held.scans] == [0.0, 0.0]
    scoring.complete_chunk(db, held, [scored(scan, 0.3) for scan in held.scans])
    assert listed(db) == [(drawn.id, 0.3, 0.5, "unread")]
    assert tallies.recount(db) == []
    assert reading.totals(db, batch).flagged == 0


def test_a_scan_that_failed_may_still_be_drawn_when_it_is_tried_again(db):
    set_site(db, "local", {"sample_share": 0.5}, by="test")
    batch = submitted(db, folder(1))
    held = claim(db)
    scoring.complete_chunk(db, held, [scoring.Failed(held.scans[0].id, Cause.ENGINE_ERROR, "a test")])
    recovery.retry_failed(db, batch, by="test")

    assert [scan.sample_share for scan in claim(db).scans] == [0.5]


def test_what_can_no_longer_be_looked_at_leaves_the_list_and_says_why(db):
    set_site(db, "local", {"sample_share": 0.5}, by="test")
    batch = submitted(db, folder(1))
    held = claim(db)
    scoring.complete_chunk(db, held, [int8(held.scans[0], *LIKELY, share=0.5)])
    lower(db)
    held = claim(db)

    scoring.complete_chunk(db, held, [scoring.Rejected(held.scans[0].id, Reason.MISSING, "gone")])

    assert [state for *_, state in listed(db)] == [State.WITHDRAWN]
    assert tallies.recount(db) == []
    assert certificate.certify(db, batch).holds
    assert reading.totals(db, batch).reasons == {"missing": 1}


def test_a_scan_that_fails_when_it_is_looked_at_again_can_be_tried_once_more_and_is_listed_then(db):
    batch = a_night(db, LIKELY)
    lower(db)
    held = claim(db)
    scoring.complete_chunk(db, held, [scoring.Failed(held.scans[0].id, Cause.ENGINE_ERROR, "a test")])

    assert recovery.retry_failed(db, batch, by="test") == 1
    look(db, scan0000=0.9)

    assert listed(db) == [(1, 0.9, None, "unread")]
    assert certificate.certify(db, batch).holds


def test_a_withdrawn_scan_comes_back_to_the_list_when_it_is_flagged_again_and_counts_once(db):
    """Flagged exactly, withdrawn by a higher threshold: no generation of it is in question, ever."""
    a_night(db, exact=[0.6])
    lower(db, 0.7)

    assert lower(db, 0.5).looked_again == 0
    assert listed(db) == [(1, 0.6, None, "unread")]
    assert tallies.recount(db) == []


def test_a_worker_that_holds_the_chunk_while_the_threshold_is_lowered_loses_nothing(db):
    batch = submitted(db, folder(2))
    held = claim(db)
    lower(db)

    scoring.complete_chunk(db, held, [int8(scan, *LIKELY) for scan in held.scans])

    totals = reading.totals(db, batch)
    assert (totals.scored, totals.waiting) == (0, 2)
    assert len(claim(db).scans) == 2


def test_estimates_and_readers_count_a_scan_that_was_looked_at_again_once(db):
    set_site(db, "local", {"sample_share": 1.0}, by="test")
    submitted(db, folder(1))
    held = claim(db)
    scoring.complete_chunk(db, held, [int8(held.scans[0], *LIKELY, share=1.0)])
    people.add_user(db, "rosa", role=Role.READER, password_hash="x", site_ids={1}, by="test")
    rosa = people.user_named(db, "rosa")
    entries.add_review(db, held.scans[0].id, me=rosa, stage=Stage.IMPRESSION, verdict=Verdict.DISMISS)
    entries.add_review(db, held.scans[0].id, me=rosa, stage=Stage.VERDICT, verdict=Verdict.DISMISS)
    lower(db)
    look(db, scan0000=0.44)
    model = models.active(db).id

    with db.reading() as session:
        since = session.scalars(select(Batch.submitted_at)).one()
        seen = list(estimates._seen(session, {1}, model, since))
    (told,) = readers.against_model(db, site_ids={1}, model_id=model, since=since)

    assert [(one.score, one.state) for one in seen] == [(0.44, State.DONE)]
    assert (told.flagged, told.flagged_confirmed, told.drawn) == (1, 0, 0)
    assert listed(db) == [(1, 0.44, 1.0, State.DONE)]
    assert tallies.recount(db) == []


def test_the_command_tells_how_many_and_rings_for_them(home, queue_server, request):
    from db.store.connection import database
    from workers import queue

    db = database()
    a_night(db, CLEAR, LIKELY, DOUBTFUL)

    told = click.testing.CliRunner().invoke(
        models_command, ["threshold", "active", "--set", "0.4", "--why", "more", "--json"], catch_exceptions=False
    )

    assert json.loads(told.stdout)["set"]["looked_again"] == 2
    assert queue.length() == 2


def test_a_reader_who_opens_a_drawn_scan_meanwhile_is_told_that_it_waits_and_can_say_nothing_yet(room):
    room.site(sample_share=0.5)
    reader = room.user()
    batch = room.night(Found(score=0.42, share=0.5), Found("night/two.png", score=0.9), pictures=True)
    with room.db.writing() as session:
        for outcome in session.scalars(select(Outcome).where(Outcome.score == 0.42)):
            outcome.precision, outcome.holds_from = "int8", 0.49
    key = room.keys(batch)["night/one.png"]
    lower(room.db)
    browser = room.inside(reader)

    assert browser.get("/").status_code == 200
    page = browser.get(f"/scan/{key}")
    refused = browser.post(f"/scan/{key}", verdict="dismiss")

    assert page.status_code == 200
    assert "Waiting to be scored." in page.text
    assert "0.42" not in page.text
    assert refused.status_code in (400, 409)
    with room.db.reading() as session:
        assert session.scalar(select(func.count()).select_from(Review)) == 0
