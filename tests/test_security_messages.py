"""Whoever can write to the queue can wake a worker, and nothing else: one real worker, under the real supervisor, with
the drill's stub for an engine, gets every kind of message that should not be."""

import base64
import json
import os
import pickle
import sys
import tempfile
import time
import zlib
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import builders
import celery
import pytest
import redis
from guarded import PASSWORD, USER, guarded_server
from ready_home import fill
from sqlalchemy import text

from db.settings import Settings
from db.store import reading
from db.store.connection import connect
from deploy import local
from deploy.supervisor import Part, Supervisor
from producer import submission
from workers import queue

pytestmark = pytest.mark.timeout(900)  # a worker's start takes seconds, or minutes where the machine is busy
PATIENCE = 400.0
TABLES = ("sites", "batches", "chunks", "scans", "outcomes", "thresholds", "activations", "retirements", "users")


class Night:
    """A worker and a sweep on a home of their own. They, and whoever pushes here, are the user of deploy/valkey."""

    def __init__(self, config: Settings, parts: Supervisor, folder: Path, path: Path) -> None:
        self.config, self.parts, self.folder = config, parts, folder
        self.db = connect(config)
        self.raw = redis.Redis(unix_socket_path=str(path), username=USER, password=PASSWORD, socket_timeout=60)
        self.app = queue.app(config)
        self._seed = 0

    def until(self, holds, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            logs = "\n".join(log.read_text()[-3000:] for log in (self.config.home / "logs").glob("*.log"))
            assert time.monotonic() < deadline, f"{what} did not come about\n{logs}"
            time.sleep(0.2)

    def pid(self) -> int | None:
        """The process that scores, as its heartbeat tells."""
        alive = [one.pid for one in reading.workers(self.db) if one.alive]
        return alive[0] if alive else None

    def push(self, *messages: bytes) -> None:
        self.raw.lpush(queue.QUEUE, *messages)

    def await_idle(self) -> None:
        """Until everything that was pushed is gone from the queue and from the worker's hands."""
        self.until(
            lambda: not self.raw.llen(queue.QUEUE) and not self.raw.zcard("unacked_index") and self.pid(), "quiet"
        )

    def ledger(self) -> dict[str, list]:
        """Every table that says what was submitted, scored and done; neither heartbeats nor sessions."""
        with self.db.reading() as session:
            found = {name: session.execute(text(f"SELECT * FROM {name} ORDER BY id")).all() for name in TABLES}
            found["audit_events"] = session.execute(text("SELECT id, hash FROM audit_events ORDER BY id")).all()
        return {name: [tuple(row) for row in rows] for name, rows in found.items()}

    def screen(self) -> reading.Totals:
        """A night's work after all: two pictures that nobody has seen yet."""
        self._seed += 1
        scans = self.folder / f"scans-{self._seed}"
        scans.mkdir()
        for number in range(2):
            picture = builders.chest(seed=100 * self._seed + number)
            (scans / f"{number}.png").write_bytes(builders.encoded(".png", picture))
        batch = submission.submit(self.db, scans, site_name="local").batch_id
        self.until(lambda: reading.totals(self.db, batch).waiting == 0, "two scored scans")
        return reading.totals(self.db, batch)


@pytest.fixture(scope="module")
def night():
    with tempfile.TemporaryDirectory(prefix="nr-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        url = f"redis+socket://{USER}:{PASSWORD}@{folder}/queue/q.sock"
        config = Settings(home=folder / "home", queue_url=url, sweep_seconds=1.0, task_seconds=60, decoders=1)
        config.home.mkdir(mode=0o700)
        fill(config)
        with guarded_server(folder / "queue") as path, supervised(config) as parts:
            made = Night(config, parts, folder, path)
            made.until(made.pid, "a worker")
            yield made
            made.db.engine.dispose()


@contextmanager
def supervised(config):
    lock = os.open(config.home / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    parts = Supervisor(config.home / "logs", lock, lambda line: None)
    environment = local.environment(config)

    def command(*words):
        return [sys.executable, "-m", "deploy.drill.part", *words]

    try:
        parts.start(
            [
                Part("sweep", partial(command, "sweep"), environment),
                Part("worker", partial(command, "worker", "--device", "cpu"), environment, stage=2),
            ]
        )
        yield parts
    finally:
        parts.stop()
        os.close(lock)


class Canary:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def ring(**changed) -> dict:
    """A message as the sweep would send it, but for what a test changes."""
    body = base64.b64encode(json.dumps([[], {}, {"callbacks": None, "errbacks": None, "chain": None}]).encode())
    message = {
        "body": body.decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": queue.SCORE, "id": os.urandom(8).hex(), "root_id": "r", "argsrepr": "()"},
        "properties": {
            "correlation_id": "c",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue.QUEUE},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": os.urandom(8).hex(),
        },
    }
    headers = {**message["headers"], **changed.pop("headers", {})}
    return {**message, "headers": headers, **changed}


def packed(message: dict) -> bytes:
    return json.dumps(message).encode()


def body(content: bytes) -> str:
    return base64.b64encode(content).decode()


def arguments(*given, embedded=None, **named) -> str:
    return body(json.dumps([list(given), named, embedded or {}]).encode())


def foreign(canary: Path) -> dict[str, dict]:
    """Messages in whole envelopes whose bodies are in another language than JSON."""
    harmful = pickle.dumps(Canary(canary))
    yaml = f'!!python/object/apply:os.system ["touch {canary}"]'.encode()
    kinds = {
        "application/x-python-serialize": harmful,
        "pickle": harmful,
        "application/x-yaml": yaml,
        "yaml": yaml,
        "application/x-msgpack": b"\x92\xc7" + harmful[:200],
        "application/data": harmful,
        "text/plain": harmful,
        "application/x-unheard-of": harmful,
    }
    envelopes = {kind: ring(**{"content-type": kind, "content-encoding": "binary"}, body=body(content))
                 for kind, content in kinds.items()}  # fmt: skip
    envelopes["pickle that says it is JSON"] = ring(body=body(harmful))
    envelopes["pickle in a header"] = ring(headers={"argsrepr": body(harmful), "shadow": body(harmful)})
    hook = {"__type__": "os.system", "__value__": f"touch {canary}"}
    envelopes["an object in JSON"] = ring(body=arguments(hook), headers={"stamps": hook})
    return envelopes


def test_bodies_that_are_not_json_run_nothing_and_the_worker_scores_on(night):
    canary = night.folder / "canary-bodies"
    night.await_idle()
    before, worker = night.ledger(), night.pid()

    night.push(*map(packed, foreign(canary).values()))
    night.await_idle()

    assert not canary.exists()
    assert night.ledger() == before
    assert night.pid() == worker  # nor did it have to be started again
    assert night.screen().scored == 2
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path):
    """The tests above and below could fail: what they push does leave a file where somebody unpickles it."""
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))  # noqa: S301 (our own bytes)

    assert (tmp_path / "canary").exists()


