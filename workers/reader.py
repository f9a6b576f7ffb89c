"""The reader process: asks the storage for files before decoders want them. See `workers.read_ahead`.

Lines on standard input: `["want", n, [[root, path], ...]]`: these will be read, in this order, and are numbered from n
on; `["read", n]`: so many were, from the beginning. Nothing is answered, and a line may be lost. It is a process of its
own, because a thread that waits for storage that died keeps its process from ending.
"""

import json
import os
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

from db.errors import RootUnavailable, UnreadableImage
from db.files import open_beneath
from workers.background import settle

# Small files on network storage are mostly waited for: this many at a time. What is asked for in one go the kernel cuts
# to the read-ahead of the device (readahead(2)), so it is asked in steps.
THREADS, STEP_BYTES = 16, 2**17


class Ahead:
    """What was asked for and not read yet, at most some `most_bytes` of it (or one file). Thread-safe."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._wanted: deque[tuple[int, str, str]] = deque()
        self._sizes: dict[int, int] = {}  # by number, of what was asked for
        self._read = 0
        self._changed = threading.Condition()

    def want(self, first: int, files: list[tuple[str, str]]) -> None:
        """Note files, root and path, numbered from `first` on, that will be read after those noted before."""
        with self._changed:
            self._wanted.extend((first + at, root, path) for at, (root, path) in enumerate(files))
            self._changed.notify_all()

    def read(self, count: int) -> None:
        """So many were read: there is room again, and what is overtaken need not be asked for."""
        with self._changed:
            self._read = count
            self._sizes = {number: size for number, size in self._sizes.items() if number >= count}
            while self._wanted and self._wanted[0][0] < count:
                self._wanted.popleft()
            self._changed.notify_all()

    def next(self) -> tuple[int, str, str]:
        """The next file to ask for, once there is room."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted and self.has_room())
            number, root, path = self._wanted.popleft()
            self._sizes[number] = 0
            return number, root, path

    def has_room(self) -> bool:
        """Whether less than the bound is asked for and not read."""
        return sum(self._sizes.values()) < self._most_bytes

    def asked(self, number: int, size: int) -> bool:
        """Note a file's size before it is asked for; False where it was read meanwhile."""
        with self._changed:
            if number < self._read:
                return False
            self._sizes[number] = size
            return True


def main() -> None:
    """Serve until standard input ends."""
    settle()
    ahead = Ahead(int(sys.argv[1]))
    for _ in range(THREADS):
        threading.Thread(target=_ask, args=(ahead,), daemon=True).start()
    for line in sys.stdin.buffer:
        what, number, *files = json.loads(line)
        ahead.want(number, files[0]) if what == "want" else ahead.read(number)
    os._exit(0)  # threads may wait for storage


def _ask(ahead: Ahead) -> None:
    while True:
        number, root, path = ahead.next()
        with suppress(OSError, UnreadableImage, RootUnavailable):  # a decoder will say so
            file = open_beneath(Path(root), path)
            try:
                size = os.fstat(file).st_size
                if ahead.asked(number, size):
                    for start in range(0, size, STEP_BYTES):
                        os.posix_fadvise(file, start, STEP_BYTES, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(file)


if __name__ == "__main__":
    main()
