"""The doorbell: few messages, nothing in them, and nothing lost with them."""

import json
import socket
import time

import pytest
import redis

from db.errors import QueueUnreachable
from db.settings import Settings
from db.store import intake, models
from db.store.connection import connect
from db.store.intake import FoundFile, Submission
from db.store.sites import site_named
from db.words import PROTOCOL
from workers import queue, sweep


@pytest.fixture
def ringer(queue_server, tmp_path):
    return queue.app(Settings(home=tmp_path, queue_url=queue_server))


@pytest.fixture
def raw(queue_server):
    return redis.Redis(unix_socket_path=queue_server.removeprefix("redis+socket://"), socket_timeout=10)


def test_a_ring_is_one_small_message_that_names_no_scan(ringer, raw):
    assert queue.ring(1, with_app=ringer) == 1

    (message,) = raw.lrange(queue.QUEUE, 0, -1)
    body = json.loads(message)
    assert len(message) < 1500
    assert body["headers"]["argsrepr"] == "()"
    assert body["content-type"] == "application/json"


def test_however_much_waits_only_a_bounded_number_of_rings_lies_in_the_queue(ringer, raw):
    assert queue.ring(1_000_000, with_app=ringer) == queue.MOST_RINGS
    assert queue.ring(1_000_000, with_app=ringer) == 0
    assert raw.llen(queue.QUEUE) == queue.length(with_app=ringer) == queue.MOST_RINGS


def test_a_queue_that_is_away_says_so_without_its_address(tmp_path):
    away = queue.app(Settings(home=tmp_path, queue_url=f"redis+socket://:secret@{tmp_path}/none.sock"))

    with pytest.raises(QueueUnreachable) as raised:
        queue.ring(1, with_app=away)

    assert "secret" not in str(raised.value)
    assert "nightread up" in str(raised.value)


def test_after_a_wiped_queue_the_sweep_rings_again_for_what_waits(home, queue_server, raw):
    db = connect(home)
    what = Submission(site_named(db, "local").id, models.active(db).id, "/night", chunk_size=2)
    intake.add_page(db, what, [FoundFile(f"{n}.png", 1, f"{n:064d}") for n in range(5)])
    sweep.sweep(db)
    assert raw.llen(queue.QUEUE) == 3
    raw.flushall()

    sweep.sweep(db)

    assert raw.llen(queue.QUEUE) == 3


def test_a_worker_of_an_older_protocol_never_hears_a_newer_ring(ringer, raw):
    queue.ring(3, with_app=ringer)

    assert raw.llen(f"nightread.{PROTOCOL - 1}.score") == 0
    assert raw.llen(f"nightread.{PROTOCOL}.score") == 3


def test_a_frozen_queue_server_is_given_up_and_not_waited_for(short_folder, tmp_path):
    address = short_folder / "frozen.sock"
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(address))
        frozen.listen(16)  # connections are taken by the kernel, and nobody ever answers
        ringer = queue.app(Settings(home=tmp_path, queue_url=f"redis+socket://{address}"))
        began = time.monotonic()

        with pytest.raises(QueueUnreachable):
            queue.ring(1, with_app=ringer)

    assert time.monotonic() - began < 60


def test_only_json_is_accepted_and_remote_control_is_off(ringer):
    assert ringer.conf.accept_content == ["json"]
    assert ringer.conf.worker_enable_remote_control is False
    assert ringer.conf.result_backend is None
