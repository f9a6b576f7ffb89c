"""Beside a scan: earlier ones of its patient and other views of its study, and of none what is hidden."""

from datetime import date

import pytest
from ledger import claim, found, submitted
from lists import night, person, say, site
from sqlalchemy import event, select, text

from db.files import derived_path
from db.schema import Scan
from db.store import reading, related, scoring
from db.store.sites import every_site
from db.words import Kind, Reason, Role, State, Verdict


def view(db, scan_id):
    """The scan as its page has it."""
    with db.reading() as session:
        key = session.scalars(select(Scan.key).where(Scan.id == scan_id)).one()
    return reading.scan(db, key, site_ids={one.id for one in every_site(db)})


def taken(db, scan_id, **tags):
    with db.writing() as session:
        session.get_one(Scan, scan_id).tags = tags


def ids(found):
    return [one.scan_id for one in found]


def earlier(db, scan_id, me, **asked):
    return related.earlier(db, view(db, scan_id), me=me, **asked)


def same_study(db, scan_id, me):
    return related.same_study(db, view(db, scan_id), me=me)


def test_a_patients_earlier_scans_come_newest_first_and_nobody_elses(db):
    first, other = night(db, [0.6, 0.2], root="/1", patients=("P1", "P2"))
    second, unnamed = night(db, [0.2, 0.9], root="/2", patients=("P1", None))
    third, _ = night(db, [0.9, 0.9], root="/3", patients=("P1", "P11"))
    me = person(db)

    found = earlier(db, third, me)

    assert ids(found) == [second, first]
    assert [(one.kind, one.flagged) for one in found] == [(Kind.SCORED, False), (Kind.SCORED, True)]
    assert [one.state for one in found] == [None, State.UNREAD]
    assert ids(earlier(db, first, me)) == []
    assert ids(earlier(db, other, me)) == ids(earlier(db, unnamed, me)) == []


def test_this_site_comes_first_and_a_site_that_is_not_mine_not_at_all(db):
    here = night(db, [0.6], root="/1", patients=("P1",))
    there = night(db, [0.6], root="/2", at="north", patients=("P1",))
    hidden = night(db, [0.6], root="/3", at="south", patients=("P1",))
    (scan,) = night(db, [0.6], root="/4", patients=("P1",))

    found = earlier(db, scan, person(db, sites=("local", "north")))

    assert ids(found) == [*here, *there]
    assert [one.is_same_site for one in found] == [True, False]
    assert ids(earlier(db, scan, person(db, "sue", sites=("local", "south")))) == [*here, *hidden]


def test_the_dates_in_the_headers_go_before_the_order_of_submission(db):
    old, new, undated, scan, prior = night(db, [0.1] * 5, patients=("P1",) * 5)
    taken(db, old, study_date="20240301")
    taken(db, new, study_date="20260301")
    taken(db, scan, study_date="20250101", imaged="2025-01-01T10:00:00")
    taken(db, prior, imaged="2024-12-31T23:59:59+02:00", view="PA")

    found = earlier(db, scan, person(db))

    # The undated one was submitted today, before this one.
    assert ids(found) == [undated, prior, old]
    assert [one.taken for one in found] == [None, date(2024, 12, 31), date(2024, 3, 1)]
    assert found[1].view == "PA"


@pytest.mark.parametrize("tags", [{"study_date": "99999999"}, {"imaged": 7}, {"study_date": ["x"]}, {"view": {"a": 1}}])
def test_tags_without_sense_cost_nothing(db, tags):
    other, scan = night(db, [0.1] * 2, patients=("P1",) * 2)
    taken(db, other, **tags)

    (found,) = earlier(db, scan, person(db))

    assert (found.taken, found.view) == (None, None)


def test_other_views_of_a_study_are_listed_apart(db):
    frontal, lateral, strange = night(db, [0.6, 0.2, 0.3], patients=("P1", "P1", "P2"), studies=("1.2",) * 3)
    (later,) = night(db, [0.6], root="/2", patients=("P1",), studies=("1.3",))
    me = person(db)

    assert ids(same_study(db, frontal, me)) == [lateral]
    assert ids(same_study(db, lateral, me)) == [frontal]
    assert ids(same_study(db, strange, me)) == []
    assert ids(earlier(db, later, me)) == [lateral, frontal]
    assert ids(earlier(db, lateral, me)) == []  # of the same study


