"""What the auditor reads: every table that its checks look at, by SQL of its own, once."""

import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import psycopg


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
    holds_from: float | None
    id: int
    pixels_sha256: str | None
    recipe: str | None
    reused_from: int | None


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


class Entry(NamedTuple):
    scan_id: int
    model_id: int
    site_id: int
    batch_id: int
    score: float
    share: float | None
    state: str


class Threshold(NamedTuple):
    model_id: int
    value: float


class Count(NamedTuple):
    site_id: int
    model_id: int
    state: str
    number: int


QUESTIONS: dict[type[Any], str] = {
    Scan: "SELECT id, batch_id, chunk_id, generation, path FROM scans ORDER BY id",
    Outcome: "SELECT scan_id, trained_model_id, generation, kind, reason, score, flagged, threshold, holds_from, id,"
    " pixels_sha256, recipe, reused_from FROM outcomes",
    Threshold: "SELECT trained_model_id, value FROM thresholds",
    Batch: "SELECT b.id, s.name, root, trained_model_id, sealed_at FROM batches b JOIN sites s ON s.id = b.site_id",
    Chunk: "SELECT id, batch_id, token, lease_until, completed_at FROM chunks",
    Event: "SELECT id, at, actor, action, object, detail, hash FROM audit_events ORDER BY id",
    Entry: "SELECT scan_id, trained_model_id, site_id, batch_id, score, share, state FROM entries",
    Count: "SELECT site_id, trained_model_id, state, sum(count) FROM entry_counts"
    " GROUP BY site_id, trained_model_id, state",
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


def read(url: str) -> Books:
    """The tables, in one transaction each statement; the parts that wrote them have stopped."""
    with closing(_connected(url)) as connection:
        cursor = connection.cursor()
        rows = {kind: [kind(*row) for row in cursor.execute(sql).fetchall()] for kind, sql in QUESTIONS.items()}
        return Books(rows, {name: cursor.execute(sql).fetchall() for name, sql in SAID.items()})


def newest_event(url: str) -> tuple[int, str] | None:
    """Number and hash of the last event of the audit record."""
    with closing(_connected(url)) as connection:
        found = connection.cursor().execute(NEWEST).fetchone()
        return None if found is None else (int(found[0]), str(found[1]))


def _connected(url: str) -> Any:
    return _sqlite(url) if url.startswith("sqlite") else _postgresql(url)


def _sqlite(url: str) -> sqlite3.Connection:
    return sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)


def _postgresql(url: str) -> "psycopg.Connection[Any]":
    parts = urlsplit(url)
    given = {"user": parts.username, "password": parts.password, "port": parts.port, "host": parts.hostname}
    named = {name: value for name, value in given.items() if value is not None} | dict(parse_qsl(parts.query))
    return psycopg.connect(dbname=parts.path.lstrip("/"), **named)  # type: ignore[arg-type]
