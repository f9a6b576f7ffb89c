"""Users, sessions, reviews, and the record of who did what: append-only, and altered by nobody unseen."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from ledger import claim, complete, folder, submitted
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.errors import Refused, Unknown
from db.store import audit, entries, models, people, worklist
from db.store.sites import add_site, every_site, site_named
from db.words import Role, Stage, Verdict

IDLE, LONGEST = timedelta(minutes=15), timedelta(hours=12)


def session_user(db, token="t" * 64):
    visit = people.visit(db, token, idle=IDLE, longest=LONGEST)
    return visit and visit.user


@pytest.fixture
def reader(db):
    site = site_named(db, "local").id
    people.add_user(db, "rosa", role=Role.READER, password_hash="hash", site_ids={site}, by="test")
    return people.user_named(db, "rosa")


@pytest.fixture
def flagged(db):
    """The id of a flagged scan."""
    submitted(db, folder(1))
    held = claim(db)
    complete(db, held)
    return held.scans[0].id


def alter(db, *statements):
    """What somebody could do who owns the database: take the guards away, then change what happened."""
    with db.writing() as session:
        if db.is_sqlite:
            for action in ("update", "delete"):
                session.execute(text(f"DROP TRIGGER audit_events_no_{action}"))
        else:
            session.execute(text("ALTER TABLE audit_events DISABLE TRIGGER ALL"))
        for statement in statements:
            session.execute(text(statement))


def test_a_reader_sees_the_sites_given_to_them_and_an_admin_every_one(db, reader):
    add_site(db, "elsewhere", by="test")
    people.add_user(db, "ada", role=Role.ADMIN, password_hash="hash", site_ids=set(), by="test")

    assert reader.site_ids == {site_named(db, "local").id}
    assert people.user_named(db, "ada").site_ids == {site.id for site in every_site(db)}


def test_a_name_belongs_to_one_user(db, reader):
    with pytest.raises(Refused, match="rosa"):
        people.add_user(db, "rosa", role=Role.ADMIN, password_hash="other", site_ids=set(), by="test")

    assert people.user_named(db, "rosa").password_hash == "hash"


def test_an_unknown_name_is_unknown(db):
    with pytest.raises(Unknown):
        people.user_named(db, "nobody")


def test_a_session_belongs_to_who_signed_in(db, reader):
    people.start_session(db, reader.id, "t" * 64, by="rosa")

    assert session_user(db).name == "rosa"
    assert session_user(db, "u" * 64) is None


def test_a_session_ends_with_signing_out(db, reader):
    people.start_session(db, reader.id, "t" * 64, by="rosa")

    people.end_session(db, "t" * 64, by="rosa")

    assert session_user(db) is None


@pytest.mark.parametrize("limits", [{"idle": timedelta(0)}, {"longest": timedelta(0)}])
def test_a_session_runs_out(db, reader, limits):
    people.start_session(db, reader.id, "t" * 64, by="rosa")

    assert people.visit(db, "t" * 64, **{"idle": IDLE, "longest": LONGEST, **limits}) is None


def test_a_new_password_ends_every_session(db, reader):
    people.start_session(db, reader.id, "t" * 64, by="rosa")

    people.set_password(db, reader.id, "new hash", by="admin")

    assert session_user(db) is None
    assert people.user_named(db, "rosa").password_hash == "new hash"


def test_a_disabled_user_is_out_at_once(db, reader):
    people.start_session(db, reader.id, "t" * 64, by="rosa")

    people.disable_user(db, reader.id, by="admin")

    assert session_user(db) is None
    assert people.user_named(db, "rosa").disabled_at is not None


def test_a_review_is_appended_and_an_earlier_one_stays(db, reader, flagged):
    entries.add_review(db, flagged, me=reader, stage=Stage.VERDICT, verdict=Verdict.UNSURE, note="ask a colleague")
    entries.add_review(db, flagged, me=reader, stage=Stage.VERDICT, verdict=Verdict.DISMISS)

    assert [(one.verdict, one.note) for one in people.reviews(db, flagged)] == [
        ("dismiss", ""),
        ("unsure", "ask a colleague"),
    ]
    model = models.active(db).id
    assert worklist.counts(db, me=reader, model_id=model).to_read == 0


@pytest.mark.parametrize("table", ["reviews", "audit_events", "thresholds", "activations"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET id = id + 1000"])
def test_what_happened_cannot_be_changed_or_deleted(db, reader, flagged, table, statement):
    entries.add_review(db, flagged, me=reader, stage=Stage.VERDICT, verdict=Verdict.CONFIRM)

    with pytest.raises(DBAPIError, match="append-only"), db.writing() as session:
        session.execute(text(statement.format(table)))


def test_recent_events_of_one_kind_are_counted(db):
    for about in ("user rosa", "user rosa", "user ada"):
        people.note_event(db, by="web", action="sign_in_failed", about=about)

    assert people.recent_events(db, "sign_in_failed", "user rosa", within=timedelta(minutes=5)) == 2
    assert people.recent_events(db, "sign_in_failed", "user rosa", within=timedelta(0)) == 0


def test_an_untouched_record_verifies(db, reader):
    before = audit.verify(db)

    for turn in range(5):
        people.note_event(db, by="rosa", action="viewed", about=f"scan {turn}", detail={"with": "heat map"})

    assert audit.verify(db) == before + 5


def test_a_record_written_by_many_at_once_is_one_chain(db):
    before = audit.verify(db)

    with ThreadPoolExecutor(6) as many:
        list(many.map(lambda turn: people.note_event(db, by="w", action="viewed", about=f"scan {turn}"), range(60)))

    assert audit.verify(db) == before + 60


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET actor = 'somebody else' WHERE id = {}",
        'UPDATE audit_events SET detail = \'{{"with": "nothing"}}\' WHERE id = {}',
        "UPDATE audit_events SET object = 'scan 99' WHERE id = {}",
        "UPDATE audit_events SET at = '2020-01-01 00:00:00' WHERE id = {}",
        "DELETE FROM audit_events WHERE id = {}",
    ],
)
def test_an_event_that_was_altered_is_found(db, statement):
    for turn in range(5):
        people.note_event(db, by="rosa", action="viewed", about=f"scan {turn}")
    with db.reading() as session:
        middle = session.scalar(text("SELECT max(id) - 2 FROM audit_events"))

    alter(db, statement.format(middle))

    with pytest.raises(ValueError, match=r"altered|missing"):
        audit.verify(db)


def test_events_that_changed_places_are_found(db):
    for turn in range(3):
        people.note_event(db, by="rosa", action="viewed", about=f"scan {turn}")
    with db.reading() as session:
        last = session.scalar(text("SELECT max(id) FROM audit_events"))

    swap = "UPDATE audit_events SET id = {} WHERE id = {}"
    alter(db, swap.format(9999, last), swap.format(last, last - 1), swap.format(last - 1, 9999))

    with pytest.raises(ValueError, match=r"altered|missing"):
        audit.verify(db)


@pytest.mark.parametrize("cut", [1, 3])
def test_an_end_that_was_cut_off_is_found(db, cut):
    for turn in range(5):
        people.note_event(db, by="rosa", action="viewed", about=f"scan {turn}")
    with db.reading() as session:
        last = session.scalar(text("SELECT max(id) FROM audit_events"))

    alter(db, f"DELETE FROM audit_events WHERE id > {last - cut}")

    with pytest.raises(ValueError, match="end of the audit log"):
        audit.verify(db)


def test_a_record_that_was_emptied_is_found(db):
    alter(db, "DELETE FROM audit_events")

    with pytest.raises(ValueError, match="end of the audit log"):
        audit.verify(db)


def test_a_forged_event_is_found_by_whoever_holds_the_key(db):
    people.note_event(db, by="rosa", action="viewed", about="scan 1")
    with db.reading() as session:
        last = session.scalar(text("SELECT max(id) FROM audit_events"))

    alter(
        db,
        "INSERT INTO audit_events (id, at, actor, action, object, detail, hash) VALUES"
        f" ({last + 1}, '2026-01-01 00:00:00', 'rosa', 'reviewed', 'scan 2', '{{}}', '{'f' * 64}')",
    )

    with pytest.raises(ValueError, match="altered"):
        audit.verify(db)


def test_the_key_and_the_head_of_the_record_are_for_their_owner_alone(home):
    assert (home.home / "audit.key").stat().st_mode & 0o077 == 0
