"""Reading ahead: while files of a chunk are decoded, the storage is asked for the next ones, bounded in bytes.

Two decoders have two files in flight; network storage is mostly waited for and wants many more. Only where reading
proved slow: on a quick disk asking costs more than it gives. Advice, no more: whatever becomes of the reader process,
no scan fails, and nobody waits for it.
"""

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from workers.decoding import Source

SLOW_SECONDS = 0.002  # waited for a file, on average over MEASURED of a root
MEASURED = 16
IN_A_LINE = 16
_PROJECT = str(Path(__file__).resolve().parents[1])


class ReadAhead:
    """Asks for at most `most_bytes` ahead of the decoders, of roots that proved slow. Thread-safe."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._waited: dict[str, tuple[int, float]] = {}  # by root: files, and seconds waited for them
        self._coming: set[Source] = set()  # wanted, and not read yet
        self._wanted = self._read = 0  # files since the beginning
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def is_slow(self, root: str) -> bool:
        """Whether files of this root had to be waited for."""
        files, seconds = self._waited.get(root, (0, 0.0))
        return files >= MEASURED and seconds > files * SLOW_SECONDS

    def want(self, sources: Iterable[Source]) -> None:
        """These files will be read next, about in this order, and none of those wanted before."""
        slow = [source for source in sources if self._most_bytes and self.is_slow(source.root)]
        with self._lock:
            self._read, self._coming = self._wanted, set(slow)
            self._wanted += len(slow)
            if slow:
                self._tell(_lines(self._read, slow))

    def read(self, source: Source, waited: float) -> None:
        """One of them was, and had to be waited for so many seconds."""
        with self._lock:
            files, seconds = self._waited.get(source.root, (0, 0.0))
            if files < MEASURED:
                self._waited[source.root] = files + 1, seconds + waited
            if source in self._coming:
                self._coming.discard(source)
                self._read += 1
                self._tell([_line("read", self._read)])

    def close(self) -> None:
        """End the reader, and wait for nothing."""
        with self._lock:
            self._end()

    def _tell(self, lines: Iterable[bytes]) -> None:
        """Each line a pipe takes whole or not at all; a reader that does not listen is left alone."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
        if self._process is None or self._process.stdin is None:
            return
        with suppress(BlockingIOError, BrokenPipeError):
            for line in lines:
                os.write(self._process.stdin.fileno(), line)

    def _start(self) -> "subprocess.Popen[bytes] | None":
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "workers.reader", str(self._most_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": _PROJECT, "LC_ALL": "C.UTF-8"},
                bufsize=0,
                start_new_session=True,
            )
        except OSError:
            return None
        assert process.stdin is not None  # noqa: S101 (for the type checker: it was opened as a pipe)
        os.set_blocking(process.stdin.fileno(), False)
        return process

    def _end(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.kill()
        self._process = None


def _lines(first: int, sources: Sequence[Source]) -> Iterator[bytes]:
    """What is wanted, numbered from `first`, in lines of at most PIPE_BUF bytes; a name that needs more is left out."""
    for start in range(0, len(sources), IN_A_LINE):
        part = [[source.root, source.path] for source in sources[start : start + IN_A_LINE]]
        line = _line("want", first + start, part)
        if len(line) <= select.PIPE_BUF:
            yield line
        else:
            singly = (_line("want", first + start + at, [one]) for at, one in enumerate(part))
            yield from (line for line in singly if len(line) <= select.PIPE_BUF)


def _line(*message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"