@pytest.mark.parametrize("reads", [{"blind_first": True}, {"sample_share": 0.5}])
def test_a_blind_entry_does_not_say_whether_it_was_flagged_until_it_is_read(db, reads):
    site(db, "local", **reads)
    flagged, drawn = night(db, [0.9, 0.1], patients=("P1",) * 2, drawn=(1,))
    (scan,) = night(db, [0.6], root="/2", patients=("P1",))
    me, she = person(db), person(db, "sue")

    hidden = earlier(db, scan, me)

    assert {(one.flagged, one.is_hidden, one.state, one.verdict) for one in hidden} == {
        (None, True, State.UNREAD, None)
    }
    say(db, drawn, me, Verdict.DISMISS)
    told = {one.scan_id: (one.flagged, one.verdict) for one in earlier(db, scan, me)}
    assert told == {flagged: (None, None), drawn: (False, Verdict.DISMISS)}
    assert {one.scan_id: one.flagged for one in earlier(db, scan, she)} == {flagged: None, drawn: False}  # it is done


def test_a_verdict_is_told_when_it_is_the_last_word(db):
    site(db, "local", readers=2)
    (old,) = night(db, [0.9], patients=("P1",))
    (scan,) = night(db, [0.6], root="/2", patients=("P1",))
    me, she = person(db), person(db, "sue")

    say(db, old, me, Verdict.CONFIRM)
    assert [(one.state, one.verdict) for one in earlier(db, scan, she)] == [(State.SECOND, None)]

    say(db, old, she, Verdict.CONFIRM)
    assert [(one.state, one.verdict) for one in earlier(db, scan, she)] == [(State.DONE, Verdict.CONFIRM)]


def test_what_waits_and_what_was_rejected_is_listed_and_copies_are_not(db):
    files = [
        found("a.png", patient="P1"),
        found("copy.png", content="a.png", patient="P1"),
        found("b.png", patient="P1"),
        found("last.png", patient="P1"),
    ]
    submitted(db, files, chunk_size=1)
    held = claim(db)
    rejected = scoring.Rejected(held.scans[0].id, Reason.BLANK, "")
    assert scoring.complete_chunk(db, held, [rejected])
    with db.reading() as session:
        scan = session.scalars(select(Scan.id).order_by(Scan.id.desc()).limit(1)).one()

    listed = {one.path: (one.kind, one.reason) for one in earlier(db, scan, person(db))}

    assert listed == {"a.png": (Kind.REJECTED, "blank"), "b.png": (None, None)}


def test_whether_a_picture_is_kept_is_told(db):
    with_it, without, scan = night(db, [0.6] * 3, patients=("P1",) * 3)
    path = derived_path(db.config.derived, view(db, with_it).key, "image")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")

    assert {one.scan_id: one.has_picture for one in earlier(db, scan, person(db))} == {with_it: True, without: False}


def test_an_admin_sees_the_batch_that_they_opened_and_a_centre_nothing(db):
    night(db, [0.6], root="/1", patients=("P1",))
    same_batch, scan = night(db, [0.6] * 2, root="/2", patients=("P1",) * 2)

    assert ids(earlier(db, scan, person(db, "boss", role=Role.ADMIN))) == [same_batch]
    assert ids(earlier(db, scan, person(db, "c", role=Role.CENTRE))) == []


def test_one_identifier_for_everybody_costs_a_bounded_look(db, monkeypatch):
    monkeypatch.setattr(related, "LOOKED_AT", 30)
    scans = night(db, [0.1] * 40 + [0.9], patients=("ANONYMOUS",) * 41)
    statements = []
    event.listen(db.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    found = earlier(db, scans[-1], person(db))

    assert ids(found) == scans[-2:-22:-1]
    assert len(ids(earlier(db, scans[-1], person(db, "sue"), limit=3))) == 3
    assert sum("LIMIT" in statement and "patient" in statement for statement in statements) == 2


def test_the_look_goes_by_an_index(db):
    night(db, [0.1] * 5, patients=("P1",) * 5)
    query = "SELECT id FROM scans WHERE patient = 'P1' ORDER BY id DESC LIMIT 500"

    with db.reading() as session:
        if not db.is_sqlite:
            session.execute(text("SET LOCAL enable_seqscan = off"))  # five rows are read faster without one
        plan = str(session.execute(text(f"EXPLAIN {'QUERY PLAN ' if db.is_sqlite else ''}{query}")).all())

    assert "ix_scans_patient" in plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan
