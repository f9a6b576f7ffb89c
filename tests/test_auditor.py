"""An auditor that finds nothing is worthless: each promise is broken by hand here, and it must say so; a sound night it
lets pass. With SQLite and with PostgreSQL."""

import base64
import html
import json
import os
import secrets
import shutil
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import redis
from ready_home import STUB
from sqlalchemy import create_engine, text
from staged import CANARY, write_folder

from db.store import heartbeats, models, recovery, scoring
from db.store.audit import audit_key
from db.store.sites import add_site
from db.words import Cause, Reason
from deploy.drill import auditor, canaries
from deploy.drill.doorbell import QUEUE
from deploy.drill.runs import Expected, ExpectedOutcome, Run
from producer import submission
from workers import queue

TRIGGERS = {"sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'", "postgresql": "SELECT 1 WHERE false"}


class Audited:
    """A night that ended well, in a real database and a real queue, and the means to damage it."""

    def __init__(self, db, queue_url, root, files):
        self.db, self.root, self.files = db, root, files
        self.home, self.failed = db.config.home, None
        self.socket = Path(queue_url.removeprefix("redis+socket://"))
        self.redis = redis.Redis(unix_socket_path=str(self.socket))
        self.intruder = create_engine(db.config.database)
        self.logs = self.home / "logs"
        self.logs.mkdir()
        (self.logs / "worker.log").write_text("chunk 1 is done\n")

    def happen(self):
        """Submit, score, fail once, try again: by the store alone."""
        models.register(self.db, replace(STUB, version="2"), by="test")
        self.batch = submission.submit(self.db, self.root, site_name="local").batch_id
        while claim := scoring.claim_chunk(self.db, "host:cpu", trained_model_id=1, lease_seconds=30):
            results = [self.result(scan) for scan in claim.scans]
            if self.failed is None:
                self.failed = results[0].scan_id
                results[0] = scoring.Failed(self.failed, Cause.ENGINE_ERROR, "broke")
            assert scoring.complete_chunk(self.db, claim, results)
        recovery.retry_failed(self.db, self.batch, by="operator")
        claim = scoring.claim_chunk(self.db, "host:cpu", trained_model_id=1, lease_seconds=30)
        assert scoring.complete_chunk(self.db, claim, [self.result(scan) for scan in claim.scans])
        add_site(self.db, "another", by="operator")
        heartbeats.beat(self.db, name="host:cpu", host="host", device="cpu", pid=1, doing="waiting", scans=3)
        self.redis.flushall()

    def result(self, scan):
        wanted = self.files[os.fsencode(scan.path)]
        if wanted.kind == "rejected":
            return scoring.Rejected(scan.id, Reason(wanted.reason), "by hand")
        about = {"evidence": {}, "engine": "stub", "precision": "exact", "device": "none", "seconds": 0.1}
        return scoring.Scored(scan.id, wanted.score, {}, **about)

    def sql(self, statement, **values):
        """Damage, as by somebody whom no trigger and no constraint between tables holds back."""
        with self.intruder.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SET session_replication_role = replica")
            for (name,) in connection.exec_driver_sql(TRIGGERS[connection.dialect.name]).all():
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
            rows = connection.execute(text(statement), values)
            return rows.all() if rows.returns_rows else []

    def scan(self, name):
        return self.sql("SELECT id FROM scans WHERE path = :path", path=f"{CANARY}-{name}.png".encode())[0][0]

    def forget(self):
        """The server is the session's, and its file keeps what was planted: others audit it, too."""
        self.redis.flushall()
        self.redis.bgrewriteaof()
        end = time.monotonic() + 60
        while self.redis.info("persistence")["aof_rewrite_in_progress"]:
            assert time.monotonic() < end
            time.sleep(0.01)
        self.redis.close()
        self.intruder.dispose()

    def run(self):
        expected = (Expected("local", self.root, self.files),)
        key = audit_key(self.db.config)
        return Run(self.home, self.db.config.database, self.socket, key, expected, self.logs, (CANARY,))

    def found(self):
        return auditor.audit(self.run())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("audited") / "scans"
    return root, write_folder(root, good=4)


@pytest.fixture
def night(db, queue_server, folder, tmp_path):
    root = shutil.copytree(folder[0], tmp_path / "scans")
    made = Audited(db, queue_server, root.resolve(), folder[1])
    made.happen()
    yield made
    made.forget()


def test_a_sound_night_passes(night):
    queue.ring(3)  # idle rings may lie there

    assert night.found() == []


