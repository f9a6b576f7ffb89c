"""Registering what was found in a folder: nothing twice, nothing lost, whoever does it."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from ledger import claim, folder, found, submission, submitted
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from db.errors import Refused, Unknown
from db.schema import Chunk, Outcome, Scan
from db.store import intake, models, reading, scoring
from db.store.sites import add_site, site_named
from db.words import Reason


def count(db, what):
    with db.reading() as session:
        return session.scalar(select(func.count()).select_from(what))


def paths(held):
    return [scan.path for scan in held.scans]


def test_a_page_becomes_scans_in_chunks(db):
    page = intake.add_page(db, submission(db, chunk_size=4), folder(10))

    assert (page.added, page.known, page.chunks) == (10, 0, 3)
    assert [len(claim(db).scans) for _ in range(3)] == [4, 4, 2]
    assert claim(db) is None


def test_a_worker_can_begin_before_the_batch_is_sealed(db):
    page = intake.add_page(db, submission(db), folder(4))

    assert len(claim(db).scans) == 4
    assert not reading.totals(db, page.batch_id).is_done


def test_the_same_page_again_adds_nothing(db):
    what = submission(db)
    first = intake.add_page(db, what, folder(10))

    second = intake.add_page(db, what, folder(10))

    assert (second.batch_id, second.added, second.known) == (None, 0, 10)
    assert reading.totals(db, first.batch_id).found == 10


def test_a_folder_submitted_again_unchanged_gives_the_same_batch(db):
    first = submitted(db, folder(5))

    assert submitted(db, folder(5)) == first
    assert count(db, Scan) == 5


def test_a_folder_submitted_again_with_additions_gives_a_new_batch_of_those(db):
    first = submitted(db, folder(5))

    second = submitted(db, folder(7))

    assert second != first
    assert reading.totals(db, second).found == 2
    assert reading.totals(db, first).found == 5


def test_a_changed_file_is_a_new_scan(db):
    submitted(db, [found("a.png", "before")])

    batch = submitted(db, [found("a.png", "after")])

    assert reading.totals(db, batch).found == 1


def test_an_empty_folder_still_gives_a_batch_to_report_on(db):
    batch = submitted(db, [])

    assert reading.totals(db, batch).found == 0
    assert reading.totals(db, batch).is_done


def test_the_same_content_twice_in_a_page_is_a_duplicate_of_the_first(db):
    batch = submitted(db, [found("a.png", "same"), found("b.png", "same"), found("c.png", "same")])

    totals = reading.totals(db, batch)
    assert (totals.found, totals.waiting, totals.reasons) == (3, 1, {"duplicate": 2})
    duplicates = [line for line in reading.report_lines(db, batch) if line.reason == Reason.DUPLICATE]
    assert [line.path for line in duplicates] == ["b.png", "c.png"]
    assert len({line.detail for line in duplicates}) == 1


def test_the_same_content_in_another_folder_is_a_duplicate(db):
    submitted(db, [found("a.png", "same")], "/monday")

    batch = submitted(db, [found("a.png", "same")], "/tuesday")

    assert reading.totals(db, batch).reasons == {"duplicate": 1}


def test_the_same_content_from_another_site_is_no_duplicate(db):
    submitted(db, [found("a.png", "same")])
    elsewhere = add_site(db, "elsewhere", by="test")
    what = intake.Submission(elsewhere, models.active(db).id, "/night")

    page = intake.add_page(db, what, [found("a.png", "same")])

    assert reading.totals(db, page.batch_id).waiting == 1


def test_a_file_that_intake_rejects_keeps_its_reason_and_never_reaches_a_worker(db):
    bad = found("a.txt", reason=Reason.NOT_AN_IMAGE, detail="starts with b'hello'")

    batch = submitted(db, [bad, found("b.png")])

    assert reading.totals(db, batch).reasons == {"not_an_image": 1}
    assert paths(claim(db)) == ["b.png"]


def test_a_duplicate_of_a_rejected_file_keeps_the_reason_that_is_its_own(db):
    twins = [found(name, "text", reason=Reason.NOT_AN_IMAGE) for name in ("a.txt", "b.txt")]

    batch = submitted(db, twins)

    assert reading.totals(db, batch).reasons == {"not_an_image": 2}


def test_a_file_whose_bytes_could_not_be_read_is_registered_once(db):
    closed = intake.FoundFile("secret.png", 10, None, reason=Reason.NO_PERMISSION)

    first = submitted(db, [closed])

    assert submitted(db, [closed]) == first
    assert count(db, Scan) == 1


def test_names_are_kept_as_the_file_system_has_them(db):
    names = ["\udcff\udc80.png", "new\nline.png", "жив.png", "a" * 255, "tab\t'quote\".png"]
    submitted(db, [found(name) for name in names], chunk_size=10)

    assert paths(claim(db)) == names


def test_urgent_scans_are_claimed_first(db):
    submitted(db, [found("routine.png"), found("urgent.png", urgent=True)])
    submitted(db, [found("later.png")], "/later", urgent=True)

    assert [paths(claim(db)) for _ in range(3)] == [["urgent.png"], ["later.png"], ["routine.png"]]


def test_two_producers_on_one_folder_fill_one_batch(db):
    what, start = submission(db), Barrier(4)
    files = folder(200)

    def produce(turn):
        start.wait()
        for first in range(0, 200, 20):
            intake.add_page(db, what, files[first : first + 20])
        return intake.seal(db, what)

    with ThreadPoolExecutor(4) as producers:
        batches = set(producers.map(produce, range(4)))

    assert len(batches) == 1
    totals = reading.totals(db, batches.pop())
    assert (totals.found, totals.waiting, totals.reasons) == (200, 200, {})
    assert count(db, Chunk) == 50


def test_an_interrupted_submission_is_found_again_until_it_is_sealed(db):
    what = submission(db, root="/half", urgent=True, manifest="/half.csv")
    page = intake.add_page(db, what, folder(2))

    ((batch, again),) = intake.open_submissions(db)

    assert batch == page.batch_id
    assert (again.root, again.urgent, again.manifest) == ("/half", True, "/half.csv")
    intake.seal(db, what)
    assert intake.open_submissions(db) == []


def test_the_totals_always_add_up(db):
    files = [*folder(9), found("x.txt", reason=Reason.EMPTY), found("copy.png", "scan0000.png")]

    totals = reading.totals(db, submitted(db, files))

    assert totals.found == totals.scored + totals.rejected + totals.failed + totals.waiting == 11


def test_an_unknown_site_is_refused_with_the_nearest_names(db):
    add_site(db, "Springfield General", by="test")

    with pytest.raises(Unknown, match="Springfield General"):
        site_named(db, "Springfeld General")


@pytest.mark.parametrize("name", ["local", "", "   "])
def test_a_site_needs_a_name_of_its_own(db, name):
    with pytest.raises(Refused):
        add_site(db, name, by="test")


def test_a_second_outcome_for_the_same_scan_is_impossible(db):
    batch = submitted(db, [found("a.txt", reason=Reason.EMPTY)])
    names = ("scan_id", "trained_model_id", "generation", "kind", "reason", "at")
    with db.reading() as session:
        first = session.scalars(select(Outcome)).one()
        twin = Outcome(**{name: getattr(first, name) for name in names})

    with pytest.raises(IntegrityError), db.writing() as session:
        session.add(twin)

    assert reading.totals(db, batch).rejected == 1


@pytest.mark.parametrize("reason", [Reason.MISSING, Reason.CHANGED_SINCE_SUBMISSION])
def test_what_was_gone_when_its_turn_came_is_screened_when_it_is_sent_again(db, reason):
    submitted(db, [found("one.png")])
    held = claim(db)
    scoring.complete_chunk(db, held, [scoring.Rejected(held.scans[0].id, reason, "a test")])

    again = submitted(db, [found("one.png")])

    assert again == 2
    assert reading.totals(db, again).waiting == 1


def test_a_file_that_changed_while_its_submission_was_interrupted_stays_one_scan(db):
    intake.add_page(db, submission(db), [found("one.png", "as it was")])
    what = submission(db, resumes=intake.is_open(db, submission(db)))

    intake.add_page(db, what, [found("one.png", "as it is now"), found("two.png")])

    assert reading.totals(db, intake.seal(db, what)).found == 2


def test_every_column_of_a_large_page_reaches_the_tables_as_it_was_found(db):
    files = [
        found(f"\udcff{n:04}.png", patient=f"P{n}", study="1.2", age=n / 7, tags={"sex": "F", "spacing_mm": [n, 0.5]})
        if n % 3
        else found(f"{n:04}.txt", reason=Reason.NOT_AN_IMAGE, detail="starts with %s and ?")
        for n in range(700)
    ]

    batch = submitted(db, files, chunk_size=64)

    with db.reading() as session:
        columns = (Scan.path, Scan.size, Scan.sha256, Scan.patient, Scan.study, Scan.age, Scan.tags)
        kept = session.execute(select(*columns).order_by(Scan.id)).all()
        details = set(session.scalars(select(Outcome.detail)))
    assert [tuple(row) for row in kept] == [
        (f.path, f.size, f.sha256, f.patient, f.study, f.age, f.tags) for f in files
    ]
    assert details == {"starts with %s and ?"}
    assert reading.totals(db, batch).reasons == {"not_an_image": 234}
    assert [len(claim(db).scans) for _ in range(8)] == [64] * 7 + [18]


def test_contents_sent_long_ago_are_found_among_many(db):
    submitted(db, folder(300), "/monday")

    batch = submitted(db, folder(600), "/tuesday")

    assert (reading.totals(db, batch).reasons, reading.totals(db, batch).waiting) == ({"duplicate": 300}, 300)
