"""The worklist: every list of entries is right and in order, page by page, and tells nobody what is hidden."""

from datetime import timedelta
from itertools import product

import pytest
from ledger import newer_model
from lists import ids, listed, night, person, row, say, site
from sqlalchemy import update

from db.schema import Batch, Entry, Review, Scan
from db.store import entries, models, worklist
from db.store.connection import now
from db.store.worklist import Filters, Order, Place
from db.words import Role, Stage, State, Verdict

SCORES = [0.6, 0.9, 0.2, 0.7, 0.9, 0.5]  # the third is cleared


def days_ago(db, scan_ids, days):
    """As if the scans' batch had been submitted then."""
    with db.writing() as session:
        batch = session.get_one(Batch, session.get_one(Scan, scan_ids[0]).batch_id)
        batch.submitted_at -= timedelta(days=days)
        session.execute(update(Entry).where(Entry.batch_id == batch.id).values(submitted_at=batch.submitted_at))
        return batch.submitted_at


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_the_list_is_worst_first_in_pages_and_loses_what_was_read(db, limit):
    scans, me = night(db, SCORES), person(db)

    found = listed(db, me, limit=limit)

    assert [item.score for item in found] == [0.9, 0.9, 0.7, 0.6, 0.5]
    assert ids(found)[:2] == [scans[4], scans[1]]
    say(db, scans[4], me)
    assert ids(listed(db, me, limit=limit)) == [scans[1], scans[3], scans[0], scans[5]]


@pytest.mark.parametrize("order", list(Order))
def test_the_nights_of_several_sites_are_one_list_in_any_order(db, order):
    nights = {name: night(db, SCORES, at=name) for name in ("north", "south", "west")}
    when = {name: days_ago(db, scans, days) for days, (name, scans) in enumerate(nights.items())}
    me = person(db, sites=("north", "south"))

    found = listed(db, me, limit=3, order=order)

    assert {item.site for item in found} == {"north", "south"}
    keys = {
        Order.WORST: lambda item: (-item.score, -item.entry_id),
        Order.NEWEST: lambda item: (-item.submitted_at.timestamp(), -item.entry_id),
        Order.OLDEST: lambda item: (item.submitted_at.timestamp(), item.entry_id),
    }
    assert found == sorted(found, key=keys[order])
    assert {item.submitted_at for item in found} == {when["north"], when["south"]}
    assert len(found) == 10


def test_filters_by_site_batch_time_and_score_leave_what_they_say(db):
    monday, tuesday = night(db, SCORES, at="north", root="/mon"), night(db, SCORES, at="south", root="/tue")
    earlier = days_ago(db, monday, 3)
    me = person(db, sites=("north", "south"))
    batch = {scans[0]: row(db, scans[0]).batch_id for scans in (monday, tuesday)}

    def of(night_, *, lowest=0.0, highest=1.0):
        flagged = [(s, i) for s, i in zip(SCORES, night_, strict=True) if s >= 0.5 and lowest <= s <= highest]
        return [scan for _, scan in sorted(flagged, reverse=True)]

    assert ids(listed(db, me, site_id=site(db, "north"), limit=2)) == of(monday)
    assert ids(listed(db, me, batch_id=batch[tuesday[0]], limit=2)) == of(tuesday)
    assert ids(listed(db, me, until=earlier + timedelta(seconds=1), limit=2)) == of(monday)
    assert ids(listed(db, me, since=earlier + timedelta(seconds=1), limit=2)) == of(tuesday)
    assert listed(db, me, until=earlier) == []
    for order in Order:
        assert set(ids(listed(db, me, since=earlier, order=order, limit=3))) == {*of(monday), *of(tuesday)}
    within = listed(db, me, lowest=0.6, highest=0.7, limit=1)
    assert [item.score for item in within] == [0.7, 0.7, 0.6, 0.6]
    one = listed(db, me, lowest=0.6, highest=0.7, batch_id=batch[monday[0]], until=earlier + timedelta(days=1))
    assert ids(one) == of(monday, lowest=0.6, highest=0.7)