def test_what_int8_alone_cleared_may_be_looked_at_again_once_the_threshold_was_low_enough(night):
    night.sql(
        "UPDATE outcomes SET kind = 'scored', reason = NULL, score = 0.3, flagged = false, holds_from = 0.5"
        " WHERE kind = 'failed'"
    )
    night.sql("UPDATE thresholds SET value = 0.4")
    night.sql("UPDATE outcomes SET threshold = 0.4, flagged = (score >= 0.4) WHERE kind = 'scored'")

    assert [one for one in night.found() if one.check == "A"] == []


# What is damaged: the check that must say so, and how. `n` is the night.
BY_SQL = {
    "an outcome is gone": ("A", "DELETE FROM outcomes WHERE scan_id = :good"),
    "an outcome of a generation that the scan never had": (
        "A",
        "INSERT INTO outcomes (scan_id, trained_model_id, generation, kind, reason, at)"
        " SELECT scan_id, trained_model_id, 7, 'rejected', 'blank', at FROM outcomes WHERE scan_id = :good",
    ),
    "an outcome by another model": (
        "A",
        "INSERT INTO outcomes (scan_id, trained_model_id, generation, kind, reason, at)"
        " SELECT scan_id, 2, generation, 'rejected', 'blank', at FROM outcomes WHERE scan_id = :good",
    ),
    "the outcome that failed before the retry is gone": ("A", "DELETE FROM outcomes WHERE kind = 'failed'"),
    "what was tried again had not failed": (
        "A",
        "UPDATE outcomes SET kind = 'rejected', reason = 'blank' WHERE kind = 'failed'",
    ),
    "what was tried again had been cleared and stood": (
        "A",
        "UPDATE outcomes SET kind = 'scored', reason = NULL, score = 0.3, flagged = false, holds_from = 0.5"
        " WHERE kind = 'failed'",
    ),
    "an outcome of no scan": (
        "A",
        "INSERT INTO outcomes (scan_id, trained_model_id, generation, kind, reason, at)"
        " SELECT 4711, trained_model_id, 0, 'rejected', 'blank', at FROM outcomes WHERE scan_id = :good",
    ),
    "another score": ("B", "UPDATE outcomes SET score = abs(score - 0.001) WHERE scan_id = :good"),
    "a score is said to be another scan's": (
        "B",
        "UPDATE outcomes SET reused_from = (SELECT id FROM outcomes WHERE scan_id = :other) WHERE scan_id = :good",
    ),
    "a score is said to be one that there is not": ("B", "UPDATE outcomes SET reused_from = 99 WHERE scan_id = :good"),
    "another reason": ("B", "UPDATE outcomes SET reason = 'blank' WHERE scan_id = :cut"),
    "rejected though it is good": (
        "B",
        "UPDATE outcomes SET kind = 'rejected', reason = 'blank', score = NULL, flagged = NULL WHERE scan_id = :good",
    ),
    "flagged against the threshold": ("B", "UPDATE outcomes SET flagged = NOT flagged WHERE scan_id = :good"),
    "scores of two scans changed places": (
        "B",
        "UPDATE outcomes SET score = (SELECT sum(score) FROM outcomes WHERE scan_id IN (:good, :other)) - score"
        " WHERE scan_id IN (:good, :other)",
    ),
    "a chunk waits": ("C", "UPDATE chunks SET completed_at = NULL WHERE id = 1"),
    "a chunk is held": ("C", "UPDATE chunks SET completed_at = NULL, token = 'x', lease_until = 1 WHERE id = 1"),
    "a lease is left": ("C", "UPDATE chunks SET lease_until = 1 WHERE id = 1"),
    "a batch is not sealed": ("C", "UPDATE batches SET sealed_at = NULL"),
    "a file is registered twice": (
        "C",
        "INSERT INTO scans (key, batch_id, generation, path, size)"
        " SELECT 'k', 99, 0, path, 1 FROM scans WHERE id = :good",
    ),
    "a file is not registered": ("C", "DELETE FROM scans WHERE id = :good"),
    "a file was registered that is not there": ("C", "UPDATE scans SET path = :odd WHERE id = :good"),
    "a batch of a folder that nobody submitted": ("C", "UPDATE batches SET root = :odd"),
    "an event's actor was changed": ("E", "UPDATE audit_events SET actor = 'nobody' WHERE id = 2"),
    "an event's moment was changed": ("E", "UPDATE audit_events SET at = '2026-01-01 00:00:00' WHERE id = 2"),
    "an event's detail was changed": (
        "E",
        "UPDATE audit_events SET detail = (SELECT detail FROM audit_events WHERE id = 1) WHERE id = 2",
    ),
    "an event is gone": ("E", "DELETE FROM audit_events WHERE id = 2"),
    "the first event is gone": ("E", "DELETE FROM audit_events WHERE id = 1"),
    "the newest events are gone": (
        "E",
        "DELETE FROM audit_events WHERE id = (SELECT max(id) FROM audit_events)",
    ),
    "all events are gone": ("E", "DELETE FROM audit_events"),
    "an event was renumbered": (
        "E",
        "UPDATE audit_events SET id = id + 5 WHERE id = (SELECT max(id) FROM audit_events)",
    ),
    "a scan was tried again off the record": ("E", "UPDATE scans SET generation = generation + 1 WHERE id = :good"),
    "a scan was added after the batch was sealed": (
        "E",
        "INSERT INTO scans (key, batch_id, generation, path, size)"
        " SELECT 'k', batch_id, 0, :odd, 1 FROM scans WHERE id = :good",
    ),
    "a flagged scan is on no list": ("G", "DELETE FROM entries WHERE id = (SELECT min(id) FROM entries)"),
    "a scan is on the list and nothing says why": (
        "G",
        "UPDATE outcomes SET flagged = NOT flagged WHERE scan_id = (SELECT min(scan_id) FROM entries)",
    ),
    "the list has another score": ("G", "UPDATE entries SET score = 0.0001"),
    "the list says another batch": ("G", "UPDATE entries SET batch_id = 99"),
    "an entry is in a state and counted in another": ("G", "UPDATE entries SET state = 'done'"),
    "a count is off by one": ("G", "UPDATE entry_counts SET count = count + 1"),
    "a heartbeat names a patient": ("F", "UPDATE workers SET doing = :canary"),
    "the record names a patient": ("F", "UPDATE audit_events SET object = :canary WHERE id = 2"),
    "a chunk's worker names a patient": ("F", "UPDATE chunks SET worker = :canary WHERE id = 1"),
}