def test_bytes_that_are_no_message_at_all_run_nothing_and_the_supervisor_has_a_worker_again(night):
    """They end kombu's reading, and so the worker; they are out of the queue by then."""
    canary = night.folder / "canary-bytes"
    night.await_idle()
    before = night.ledger()
    table = ring(properties=ring()["properties"] | {"delivery_info": [1]})

    for content in (pickle.dumps(Canary(canary)), packed(ring())[:100], packed(table)):
        night.push(content)
        night.await_idle()

    assert night.ledger() == before
    assert night.screen().scored == 2
    assert not canary.exists()


def forged() -> dict[str, bytes]:
    """JSON that asks for more than a ring can: scans, models, other tasks, other protocols, sizes, limits."""
    evil = {"task": "os.system", "args": ["touch /tmp/never"], "kwargs": {}, "options": {}, "immutable": True}
    many = {"task": queue.SCORE, "args": [1, 2], "kwargs": {"model": 2}, "options": {"queue": queue.QUEUE}}
    asked = {
        "a scan": ring(body=arguments(1)),
        "scans and a model": ring(body=arguments([1, 2, 3], model=99, threshold=0.0)),
        "an outcome": ring(body=arguments({"scan_id": 1, "kind": "scored", "score": 0.0, "flagged": False})),
        "SQL": ring(body=arguments("1; DELETE FROM outcomes")),
        "a path": ring(body=arguments(path="../../../etc/passwd")),
        "no arguments at all": ring(body=body(b"null")),
        "a number": ring(body=body(b"7")),
        "a text": ring(body=body(b'"score"')),
        "deep": ring(body=body(b"[" * 5000 + b"]" * 5000)),
        "huge": ring(body=arguments("x" * 5_000_000)),
        "a bomb": ring(headers={"compression": "application/x-gzip"}, body=body(zlib.compress(bytes(30_000_000), 9))),
        "another task": ring(headers={"task": "os.system"}, body=arguments("touch /tmp/never")),
        "no task": ring(headers={"task": None}),
        "a task of Celery's": ring(headers={"task": "celery.map"}, body=arguments(evil, [1])),
        "a cleaning task": ring(headers={"task": "celery.backend_cleanup"}),
        "callbacks": ring(body=arguments(embedded={"callbacks": [evil], "errbacks": [evil], "chain": [many]})),
        "a chord": ring(body=arguments(embedded={"chord": many}), headers={"group": "g", "group_index": 0}),
        "an answer elsewhere": ring(properties=ring()["properties"] | {"reply_to": "elsewhere"}),
        "protocol 1": ring(headers={}, body=body(json.dumps({"task": queue.SCORE, "id": "i", "args": [1]}).encode())),
        "expired": ring(headers={"expires": "2001-01-01T00:00:00"}),
        "no time": ring(headers={"timelimit": [None, 0.001]}),
        "retries": ring(headers={"retries": 10**9, "origin": "x" * 10_000}),
    }
    messages = {name: packed(message) for name, message in asked.items()}
    no_headers = ring()
    del no_headers["headers"]
    return messages | {"no headers": packed(no_headers)}