def test_a_site_of_somebody_else_is_in_no_list(db):
    north = night(db, SCORES, at="north", patients=["P1"] * 6)
    theirs, me = person(db, "theirs", sites=("north",)), person(db, sites=("south",))
    say(db, north[1], theirs)
    batch, key = row(db, north[0]).batch_id, listed(db, theirs)[0].key

    for asked in (
        {},
        {"site_id": site(db, "north")},
        {"batch_id": batch},
        {"text": "P1"},
        {"text": key},
        {"reader": "theirs"},
        *({"state": state} for state in State),
    ):
        assert listed(db, me, **asked) == []
    assert worklist.counts(db, me=me, model_id=models.active(db).id).to_read == 0
    assert worklist.models_to_read(db, me=me) == []
    place = listed(db, theirs)[1].place
    assert ids(listed(db, theirs))[:1] == ids(worklist.page(db, me=theirs, model_id=models.active(db).id, limit=1))
    assert worklist.page(db, me=me, model_id=models.active(db).id, after=place) == []


def test_a_search_finds_a_patient_a_study_or_a_key_in_any_state(db):
    scans = night(db, [0.9, 0.8, 0.7, 0.1], patients=["AB-1", "AB-2", "ZZ", "AB-3"], studies=["1.2", "1.3", "1.2.9"])
    me = person(db)
    say(db, scans[0], me)
    key = listed(db, me)[0].key

    assert set(ids(listed(db, me, text="AB-"))) == {scans[0], scans[1]}  # what is cleared is on no list
    assert ids(listed(db, me, text="AB-1")) == [scans[0]]
    assert set(ids(listed(db, me, text="1.2"))) == {scans[0], scans[2]}
    assert ids(listed(db, me, text=key)) == [scans[1]]
    assert ids(listed(db, me, text="AB-", state=State.UNREAD)) == [scans[1]]
    assert listed(db, me, text="B-") == listed(db, me, text="ab-1") == listed(db, me, text="%") == []
    assert listed(db, me, text="AB_1") == []


def test_a_search_that_finds_a_great_many_finds_them_all(db, monkeypatch):
    monkeypatch.setattr("db.store.ranges.FEW", 3)
    scans = night(db, [0.5 + n / 100 for n in range(12)], patients=[f"P{n % 10}" for n in range(12)])
    other = night(db, [0.9] * 4, root="/other", patients=["Q"] * 4)
    me = person(db)
    say(db, scans[3], me)

    assert set(ids(listed(db, me, text="P", limit=5))) == set(scans)
    assert set(ids(listed(db, me, text="Q", limit=3))) == set(other)
    assert ids(listed(db, me, reader="rosa")) == [scans[3]]


def test_a_long_time_with_a_great_many_batches_lists_them_all(db, monkeypatch):
    nights = [night(db, [0.6 + n / 100, 0.9], root=f"/{n}") for n in range(5)]
    start = days_ago(db, nights[0], 1)
    me = person(db)

    by_batch = listed(db, me, since=start, limit=3)
    monkeypatch.setattr("db.store.ranges.BATCHES", 2)

    assert len(by_batch) == 10
    assert listed(db, me, since=start, limit=3) == by_batch


def test_very_many_sites_are_asked_in_several_statements(db, monkeypatch):
    monkeypatch.setattr("db.store.ranges.AT_ONCE", 2)
    names = [f"site-{n}" for n in range(5)]
    for n, name in enumerate(names):
        night(db, [0.5 + n / 100, 0.8], at=name)
    me = person(db, sites=names)

    for order in Order:
        assert len(listed(db, me, limit=3, order=order)) == 10
    assert [item.score for item in listed(db, me, limit=3)] == [0.8] * 5 + [0.54, 0.53, 0.52, 0.51, 0.5]


