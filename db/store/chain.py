"""The chain of keyed hashes behind the audit record, apart from any database: rows go in, the first flaw comes out.

Events are numbered 1, 2, 3 … without a gap. Each one's hash covers its number, what it says, and the hash before it: an
edit, a deletion, an insertion, a swap or another number shows there, to whoever holds the key. What no chain shows by
itself is a missing end. For that a head, the newest event's number (so the count) and hash, is kept elsewhere.
"""

import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

FIRST = "0" * 64  # what the first event's hash covers in place of a predecessor


_as_json = json.JSONEncoder(sort_keys=True).encode


class Event(Protocol):
    """What the chain reads of an event: a row of the table, or a copy of one."""

    id: int
    at: datetime
    actor: str
    action: str
    object: str
    detail: dict[str, Any]
    hash: str


@dataclass(frozen=True)
class Head:
    """Where a log ends, or ended when somebody looked: its newest event's number and hash."""

    number: int
    hash: str

    def __str__(self) -> str:
        return f"{self.number} {self.hash}"

    @classmethod
    def parse(cls, text: str) -> "Head":
        """Read what `str` gave. Raises ValueError."""
        number, digest = text.split()
        if len(digest) != len(FIRST):
            raise ValueError("not a sha256 in hex")
        return cls(int(number), digest)


EMPTY = Head(0, FIRST)


def digest(key: bytes, before: str, event: Event) -> str:
    """The hash of an event that follows one with the hash `before`: HMAC-SHA256 in hex."""
    return _hmac(key, [event.id, before, *_said(event)])


def walk(events: Iterable[Event], key: bytes, heads: Iterable[Head] = ()) -> Head:
    """Follow the chain from its first event and give the head that it ends with; `heads` are what it must pass.

    Raises ValueError that names the first event which does not fit, or the head that is not reached."""
    wanted = list(heads)
    newest, is_numbered = EMPTY, False
    for event in events:
        is_numbered = _follows(key, newest, event, is_numbered=is_numbered)
        newest = Head(event.id, event.hash)
        if any(head.number == newest.number and head != newest for head in wanted):
            raise ValueError(f"audit event {newest.number} is not the one that the head names: the log was rewritten")
    for head in wanted:
        if head.number > newest.number:
            raise ValueError(
                f"the end of the audit log is missing: it stops at event {newest.number}, its head is {head.number}"
            )
    return newest


def _follows(key: bytes, newest: Head, event: Event, *, is_numbered: bool) -> bool:
    """Whether the event's hash covers its number. Raises ValueError where it does not follow `newest`.

    Events of before the numbers were covered (a log's beginning; PostgreSQL left gaps there) are taken as they were."""
    if event.id == newest.number + 1 and _same(event.hash, digest(key, newest.hash, event)):
        return True
    old = _hmac(key, [newest.hash, *_said(event)])
    if not is_numbered and event.id > newest.number and _same(event.hash, old):
        return False
    raise ValueError(f"audit event {event.id} was altered, or one before it is missing")


def _same(found: str, right: str) -> bool:
    return hmac.compare_digest(found.encode(), right.encode())


def _said(event: Event) -> list[Any]:
    return [event.at.isoformat(), event.actor, event.action, event.object, event.detail]


def _hmac(key: bytes, said: list[Any]) -> str:
    return hmac.digest(key, _as_json(said).encode(), "sha256").hex()
