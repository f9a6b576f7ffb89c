"""Harm to processes: killed, frozen, told to stop, without room to write, with a wrong clock, too old, one too many.

A way to do harm gets the house and a random generator of its own (from the run's seed) and gives the heal, which is
called once the fault's time is over, and again never. What cannot be done here raises CannotBeDone, and is told."""

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from deploy.drill import processes
from deploy.drill.parts import SWEEPS, House
from deploy.undertaker import kill_group

Heal = Callable[[], None]
Inject = Callable[[House, random.Random], Heal]


class CannotBeDone(Exception):
    """Not on this machine, or not at this moment; the text says why."""


def kill(kind: str) -> Inject:
    def inject(house: House, chance: random.Random) -> Heal:
        send(one_of(house, kind, chance), signal.SIGKILL)
        return nothing

    return inject


def kill_producer(house: House, chance: random.Random) -> Heal:
    """Mostly in the middle of its pages: its batch is there and not sealed."""
    pid = one_of(house, "producer", chance)
    deadline = time.monotonic() + chance.choice([0.0, 10.0, 10.0])
    while time.monotonic() < deadline and pid in processes.of(house, "producer"):
        progress = house.progress()
        if progress is not None and progress.unsealed:
            break
        time.sleep(0.02)
    send(pid, signal.SIGKILL)
    return nothing


def kill_all_workers(house: House, chance: random.Random) -> Heal:
    for name in house.worker_names:
        pid = house.supervisor.pid(name)
        if pid is not None:
            kill_group(pid)
    return nothing


def kill_both_sweeps(house: House, chance: random.Random) -> Heal:
    for name in SWEEPS:
        with suppress(CannotBeDone):
            send(named(house, name), signal.SIGKILL)
    return nothing


def freeze(kind: str) -> Inject:
    def inject(house: House, chance: random.Random) -> Heal:
        pid = one_of(house, kind, chance)
        send(pid, signal.SIGSTOP)
        return lambda: send(pid, signal.SIGCONT)

    return inject


def terminate(house: House, chance: random.Random) -> Heal:
    """Ask a worker to stop while it holds a chunk; the supervisor starts it again."""
    send(one_of(house, "worker", chance), signal.SIGTERM)
    return nothing


def quit_at_once(house: House, chance: random.Random) -> Heal:
    """The signal with which Celery means: at once."""
    send(one_of(house, "worker", chance), signal.SIGQUIT)
    return nothing


def forbid_growth(house: House, chance: random.Random) -> Heal:
    """RLIMIT_FSIZE 0 for a part and its children: every write to a file fails, as on a full disk of its own."""
    pid = one_of(house, chance.choice(["worker", "sweep", "web"]), chance)
    before = {one: resource.prlimit(one, resource.RLIMIT_FSIZE) for one in (pid, *processes.descendants(pid))}
    for one, (_, hard) in before.items():
        with suppress(ProcessLookupError):
            resource.prlimit(one, resource.RLIMIT_FSIZE, (0, hard))

    def heal() -> None:
        for one, limits in before.items():
            with suppress(ProcessLookupError, PermissionError):
                resource.prlimit(one, resource.RLIMIT_FSIZE, limits)

    return heal


def skew(hours: float) -> Inject:
    """A worker whose clock is wrong: it must start again to have it, and again to lose it."""

    def inject(house: House, chance: random.Random) -> Heal:
        name = chance.choice(house.worker_names)
        house.skew_file(name).write_text(str(3600 * hours))
        send(named(house, name), signal.SIGTERM)

        def heal() -> None:
            house.skew_file(name).unlink(missing_ok=True)
            with suppress(CannotBeDone):
                send(named(house, name), signal.SIGTERM)

        return heal

    return inject


def older_worker(house: House, chance: random.Random) -> Heal:
    name = f"older-{chance.randrange(10**6)}"
    house.start_older_worker(name)
    return lambda: house.supervisor.dismiss(name)


def twin(house: House, chance: random.Random) -> Heal:
    """A second producer over the folder that is being submitted just now."""
    root = _root_in_hand(house)
    house.submit(root, name=f"twin-{chance.randrange(10**6)}")
    return nothing


def nothing() -> None:
    pass


def one_of(house: House, kind: str, chance: random.Random) -> int:
    """A process of a kind that runs now, waiting for one a while. Raises CannotBeDone."""
    deadline = time.monotonic() + 5.0
    while not (found := processes.of(house, kind)):
        if time.monotonic() > deadline:
            raise CannotBeDone(f"no {kind} runs just now")
        time.sleep(0.01)
    return chance.choice(sorted(found))


def named(house: House, name: str) -> int:
    pid = house.supervisor.pid(name)
    if pid is None:
        raise CannotBeDone(f"{name} does not run just now")
    return pid


def send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        if time.monotonic() > deadline:
            raise CannotBeDone(f"waited 60 s in vain until {what}")
        time.sleep(0.1)


def _root_in_hand(house: House) -> Path:
    submissions = house.submissions()
    if not submissions:
        raise CannotBeDone("nothing is being submitted just now")
    return submissions[0]
