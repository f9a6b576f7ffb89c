"""How a worker begins and ends: Celery's parent, and the one child in which the engine runs."""

import logging
import os
import signal
import threading
from typing import Any

from billiard import active_children
from celery.signals import worker_process_init, worker_shutting_down

from db.errors import DeviceUnsound, NightreadError, Refused
from db.settings import settings
from db.store import models
from workers.provisions import stopping_note
from workers.shift import shift

log = logging.getLogger(__name__)

STOP_SECONDS = 25.0  # told to stop, a child that is still at work by then is ended: its device hangs


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _begin(**kwargs: Any) -> None:
    """In the child, before its first ring: the heartbeat, and the active model, so that the first scan waits less."""
    hand = shift()
    hand.start_beating()
    try:
        active = models.active(hand.db).id
        try:
            hand.model(active)
        except (Refused, DeviceUnsound) as error:
            hand.refuse(active, error)
    except NightreadError as error:
        log.error("%s", error)
    hand.doing = hand.idle


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _end(**kwargs: Any) -> None:
    """In the parent, told to stop: leave the note that the child looks for, and end a child that does not obey."""
    note = stopping_note(settings(), os.getpid())
    note.parent.mkdir(parents=True, exist_ok=True)
    note.touch()
    # Celery's own bound (REMAP_SIGTERM and worker_soft_shutdown_timeout) tells us only once it is over, and always
    # waits for all of it. SIGQUIT is its cold shutdown: it goes, but only asks the child to, and one whose device hangs
    # cannot.
    insist = threading.Timer(STOP_SECONDS, _insist)
    insist.daemon = True
    insist.start()


def _insist() -> None:
    for child in active_children():
        os.kill(child.pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGQUIT)
