"""A worker lets in what `queue.ring` sends, and nothing that asks for more."""

import base64
import copy
import json

import pytest
import redis

from db.settings import Settings
from workers import doorman, queue


@pytest.fixture
def ringer(queue_server, tmp_path):
    return queue.app(Settings(home=tmp_path, queue_url=queue_server))


@pytest.fixture
def sent(ringer, queue_server):
    """A ring as it lies in the queue."""
    queue.ring(1, with_app=ringer)
    raw = redis.Redis(unix_socket_path=queue_server.removeprefix("redis+socket://"), socket_timeout=30)
    return json.loads(raw.lindex(queue.QUEUE, 0))


def is_let_in(ringer, sent):
    with ringer.connection_for_read() as connection:
        channel = connection.default_channel
        return doorman.is_ring(channel.Message(copy.deepcopy(sent), channel=channel))


def body(value):
    return base64.b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode()


def test_a_ring_is_let_in(ringer, sent):
    assert is_let_in(ringer, sent)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", "os.system"),
        ("task", None),
        ("id", None),
        ("id", {"__reduce__": 1}),
        ("eta", "2099-01-01T00:00:00"),
        ("expires", "2001-01-01T00:00:00"),
        ("timelimit", [None, 0.001]),
        ("timelimit", [1, None]),
        ("retries", 5),
        ("group", "g"),
        ("argsrepr", "(1,)"),
        ("kwargsrepr", "{'model': 2}"),
        ("ignore_result", False),
        ("compression", "application/x-gzip"),
        ("stamped_headers", ["x"]),
        ("stamps", {"x": 1}),
    ],
)
def test_a_header_that_asks_for_something_is_not(ringer, sent, name, value):
    sent["headers"][name] = value

    assert not is_let_in(ringer, sent)


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"null",
        b"\x80\x04pickle",
        b"[" * 900,
        [[1], {}, doorman.BODY[2]],
        [[], {"model": 2}, doorman.BODY[2]],
        [[], {}, doorman.BODY[2] | {"callbacks": [{"task": "x"}]}],
        [[], {}, doorman.BODY[2] | {"more": None}],
        [[], {}],
    ],
    ids=str,
)
def test_a_body_that_carries_something_is_not(ringer, sent, given):
    sent["body"] = body(given)

    assert not is_let_in(ringer, sent)


@pytest.mark.parametrize("kind", ["application/x-python-serialize", "application/x-yaml", "text/plain", None])
def test_another_content_type_is_not(ringer, sent, kind):
    sent["content-type"] = kind

    assert not is_let_in(ringer, sent)


@pytest.mark.parametrize("name", ["headers", "delivery_info"])
@pytest.mark.parametrize("value", [[1], "text", 7])
def test_a_list_or_a_text_where_a_table_belongs_is_not(ringer, sent, name, value):
    (sent if name == "headers" else sent["properties"])[name] = value
    if name == "headers" and not hasattr(value, "get"):
        with pytest.raises(AttributeError):  # kombu itself: the message is gone by then, the worker is started again
            is_let_in(ringer, sent)
        return

    assert not is_let_in(ringer, sent)


def test_workers_stand_behind_the_doorman(ringer):
    assert ringer.conf.worker_consumer == "workers.doorman:Doorman"


def test_a_ring_that_could_not_be_acknowledged_is_out_of_hand_all_the_same(ringer, monkeypatch):
    queue.ring(1, with_app=ringer)
    with ringer.connection_for_read() as connection:
        channel = connection.default_channel
        channel.basic_qos(0, 1, False)
        doorman.give_credit_back(channel.qos)
        message = channel.basic_get(queue.QUEUE)
        assert not channel.qos.can_consume()

        with monkeypatch.context() as broken:
            broken.setattr(channel.qos, "_remove_from_indices", gone)
            with pytest.raises(redis.ConnectionError):
                message.ack()

        assert channel.qos.can_consume()


def gone(*arguments):
    raise redis.ConnectionError("reset by peer")