@pytest.mark.parametrize("damage", BY_SQL)
def test_a_damaged_database_is_found(night, damage):
    check, statement = BY_SQL[damage]
    if "99" in statement:
        night.sql(
            "INSERT INTO batches (id, site_id, trained_model_id, root, urgent, submitted_at, sealed_at)"
            " SELECT 99, site_id, trained_model_id, root, urgent, submitted_at, sealed_at FROM batches"
        )
    values = {
        "good": night.scan("01"),
        "other": night.scan("02"),
        "cut": night.scan("cut"),
        "odd": b"elsewhere",
        "canary": f"scoring {CANARY}",
    }
    night.sql(statement, **{name: value for name, value in values.items() if f":{name}" in statement})

    assert check in {violation.check for violation in night.found()}


def test_two_events_that_changed_places_are_found(night):
    night.sql("UPDATE audit_events SET id = 900 WHERE id = 1")
    night.sql("UPDATE audit_events SET id = 1 WHERE id = 2")
    night.sql("UPDATE audit_events SET id = 2 WHERE id = 900")

    assert {violation.check for violation in night.found()} == {"E"}


HEADS = {
    "is missing": lambda file: file.unlink(),
    "is behind": lambda file: file.write_text(f"1 {'0' * 64}\n"),
    "names another event": lambda file: file.write_text(f"{file.read_text().split()[0]} {'0' * 64}\n"),
    "is ahead": lambda file: file.write_text(f"99 {file.read_text().split()[1]}\n"),
}


@pytest.mark.parametrize("how", HEADS)
def test_a_head_that_is_not_the_end_is_found(night, how):
    HEADS[how](night.home / "audit.head")

    assert [violation.check for violation in night.found()] == ["E"]


def test_another_key_fits_no_event(night):
    said = auditor.audit(replace(night.run(), audit_key=b"another"))

    assert {violation.check for violation in said} == {"E"}
    assert said[-1].said.startswith("and ")  # many of one sort are counted, not listed


def test_a_file_that_was_put_into_the_folder_and_never_registered_is_found(night):
    (night.root / "late.png").write_bytes(b"late")

    assert [violation.check for violation in night.found()] == ["C"]


def test_a_score_that_is_wrong_by_more_than_rounding_is_found(night):
    path = next(path for path, wanted in night.files.items() if wanted.kind == "scored")
    score = night.files[path].score
    for wrong, checks in ((score + 1e-9, []), (score + 1e-5, ["B"])):
        night.files = {**night.files, path: ExpectedOutcome("scored", score=wrong)}
        assert [violation.check for violation in night.found()] == checks


RINGS = {
    "more rings than are idle": lambda n: n.redis.rpush(QUEUE, *[n.redis.lindex(QUEUE, 0)] * 41),
    "a forged ring with arguments": lambda n: n.redis.rpush(QUEUE, _forged(n, [["../../etc"], {}, {}])),
    "a ring for another task": lambda n: n.redis.rpush(
        QUEUE, n.redis.lindex(QUEUE, 0).replace(b"nightread.score", b"nightread.shred")
    ),
    "garbage in the queue": lambda n: n.redis.rpush(QUEUE, b"\x80\x04garbage"),
    "garbage that was taken and never acknowledged": lambda n: n.redis.hset("unacked", "tag", b"[]"),
    "a key that no ring makes": lambda n: n.redis.set("session", "x"),
}


