"""What could not be screened: nobody falls through."""

import random
import re
from collections import Counter

import pytest
from reading_room import Found, ReadingRoom
from sqlalchemy import select

from db.errors import Refused, Unknown
from db.schema import Acknowledgement, Batch, Entry, Outcome, Scan
from db.store import certificate, entries, people, recovery, scoring, unscreened
from db.store.unscreened import Standing
from db.words import Cause, Reason, Role, Stage, Verdict

SITE = 1


@pytest.fixture
def house(db):
    """A reading room on either database."""
    opened = ReadingRoom(db.config)
    opened.user("dr-a")
    yield opened
    opened.close()


def listed(db, standing=Standing.OPEN, **asked):
    """Patient -> what happened, of one page."""
    found = unscreened.page(db, site_ids=asked.pop("site_ids", {SITE}), standing=standing, **asked)
    return {item.patient: item.reason or item.kind for item in found}


def key_of(house, patient):
    with house.db.reading() as session:
        return session.scalars(select(Scan.key).where(Scan.patient == patient).order_by(Scan.id)).first()


def say(house, patient, verdict, name="dr-a"):
    scan_id, me = house.scan_id(key_of(house, patient)), people.user_named(house.db, name)
    return entries.add_review(house.db, scan_id, me=me, stage=Stage.VERDICT, verdict=verdict)


def acknowledge(house, patient, note="called the ward"):
    unscreened.acknowledge(house.db, key_of(house, patient), site_ids={SITE}, by="dr-a", note=note)


def send_again(house, patient):
    unscreened.send_again(house.db, key_of(house, patient), site_ids={SITE}, by="dr-a")


def score_what_waits(db, value=0.2):
    model = 1
    while claim := scoring.claim_chunk(db, "w", trained_model_id=model, lease_seconds=60):
        scored = [
            scoring.Scored(scan.id, value, {"normal": 1 - value, "covid": value}, {}, "tensorflow", "float32", "cpu", 0)
            for scan in claim.scans
        ]
        scoring.complete_chunk(db, claim, scored)


# Who is on the list


def test_rejected_and_failed_scans_that_name_a_patient_are_open(house):
    house.night(
        Found("a.png", reason=Reason.TRUNCATED, patient="A"),
        Found("b.png", cause=Cause.OUT_OF_MEMORY, patient="B"),
        Found("c.png", reason=Reason.EMPTY),
        Found("d.png", score=0.9, patient="D"),
        Found("e.png", patient="E"),
    )

    assert listed(house.db) == {"A": Reason.TRUNCATED, "B": Cause.OUT_OF_MEMORY}
    assert unscreened.open_count(house.db, site_ids={SITE}) == 2


def test_a_scan_whose_final_verdict_is_needs_repeat_is_open(house):
    house.site(readers=2)
    house.user("dr-b")
    house.night(Found("a.png", score=0.9, patient="A"), Found("b.png", score=0.8, patient="B"))

    say(house, "A", Verdict.REPEAT)
    assert listed(house.db) == {}

    say(house, "A", Verdict.REPEAT, "dr-b")
    assert listed(house.db) == {"A": "repeat"}

    say(house, "A", Verdict.CONFIRM)
    assert listed(house.db) == {}


def test_another_sites_scans_are_not_on_the_list(house):
    elsewhere = house.site("elsewhere")
    house.night(Found("a.png", reason=Reason.EMPTY, patient="A"), site="elsewhere")
    house.night(Found("b.png", reason=Reason.EMPTY, patient="B"))

    assert listed(house.db) == {"B": Reason.EMPTY}
    assert listed(house.db, site_ids={SITE, elsewhere}) == {"A": Reason.EMPTY, "B": Reason.EMPTY}
    assert listed(house.db, site_ids=set()) == {}
    with pytest.raises(Unknown):
        acknowledge(house, "A")
    with pytest.raises(Unknown):
        send_again(house, "A")


# Second copies


def copy(house, patient, **original):
    """A file, and another of the same content that names `patient`, as intake rejects it."""
    copied = Found("copy.png", reason=Reason.DUPLICATE, patient=patient)
    house.night(Found("a.png", patient="A", **original), copied)
    with house.db.writing() as session:
        first, second = session.scalars(select(Scan).order_by(Scan.id))
        second.sha256 = first.sha256


def test_a_second_copy_of_a_screened_scan_is_counted_apart(house):
    copy(house, "A", score=0.2)

    assert listed(house.db) == {}
    assert listed(house.db, Standing.DUPLICATE) == {"A": Reason.DUPLICATE}
    assert unscreened.counts(house.db, site_ids={SITE})[Standing.DUPLICATE] == 1