def test_forged_rings_change_nothing_and_what_waits_is_scored_all_the_same(night):
    night.screen()
    night.await_idle()
    before, worker = night.ledger(), night.pid()

    night.push(*forged().values())
    night.await_idle()

    assert night.ledger() == before
    assert night.pid() == worker  # nor did it have to be started again
    assert night.screen().scored == 2
    after = night.ledger()
    for name in ("sites", "thresholds", "activations", "retirements", "users"):
        assert after[name] == before[name]
    for name in ("batches", "scans", "outcomes"):  # what truly waited came on top
        assert after[name][: len(before[name])] == before[name]
        assert len(after[name]) - len(before[name]) == {"batches": 1, "scans": 2, "outcomes": 2}[name]


def test_a_ring_for_the_year_2099_keeps_nobody_from_work(night):
    night.push(packed(ring(headers={"eta": "2099-01-01T00:00:00"})))

    assert night.screen().scored == 2


def test_remote_control_reaches_nobody(night):
    night.await_idle()
    worker, deaths = night.pid(), night.parts.deaths(stage=2)
    control = night.app.control

    control.broadcast("shutdown")
    control.revoke("some-task", terminate=True, signal="SIGKILL")
    control.pool_restart(modules=["os"], reload=True)
    control.broadcast("pool_shrink", arguments={"n": 1})
    control.broadcast("cancel_consumer", arguments={"queue": queue.QUEUE})
    control.rate_limit(queue.SCORE, "1/h")
    control.time_limit(queue.SCORE, soft=0.001, hard=0.001)

    assert control.ping(timeout=2.0) == []
    assert night.screen().scored == 2
    assert night.pid() == worker
    assert night.parts.deaths(stage=2) == deaths


def test_a_worker_with_remote_control_would_have_listened(night):
    """The test above could fail: Celery's own default is to obey."""
    assert celery.Celery().conf.worker_enable_remote_control is True
    assert night.app.conf.worker_enable_remote_control is False
