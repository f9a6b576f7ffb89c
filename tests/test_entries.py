"""Worklist entries: how they come about, who sees what of them, who has them open, what is said, and their counts."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from itertools import product
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger import claim, folder, found, newer_model, scored, submitted
from lists import ids, listed, night, person, row, say, site
from sqlalchemy import select, update

from db.errors import NightreadError, Refused, Unknown
from db.schema import AuditEvent, Entry, EntryCount, Outcome, Review
from db.store import agreement, audit, entries, intake, models, people, recovery, scoring, tallies, thresholds, worklist
from db.store.connection import now
from db.words import Kind, Reason, Role, Stage, State, Verdict

SCORE, LIMIT, SHARE = 0.8765432, 0.4321987, 0.0156259


def states(db):
    with db.reading() as session:
        rows = session.execute(select(Entry.scan_id, Entry.state).order_by(Entry.id))
        return {scan_id: state for scan_id, state in rows}  # noqa: C416


def set_to(db, scan_id, **values):
    with db.writing() as session:
        session.execute(update(Entry).where(Entry.scan_id == scan_id).values(values))


def threshold(db, value):
    return thresholds.set_threshold(db, models.active(db).id, value, why="a test", by="test")


# How entries come about


def test_a_flagged_scan_is_on_the_list_with_its_outcome_and_no_other_one_is(db):
    scans = night(db, [0.9, 0.2, 0.5])

    assert states(db) == {scans[0]: "unread", scans[2]: "unread"}
    made = row(db, scans[0])
    assert (made.score, made.rank, made.share, made.blind, made.readers) == (0.9, 0.9, None, False, 1)
    assert made.submitted_at == worklist.page(db, me=person(db), model_id=1)[0].submitted_at


def test_rejected_and_failed_scans_are_on_no_list(db):
    submitted(db, folder(2))
    held = claim(db)
    failed = scoring.Failed(held.scans[1].id, "worker_died", "thrice")

    scoring.complete_chunk(db, held, [scoring.Rejected(held.scans[0].id, Reason.BLANK, ""), failed])

    assert states(db) == {}
    assert tallies.recount(db) == []


def test_a_lost_claim_lists_nothing(db):
    submitted(db, folder(2))
    held = claim(db)
    other = scoring.Claim(held.chunk_id, "0" * 32, held.batch_id, held.trained_model_id, 1, held.scans)

    assert not scoring.complete_chunk(db, other, [scored(scan, 0.9) for scan in held.scans])

    assert states(db) == {}


def test_an_entry_is_read_as_its_site_reads_when_it_is_made_and_stays_so(db):
    (before,) = night(db, [0.9], root="/before")
    site(db, "local", readers=2, blind_first=True)
    (after,) = night(db, [0.8], root="/after")

    assert [(row(db, scan).readers, row(db, scan).blind) for scan in (before, after)] == [(1, False), (2, True)]
    assert row(db, after).rank == 0.8


def test_while_a_site_samples_nothing_tells_the_drawn_from_the_flagged(db):
    site(db, "local", sample_share=0.25)
    scans = night(db, [0.01 * n for n in range(100)], drawn={0, 10, 20, 30, 40, 90})

    made = [row(db, scan) for scan in states(db)]

    assert [one.scan_id for one in made] == [scans[n] for n in (0, 10, 20, 30, 40, *range(50, 100))]  # in scan order
    assert [one.share for one in made] == [0.25] * 5 + [None] * 50  # a flagged one is flagged, drawn or not
    assert all(one.blind for one in made)
    assert not {one.rank for one in made} & {one.score for one in made}
    assert len({one.rank for one in made}) == 55
    assert all(0 <= one.rank < 1 for one in made)
    me = person(db)
    for item in listed(db, me):
        assert (item.score, item.threshold, item.place.value) == (None, None, 0.0)


def test_what_was_drawn_before_its_site_stopped_sampling_stays_among_equals(db):
    scans = night(db, [0.1, 0.9], drawn={0})

    assert [(row(db, scan).blind, row(db, scan).share) for scan in scans] == [(True, 0.25), (True, None)]


def test_a_worker_hears_with_the_claim_how_much_its_site_samples(db):
    site(db, "local", sample_share=0.125)
    submitted(db, folder(1))

    assert [scan.sample_share for scan in claim(db).scans] == [0.125]


# A new threshold


def test_a_lower_threshold_lists_what_is_newly_flagged_as_the_site_reads_now(db):
    scans = night(db, [0.9, 0.4, 0.3])
    site(db, "local", readers=2, sample_share=0.5)

    done = threshold(db, 0.35)

    assert done.newly_flagged == 1
    assert states(db) == {scans[0]: "unread", scans[1]: "unread"}
    added = row(db, scans[1])
    assert (added.score, added.share, added.blind, added.readers) == (0.4, None, True, 2)
    assert added.rank != 0.4
    assert tallies.recount(db) == []


def test_a_higher_threshold_withdraws_what_nobody_read_and_a_lower_one_brings_it_back(db):
    scans, me = night(db, [0.9, 0.8, 0.7, 0.6]), person(db)
    say(db, scans[3], me)

    threshold(db, 0.85)
    assert states(db) == dict(zip(scans, ["unread", "withdrawn", "withdrawn", "done"], strict=True))
    assert ids(listed(db, me)) == [scans[0]]
    assert worklist.counts(db, me=me, model_id=1).to_read == 1

    threshold(db, 0.75)
    assert states(db) == dict(zip(scans, ["unread", "unread", "withdrawn", "done"], strict=True))
    assert tallies.recount(db) == []


def test_what_was_drawn_stays_on_the_list_whatever_the_threshold(db):
    site(db, "local", sample_share=0.25)
    drawn, flagged = night(db, [0.4, 0.9], drawn={0})

    for value in (0.3, 0.6, 0.95):
        threshold(db, value)

        assert row(db, drawn).state == "unread"
        assert row(db, drawn).share == 0.25
    assert row(db, flagged).state == "withdrawn"


def test_a_threshold_of_one_model_leaves_the_lists_of_others_alone(db):
    older = models.active(db).id
    first = night(db, [0.9, 0.6])
    newer_model(db)
    second = night(db, [0.9, 0.6], root="/other")

    thresholds.set_threshold(db, older, 0.7, why="x", by="test")

    assert states(db) == dict(zip([*first, *second], ["unread", "withdrawn", "unread", "unread"], strict=True))
    assert tallies.recount(db) == []


# What somebody may see


@pytest.fixture
def crowd(db):
    """A scan, and people of every role who said nothing, an impression or a verdict of it; name -> user."""
    (scan,) = night(db, [SCORE])
    threshold(db, LIMIT)
    kinds = {"nothing": (), "impression": (Stage.IMPRESSION,), "verdict": (Stage.VERDICT,)}
    whole = {f"{role}-{kind}": person(db, f"{role}-{kind}", role=role) for role, kind in product(Role, kinds)}
    with db.writing() as session:
        for name, user in whole.items():
            for stage in kinds[name.split("-")[1]]:
                said = {"verdict": "confirm", "note": f"note of {name}", "at": now()}
                session.add(Review(scan_id=scan, reader_id=user.id, stage=stage, **said))
    return scan, whole


def sees(user, said_something, *, blind, state):
    decides = user.role == Role.ARBITER and state == State.ARBITER
    return not blind or state == State.DONE or said_something or decides


@pytest.mark.parametrize("blind", [True, False])
def test_the_store_never_hands_out_a_hidden_score(db, crowd, blind):
    scan, whole = crowd
    model_id = models.active(db).id

    for state, (name, user) in product(State, whole.items()):
        set_to(db, scan, state=state, blind=blind, share=SHARE)
        shown = sees(user, not name.endswith("nothing"), blind=blind, state=state)
        view = entries.entry(db, scan, me=user)
        handed = [view, *worklist.next_entries(db, me=user, model_id=model_id)]
        for asked in (
            worklist.Filters(),
            worklist.Filters(text="scan"),
            worklist.Filters(reader=name),
            worklist.Filters(batch_id=1, state=state),
            *(worklist.Filters(state=state, order=order) for order in worklist.Order),
        ):
            handed += worklist.page(db, me=user, model_id=model_id, filters=asked)

        assert view.sees_score == shown
        assert len(handed) >= 4
        for one in handed:
            told = repr(asdict(one))
            assert shown or (str(SCORE) not in told and str(LIMIT) not in told), (state, name, one)
            assert str(SHARE) not in told
        items = [one for one in handed if isinstance(one, worklist.WorklistItem)]
        assert {(item.score, item.threshold) for item in items} == {(SCORE, LIMIT) if shown else (None, None)}


@pytest.mark.parametrize("blind", [True, False])
def test_a_score_band_lists_no_hidden_score(db, crowd, blind):
    scan, whole = crowd
    band = {"lowest": SCORE - 0.01, "highest": SCORE + 0.01}

    for state, user in product(State, whole.values()):
        set_to(db, scan, state=state, blind=blind)
        found = listed(db, user, state=state, **band)
        assert ids(found) == ([scan] if not blind or state == State.DONE else [])
        assert listed(db, user, state=state, highest=SCORE - 0.01) == []


def test_what_others_said_is_shown_only_where_it_may_be(db, crowd):
    scan, whole = crowd
    speak = [name for name in reversed(whole) if not name.endswith("nothing")]

    for state, (name, user) in product(State, whole.items()):
        set_to(db, scan, state=state)
        view = entries.entry(db, scan, me=user)
        mine = [] if name.endswith("nothing") else [name]
        decides = user.role == Role.ARBITER and state == State.ARBITER and not name.endswith("verdict")
        open_to_me = state in (State.DONE, State.WITHDRAWN) or decides
        assert [review.reader for review in view.my_reviews] == mine
        assert [review.reader for review in view.reviews] == (speak if open_to_me else mine)
        assert open_to_me or all(f"note of {other}" not in repr(asdict(view)) for other in speak if [other] != mine)


def test_a_scan_that_is_on_no_list_of_theirs_has_no_entry_for_them(db):
    flagged, cleared = night(db, [0.9, 0.1])
    me, stranger = person(db), person(db, "stranger", sites=("elsewhere",))

    assert entries.entry(db, flagged, me=me).scan_id == flagged
    assert entries.entry(db, cleared, me=me) is None
    assert entries.entry(db, flagged, me=stranger) is None
    assert entries.entry(db, 4711, me=me) is None


# Who has it open


def test_who_opens_a_scan_holds_it_and_others_see_who_and_since_when(db):
    (scan,) = night(db, [0.9])
    ada, bea = person(db, "ada"), person(db, "bea")

    assert entries.hold(db, scan, me=ada)
    assert not entries.hold(db, scan, me=bea)

    seen = entries.entry(db, scan, me=bea)
    assert (seen.holder, seen.held_since) == ("ada", row(db, scan).held_since)
    assert entries.entry(db, scan, me=ada).holder is None
    (item,) = listed(db, bea)
    assert (item.holder, item.held_since) == ("ada", seen.held_since)
    assert listed(db, ada)[0].holder is None
    assert row(db, scan).holder_id == ada.id


def test_a_hold_is_renewed_from_when_it_began_and_is_over_when_it_ran_out(db):
    (scan,) = night(db, [0.9])
    ada, bea = person(db, "ada"), person(db, "bea")
    entries.hold(db, scan, me=ada)
    begun, until = row(db, scan).held_since, row(db, scan).held_until

    assert entries.hold(db, scan, me=ada)
    assert row(db, scan).held_since == begun
    assert row(db, scan).held_until >= until

    set_to(db, scan, held_until=1.0)
    assert entries.entry(db, scan, me=bea).holder is None
    assert worklist.next_entries(db, me=bea, model_id=1)
    assert entries.hold(db, scan, me=bea)
    assert not entries.hold(db, scan, me=ada)
    assert row(db, scan).held_since > begun


def test_a_hold_ends_by_leaving_or_by_a_verdict_and_stays_through_an_impression(db):
    site(db, "local", blind_first=True)
    (scan,) = night(db, [0.9])
    ada, bea = person(db, "ada"), person(db, "bea")
    entries.hold(db, scan, me=ada)
    entries.release(db, scan, me=bea)
    assert row(db, scan).holder_id == ada.id

    say(db, scan, ada, stage=Stage.IMPRESSION)
    assert row(db, scan).holder_id == ada.id
    say(db, scan, bea)  # opened anyway, after a notice
    assert row(db, scan).holder_id == ada.id
    say(db, scan, ada)
    assert row(db, scan).holder_id is row(db, scan).held_until is None


def test_what_is_done_or_on_no_list_is_held_by_nobody(db):
    scan, cleared = night(db, [0.9, 0.1])
    ada, bea = person(db, "ada"), person(db, "bea")
    say(db, scan, ada)

    assert all(entries.hold(db, one, me=who) for one in (scan, cleared) for who in (ada, bea))
    assert row(db, scan).holder_id is None
    entries.release(db, scan, me=ada)


def test_who_only_looks_holds_nothing(db):
    (scan,) = night(db, [0.9])

    assert entries.hold(db, scan, me=person(db, role=Role.ADMIN))

    assert row(db, scan).holder_id is None


def test_of_many_who_open_a_scan_at_once_one_holds_it(db):
    (scan,) = night(db, [0.9])
    crowd = [person(db, f"r{n}") for n in range(4)]
    start = Barrier(4)

    def open_it(who):
        start.wait()
        return entries.hold(db, scan, me=who)

    with ThreadPoolExecutor(4) as threads:
        held = list(threads.map(open_it, crowd))

    assert sorted(held) == [False, False, False, True]
    assert row(db, scan).holder_id == crowd[held.index(True)].id


# What is said


def test_one_reader_is_enough_where_a_site_has_one(db):
    scan, _ = night(db, [0.9, 0.1])
    me = person(db)

    assert say(db, scan, me, Verdict.REPEAT, findings=["opacity"], note="turned") == State.DONE

    done = row(db, scan)
    assert (done.verdict, done.first_reader_id, done.decided_at is not None) == ("repeat", me.id, True)
    (review,) = entries.entry(db, scan, me=me).reviews
    assert (review.reader, review.stage, review.verdict) == ("rosa", Stage.VERDICT, Verdict.REPEAT)
    assert (review.findings, review.note, review.saw_score, review.saw_others) == (("opacity",), "turned", True, False)
    with db.reading() as session:
        event = session.scalars(select(AuditEvent).where(AuditEvent.action == "reviewed")).one()
        assert (event.actor, event.object) == ("rosa", f"scan {scan}")
        assert event.detail == {
            "entry": done.id,
            "review": review.id,
            "stage": "verdict",
            "verdict": "repeat",
            "state": "done",
        }
    assert audit.verify(db)


def test_two_readers_who_disagree_leave_it_to_an_arbiter_who_did_not_read_it(db):
    site(db, "local", readers=2)
    (scan,) = night(db, [0.9])
    ada, bea = person(db, "ada"), person(db, "bea", role=Role.ARBITER)
    zoe = person(db, "zoe", role=Role.ARBITER)

    assert say(db, scan, ada, Verdict.CONFIRM) == State.SECOND
    assert say(db, scan, bea, Verdict.DISMISS) == State.ARBITER
    with pytest.raises(Refused, match="your own verdict counts"):
        say(db, scan, bea, stage=Stage.ARBITRATION)
    with pytest.raises(Refused, match="only arbiters"):
        say(db, scan, ada, stage=Stage.ARBITRATION)
    with pytest.raises(Refused, match="waits for an arbiter"):
        say(db, scan, zoe)
    assert say(db, scan, zoe, Verdict.DISMISS, Stage.ARBITRATION) == State.DONE
    assert row(db, scan).verdict == "dismiss"
    assert say(db, scan, zoe, Verdict.CONFIRM, Stage.ARBITRATION) == State.DONE  # had the last word, has it again
    assert row(db, scan).verdict == "confirm"
    reviews = entries.entry(db, scan, me=ada).reviews
    assert [(one.reader, one.saw_others) for one in reviews] == [
        ("zoe", True),
        ("zoe", True),
        ("bea", False),
        ("ada", False),
    ]


def test_a_verdict_is_undone_by_a_newer_one_and_nothing_is_changed(db):
    site(db, "local", readers=2)
    (scan,) = night(db, [0.9])
    ada, bea = person(db, "ada"), person(db, "bea")
    say(db, scan, ada, Verdict.CONFIRM)
    say(db, scan, ada, Verdict.DISMISS)
    assert row(db, scan).state == State.SECOND
    say(db, scan, bea, Verdict.CONFIRM)
    assert row(db, scan).state == State.ARBITER

    assert say(db, scan, ada, Verdict.CONFIRM) == State.DONE
    assert say(db, scan, bea, Verdict.UNSURE) == State.ARBITER

    assert (row(db, scan).verdict, row(db, scan).decided_at) == (None, None)
    assert [one.verdict for one in people.reviews(db, scan)] == ["unsure", "confirm", "confirm", "dismiss", "confirm"]
    assert tallies.recount(db) == []


def test_two_verdicts_at_once_on_a_scan_for_one_reader_both_count(db):
    (scan,) = night(db, [0.9])
    ada, bea = person(db, "ada"), person(db, "bea")

    say(db, scan, ada, Verdict.CONFIRM)
    assert say(db, scan, bea, Verdict.DISMISS) == State.ARBITER

    assert tallies.recount(db) == []


def test_an_impression_comes_before_the_score_is_seen_and_decides_nothing(db):
    site(db, "local", blind_first=True)
    (scan,) = night(db, [0.9])
    me = person(db)
    assert entries.entry(db, scan, me=me).needs_impression

    assert say(db, scan, me, Verdict.DISMISS, Stage.IMPRESSION) == State.UNREAD
    with pytest.raises(Refused, match="impression"):
        say(db, scan, me, Verdict.DISMISS, Stage.IMPRESSION)
    assert say(db, scan, me, Verdict.CONFIRM) == State.DONE

    assert [(one.stage, one.saw_score) for one in people.reviews(db, scan)] == [
        (Stage.VERDICT, True),
        (Stage.IMPRESSION, False),
    ]


def test_a_second_look_at_a_scan_that_is_on_no_list_counts(db):
    flagged, cleared, other = night(db, [0.9, 0.1, 0.2])
    me = person(db)

    assert say(db, cleared, me, Verdict.CONFIRM) == State.DONE
    assert say(db, other, me, Verdict.UNSURE) == State.ARBITER

    made = row(db, cleared)
    assert (made.share, made.blind, made.readers, made.score) == (None, False, 1, 0.1)
    assert ids(listed(db, me)) == [flagged]
    assert tallies.recount(db) == []


def test_nobody_says_anything_of_what_was_not_scored_is_not_theirs_or_is_not_for_their_role(db):
    submitted(db, [found("empty.png", reason=Reason.EMPTY, detail=""), *folder(1)])
    with db.reading() as session:
        rejected = session.scalars(select(Outcome.scan_id).where(Outcome.kind == Kind.REJECTED)).one()
    waiting = claim(db).scans[0].id
    (scan,) = night(db, [0.9], root="/other")
    me, stranger = person(db), person(db, "stranger", sites=("elsewhere",))

    for nothing in (rejected, waiting):
        with pytest.raises(Refused, match="only a scored scan"):
            say(db, nothing, me)
    for nobodys in (scan, rejected, 4711):
        with pytest.raises(Unknown):
            say(db, nobodys, stranger)
    for role in (Role.ADMIN, Role.CENTRE):
        with pytest.raises(Refused, match="only readers"):
            say(db, scan, person(db, role, role=role))
    assert people.reviews(db, scan) == []
    assert states(db) == {scan: "unread"}
    assert tallies.recount(db) == []


def test_a_verdict_on_what_was_withdrawn_still_counts(db):
    (scan,) = night(db, [0.6])
    threshold(db, 0.7)

    assert say(db, scan, person(db)) == State.DONE
    assert tallies.recount(db) == []


def test_ones_last_say_is_found_again_step_by_step(db):
    site(db, "local", blind_first=True)
    scans, me, other = night(db, [0.9, 0.8, 0.7]), person(db), person(db, "other")
    assert entries.last_of_mine(db, me=me) is None
    say(db, scans[0], me)
    say(db, scans[1], me)
    say(db, scans[2], other)
    say(db, scans[2], me, stage=Stage.IMPRESSION) if row(db, scans[2]).state == "unread" else None
    keys = {item.scan_id: item.key for item in listed(db, me, reader="rosa")}

    key, review = entries.last_of_mine(db, me=me)
    assert key == keys[scans[1]]
    assert entries.last_of_mine(db, me=me, before=review)[0] == keys[scans[0]]


# Agreement


def test_agreement_is_counted_from_independent_verdicts_and_changes_of_mind_from_impressions(db):
    site(db, "local", readers=2, blind_first=True)
    scans = night(db, [0.9, 0.8, 0.7])
    ada, bea, cid = (person(db, name) for name in ("ada", "bea", "cid"))
    for scan, said in zip(scans, (Verdict.CONFIRM, Verdict.DISMISS, Verdict.DISMISS), strict=True):
        say(db, scan, bea, Verdict.DISMISS, Stage.IMPRESSION)
        say(db, scan, bea, said)
        say(db, scan, ada, Verdict.CONFIRM if scan != scans[2] else Verdict.DISMISS)
    say(db, scans[0], cid, Verdict.DISMISS)  # knew what the others had said
    asked = {"site_ids": {site(db, "local")}, "model_id": models.active(db).id}

    (pair,) = agreement.pairs(db, **asked)

    assert (pair.first, pair.second) == ("ada", "bea")
    assert pair.said == {
        (Verdict.CONFIRM, Verdict.CONFIRM): 1,
        (Verdict.CONFIRM, Verdict.DISMISS): 1,
        (Verdict.DISMISS, Verdict.DISMISS): 1,
    }
    assert agreement.changes(db, **asked) == [
        agreement.Changes("bea", {(Verdict.DISMISS, Verdict.CONFIRM): 1, (Verdict.DISMISS, Verdict.DISMISS): 2})
    ]
    assert agreement.pairs(db, **asked, since=now()) == []


# Counts


def test_a_wrong_count_is_found_and_put_right(db):
    scans, me = night(db, [0.9, 0.8]), person(db)
    say(db, scans[0], me)
    with db.writing() as session:
        session.execute(update(EntryCount).where(EntryCount.state == "unread").values(count=7))
        session.add(EntryCount(site_id=1, trained_model_id=1, state="arbiter", reader_id=0, count=1))

    wrong = tallies.recount(db)

    assert {(one.key.state, one.kept, one.counted) for one in wrong} == {("unread", 7, 1), ("arbiter", 1, 0)}
    assert entries.recount(db, repair=True) == wrong
    assert tallies.recount(db) == []
    assert worklist.counts(db, me=me, model_id=1).unread == 1


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("night"), st.lists(st.sampled_from([0.1, 0.45, 0.6, 0.9]), min_size=1, max_size=5)),
        st.tuples(st.just("threshold"), st.sampled_from([0.05, 0.3, 0.5, 0.7, 0.95])),
        st.tuples(st.just("site"), st.sampled_from([1, 2]), st.booleans(), st.sampled_from([0.0, 0.5])),
        st.tuples(
            st.just("say"),
            st.integers(0, 60),
            st.integers(0, 3),
            st.sampled_from(Verdict),
            st.sampled_from([Stage.VERDICT, Stage.VERDICT, Stage.ARBITRATION, Stage.IMPRESSION]),
        ),
    ),
    min_size=1,
    max_size=25,
)


def act(db, crowd, scans, action, *told):
    if action == "night":
        number = sum(map(len, scans))
        scans.append(night(db, told[0], root=f"/{number}-{len(scans)}", drawn=set(range(0, len(told[0]), 2))))
    elif action == "threshold":
        threshold(db, told[0])
    elif action == "site":
        site(db, "local", readers=told[0], blind_first=told[1], sample_share=told[2])
    else:
        every = [scan for of_night in scans for scan in of_night]
        if every:
            say(db, every[-1 - told[0] % len(every)], crowd[told[1]], told[2], told[3])


def test_after_any_actions_the_counts_are_what_counting_gives_and_the_lists_are_whole(db):
    crowd = [person(db, f"r{n}", role=Role.ARBITER if n > 1 else Role.READER) for n in range(4)]
    scans = []

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(ACTIONS)
    def go_on(actions):
        for one in actions:
            with suppress(NightreadError):
                act(db, crowd, scans, *one)
        assert tallies.recount(db) == []
        _lists_are_whole(db, crowd)

    go_on()


def _lists_are_whole(db, crowd):
    """Every open entry is on exactly the lists that it should be on; every flagged scan has its entry."""
    with db.reading() as session:
        flagged = set(session.scalars(select(Outcome.scan_id).where(Outcome.flagged.is_(True))))
        rows = session.scalars(select(Entry)).all()
        session.expunge_all()
    assert flagged <= {one.scan_id for one in rows if one.state != State.WITHDRAWN}
    for who in crowd:
        mine = {
            one.scan_id
            for one in rows
            if one.state == State.UNREAD or (one.state == State.SECOND and one.first_reader_id != who.id)
        }
        found = ids(listed(db, who, limit=200))
        assert len(found) == len(mine)
        assert set(found) == mine
        told = worklist.counts(db, me=who, model_id=models.active(db).id)
        assert told.to_read == len(mine)


def test_workers_readers_and_admins_at_once_neither_wait_in_a_circle_nor_lose_a_count(db):
    """Many complete chunks, read, open, give second looks and submit, while the threshold goes up and down."""
    crowd = [person(db, f"r{n}", role=Role.ARBITER) for n in range(3)]
    night(db, [n / 40 for n in range(40)], root="/first")
    for n in range(4):
        submitted(db, folder(40, prefix=f"n{n}-"), root=f"/n{n}", chunk_size=4)
    start = Barrier(9)

    def complete(number):
        start.wait()
        done = 0
        while held := claim(db, worker=f"w{number}"):
            results = [scored(scan, (scan.id * 37 % 100) / 100, share=0.25) for scan in held.scans]
            assert scoring.complete_chunk(db, held, results)
            done += len(results)
        return done

    def read(number):
        start.wait()
        said = 0
        for n in range(40):
            with db.reading() as session:
                scans = session.scalars(select(Outcome.scan_id).order_by(Outcome.id.desc()).limit(40)).all()
            for scan in scans[(7 * number + n) % 7 :: 13]:
                entries.hold(db, scan, me=crowd[number])
                with suppress(Refused):
                    say(db, scan, crowd[number], list(Verdict)[(scan + number + n) % 4])
                    said += 1
        return said

    def rule(number):
        start.wait()
        for n in range(15):
            threshold(db, (n * 29 % 90 + 5) / 100)
        return 1

    def submit(number):
        start.wait()
        what = intake.Submission(1, models.active(db).id, "/late", chunk_size=8)
        for n in range(15):
            intake.add_page(db, what, folder(8, prefix=f"late{n}-"))
        recovery.retry_failed(db, intake.seal(db, what), by="test")
        return 1

    with ThreadPoolExecutor(9) as threads:
        jobs = [threads.submit(complete, n) for n in range(4)] + [threads.submit(read, n) for n in range(3)]
        jobs += [threads.submit(rule, 0), threads.submit(submit, 0)]
        done = [job.result(timeout=300) for job in jobs]

    complete_rest = claim(db)
    while complete_rest:
        scoring.complete_chunk(db, complete_rest, [scored(scan) for scan in complete_rest.scans])
        complete_rest = claim(db)
    assert done[4] + done[5] + done[6] > 30
    assert tallies.recount(db) == []
    _lists_are_whole(db, crowd)
    with db.reading() as session:
        told = Counter(session.scalars(select(Outcome.kind)))
    assert told == {"scored": 320}
    assert audit.verify(db)