def test_a_second_copy_of_a_scan_that_still_waits_is_counted_apart_until_that_fails(house):
    copy(house, "A")
    assert listed(house.db) == {}

    claim = scoring.claim_chunk(house.db, "w", trained_model_id=1, lease_seconds=60)
    scoring.complete_chunk(house.db, claim, [scoring.Failed(claim.scans[0].id, Cause.TIMED_OUT, "")])

    assert len(unscreened.page(house.db, site_ids={SITE})) == 2


def test_a_second_copy_that_names_another_patient_is_open(house):
    """The same picture for two patients is a mix-up, and one of them was not imaged."""
    copy(house, "B", score=0.2)

    assert listed(house.db) == {"B": Reason.DUPLICATE}


def test_a_second_copy_of_what_was_rejected_is_open(house):
    copy(house, "A", reason=Reason.TRUNCATED)

    assert len(unscreened.page(house.db, site_ids={SITE})) == 2


# Acknowledged


def test_an_acknowledged_scan_is_off_the_list_and_on_record_with_its_note(house):
    house.night(Found("a.png", reason=Reason.TRUNCATED, patient="A"))

    acknowledge(house, "A", "imaged again on Tuesday")

    (item,) = unscreened.page(house.db, site_ids={SITE}, standing=Standing.ACKNOWLEDGED)
    assert (item.patient, item.by, item.note) == ("A", "dr-a", "imaged again on Tuesday")
    assert listed(house.db) == {}
    (event,) = house.events("unscreened_acknowledged")
    assert (event.actor, event.object) == ("dr-a", f"scan {item.scan_id}")
    assert "Tuesday" not in str(event.detail)
    with pytest.raises(Unknown):
        acknowledge(house, "A")


@pytest.mark.parametrize("note", ["", "ok", "x" * 2001])
def test_an_acknowledgement_without_a_note_is_refused(house, note):
    house.night(Found("a.png", reason=Reason.TRUNCATED, patient="A"))

    with pytest.raises(Refused, match="3 to 2,000 characters"):
        acknowledge(house, "A", note)

    assert listed(house.db) == {"A": Reason.TRUNCATED}
    assert not house.events("unscreened_acknowledged")


def test_a_repeat_that_is_asked_for_again_after_it_was_acknowledged_is_open_again(house):
    house.night(Found("a.png", score=0.9, patient="A"))
    say(house, "A", Verdict.REPEAT)
    acknowledge(house, "A")
    assert listed(house.db) == {}

    say(house, "A", Verdict.CONFIRM)
    say(house, "A", Verdict.REPEAT)

    assert listed(house.db) == {"A": "repeat"}


# Sent again


def test_a_failed_scan_that_is_sent_again_waits_and_is_scored(house):
    batch = house.night(Found("a.png", cause=Cause.WORKER_DIED, patient="A"))

    send_again(house, "A")
    assert listed(house.db) == {}
    assert scoring.waiting_chunks(house.db) == 1  # what the sweep rings for

    score_what_waits(house.db)
    assert sum(unscreened.counts(house.db, site_ids={SITE}).values()) == 0
    assert certificate.certify(house.db, batch).holds
    assert [event.object for event in house.events("batch_retried")] == [f"batch {batch}"]
    assert len(house.events("unscreened_sent_again")) == 1


def test_a_scan_that_fails_again_is_open_again_even_where_it_was_acknowledged_before(house):
    house.night(Found("a.png", cause=Cause.WORKER_DIED, patient="A"))
    acknowledge(house, "A")
    assert recovery.retry_failed(house.db, 1, by="cli:op") == 1

    claim = scoring.claim_chunk(house.db, "w", trained_model_id=1, lease_seconds=60)
    scoring.complete_chunk(house.db, claim, [scoring.Failed(claim.scans[0].id, Cause.TIMED_OUT, "")])

    assert listed(house.db) == {"A": Cause.TIMED_OUT}


def test_a_rejected_scan_cannot_be_sent_again_and_nothing_is_noted(house):
    house.night(Found("a.png", reason=Reason.TRUNCATED, patient="A"))

    with pytest.raises(Refused):
        send_again(house, "A")

    assert listed(house.db) == {"A": Reason.TRUNCATED}
    with house.db.reading() as session:
        assert session.scalars(select(Acknowledgement)).all() == []


# Resolved by itself


def test_a_later_scan_of_the_same_patient_that_is_scored_resolves_a_rejected_one_and_a_repeat(house):
    house.night(Found("a.png", reason=Reason.TRUNCATED, patient="A"), Found("b.png", score=0.9, patient="B"))
    say(house, "B", Verdict.REPEAT)
    house.night(Found("a2.png", patient="A"), Found("b2.png", patient="B"), root="/nights/tuesday")
    assert listed(house.db) == {"A": Reason.TRUNCATED, "B": "repeat"}

    score_what_waits(house.db)

    assert listed(house.db) == {}
    assert listed(house.db, Standing.RESOLVED) == {"A": Reason.TRUNCATED, "B": "repeat"}


