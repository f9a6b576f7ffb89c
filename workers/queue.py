"""DOOR: the doorbell. SQL holds the work; a message here ("ring") only wakes a worker and carries nothing.

None of Celery's settings below is what keeps the promises. Left out on purpose: `global_keyprefix` (the queue server is
dedicated; its ACL names one user), `REMAP_SIGTERM` with `worker_soft_shutdown_timeout` (see `workers.lifetime`),
`task_retry_on_worker_lost`, ETA, countdown, chords and a result backend (all of them state in Redis)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from db.errors import QueueUnreachable
from db.settings import Settings, settings
from db.words import PROTOCOL

QUEUE = f"nightread.{PROTOCOL}.score"  # an older worker never receives a newer ring
SCORE = "nightread.score"
# A ring wakes a worker until nothing waits, so a few are enough however large the batch; more would only pile up.
MOST_RINGS = 32
ANSWER_SECONDS = 5.0
# A child that grew beyond this ends after its ring, before the kernel ends it in the middle of one.
MOST_CHILD_KB = min(16_000_000, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2048)


@cache
def app(config: Settings) -> Celery:
    """The Celery application of these settings; the same one for the same settings."""
    made = Celery("nightread", broker=config.queue, set_as_current=False, include=["workers.tasks", "workers.lifetime"])
    made.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        worker_consumer="workers.doorman:Doorman",  # what is no ring is thrown away unread
        task_ignore_result=True,
        result_backend=None,
        # The message is acknowledged after the work; the ledger makes a second delivery harmless. A message
        # whose worker died is not requeued: the sweep rings from SQL, and a poisoned ring must not loop.
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_time_limit=config.task_seconds,  # a device that hangs: its child is ended
        worker_pool="prefork",  # the solo pool loses the running task at SIGQUIT
        worker_concurrency=1,
        worker_pool_start_method="spawn",  # a forked child of a process that touched TensorFlow hangs
        worker_proc_alive_timeout=180,  # loading TensorFlow takes longer than the 4 s that Celery allows
        worker_prefetch_multiplier=1,  # a ring in a busy worker's hand wakes nobody
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,  # "shutdown" is open to anyone who can write to Redis
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # on Redis an ack outlives its connection
        worker_max_tasks_per_child=500,
        worker_max_memory_per_child=MOST_CHILD_KB,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # Celery gives up after 100
        broker_channel_error_retry=True,  # Redis at its memory limit refuses an ack: wait, do not exit
        broker_transport_options={
            "visibility_timeout": 2 * config.task_seconds + 60,  # no lease: only for rings whose worker died
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 15,  # without one, a frozen server holds its client for ever
            "socket_connect_timeout": ANSWER_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "retry_on_timeout": False,
            "client_name": f"nightread-{os.getpid()}",  # for CLIENT LIST
        },
    )
    return made


def ring(count: int, *, with_app: Celery | None = None) -> int:
    """Wake up to `count` workers; how many rings were sent (fewer while others still lie in the queue).
    Raises QueueUnreachable; nothing is lost then: the sweep rings again."""
    ringer = with_app or app(settings())
    with _reachable(), _connection(ringer) as connection:
        missing = min(count, MOST_RINGS - _length(connection))
        if missing <= 0:
            return 0
        with connection.Producer() as producer, producer.batch():
            for _ in range(missing):
                ringer.send_task(SCORE, producer=producer, retry=False)
        _trim(connection)
        return missing


def ring_if_reached(count: int) -> str | None:
    """Ring; where the queue is out of reach, why: the sweep rings then."""
    try:
        ring(count)
    except QueueUnreachable as error:
        return f"{error}; the sweep will ring"
    return None


def length(*, with_app: Celery | None = None) -> int:
    """Rings that lie in the queue. Raises QueueUnreachable."""
    with _reachable(), _connection(with_app or app(settings())) as connection:
        return _length(connection)


def ping(*, with_app: Celery | None = None) -> None:
    """Raises QueueUnreachable unless the queue server answers within five seconds."""
    length(with_app=with_app)


def _connection(ringer: Celery) -> Any:
    # A front end asks once and goes on: unlike a worker it must not wait for a queue that is down.
    options = {**ringer.conf.broker_transport_options, "socket_timeout": ANSWER_SECONDS, "max_retries": 0}
    return ringer.connection_for_write(connect_timeout=ANSWER_SECONDS, transport_options=options)


def _length(connection: Any) -> int:
    channel = connection.default_channel
    return int(channel.queue_declare(queue=QUEUE, durable=True, auto_delete=False).message_count)


def _trim(connection: Any) -> None:
    """Several that ring at once may ring too often together; all rings are alike, and any of them may go."""
    with connection.default_channel.conn_or_acquire() as client:
        client.ltrim(QUEUE, 0, MOST_RINGS - 1)


@contextmanager
def _reachable() -> Iterator[None]:
    """Whatever the broker raises becomes QueueUnreachable, without the address (it may hold a password)."""
    try:
        yield
    except (BrokerError, KombuError, RedisError, OSError) as error:
        advice = "start it with `nightread up`, or set NIGHTREAD_QUEUE_URL"
        raise QueueUnreachable(f"the queue server does not answer ({type(error).__name__}): {advice}") from error
