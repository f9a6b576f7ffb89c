"""Scoring gives way: a night's work takes whatever the machine has, and a reader's page is answered first."""

import os
from contextlib import suppress
from pathlib import Path

NICE = 10  # of 19: behind everything that somebody waits for, before what only fills idle time


def give_way() -> None:
    """Let this process, and those that it starts from now on, stand back where others want the processor, too."""
    os.nice(max(NICE - os.nice(0), 0))
    settle()


def settle() -> None:
    """Linux shares the processor between sessions first (autogroup, sched(7)), by a value that a new session does not
    inherit: give this one the niceness of its process. Nothing happens where the kernel knows no such thing."""
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(os.nice(0)))