def test_an_earlier_scan_or_one_of_another_site_or_patient_resolves_nothing(house):
    house.night(Found("before.png", score=0.1, patient="A"), root="/nights/sunday")
    house.night(Found("a.png", reason=Reason.TRUNCATED, patient="A"), Found("c.png", reason=Reason.EMPTY, patient="C"))
    house.site("elsewhere")
    house.night(Found("after.png", score=0.1, patient="A"), root="/nights/tuesday", site="elsewhere")
    house.night(Found("other.png", score=0.1, patient="B"), root="/nights/tuesday")
    house.night(Found("late.png", reason=Reason.EMPTY, patient="C"), root="/nights/tuesday")

    found = unscreened.page(house.db, site_ids={SITE})

    assert sorted((item.patient, item.path) for item in found) == [("A", "a.png"), ("C", "c.png"), ("C", "late.png")]


def test_a_failed_scan_is_not_resolved_by_a_later_one(house):
    house.night(Found("a.png", cause=Cause.TIMED_OUT, patient="A"))
    house.night(Found("a2.png", score=0.1, patient="A"), root="/nights/tuesday")

    assert listed(house.db) == {"A": Cause.TIMED_OUT}


def test_a_lateral_view_beside_its_scored_frontal_one_is_resolved_whichever_came_first(house):
    house.night(Found("a.png", score=0.1, patient="A"), Found("b-lateral.png", reason=Reason.NOT_FRONTAL, patient="A"))
    assert listed(house.db) == {"A": Reason.NOT_FRONTAL}

    with house.db.writing() as session:
        for scan in session.scalars(select(Scan)):
            scan.study = "1.2.3"

    assert listed(house.db) == {}
    assert listed(house.db, Standing.RESOLVED) == {"A": Reason.NOT_FRONTAL}


# Pages


def test_pages_follow_one_another_without_a_gap_newest_first(house):
    for night in range(3):
        house.night(
            *(Found(f"{n}.png", reason=Reason.EMPTY, patient=f"{night}-{n}") for n in range(5)),
            Found("flagged.png", score=0.9, patient=f"{night}-repeat"),
            root=f"/nights/{night}",
        )
        say(house, f"{night}-repeat", Verdict.REPEAT)

    whole = unscreened.page(house.db, site_ids={SITE}, limit=100)
    pages, after = [], None
    while part := unscreened.page(house.db, site_ids={SITE}, after=after, limit=4):
        pages += part
        after = part[-1].scan_id

    assert pages == whole
    assert [item.scan_id for item in whole] == sorted((item.scan_id for item in whole), reverse=True)
    assert len(whole) == 18
    assert unscreened.open_count(house.db, site_ids={SITE}, most=7) == 7
    assert unscreened.open_count(house.db, site_ids={SITE}) == 18


# Nobody falls through


@pytest.mark.parametrize("seed", range(2))
def test_every_rejected_or_failed_scan_with_a_patient_is_open_acknowledged_or_resolved(house, seed):
    chance = random.Random(seed)
    for night in range(6):
        house.night(*(_anything(chance, f"{n}.png") for n in range(12)), root=f"/nights/{night}")
        for item in unscreened.page(house.db, site_ids={SITE}):
            if chance.random() < 0.3:
                unscreened.acknowledge(house.db, item.key, site_ids={SITE}, by="dr-a", note="seen")
            elif item.kind == "failed" and chance.random() < 0.5:
                unscreened.send_again(house.db, item.key, site_ids={SITE}, by="dr-a")
    for patient in "AB":
        with_entry = _flagged_keys(house, patient)
        for key in with_entry:
            me = people.user_named(house.db, "dr-a")
            verdict = chance.choice([Verdict.REPEAT, Verdict.CONFIRM])
            entries.add_review(house.db, house.scan_id(key), me=me, stage=Stage.VERDICT, verdict=verdict)

    found = Counter(
        item.scan_id
        for standing in Standing
        for item in unscreened.page(house.db, site_ids={SITE}, standing=standing, limit=1000)
    )

    assert set(found) == _not_screened(house)
    assert set(found.values()) == {1}
    assert sum(unscreened.counts(house.db, site_ids={SITE}).values()) == len(found) > 10


def _anything(chance, path):
    ending = chance.choice([{"score": 0.9}, {"score": 0.1}, {"reason": Reason.BLANK}, {"cause": Cause.TIMED_OUT}, {}])
    return Found(path, patient=chance.choice(["A", "B", "C", "D", "E", "F", "G", "H", None]), **ending)


