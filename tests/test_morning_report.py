"""The morning report: how long the verdicts took, and what they tell of the model, in words and as JSON."""

import json
from datetime import timedelta

import pytest
from reading_room import Found
from sqlalchemy import update
from test_commands import run

from db.live import LEAST_POSITIVES, LEAST_READ
from db.schema import Entry
from db.store import entries, estimates, people
from db.store.connection import now
from db.store.sites import set_site
from db.words import Stage, Verdict


def report(batch):
    return json.loads(run("report", batch, "--json").stdout)


@pytest.fixture
def sampled(room):
    """A night of a site that draws half of the cleared: all is read, one in ten of the drawn was missed."""
    room.user("dr-a")
    set_site(room.db, "local", by="test", values={"sample_share": 0.5})
    flagged = [Found(f"flagged/{n}.png", score=0.9) for n in range(LEAST_POSITIVES)]
    drawn = [Found(f"drawn/{n}.png", score=0.2, share=0.5) for n in range(LEAST_READ)]
    batch = room.night(*flagged, *drawn, Found("cleared.png", score=0.1))
    me = people.user_named(room.db, "dr-a")
    for path, key in room.keys(batch).items():
        if path != "cleared.png":
            is_positive = path.startswith("flagged") or path.endswith("0.png")
            verdict = Verdict.CONFIRM if is_positive else Verdict.DISMISS
            entries.add_review(room.db, room.scan_id(key), me=me, stage=Stage.VERDICT, verdict=verdict)
    return room, batch


def test_the_report_gives_the_time_from_submission_to_verdict(room):
    room.user("dr-a")
    batch = room.night(*(Found(f"{n}.png", score=0.9) for n in range(10)))
    assert report(batch)["to_verdict"] == {"n": 0, "median_seconds": None, "p90_seconds": None}

    me = people.user_named(room.db, "dr-a")
    for hours, key in enumerate(room.keys(batch).values()):
        entries.add_review(room.db, room.scan_id(key), me=me, stage=Stage.VERDICT, verdict=Verdict.CONFIRM)
        with room.db.writing() as session:
            entry = session.query(Entry).filter_by(scan_id=room.scan_id(key)).one()
            entry.decided_at = entry.submitted_at + timedelta(hours=hours)

    assert report(batch)["to_verdict"] == {"n": 10, "median_seconds": 4.5 * 3600, "p90_seconds": 8 * 3600}
    said = run("report", batch).stdout
    assert "Read: 10; submission to verdict: median 4.5 h, 90th percentile 8.0 h" in said
    assert "no sample of the cleared is drawn here" in said


def test_the_report_gives_what_the_verdicts_tell_of_the_model(sampled):
    _, batch = sampled

    live = report(batch)["live"]

    assert live["sensitivity"]["value"] == pytest.approx(10 / (10 + 20), abs=1e-4)  # ten missed, for two each
    assert live["npv"]["value"] == pytest.approx(0.9)
    assert live["npv"]["low"] < 0.9 < live["npv"]["high"]
    assert (live["drawn"], live["read"], live["positives"], live["why"]) == (100, 100, 20, "")
    assert live["days"] == estimates.PERIOD.days
    said = run("report", batch).stdout
    assert "sensitivity                0.333 (95 % interval" in said
    assert "from 20 positive scans and 100 of 100 drawn from the cleared" in said


def test_the_estimates_are_of_one_site_and_of_its_last_ninety_days(sampled):
    room, batch = sampled
    elsewhere = room.site("elsewhere")
    model = 1
    both = estimates.live(room.db, site_ids={1, elsewhere}, model_id=model)

    assert both[1] == both[None] == estimates.of_batch(room.db, batch)
    assert "no sample" in both[elsewhere].why

    with room.db.writing() as session:
        session.execute(update(Entry).values(submitted_at=now() - estimates.PERIOD - timedelta(minutes=1)))
    assert estimates.of_batch(room.db, batch).drawn == 0


def test_scans_scored_before_the_site_began_to_draw_are_left_out(room):
    room.user("dr-a")
    before = room.night(Found("before.png", score=0.9), root="/before")
    set_site(room.db, "local", by="test", values={"sample_share": 0.5})
    room.night(Found("after.png", score=0.9), root="/after")
    set_site(room.db, "local", by="test", values={"sample_share": 0.0})
    batch = room.night(Found("later.png", score=0.9), root="/later")
    me = people.user_named(room.db, "dr-a")
    with room.db.reading() as session:
        scans = session.query(Entry.scan_id).all()
    for (scan_id,) in scans:
        entries.add_review(room.db, scan_id, me=me, stage=Stage.VERDICT, verdict=Verdict.CONFIRM)

    assert len(scans) == 3
    assert before != batch
    assert estimates.of_batch(room.db, batch).positives == 1


def test_the_estimates_are_the_same_on_either_database(db):
    from reading_room import ReadingRoom

    room = ReadingRoom(db.config)
    room.user("dr-a")
    set_site(db, "local", by="test", values={"sample_share": 0.25})
    batch = room.night(Found("a.png", score=0.9), Found("b.png", score=0.1, share=0.25), Found("c.png", score=0.1))
    me = people.user_named(db, "dr-a")
    entries.add_review(db, room.scan_id(room.keys(batch)["b.png"]), me=me, stage=Stage.VERDICT, verdict=Verdict.DISMISS)

    found = estimates.of_batch(db, batch)

    assert (found.drawn, found.read, found.positives, found.unknown) == (1, 1, 0, 1)
    assert "1 drawn scans read, at least 100 needed" in found.why
    room.close()