def test_what_others_read_first_is_on_a_second_readers_list_and_ones_own_is_not(db):
    site(db, "local", readers=2)
    scans = night(db, [0.9, 0.8, 0.7, 0.6])
    ada, bea, cid = (person(db, name) for name in ("ada", "bea", "cid"))
    say(db, scans[0], ada)
    say(db, scans[1], bea)

    lists = {who.name: ids(listed(db, who, limit=1)) for who in (ada, bea, cid)}

    assert lists == {"ada": scans[1:], "bea": [scans[0], *scans[2:]], "cid": scans}
    counted = {who.name: worklist.counts(db, me=who, model_id=models.active(db).id) for who in (ada, bea, cid)}
    assert {name: (found.unread, found.second) for name, found in counted.items()} == {
        "ada": (2, 1),
        "bea": (2, 1),
        "cid": (2, 2),
    }
    for order, state in product(Order, (State.UNREAD, State.SECOND)):
        assert len(listed(db, ada, order=order, state=state, limit=1)) == 2
    batch = row(db, scans[0]).batch_id
    assert ids(listed(db, ada, batch_id=batch, limit=1)) == scans[1:]
    assert ids(listed(db, ada, since=row(db, scans[0]).submitted_at, limit=1)) == scans[1:]
    assert ids(listed(db, ada, lowest=0.75, limit=1)) == [scans[1]]


def test_the_arbiters_list_has_what_readers_disagree_about_but_for_ones_own_verdicts(db):
    site(db, "local", readers=2)
    scans = night(db, [0.9, 0.8, 0.7])
    ada, bea = person(db, "ada"), person(db, "bea", role=Role.ARBITER)
    cid = person(db, "cid", role=Role.ARBITER)
    for scan in scans[:2]:
        say(db, scan, ada, Verdict.CONFIRM)
    say(db, scans[0], bea, Verdict.DISMISS)
    say(db, scans[1], cid, Verdict.DISMISS)

    model_id = models.active(db).id
    assert ids(listed(db, bea, arbiter=True)) == [scans[1]]
    assert ids(listed(db, cid, arbiter=True)) == [scans[0]]
    assert ids(worklist.next_entries(db, me=cid, model_id=model_id, arbiter=True)) == [scans[0]]
    assert ids(listed(db, ada, state=State.ARBITER)) == scans[:2]
    assert [one.unread for one in worklist.models_to_read(db, me=cid, arbiter=True)] == [2]
    assert worklist.counts(db, me=cid, model_id=model_id).arbiter == 2


def test_a_list_of_what_somebody_read_has_only_what_may_be_known(db):
    site(db, "local", readers=2)
    scans = night(db, [0.9, 0.8, 0.7, 0.6])
    ada, bea = person(db, "ada"), person(db, "bea")
    zoe = person(db, "zoe", role=Role.ARBITER)
    for scan in scans[:3]:
        say(db, scan, ada, Verdict.CONFIRM)
    say(db, scans[0], bea, Verdict.CONFIRM)
    say(db, scans[1], bea, Verdict.DISMISS)

    assert ids(listed(db, ada, reader="ada")) == scans[:3]
    assert ids(listed(db, bea, reader="ada")) == scans[:1]
    assert ids(listed(db, zoe, reader="ada")) == scans[:2]
    assert listed(db, bea, reader="nobody") == []
    assert ids(listed(db, bea, verdict=Verdict.CONFIRM)) == scans[:1]
    assert listed(db, bea, verdict=Verdict.DISMISS) == []
    assert [item.mine for item in listed(db, bea, state=State.DONE)] == [True]


def test_next_passes_over_what_others_have_open_and_what_is_to_be_left_out(db):
    scans, ada, bea = night(db, [0.9, 0.8, 0.7, 0.6]), person(db, "ada"), person(db, "bea")
    model_id = models.active(db).id
    assert entries.hold(db, scans[0], me=ada)
    second = listed(db, bea)[1]

    def upcoming(who, **more):
        return ids(worklist.next_entries(db, me=who, model_id=model_id, **more))

    assert upcoming(bea) == [scans[1]]
    assert upcoming(ada) == [scans[0]]
    assert upcoming(bea, not_keys={second.key}, limit=2) == [scans[2], scans[3]]
    assert upcoming(bea, after=second.place, limit=9) == [scans[2], scans[3]]
    assert upcoming(bea, after=listed(db, bea)[-1].place) == []


