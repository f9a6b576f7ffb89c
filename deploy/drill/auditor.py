"""The auditor: after a run, with its own SQL and its own arithmetic, whether what the house promises is so.

It shares no code with what it audits: no store, no table classes, no queue door. What a table, a key or a file means it
was told once, here; where it and the product disagree, one of the two is wrong, and a person looks."""

import hashlib
import hmac
import json
import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import psycopg

from deploy.drill import canaries, doorbell, listed
from deploy.drill.runs import Expected, ExpectedOutcome, Run, Violation

ALIKE = 1e-6  # between a score and the oracle's: a float32 on its way through JSON and a column keeps more
SHOWN = 5  # violations of one sort that are spelled out; the others are counted


class Scan(NamedTuple):
    id: int
    batch_id: int
    chunk_id: int | None
    generation: int
    path: bytes


class Outcome(NamedTuple):
    scan_id: int
    model_id: int
    generation: int
    kind: str
    reason: str | None
    score: float | None
    flagged: bool | None
    threshold: float | None


class Batch(NamedTuple):
    id: int
    site: str
    root: bytes
    model_id: int
    sealed_at: Any


class Chunk(NamedTuple):
    id: int
    batch_id: int
    token: str | None
    lease_until: float | None
    completed_at: Any


class Event(NamedTuple):
    id: int
    at: Any
    actor: str
    action: str
    object: str
    detail: Any
    hash: str


QUESTIONS: dict[type[Any], str] = {
    Scan: "SELECT id, batch_id, chunk_id, generation, path FROM scans ORDER BY id",
    Outcome: "SELECT scan_id, trained_model_id, generation, kind, reason, score, flagged, threshold FROM outcomes",
    Batch: "SELECT b.id, s.name, root, trained_model_id, sealed_at FROM batches b JOIN sites s ON s.id = b.site_id",
    Chunk: "SELECT id, batch_id, token, lease_until, completed_at FROM chunks",
    Event: "SELECT id, at, actor, action, object, detail, hash FROM audit_events ORDER BY id",
    **listed.QUESTIONS,
}
NEWEST = "SELECT id, hash FROM audit_events ORDER BY id DESC LIMIT 1"
# What people and machines read of the night outside a scan's own rows: no patient belongs there.
SAID = {
    "workers": "SELECT * FROM workers",
    "audit_events": "SELECT actor, action, object, detail FROM audit_events",
    "chunks": "SELECT worker FROM chunks",
}


@dataclass
class Books:
    """Every table that the checks look at, read once."""

    rows: dict[type[Any], list[Any]]
    said: dict[str, list[Any]]
    outcomes: dict[int, list[Outcome]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for outcome in self.rows[Outcome]:
            self.outcomes[outcome.scan_id].append(outcome)

    @property
    def batches(self) -> dict[int, Batch]:
        return {batch.id: batch for batch in self.rows[Batch]}


def audit(run: Run) -> list[Violation]:
    """Every promise that did not hold; empty where all did."""
    books = read(run.database_url)
    checks = {
        "A": _once(books),
        "B": _right(books, run.batches),
        "C": _finished(books, run.batches),
        "D": doorbell.flaws(run.queue_socket),
        "E": _on_record(books, run),
        "F": _silent(books, run),
        "G": listed.flaws(books.rows[listed.Entry], books.rows[listed.Count], _scored(books)),
    }
    return [violation for check, said in checks.items() for violation in _shown(check, list(said))]


def _shown(check: str, said: Sequence[str]) -> list[Violation]:
    more = [f"and {len(said) - SHOWN} more of check {check}"] if len(said) > SHOWN else []
    return [Violation(check, one) for one in (*said[:SHOWN], *more)]


def read(url: str) -> Books:
    """The tables, in one transaction each statement; the parts that wrote them have stopped."""
    with closing(_connected(url)) as connection:
        cursor = connection.cursor()
        rows = {kind: [kind(*row) for row in cursor.execute(sql).fetchall()] for kind, sql in QUESTIONS.items()}
        return Books(rows, {name: cursor.execute(sql).fetchall() for name, sql in SAID.items()})


def is_noted(run: Run) -> bool:
    """Whether the head outside the database names the log's newest event; a sweep sees to that after a crash."""
    with closing(_connected(run.database_url)) as connection:
        newest = connection.cursor().execute(NEWEST).fetchone()
    return newest is None or _head(run) == [str(newest[0]), newest[1]]


def _head(run: Run) -> list[str]:
    file = run.home / "audit.head"
    return file.read_text().split() if file.exists() else []


def _connected(url: str) -> Any:
    return _sqlite(url) if url.startswith("sqlite") else _postgresql(url)


def _sqlite(url: str) -> sqlite3.Connection:
    return sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)


