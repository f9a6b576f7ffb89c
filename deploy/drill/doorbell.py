"""What lies in the queue server, read without Celery: whether it is rings alone, few, and with nothing in them."""

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

QUEUE = "nightread.4.score"
TASK = "nightread.score"
MOST_RINGS = 32  # that may lie in the queue, whatever waits
MOST_RETURNED = 8  # on top of them: a worker that is told to stop gives back the ring in its hand
MOST_UNACKED = 256  # a ring whose worker was killed stays here until the visibility timeout
EMPTY_BODY = [[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]


def flaws(socket: Path) -> Iterator[str]:
    """(D) What is in the queue that should not be: more than idle rings, or anything but rings."""
    try:
        yield from _flaws(_client(socket))
    except redis.RedisError as error:
        yield f"the queue server does not answer: {type(error).__name__}"


def contents(socket: Path) -> Iterator[bytes]:
    """Every key and value as bytes, the bodies of messages also decoded; nothing where no server answers."""
    try:
        for key, values in _everything(_client(socket)):
            yield key + b"\n" + b"\n".join(values)
            yield from filter(None, map(_body, values))
    except redis.RedisError:
        return


def _client(socket: Path) -> Any:
    make: Any = redis.Redis  # its constructor has no types
    return make(unix_socket_path=str(socket), socket_timeout=30)


def _flaws(client: Any) -> Iterator[str]:
    rings: dict[str, int] = {}
    for key, values in _everything(client):
        name = key.decode(errors="replace")
        if name.startswith("_kombu.binding") or name in ("unacked_index", "unacked_mutex"):
            continue
        if name not in (QUEUE, "unacked"):
            yield f"a key that no ring makes: {name[:40]!r}"
            continue
        rings[name] = len(values)
        strange = sum(not _is_ring(value, is_unacked=name == "unacked") for value in values)
        if strange:
            yield f"{strange} messages in {name} are not rings"
    for name, most in ((QUEUE, MOST_RINGS + MOST_RETURNED), ("unacked", MOST_UNACKED)):
        if rings.get(name, 0) > most:
            yield f"{rings[name]} rings in {name}; at most {most} may lie there"


def _everything(client: Any) -> Iterator[tuple[bytes, list[bytes]]]:
    for key in sorted(client.scan_iter(count=1000)):
        yield key, [bytes(value) for value in _values(client, key, client.type(key))]


def _values(client: Any, key: bytes, kind: bytes) -> list[bytes]:
    readers: dict[bytes, Callable[[], Any]] = {
        b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: list(client.smembers(key)),
        b"zset": lambda: client.zrange(key, 0, -1),
        b"hash": lambda: list(client.hgetall(key).values()),
        b"string": lambda: [client.get(key) or b""],
    }
    return list(readers[kind]()) if kind in readers else []


def _is_ring(value: bytes, *, is_unacked: bool) -> bool:
    """A message that names our one task and carries nothing."""
    try:
        message = json.loads(value)
        message = message[0] if is_unacked else message
        return bool(message["headers"]["task"] == TASK) and json.loads(_body(value) or b"") == EMPTY_BODY
    except (ValueError, TypeError, KeyError, IndexError):
        return False


def _body(value: bytes) -> bytes | None:
    """A message's body, decoded; None for what is no message. One that was not acknowledged lies in a list."""
    try:
        message = json.loads(value)
        message = message[0] if isinstance(message, list) else message
        return base64.b64decode(message["body"], validate=True)
    except (ValueError, TypeError, KeyError, IndexError, binascii.Error):
        return None