def _forged(night, body):
    message = json.loads(night.redis.lindex(QUEUE, 0))
    message["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    return json.dumps(message)


@pytest.mark.parametrize("damage", RINGS)
def test_what_is_no_idle_ring_is_found(night, damage):
    queue.ring(1)
    RINGS[damage](night)

    assert [violation.check for violation in night.found()] == ["D"]


def test_a_queue_server_that_is_away_is_found(night):
    night.socket = night.home / "nobody.sock"

    assert "D" in {violation.check for violation in night.found()}


LEAKS = {
    "in a log": lambda n: (n.logs / "worker.log").write_text(f"scan {CANARY} failed"),
    "in a log's name": lambda n: (n.logs / f"{CANARY}.log").touch(),
    "in a page": lambda n: _page(n).write_text(f"<p>{html.escape(CANARY)}</p>"),
    "in an address": lambda n: _page(n).write_text(f"GET /scan/{quote(CANARY)}"),
    "in the home folder": lambda n: (n.home / "left.tmp").write_bytes(CANARY.encode("utf-16-le")),
    "in a key of the queue": lambda n: n.redis.set(CANARY, "1"),
    "in a value of the queue": lambda n: n.redis.hset("unacked", "tag", json.dumps([CANARY])),
    "in a message's body": lambda n: (queue.ring(1), n.redis.rpush(QUEUE, _forged(n, [[f"x{CANARY}"], {}, {}]))),
}


def _page(night):
    (night.logs / "pages").mkdir(exist_ok=True)
    return night.logs / "pages" / "error.html"


@pytest.mark.parametrize("leak", LEAKS)
def test_a_patient_outside_the_database_is_found(night, leak):
    LEAKS[leak](night)

    assert "F" in {violation.check for violation in night.found()}


def test_a_patient_that_was_in_the_queue_for_a_moment_is_found_in_its_file(night):
    night.redis.set("note", CANARY)
    night.redis.delete("note")

    assert [violation.check for violation in night.found()] == ["F"]


def test_patients_belong_in_the_database_and_the_pictures(night):
    pictures = night.home / "derived" / "ab"
    pictures.mkdir(parents=True)
    (pictures / "one.png").write_bytes(CANARY.encode())

    assert night.found() == []


NAME = "Krüger^Zoë <&'\"> 1951/3"
SHAPES = {
    "UTF-8": NAME.encode(),
    "UTF-16, little end first": NAME.encode("utf-16-le"),
    "UTF-16, big end first": NAME.encode("utf-16-be"),
    "JSON": json.dumps({"name": NAME}).encode(),
    "HTML": html.escape(NAME).encode(),
    "an address": quote(NAME, safe="").encode(),
    "an address with its slash": quote(NAME).encode(),
    "an address in lower case": quote(NAME, safe="")
    .replace("%C3%BC", "%c3%bc")
    .replace("%C3%AB", "%c3%ab")
    .replace("%5E", "%5e")
    .replace("%3C", "%3c")
    .replace("%3E", "%3e")
    .replace("%2F", "%2f")
    .encode(),
    "a form": quote_plus(NAME).encode(),
    "hex": NAME.encode().hex().encode(),
    "Python": repr(NAME).encode(),
    "Python's bytes": repr(NAME.encode()).encode(),
    **{f"base64 after {n} bytes": base64.b64encode(b"x" * n + NAME.encode() + b"yz") for n in range(3)},
    **{f"base64 of JSON after {n} bytes": base64.b64encode(b"x" * n + json.dumps([NAME]).encode()) for n in range(3)},
    "base64 for addresses": base64.urlsafe_b64encode(b"xx" + NAME.encode()),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("before", [0, 1, 13])
def test_a_canary_is_found_in_every_shape_wherever_it_stands(shape, before):
    search = canaries.Search(("Nobody^Else", NAME, "Somebody^Else"))

    assert search.within(secrets.token_bytes(before) + SHAPES[shape] + b"!") == {1}


def test_a_thousand_canaries_are_told_apart_and_none_is_found_in_noise():
    planted = tuple(f"Canary{number:04}" for number in range(1000))
    search = canaries.Search(planted)
    noise = secrets.token_bytes(1_000_000)

    assert search.within(noise) == set()
    assert search.within(noise + b"Canary0007" + noise + b"Canary0999") == {7, 999}
    assert search.within(b"Canary") == search.within(b"") == set()


def test_a_canary_too_short_to_be_told_from_chance_is_refused():
    with pytest.raises(ValueError, match="plant longer ones"):
        canaries.Search(("Jones",))