def _postgresql(url: str) -> "psycopg.Connection[Any]":
    parts = urlsplit(url)
    given = {"user": parts.username, "password": parts.password, "port": parts.port, "host": parts.hostname}
    named = {name: value for name, value in given.items() if value is not None} | dict(parse_qsl(parts.query))
    return psycopg.connect(dbname=parts.path.lstrip("/"), **named)  # type: ignore[arg-type]


def _once(books: Books) -> Iterator[str]:
    """(A) One outcome a scan at its generation, by its batch's model; below it one failed outcome each."""
    for scan in books.rows[Scan]:
        model_id = books.batches[scan.batch_id].model_id
        counted = Counter(one.generation for one in books.outcomes[scan.id])
        if counted[scan.generation] != 1:
            yield f"scan {scan.id} has {counted[scan.generation]} outcomes at its generation {scan.generation}"
        elif counted != Counter(range(scan.generation + 1)):
            yield f"scan {scan.id} of generation {scan.generation} has outcomes at {sorted(counted.elements())}"
        if any(one.model_id != model_id for one in books.outcomes[scan.id]):
            yield f"scan {scan.id} has an outcome by another model than its batch's"
        if any(one.kind != "failed" for one in books.outcomes[scan.id] if one.generation < scan.generation):
            yield f"scan {scan.id} was tried again though it had not failed"
    known = {scan.id for scan in books.rows[Scan]}
    yield from (f"an outcome of scan {scan_id}, which does not exist" for scan_id in books.outcomes.keys() - known)


def _right(books: Books, batches: Sequence[Expected]) -> Iterator[str]:
    """(B) Scores as the oracle's, reasons as the manifest's, flags as the threshold says."""
    expected = {(one.site, os.fsencode(one.root)): one.files for one in batches}
    for scan in books.rows[Scan]:
        batch = books.batches[scan.batch_id]
        files = expected.get((batch.site, bytes(batch.root)))
        if files is None or bytes(scan.path) not in files:
            continue  # (C) says so
        for one in books.outcomes[scan.id]:
            wanted = files[bytes(scan.path)]
            if one.generation == scan.generation and (flaw := _flaw(one, wanted)):
                yield f"scan {scan.id} {flaw}"


def _flaw(one: Outcome, wanted: ExpectedOutcome) -> str:
    if one.kind != wanted.kind:
        return f"is {one.kind} ({one.reason or one.score}), expected {wanted.kind} ({wanted.reason or wanted.score})"
    if one.kind != "scored":
        return "" if one.reason in wanted.reasons else f"is {one.kind} as {one.reason}, expected {wanted.reason}"
    if one.score is None or wanted.score is None or not abs(one.score - wanted.score) <= ALIKE:
        return f"scored {one.score}, expected {wanted.score}"
    if one.threshold is None or bool(one.flagged) != (one.score >= one.threshold):
        return f"scored {one.score}, threshold {one.threshold}, flagged: {one.flagged}"
    return ""


def _finished(books: Books, batches: Sequence[Expected]) -> Iterator[str]:
    """(C) Nothing waits, nothing is held, every batch is sealed, every file is registered once."""
    for batch in books.rows[Batch]:
        if batch.sealed_at is None:
            yield f"batch {batch.id} is not sealed"
    for chunk in books.rows[Chunk]:
        if chunk.completed_at is None:
            yield f"chunk {chunk.id} is {'waiting' if chunk.token is None else 'held'}"
        elif chunk.token is not None or chunk.lease_until is not None:
            yield f"chunk {chunk.id} is completed and its lease is held"
    for expected in batches:
        yield from _registered(books, expected)
    listed = {(one.site, os.fsencode(one.root)) for one in batches}
    for batch in books.rows[Batch]:
        if (batch.site, bytes(batch.root)) not in listed:
            yield f"batch {batch.id} is of a folder that nobody submitted"


def _registered(books: Books, expected: Expected) -> Iterator[str]:
    root = os.fsencode(expected.root)
    ids = {batch.id for batch in books.rows[Batch] if (batch.site, bytes(batch.root)) == (expected.site, root)}
    counted = Counter(bytes(scan.path) for scan in books.rows[Scan] if scan.batch_id in ids)
    for path in sorted({*expected.files, *counted, *_on_disk(root)}):
        if path not in expected.files:
            yield f"a file that nobody expected is registered {counted[path]} times: {path[-12:]!r}"
        elif counted[path] != 1:
            yield f"a file is registered {counted[path]} times: {path[-12:]!r}"


