"""One decoder process and the pipes to it: the worker's side. See `workers.decoding`."""

import fcntl
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from db.errors import DecodersUnavailable, RootUnavailable
from workers.decoder import is_read

START_SECONDS = 60.0
SLACK_SECONDS = 2.0
_LENGTH = 4
_LONGEST_HEADER = 2**20
# For glibc (mallopt(3)), in bytes, of a piece (it allows no more) and in all: the memory of one picture is kept for the
# next, instead of being given back and asked for anew, page by empty page: a fifth of all work on 10 megapixels.
MEMORY_KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**27)}
_PIPE_BYTES = 2**18  # room for some small pictures: a decoder need not wait until each is taken
_PROJECT = str(Path(__file__).resolve().parents[1])


class Died(Exception):
    """The decoder is gone: what it says, for people; by which signal."""

    def __init__(self, said: str, by: int = 0) -> None:
        super().__init__(said)
        self.by = by


class TimedOut(Exception):
    """Nothing came before the deadline."""

    def __str__(self) -> str:
        return "said nothing in time"


class Decoder:
    """One decoder process and the pipes to it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._buffer = bytearray()  # of what it said: what is not taken yet
        self._asked = 0  # files
        progress = os.memfd_create("progress")
        os.ftruncate(progress, 1)
        self._progress = mmap.mmap(progress, 1)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "workers.decoder", json.dumps(settings | {"progress": progress})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # codecs print what they see, and that is patients'
                env=_environment(settings),
                bufsize=0,
                pass_fds=[progress],
                start_new_session=True,  # Ctrl-C is for the worker, which then finishes its chunk
            )
        except OSError as error:
            raise DecodersUnavailable(f"no decoder starts: {error.strerror}") from error
        finally:
            os.close(progress)
        pipes = [pipe for pipe in (self._process.stdin, self._process.stdout) if pipe is not None]
        self._pipes = tuple(pipes)
        self._stdin, self._stdout = (pipe.fileno() for pipe in pipes)
        with suppress(OSError):  # more than this user may have: it is only slower
            fcntl.fcntl(self._stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._poll = select.poll()
        self._poll.register(self._stdout, select.POLLIN)
        try:
            self._receive(time.monotonic() + START_SECONDS, 0)
        except (Died, TimedOut) as error:
            self.kill()
            raise DecodersUnavailable(
                f"no decoder starts (it {error}): more memory, or a lower limit of pixels?"
            ) from error

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, order: dict[str, Any], seconds: float, most_bytes: int) -> tuple[dict[str, Any], bytes]:
        """Send an order; its file must be read in `seconds`, and answered for in some twice that: the decoder ends
        itself when it has used up `seconds` of the processor's time."""
        self._send(order)
        return self._answer(order["root"], seconds, most_bytes)

    def ask_many(
        self, order: dict[str, Any], sources: Sequence[Mapping[str, str]], seconds: float, most_bytes: int
    ) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Send one order for some files, and give the answers as they come; each file has its own `seconds`."""
        self._send(order | {"files": list(map(dict, sources))})
        for source in sources:
            yield self._answer(source["root"], seconds, most_bytes)

    def _send(self, order: dict[str, Any]) -> None:
        message = memoryview(_packed(order))
        try:
            while message:
                message = message[os.write(self._stdin, message) :]
        except BrokenPipeError as error:
            raise Died("died idle") from error

    def _answer(self, root: str, seconds: float, most_bytes: int) -> tuple[dict[str, Any], bytes]:
        this, self._asked = self._asked, self._asked + 1
        try:
            return self._receive(time.monotonic() + seconds, most_bytes)
        except TimedOut as error:
            # The decoder notes in shared memory when it has read a file: a message for that costs more than a picture.
            if self._progress[0] != is_read(this):
                raise RootUnavailable(f"root {root} gave no file within {seconds:g} s: check it") from error
        return self._receive(time.monotonic() + 2 * seconds + SLACK_SECONDS, most_bytes)

    def stop(self) -> None:
        """Close its input, which ends it; insist after a second."""
        self._pipes[0].close()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self.kill()
        self._pipes[1].close()

    def kill(self) -> None:
        """End it now. One stuck in the kernel over dead storage is left to end when that answers."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        for pipe in self._pipes:
            pipe.close()

    def _receive(self, deadline: float, most_bytes: int) -> tuple[dict[str, Any], bytes]:
        """The next message; what came of it before TimedOut stays for the next call. Raises Died, too."""
        self._fill(_LENGTH, deadline)
        start = _LENGTH + int.from_bytes(self._buffer[:_LENGTH], "little")
        if start > _LONGEST_HEADER:
            raise Died("spoke out of turn")
        self._fill(start, deadline)
        try:
            head = dict(json.loads(self._buffer[_LENGTH:start]))
            size = int(head.get("bytes", 0))
        except (ValueError, TypeError) as error:
            raise Died("spoke out of turn") from error
        if not 0 <= size <= most_bytes:
            raise Died("answered at too great a length")
        self._fill(start + size, deadline)
        body = bytes(memoryview(self._buffer)[start : start + size])
        del self._buffer[: start + size]
        return head, body

    def _fill(self, size: int, deadline: float) -> None:
        """Read until `size` bytes are there. Raises TimedOut, and Died at the end of the pipe."""
        while len(self._buffer) < size:
            if not self._poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                raise TimedOut
            part = os.read(self._stdout, _PIPE_BYTES)
            if not part:
                raise self._end()
            self._buffer += part

    def _end(self) -> Died:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return Died("fell silent")
        return Died(f"was ended by {signal.Signals(-code).name}", -code) if code < 0 else Died(f"ended with {code}")


def _packed(message: dict[str, Any]) -> bytes:
    text = json.dumps(message).encode()
    return len(text).to_bytes(_LENGTH, "little") + text


def _environment(settings: dict[str, Any]) -> dict[str, str]:
    """What a decoder may know: where to find its code, and no passwords."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
    # A second line behind our own reading of the headers, should OpenCV read one of them differently.
    one["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(settings["limits"]["max_pixels"])
    return kept | one | MEMORY_KEPT | {"PYTHONPATH": _PROJECT, "LC_ALL": "C.UTF-8"}
