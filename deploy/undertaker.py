"""Ends what a supervisor leaves behind when it is killed: run by it as a script, told of every part on its input.

    + PID STAGE      a part was started (it leads its own process group)
    - PID            it ended

While the supervisor lives this only listens. When the input ends with parts left, the supervisor was killed: the parts
are asked to stop, the highest stage first, and after PATIENCE seconds they are killed with all that they started.
It inherits the supervisor's lock on the home folder, so that nobody starts there before this is done.
Plain Python, no imports of ours: it must be small, and start in no time.
"""

import contextlib
import os
import signal
import sys
import time

PATIENCE = 35.0  # seconds; a worker may take 30 to give its chunk back


def main() -> None:
    """Listen, then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    living: dict[int, int] = {}
    for line in sys.stdin:
        sign, pid, *stage = line.split()
        if sign == "+":
            living[int(pid)] = int(stage[0])
        else:
            living.pop(int(pid), None)
    for stage in sorted(set(living.values()), reverse=True):
        end([pid for pid, of in living.items() if of == stage], patience=PATIENCE)


def end(leaders: list[int], *, patience: float) -> None:
    """Ask the leaders to stop; kill each one's group once it is gone, or when patience ends."""
    for pid in leaders:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while leaders:
        for pid in list(leaders):
            if time.monotonic() > deadline or not _lives(pid):
                kill_group(pid)
                leaders.remove(pid)
        time.sleep(0.05)


def kill_group(leader: int) -> None:
    """Kill whatever is left of a process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
