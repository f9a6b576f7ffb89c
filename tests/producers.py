"""Submitting in real processes that start together, or that are killed on the way. They share one quick start."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from staged import forking

from db.settings import Settings
from db.store.connection import connect
from producer import submission

PATIENCE = 240  # seconds; the machine may be busy


def submit_together(config, folder, count):
    """`count` processes submit one folder at the same moment; what each got."""
    context = forking()
    barrier, answers = context.Barrier(count), context.SimpleQueue()
    running = [
        _start(_submit, str(config.home), config.database_url, str(folder), barrier, answers) for _ in range(count)
    ]
    try:
        with ThreadPoolExecutor(1) as reader:
            given = reader.submit(lambda: [answers.get() for _ in running]).result(PATIENCE)
    finally:
        ended = [_end(process) for process in running]
    assert ended == [0] * count
    return given


def submit_and_die(config, folder, *, at, page):
    """A process that submits a folder in pages of 16 and is killed `at` "before" or "after" one of its pages (from 1;
    0: the seal)."""
    process = _start(_submit_and_die, str(config.home), config.database_url, str(folder), at, page)
    process.join(PATIENCE)
    assert _end(process) == -signal.SIGKILL


def _start(target, *arguments):
    process = forking().Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def _end(process):
    process.join(10)
    process.kill()
    process.join(10)
    return process.exitcode


def _database(home, url):
    os.environ["NIGHTREAD_HOME"] = home
    return connect(Settings(home=Path(home), database_url=url))


def _submit(home, url, folder, barrier, answers):
    db = _database(home, url)
    barrier.wait(PATIENCE)
    answers.put(submission.submit(db, Path(folder), site_name="local"))


def _submit_and_die(home, url, folder, at, page):
    db = _database(home, url)
    submission.FIRST_PAGE = submission.PAGE = 16
    submission.CLAIMED_SECONDS = 0.0  # nobody scores here
    name = "add_page" if page else "seal"
    wrapped, calls = getattr(submission.intake, name), 0

    def dying(*arguments):
        nonlocal calls
        calls += 1
        if calls == max(page, 1) and at == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = wrapped(*arguments)
        if calls == max(page, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(submission.intake, name, dying)
    submission.submit(db, Path(folder), site_name="local")
