"""The morning certificate: its digest is anybody's to compute, and each kind of damage is named."""

import hashlib
import json
import os
import sqlite3
from contextlib import closing

import psycopg
import pytest
from ledger import claim, complete, found, scored, submission, submitted
from ready_home import STUB
from sqlalchemy import select, text
from test_commands import run

from db.schema import AuditEvent
from db.store import audit, certificate, intake, models, reading, recovery, registered, scoring
from db.store.connection import database
from db.store.problems import MEANINGS, What
from db.store.thresholds import set_threshold
from db.words import Cause, Exit, Reason
from producer import refound
from producer.cli import main
from producer.submission import submit

ORDERED = """
SELECT s.path, s.size, s.sha256, o.kind, o.reason, o.score, o.threshold, o.flagged, m.name, m.version, m.weights_sha256,
       o.engine, o.precision
FROM scans s JOIN batches b ON b.id = s.batch_id JOIN trained_models m ON m.id = b.trained_model_id
LEFT JOIN outcomes o ON o.scan_id = s.id AND o.trained_model_id = m.id AND o.generation = s.generation
WHERE s.batch_id = %d ORDER BY s.path
"""


def digest_by_hand(db, batch):
    """The canonical form as canonical.py documents it, with nothing of ours: a driver, hashlib and json."""
    url = db.engine.url
    driver = sqlite3.connect(url.database) if db.is_sqlite else psycopg.connect(plain(url))
    digest = hashlib.sha256(b"nightread-outcomes-1\n")
    with closing(driver) as connection:
        for path, size, sha256, kind, *rest in connection.execute(ORDERED % batch).fetchall():
            reason, score, threshold, flagged, name, version, weights, engine, precision = rest
            numbers = [None if value is None else "%.17e" % value for value in (score, threshold)]  # noqa: UP031
            said = [kind, reason, *numbers, None if flagged is None else bool(flagged)]
            said += [name, version, weights, engine, precision]
            if kind is None:
                said = [None] * 10
            line = json.dumps([path.hex(), size, sha256, *said], separators=(",", ":"))
            digest.update(line.encode("ascii") + b"\n")
    return digest.hexdigest()


def plain(url):
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


NAMES = ["z.png", "a\n.png", "Ä.png", "d\udcff.png", "sub/b.png", "failing.png"]


def night(db):
    """A batch in which every kind of outcome occurs, also a scan that failed first and was tried again."""
    files = [found(name) for name in NAMES]
    empty, second = found("empty.png", reason=Reason.EMPTY, detail="no bytes"), found("second.png", content="z.png")
    batch = submitted(db, [*files, empty, second], chunk_size=16)
    held = claim(db)
    *good, last, failing = held.scans
    results = [scored(scan, 0.1 + number / 5) for number, scan in enumerate(good)]
    results += [scoring.Rejected(last.id, Reason.BLANK, "a detail"), failed(failing)]
    assert scoring.complete_chunk(db, held, results)
    assert retried(db, batch) == 1
    complete(db, claim(db), 0.7)
    return batch


def failed(scan):
    return scoring.Failed(scan.id, Cause.ENGINE_ERROR, "a test")


def retried(db, batch):
    return recovery.retry_failed(db, batch, by="test")


def execute(db, *statements):
    """Straight to the tables, past everything of ours; on SQLite without its foreign keys."""
    with db.engine.connect() as connection:
        if db.is_sqlite:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            connection.exec_driver_sql("BEGIN")
        for statement in statements:
            connection.execute(text(statement))
        connection.commit()
    db.engine.dispose()


def named(made):
    return {problem.what for problem in made.problems}


def certified(db, batch):
    made = certificate.certify(db, batch)
    certificate.put_on_record(db, made, files=None, by="test")
    return made


def test_the_digest_is_the_one_that_anybody_can_compute(db):
    batch = night(db)

    made = certificate.certify(db, batch)

    assert made.holds
    assert made.digest == digest_by_hand(db, batch)
    assert made.counts() == {"found": 8, "scored": 5, "flagged": 3, "rejected": 3, "failed": 0, "waiting": 0}


def test_the_digest_of_a_batch_that_waits_is_nobodys_secret_either(db):
    batch = submitted(db, [found(name) for name in NAMES])

    made = certificate.certify(db, batch)

    assert made.digest == digest_by_hand(db, batch)
    assert named(made) == {What.WAITING, What.OPEN}