def _flagged_keys(house, patient):
    with house.db.reading() as session:
        joined = select(Scan.key).join(Entry, Entry.scan_id == Scan.id)
        return session.scalars(joined.where(Scan.patient == patient)).all()


def _not_screened(house):
    """The same set, put together row by row from the tables."""
    with house.db.reading() as session:
        scans = {scan.id: scan for scan in session.scalars(select(Scan))}
        models = {batch.id: batch.trained_model_id for batch in session.scalars(select(Batch))}
        ended = {
            outcome.scan_id
            for outcome in session.scalars(select(Outcome))
            if outcome.generation == scans[outcome.scan_id].generation
            and outcome.trained_model_id == models[scans[outcome.scan_id].batch_id]
            and outcome.kind != "scored"
            and scans[outcome.scan_id].patient
        }
        repeats = {
            entry.scan_id
            for entry in session.scalars(select(Entry))
            if entry.state == "done" and entry.verdict == "repeat"
        }
        return ended | repeats


# The page


@pytest.fixture
def ward(room):
    room.user("dr-a")
    room.user("clinic", role=Role.CENTRE)
    room.night(
        Found("night/a.png", reason=Reason.TRUNCATED, patient="PATIENT-A"),
        Found("night/b.png", cause=Cause.OUT_OF_MEMORY, patient="PATIENT-B"),
    )
    return room


@pytest.mark.parametrize("who", ["dr-a", "clinic"])
def test_the_page_lists_what_is_open_and_the_navigation_counts_it(ward, who):
    page = ward.inside(who).get("/unscreened").text

    assert "PATIENT-A" in page
    assert "PATIENT-B" in page
    assert re.search(r'href="/unscreened" aria-current="page">Not screened <span[^>]*>2<', page)
    assert page.count(">Send again<") == 1
    assert ("/scan/" in page) == (who == "dr-a")
    assert [event.object for event in ward.events("listed")] == ["unscreened"]


def test_acknowledging_and_sending_again_by_the_page(ward):
    browser = ward.inside("clinic")

    noted = browser.post(f"/unscreened/{key_of(ward, 'PATIENT-A')}/acknowledge", "/unscreened", note="comes on Friday")
    sent = browser.post(f"/unscreened/{key_of(ward, 'PATIENT-B')}/again", "/unscreened")

    assert noted.status_code == sent.status_code == 303
    page = browser.get("/unscreened").text
    assert "PATIENT" not in page
    assert "Nothing open" in page
    assert '<span class="tag flag number">' not in page
    assert "comes on Friday" in browser.get("/unscreened?standing=acknowledged").text


def test_a_note_that_is_too_short_is_asked_for_again_where_it_was_written(ward):
    answer = ward.inside().post(f"/unscreened/{key_of(ward, 'PATIENT-A')}/acknowledge", "/unscreened", note="x")

    assert answer.status_code == 400
    assert "A note has 3 to 2,000 characters." in answer.text
    assert 'value="x" aria-invalid="true"' in answer.text


def test_two_people_who_see_to_the_same_scan_do_not_trip_over_each_other(ward):
    one, other = ward.inside("dr-a"), ward.inside("clinic")
    address = f"/unscreened/{key_of(ward, 'PATIENT-A')}/acknowledge"
    one.post(address, "/unscreened", note="mine")

    answer = other.post(address, "/unscreened", note="no, mine")

    assert answer.status_code == 303
    assert "not open any more" in other.get("/unscreened").text
    assert len(ward.events("unscreened_acknowledged")) == 1


def test_a_rejected_scan_is_not_sent_again_by_the_page(ward):
    assert ward.inside().post(f"/unscreened/{key_of(ward, 'PATIENT-A')}/again", "/unscreened").status_code == 400


@pytest.mark.parametrize("query", ["standing=other", "after=x", "after=-1", "after=" + "9" * 30, "after=%C2%B2"])
def test_a_place_that_is_none_is_a_bad_request(ward, query):
    assert ward.inside().get(f"/unscreened?{query}").status_code == 400


def test_names_and_notes_full_of_markup_are_text(ward):
    hostile = "<img src=x onerror=alert(1)>\u202e'\""
    ward.night(Found(f"{hostile}.png", reason=Reason.EMPTY, patient=hostile), root="/nights/x")
    browser = ward.inside()
    browser.post(f"/unscreened/{key_of(ward, hostile)}/acknowledge", "/unscreened", note=hostile)

    for page in (browser.get("/unscreened").text, browser.get("/unscreened?standing=acknowledged").text):
        assert "<img" not in page
        assert "\u202e" not in page