def test_scores_of_two_models_never_share_a_list(db):
    first, me = models.active(db).id, person(db)
    night(db, [0.9] * 3)
    second = newer_model(db)
    night(db, [0.8] * 2, root="/next")

    to_read = worklist.models_to_read(db, me=me)

    assert [(one.model_id, one.label, one.unread) for one in to_read] == [(second, "stub 2", 2), (first, "stub 1", 3)]
    for model_id, score, count in ((first, 0.9, 3), (second, 0.8, 2)):
        found = worklist.page(db, me=me, model_id=model_id)
        assert [item.score for item in found] == [score] * count
        assert worklist.counts(db, me=me, model_id=model_id).to_read == count


def test_where_the_active_model_flagged_nothing_the_one_with_the_newest_batch_comes_first(db):
    older, me = models.active(db).id, person(db)
    night(db, [0.9])
    newer = newer_model(db)
    night(db, [0.9], root="/next")
    newer_model(db, "3")

    assert [one.model_id for one in worklist.models_to_read(db, me=me)] == [newer, older]


def test_counts_tell_what_is_left_and_since_when(db):
    earlier, later = night(db, [0.9, 0.8], root="/a"), night(db, [0.7], root="/b")
    since, me = days_ago(db, earlier, 2), person(db)
    model_id = models.active(db).id

    def left():
        found = worklist.counts(db, me=me, model_id=model_id)
        return found.unread, found.done, found.oldest

    assert left() == (3, 0, since)
    for scan in earlier:
        say(db, scan, me)
    assert left() == (1, 2, row(db, later[0]).submitted_at)
    say(db, later[0], me)
    assert left() == (0, 3, None)


def test_a_pace_is_the_median_of_ones_own_verdicts_without_the_breaks(db):
    scans, me, other = night(db, [0.9] * 8), person(db), person(db, "other")
    for scan in scans[:4]:
        say(db, scan, other)
    _given(db, me, scans, seconds_ago=[9 * 3600, 5000, 4990, 4970, 100, 60, 30, 0])  # a break between 4970 and 100

    assert worklist.pace(db, me=me) == pytest.approx(30, abs=1)
    assert worklist.pace(db, me=other) is None


def _given(db, who, scans, *, seconds_ago):
    with db.writing() as session:
        for scan, ago in zip(scans, seconds_ago, strict=True):
            at = now() - timedelta(seconds=ago)
            session.add(Review(scan_id=scan, reader_id=who.id, stage=Stage.VERDICT, verdict="confirm", note="", at=at))


def test_a_place_that_would_tell_a_hidden_score_is_the_top_of_the_list(db):
    done = night(db, [0.9, 0.8, 0.6, 0.55], root="/seen")
    me, other = person(db), person(db, "other")
    for scan in done:
        say(db, scan, other)
    site(db, "local", blind_first=True)
    (hidden,) = night(db, [0.7], root="/blind")
    place = Place(0.0, row(db, hidden).id)

    for asked in (
        Filters(state=State.DONE),
        Filters(verdict=Verdict.CONFIRM),
        Filters(lowest=0.5),
        Filters(lowest=0.5, state=State.DONE),
        Filters(reader="other"),
        Filters(state=State.ARBITER),
    ):
        model_id = models.active(db).id
        whole = worklist.page(db, me=me, model_id=model_id, filters=asked)
        assert worklist.page(db, me=me, model_id=model_id, filters=asked, after=place) == whole
    assert listed(db, me)[0].place.value == 0.0


def test_a_place_that_is_none_is_the_top_of_the_list(db):
    night(db, SCORES)
    me = person(db)
    model_id = models.active(db).id

    assert worklist.page(db, me=me, model_id=model_id, after=Place(0.7, 10**6)) == listed(db, me)
