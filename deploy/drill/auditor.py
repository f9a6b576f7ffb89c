"""The auditor: after a run, with its own SQL and its own arithmetic, whether what the house promises is so.

It shares no code with what it audits: no store, no table classes, no queue door. What a table, a key or a file means it
was told once, here; where it and the product disagree, one of the two is wrong, and a person looks."""

import hashlib
import hmac
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from deploy.drill import canaries, doorbell, listed
from deploy.drill.books import Batch, Books, Chunk, Count, Entry, Event, Outcome, Scan, Threshold, newest_event, read
from deploy.drill.runs import Expected, ExpectedOutcome, Run, Violation

ALIKE = 1e-6  # between a score and the oracle's: a float32 on its way through JSON and a column keeps more
SHOWN = 5  # violations of one sort that are spelled out; the others are counted


def audit(run: Run) -> list[Violation]:
    """Every promise that did not hold; empty where all did."""
    books = read(run.database_url)
    checks = {
        "A": _once(books),
        "B": [*_right(books, run.batches), *_taken_over(books)],
        "C": _finished(books, run.batches),
        "D": doorbell.flaws(run.queue_socket),
        "E": _on_record(books, run),
        "F": _silent(books, run),
        "G": listed.flaws(books.rows[Entry], books.rows[Count], _scored(books)),
    }
    return [violation for check, said in checks.items() for violation in _shown(check, list(said))]


def _shown(check: str, said: Sequence[str]) -> list[Violation]:
    more = [f"and {len(said) - SHOWN} more of check {check}"] if len(said) > SHOWN else []
    return [Violation(check, one) for one in (*said[:SHOWN], *more)]


def is_noted(run: Run) -> bool:
    """Whether the head outside the database names the log's newest event; a sweep sees to that after a crash."""
    newest = newest_event(run.database_url)
    return newest is None or _head(run) == [str(newest[0]), newest[1]]


def _head(run: Run) -> list[str]:
    file = run.home / "audit.head"
    return file.read_text().split() if file.exists() else []


def _once(books: Books) -> Iterator[str]:
    """(A) One outcome a scan at its generation, by its batch's model; below it one each that failed, or that a
    threshold called in question."""
    lowest: dict[int, float] = {}
    for one in books.rows[Threshold]:
        lowest[one.model_id] = min(one.value, lowest.get(one.model_id, one.value))
    for scan in books.rows[Scan]:
        model_id = books.batches[scan.batch_id].model_id
        counted = Counter(one.generation for one in books.outcomes[scan.id])
        if counted[scan.generation] != 1:
            yield f"scan {scan.id} has {counted[scan.generation]} outcomes at its generation {scan.generation}"
        elif counted != Counter(range(scan.generation + 1)):
            yield f"scan {scan.id} of generation {scan.generation} has outcomes at {sorted(counted.elements())}"
        if any(one.model_id != model_id for one in books.outcomes[scan.id]):
            yield f"scan {scan.id} has an outcome by another model than its batch's"
        earlier = [one for one in books.outcomes[scan.id] if one.generation < scan.generation]
        if not all(one.kind == "failed" or _is_doubtful(one, lowest) for one in earlier):
            yield f"scan {scan.id} was tried again though it had not failed"
    known = {scan.id for scan in books.rows[Scan]}
    yield from (f"an outcome of scan {scan_id}, which does not exist" for scan_id in books.outcomes.keys() - known)


def _is_doubtful(one: Outcome, lowest: dict[int, float]) -> bool:
    """Whether int8 alone had cleared it, and its model had a threshold under which that says nothing."""
    return one.kind == "scored" and one.holds_from is not None and lowest.get(one.model_id, 1.0) < one.holds_from


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


def _taken_over(books: Books) -> Iterator[str]:
    """(B) What was not computed anew says what was computed, of the same pixels in the same way."""
    computed = {one.id: _said(one) for one in books.rows[Outcome] if one.reused_from is None}
    for one in books.rows[Outcome]:
        if one.reused_from is not None and _said(one) != computed.get(one.reused_from):
            yield f"scan {one.scan_id} has its outcome from number {one.reused_from}, which says something else"


def _said(one: Outcome) -> tuple[Any, ...]:
    return one.kind, one.reason, one.score, one.pixels_sha256, one.recipe


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
    """Each scan whose newest outcome is a score."""
    return {
        scan.id: (scan.batch_id, one.score, bool(one.flagged))
        for scan in books.rows[Scan]
        for one in books.outcomes[scan.id]
        if one.kind == "scored" and one.score is not None and one.generation == scan.generation
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