def test_the_digest_does_not_hang_on_how_many_rows_are_read_at_once(db, monkeypatch):
    batch = night(db)
    whole = certificate.certify(db, batch).digest

    monkeypatch.setattr(certificate, "STREAMED", 3)

    assert certificate.certify(db, batch).digest == whole


def test_an_empty_batch_is_certified(db):
    batch = intake.seal(db, submission(db))

    made = certificate.certify(db, batch)

    assert made.holds
    assert made.digest == hashlib.sha256(b"nightread-outcomes-1\n").hexdigest() == digest_by_hand(db, batch)


ONE = "(SELECT min(scan_id) FROM outcomes WHERE kind = 'scored')"
COLUMNS = "scan_id, trained_model_id, generation, kind, reason, score, flagged, threshold, at"
FAILED_AHEAD = "SELECT scan_id, trained_model_id, generation + 1, 'failed', 'timed_out', NULL, NULL, NULL, at"
DAMAGE = {
    "an outcome removed": ([f"DELETE FROM outcomes WHERE scan_id = {ONE}"], {What.WAITING, What.ALTERED}),
    "a score changed": (
        [f"UPDATE outcomes SET score = score + 0.01 WHERE scan_id = {ONE}"],
        {What.SCORE, What.ALTERED},
    ),
    "a score changed with its classes": (
        [f"UPDATE outcomes SET score = 0.01, class_scores = '{{\"covid\": 0.01}}' WHERE scan_id = {ONE}"],
        {What.ALTERED},
    ),
    "a flag taken away": (
        ["UPDATE outcomes SET flagged = false WHERE score > 0.69"],
        {What.FLAG, What.ALTERED},
    ),
    "a threshold slipped under one outcome": (
        [f"UPDATE outcomes SET threshold = 0.9, flagged = score >= 0.9 WHERE scan_id = {ONE}"],
        {What.THRESHOLD, What.ALTERED},
    ),
    "a reason changed": (
        ["UPDATE outcomes SET reason = 'not_chest' WHERE reason = 'blank'"],
        {What.ALTERED},
    ),
    "a reason made up": (
        ["UPDATE outcomes SET reason = 'tired' WHERE reason = 'blank'"],
        {What.REASON, What.ALTERED},
    ),
    "a scan removed with its outcome": (
        [
            f"UPDATE chunks SET breadcrumb = {ONE}",
            "DELETE FROM outcomes WHERE scan_id = (SELECT max(breadcrumb) FROM chunks)",
            "DELETE FROM scans WHERE id = (SELECT max(breadcrumb) FROM chunks)",
        ],
        {What.LOST, What.ALTERED},
    ),
    "a scan's first failure removed": (
        ["DELETE FROM outcomes WHERE kind = 'failed'"],
        {What.HISTORY},
    ),
    "an outcome of a later generation": (
        [f"INSERT INTO outcomes ({COLUMNS}) {FAILED_AHEAD} FROM outcomes WHERE scan_id = {ONE}"],
        {What.AHEAD},
    ),
    "an outcome moved to another model": (
        [f"UPDATE outcomes SET trained_model_id = 2 WHERE scan_id = {ONE}"],
        {What.FOREIGN, What.WAITING, What.ALTERED},
    ),
    "a file's content changed on paper": (
        [f"UPDATE scans SET sha256 = '{'0' * 64}' WHERE id = {ONE}"],
        {What.ALTERED},
    ),
    "the seal broken": (["UPDATE batches SET sealed_at = NULL"], {What.UNSEALED}),
    "a chunk opened again": (["UPDATE chunks SET completed_at = NULL"], {What.OPEN}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_kind_of_damage_is_named(db, damage):
    other = models.Registration(**{**vars(STUB), "version": "2"})
    models.register(db, other, by="test")
    batch = night(db)
    assert certified(db, batch).holds
    statements, expected = DAMAGE[damage]

    execute(db, *statements)

    made = certified(db, batch)
    assert named(made) == expected
    assert made.digest == digest_by_hand(db, batch)
    assert last_event(db).action == "batch_not_certified"


def last_event(db):
    with db.reading() as session:
        return session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()


def test_a_doubled_outcome_is_named_though_the_tables_forbid_it(db):
    batch = night(db)
    certified(db, batch)
    if db.is_sqlite:
        copied = "CREATE TABLE copied AS SELECT * FROM outcomes"
        execute(db, copied, "DROP TABLE outcomes", "ALTER TABLE copied RENAME TO outcomes")
        execute(db, f"INSERT INTO outcomes SELECT * FROM outcomes WHERE scan_id = {ONE}")
    else:
        execute(db, "ALTER TABLE outcomes DROP CONSTRAINT uq_outcomes_scan_id_trained_model_id_generation")
        execute(db, f"INSERT INTO outcomes ({COLUMNS}) SELECT {COLUMNS} FROM outcomes WHERE scan_id = {ONE}")

    made = certified(db, batch)

    assert {What.DOUBLED, What.SUM, What.ALTERED} <= named(made)
    assert made.scored == 6
    totals = reading.totals(db, batch)
    assert (totals.adds_up, totals.found, totals.scored) == (False, 8, 6)


def test_what_is_on_record_explains_another_digest(db):
    batch = night(db)
    before = certified(db, batch)

    set_threshold(db, models.active(db).id, 0.65, why="a test", by="test")

    after = certified(db, batch)
    assert after.holds
    assert after.digest != before.digest
    assert after.earlier.digest == before.digest


def test_a_new_threshold_explains_no_other_score(db):
    batch = night(db)
    certified(db, batch)
    set_threshold(db, models.active(db).id, 0.65, why="a test", by="test")

    execute(db, f"UPDATE outcomes SET score = 0.01, class_scores = NULL WHERE scan_id = {ONE}")

    assert named(certified(db, batch)) == {What.ALTERED}


def test_a_scan_that_failed_is_accounted_for_and_trying_it_again_is_explained(db):
    batch = submitted(db, [found("a.png"), found("b.png")])
    held = claim(db)
    scoring.complete_chunk(db, held, [scored(held.scans[0]), failed(held.scans[1])])
    assert certified(db, batch).holds

    retried(db, batch)
    assert named(certified(db, batch)) == {What.WAITING, What.OPEN}
    complete(db, claim(db))

    assert certified(db, batch).holds


def test_certifying_goes_on_the_record_with_numbers_alone(db):
    batch = night(db)

    made = certified(db, batch)

    event = last_event(db)
    assert (event.actor, event.action, event.object) == ("test", "batch_certified", f"batch {batch}")
    told = {"form": "nightread-outcomes-1", "digest": made.digest, "scores": made.scores, "version": made.version}
    assert event.detail == told | {"files": None} | made.counts()
    assert audit.verify(db)


def test_each_thing_that_can_be_wrong_has_its_sentence():
    assert MEANINGS.keys() == set(What)


# With files.


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "scans"
    (made / "deep" / "er").mkdir(parents=True)
    for name in ("a.png", "deep/b.png", "deep/er/c.png", os.fsdecode(b"d\xff\n.png")):
        (made / name).write_bytes(b"\x89PNG\r\n\x1a\n" + os.fsencode(name))
    (made / "empty.png").touch()
    (made / "link.png").symlink_to(made / "a.png")
    os.mkfifo(made / "pipe")
    (made / "list.csv").write_text("path\na.png\nnever-there.png\n")
    return made


def screened(db, folder, **more):
    """The folder submitted, and every waiting scan of it scored."""
    batch = submit(db, folder, site_name="local", **more).batch_id
    score_all(db)
    return batch


def score_all(db):
    while held := claim(db):
        complete(db, held)


def differences(db, batch):
    return {problem.what: problem.examples for problem in refound.look_again(db, batch).problems}


def test_a_folder_that_nobody_touched_is_the_same_to_the_last_file(db, folder):
    batch = screened(db, folder, manifest=folder / "list.csv")

    again = refound.look_again(db, batch)

    assert again == refound.Refound(8, ())
    assert certificate.certify(db, batch).counts()["found"] == 8


def test_no_file_is_passed_over_between_two_pages(db, folder, monkeypatch):
    batch = screened(db, folder)
    monkeypatch.setattr(registered, "PAGE", 3)
    monkeypatch.setattr(refound, "PAGE", 3)
    (folder / "empty.png").unlink()

    again = refound.look_again(db, batch)

    assert again.files == 8
    assert [problem.examples for problem in again.problems] == [("empty.png",)]


def test_files_that_came_changed_or_went_are_listed_by_name(db, folder):
    batch = screened(db, folder)

    (folder / "deep" / "new.png").write_bytes(b"new")
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"b.png")  # as long as before
    (folder / "deep" / "er" / "c.png").unlink()
    (folder / "empty.png").write_bytes(b"not any more")
    (folder / "link.png").unlink()

    assert differences(db, batch) == {
        What.CAME: ("deep/new.png",),
        What.CHANGED: ("a.png", "empty.png"),
        What.GONE: ("deep/er/c.png", "link.png"),
    }


def test_a_file_that_became_a_link_or_a_folder_is_no_longer_read(db, folder):
    batch = screened(db, folder)
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to("/etc/passwd")
    (folder / "deep" / "b.png").unlink()
    (folder / "deep" / "b.png").mkdir()

    assert differences(db, batch) == {What.CLOSED: ("a.png", "deep/b.png")}


def test_what_an_outcome_tells_is_no_difference(db, folder):
    batch = submit(db, folder, site_name="local").batch_id
    held = claim(db)
    (folder / "a.png").unlink()
    (folder / "deep" / "b.png").write_bytes(b"another")
    told = {"a.png": Reason.MISSING, "deep/b.png": Reason.CHANGED_SINCE_SUBMISSION}
    results = [
        scoring.Rejected(scan.id, told[scan.path], "") if scan.path in told else scored(scan) for scan in held.scans
    ]
    scoring.complete_chunk(db, held, results)

    assert differences(db, batch) == {}
    (folder / "a.png").write_bytes(b"back")
    assert differences(db, batch) == {What.CAME: ("a.png",)}


def test_what_another_batch_of_the_folder_registered_did_not_come_unnoticed(db, folder):
    first = screened(db, folder)
    (folder / "later.png").write_bytes(b"\x89PNG\r\n\x1a\nlater")
    assert differences(db, first) == {What.CAME: ("later.png",)}

    second = screened(db, folder)

    assert second != first
    assert differences(db, first) == differences(db, second) == {}


def test_a_folder_out_of_reach_is_named(db, folder):
    batch = screened(db, folder)

    folder.rename(folder.with_name("unmounted"))

    ((what, said),) = differences(db, batch).items()
    assert what == What.ROOT
    assert "does not answer" in said[0]


# As people run it.


def test_certify_ends_0_where_everything_adds_up_and_1_with_what_does_not_by_name(home, folder):
    run("submit", folder)
    score_all(database())

    good = run("certify", 1)
    assert good.return_value == Exit.DONE
    assert "8 found = 4 scored + 4 rejected + 0 failed" in good.stdout
    assert "It adds up" in good.stdout

    (folder / "late.png").write_bytes(b"late")
    bad = run("certify", 1)
    assert bad.return_value == Exit.PARTIAL
    assert "file_came" in bad.stdout
    assert "late.png" in bad.stdout
    assert run("certify", 1, "--no-files").return_value == Exit.DONE


def test_certify_as_json_carries_what_the_report_carries(home, folder):
    run("submit", folder)
    score_all(database())

    certified = json.loads(run("certify", 1, "--json").stdout)
    report = json.loads(run("report", 1, "--json").stdout)

    assert certified["holds"]
    assert certified["files"] == certified["found"] == report["found"] == 8
    assert certified["digest"] == report["certificate"]["digest"] == digest_by_hand(database(), 1)
    assert report["certificate"]["earlier"]["digest"] == certified["digest"]
    assert f"sha256 {certified['digest']}" in run("report", 1).stdout


def test_a_record_that_was_altered_or_lost_its_head_certifies_nothing(home, folder):
    run("submit", folder)
    score_all(database())
    run("certify", 1)

    (home.home / "audit.head").unlink()
    assert problems_of("certify", 1) == ["audit_log"]

    execute(database(), "DROP TRIGGER audit_events_no_update", "UPDATE audit_events SET actor = 'nobody'")
    assert problems_of("certify", 1) == ["audit_log"]


def problems_of(*arguments):
    done = run(*arguments, "--json")
    assert done.return_value == Exit.PARTIAL
    return [problem["what"] for problem in json.loads(done.stdout)["problems"]]


def test_an_unknown_batch_is_a_usage_error(home, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["nightread", "certify", "77"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == Exit.USAGE
    assert "no batch 77" in capsys.readouterr().err
