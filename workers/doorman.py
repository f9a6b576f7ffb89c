"""What a worker does with a message before Celery reads it: a ring is let in, all else is thrown away.

A ring carries nothing, so it is known beforehand down to its body. Celery alone would deserialize what is whole, obey
the time limits, dates and callbacks that a message names, and end at some malformed ones, which then return to the
queue and end the next worker too.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer
from kombu.transport.virtual.base import QoS

from workers.queue import SCORE

log = logging.getLogger(__name__)

MOST_BYTES = 1000
BODY = [[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
# The headers by which a message could ask for something. Those that only name a ring (its id, who sent it) may differ.
HEADERS: dict[str, Any] = {
    "task": SCORE,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": [None, None],
    "argsrepr": "()",
    "kwargsrepr": "{}",
    "ignore_result": None,
    "compression": None,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}


class Doorman(Consumer):  # type: ignore[misc]
    """Celery's consumer (setting `worker_consumer`) behind a door."""

    def create_task_handler(self, *given: Any, **named: Any) -> Callable[[Any], Any]:
        """The function that every message comes to; asked for anew with each connection."""
        give_credit_back(self.task_consumer.channel.qos)
        let_in = super().create_task_handler(*given, **named)

        def answer(message: Any) -> None:
            if not is_ring(message):
                log.error("a message that is no ring was thrown away")
                message.reject_log_error(log, self.connection_errors)
                return
            try:
                let_in(message)
            except self.connection_errors + self.channel_errors:
                raise
            except Exception:  # whatever it is, this message must not end the next worker too; the sweep rings again
                log.exception("a ring that Celery could not read was thrown away")
                message.reject_log_error(log, self.connection_errors)

        return answer


def is_ring(message: Any) -> bool:
    """Whether a message is, in all that matters, what `queue.ring` sends."""
    headers = message.headers
    if message.errors or message.content_type != "application/json":
        return False
    if not isinstance(headers, dict) or not isinstance(message.delivery_info, dict):
        return False
    if any(name not in headers for name in ("task", "id")) or not isinstance(headers["id"], str):
        return False
    if any(headers.get(name, right) != right for name, right in HEADERS.items()):
        return False
    if not isinstance(message.body, (bytes, str)) or len(message.body) > MOST_BYTES:
        return False
    try:
        return bool(json.loads(message.body) == BODY)
    except (ValueError, RecursionError):
        return False


def give_credit_back(qos: Any) -> None:
    """Count a message as dealt with also where the server could not be told so.

    kombu 5.7 does not (transport/redis.py, QoS.ack): the error is logged, the message counts as in hand for ever, and
    a worker that may hold one never asks for the next: it beats, and is deaf. The message stays in `unacked` and comes
    back after the visibility timeout, one ring more."""
    tell, refuse = qos.ack, qos.reject

    def ack(delivery_tag: str) -> None:
        try:
            tell(delivery_tag)
        except BaseException:
            QoS.ack(qos, delivery_tag)
            raise

    def reject(delivery_tag: str, requeue: bool = False) -> None:
        try:
            refuse(delivery_tag, requeue=requeue)
        except BaseException:
            QoS.ack(qos, delivery_tag)
            raise

    qos.ack, qos.reject = ack, reject
