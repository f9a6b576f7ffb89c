"""Removes a drill's folder once its standard input ends, which it does when the drill is over or was killed.

Run as a script by the command. Each run's lock is held until the last of its processes ended (the run itself, and the
undertaker of its parts), so this waits for the locks before it removes anything. Plain Python, no imports of ours."""

import fcntl
import shutil
import signal
import sys
import time
from pathlib import Path

PATIENCE = 180.0  # seconds


def main() -> None:
    """Wait, then remove."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folder = Path(sys.argv[1])
    sys.stdin.read()
    deadline = time.monotonic() + PATIENCE
    while any(is_held(lock) for lock in folder.glob("*/lock")) and time.monotonic() < deadline:
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


def is_held(lock: Path) -> bool:
    """Whether somebody holds a lock file."""
    try:
        with lock.open("r+b") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


if __name__ == "__main__":
    main()
