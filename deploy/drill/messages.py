"""What somebody who can write to the queue may put there: garbage, foreign bodies, forged rings."""

import base64
import json
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from workers.queue import QUEUE, SCORE

BROADCAST = "/0.celery.pidbox"  # kombu/transport/redis.py: the channel of a fanout exchange
PROOF = "executed"  # a file in the run's folder: there once a body was executed


def garbage(chance: random.Random, proof: Path) -> Iterator[bytes]:
    """Bytes that are no message at all."""
    yield chance.randbytes(40)
    yield b"{}"
    yield b"null"
    yield b'{"body": "' + base64.b64encode(chance.randbytes(9)) + b'"}'


def unknown(chance: random.Random, proof: Path) -> Iterator[bytes]:
    """Tasks that no worker has."""
    for name in ("nightread.delete", "celery.backend_cleanup_all", "os.system"):
        yield _message(chance, task=name, arguments=["true"])


def pickled(chance: random.Random, proof: Path) -> Iterator[bytes]:
    """A body that runs a command where somebody unpickles it."""
    body: bytes = pickle.dumps(_Touch(proof))
    for kind in ("application/x-python-serialize", "pickle"):
        yield _message(chance, body=body, content_type=kind, encoding="binary")


def yaml(chance: random.Random, proof: Path) -> Iterator[bytes]:
    """The same in YAML."""
    body = f"!!python/object/apply:os.system ['touch {proof}']".encode()
    yield _message(chance, body=body, content_type="application/x-yaml", encoding="utf-8")


def forged(chance: random.Random, proof: Path) -> Iterator[bytes]:
    """Rings that name scans and chunks, and ask for what a ring cannot ask for."""
    yield _message(chance, arguments=[chance.randrange(100)])
    yield _message(chance, keywords={"scan_id": 1, "score": 0.99, "outcome": "scored"})
    yield _message(chance, headers={"protocol": 99, "retries": 10**6, "timelimit": [0, 0]})
    yield _message(chance, keywords={"chunk_id": 1, "token": "0" * 32})


def control(chance: random.Random, proof: Path) -> Iterator[bytes]:
    """What shuts workers down where remote control is on."""
    body: dict[str, Any] = {
        "method": "shutdown",
        "arguments": {},
        "destination": None,
        "pattern": None,
        "matcher": None,
    }
    yield _message(chance, body=json.dumps(body).encode(), headers={"clock": 1, "expires": 1e12})


class _Touch:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def _message(
    chance: random.Random,
    *,
    task: str = SCORE,
    arguments: list[Any] | None = None,
    keywords: dict[str, Any] | None = None,
    body: bytes | None = None,
    content_type: str = "application/json",
    encoding: str = "utf-8",
    headers: dict[str, Any] | None = None,
) -> bytes:
    """A message as kombu's Redis transport keeps it (kombu/transport/virtual/base.py), protocol 2 of Celery."""
    number = str(UUID(int=chance.getrandbits(128)))
    if body is None:
        body = json.dumps([arguments or [], keywords or {}, {}]).encode()
    told = {"lang": "py", "task": task, "id": number, "root_id": number, "parent_id": None, "group": None}
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": encoding,
            "content-type": content_type,
            "headers": told | (headers or {}),
            "properties": {
                "correlation_id": number,
                "reply_to": number,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(UUID(int=chance.getrandbits(128))),
            },
        }
    ).encode()