def _on_disk(root: bytes) -> Iterator[bytes]:
    """Every path below the root that is no folder; a link to a folder is no folder."""
    for at, folders, files in os.walk(root):
        links = [name for name in folders if os.path.islink(os.path.join(at, name))]  # noqa: PTH118, PTH114 (bytes)
        for name in (*files, *links):
            yield os.path.relpath(os.path.join(at, name), root)  # noqa: PTH118 (bytes)


def _on_record(books: Books, run: Run) -> Iterator[str]:
    """(E) The audit chain holds from its first event to the head outside the database; retries are on it."""
    events, before = books.rows[Event], "0" * 64
    for number, event in enumerate(events, 1):
        if event.id != number or not hmac.compare_digest(event.hash, _digest(run.audit_key, before, event)):
            yield f"audit event {event.id} (the {number}th) does not follow the one before it"
        before = event.hash
    head = _head(run)
    if events and head != [str(events[-1].id), events[-1].hash]:
        yield f"the log ends at event {events[-1].id}; its head names {' '.join(head)[:12] or 'nothing'}"
    if not events and head:
        yield "the log is empty; its head names an event"
    yield from _unrecorded(books)


def _unrecorded(books: Books) -> Iterator[str]:
    retried = Counter(scan.batch_id for scan in books.rows[Scan] for _ in range(scan.generation))
    noted = _noted(books, "batch_retried", "scans")
    for batch_id in sorted(retried.keys() | noted.keys()):
        if retried[batch_id] != noted[batch_id]:
            yield f"batch {batch_id}: {retried[batch_id]} scans were tried again, {noted[batch_id]} on record"
    found, sealed = Counter(scan.batch_id for scan in books.rows[Scan]), _noted(books, "batch_sealed", "found")
    for batch in books.rows[Batch]:
        if batch.sealed_at is not None and found[batch.id] != sealed[batch.id]:
            yield f"batch {batch.id} has {found[batch.id]} scans, {sealed[batch.id]} on record when it was sealed"


def _noted(books: Books, action: str, what: str) -> Counter[int]:
    """What the record says of each batch, added up."""
    said: Counter[int] = Counter()
    for event in books.rows[Event]:
        if event.action == action:
            said[int(event.object.removeprefix("batch "))] += int(_detail(event)[what])
    return said


def _digest(key: bytes, before: str, event: Event) -> str:
    said = [event.id, before, _moment(event.at), event.actor, event.action, event.object, _detail(event)]
    return hmac.new(key, json.dumps(said, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _moment(at: Any) -> str:
    """ISO 8601 in UTC; SQLite keeps text without a zone, which is UTC."""
    if isinstance(at, str):
        return datetime.fromisoformat(at).replace(tzinfo=UTC).isoformat()
    return str(at.astimezone(UTC).isoformat())


def _detail(event: Event) -> Any:
    return json.loads(event.detail) if isinstance(event.detail, str) else event.detail


def _scored(books: Books) -> dict[int, tuple[int, float, bool]]:
    return {
        scan.id: (scan.batch_id, one.score, bool(one.flagged))
        for scan in books.rows[Scan]
        for one in books.outcomes[scan.id]
        if one.kind == "scored" and one.score is not None
    }


def _silent(books: Books, run: Run) -> Iterator[str]:
    """(F) No canary in logs, pages, the home folder, the queue's file and keys, heartbeats, or the record."""
    search = canaries.Search(run.canaries)
    for sink, positions in canaries.leaks(search, _sinks(books, run)).items():
        yield f"{len(positions)} canaries (the first: number {min(positions)}) in {sink}"


def _sinks(books: Books, run: Run) -> Iterator[tuple[str, bytes]]:
    own = list(run.home.glob("nightread.db*"))  # where patients belong: the database, ...
    left_out = [*own, run.home / "derived", *(one.root for one in run.batches)]  # ... pictures, and the originals
    for folder in dict.fromkeys((run.home, run.logs, run.queue_socket.parent)):
        for name, data in canaries.below(folder, without=left_out):
            yield f"{folder.name}/{name}", data
    yield from (("queue key", data) for data in doorbell.contents(run.queue_socket))
    yield from ((f"table {name}", json.dumps(rows, default=str).encode()) for name, rows in books.said.items())
