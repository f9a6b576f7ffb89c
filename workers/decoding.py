"""A pool of small, resource-limited processes that read and prepare foreign files: a bomb or a crash costs one file.

The worker's side. A decoder is `python -m workers.decoder`; the two talk over the decoder's standard input and
output in messages of a 4-byte length, JSON, and raw bytes. A decoder ends when its input does, so none outlives its
worker (a death signal would be tied to the thread that started it, and threads come and go here).
"""

import hashlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from db.errors import DecodersUnavailable, RootUnavailable, UnreadableImage
from db.words import Reason
from workers.images import Limits
from workers.images.display import checked
from workers.preprocessing import DEFAULT_BORDER, Border, Box, Evidence, Mode, Pixels

START_SECONDS = 60.0
# How often a file may cost a decoder before it is called unreadable. A codec that crashes does so again; what is killed
# from outside (an operator, the kernel short of memory) is not the file's fault, unless it happens again and again.
CRASHED, KILLED, STALLED = 2, 5, 2
SLACK_SECONDS = 2.0
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LENGTH = 4
_LONGEST_HEADER = 2**20
_PROJECT = str(Path(__file__).resolve().parents[1])


@dataclass(frozen=True)
class Source:
    """A submitted file: path below root (surrogate escapes allowed), and what it hashed to; "" is not compared."""

    root: str
    path: str
    sha256: str = ""


@dataclass(frozen=True)
class Prepared:
    """What a decoder hands back: the model's input, what was cut, and the seconds it took there."""

    pixels: Pixels
    evidence: Evidence
    seconds: float

    @cached_property
    def pixels_sha256(self) -> str:
        """SHA-256 of the model's input, in hex: scores of the same pixels need not be computed twice."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()


class _Died(Exception):
    """The decoder is gone: what it says, for people; by which signal."""

    def __init__(self, said: str, by: int = 0) -> None:
        super().__init__(said)
        self.by = by


class _TimedOut(Exception):
    """Nothing came before the deadline."""

    def __str__(self) -> str:
        return "said nothing in time"


class DecoderPool:
    """`count` decoders, started when first needed and again when they die. Thread-safe: one caller, one decoder.

    `limits` are the pictures' (checked before decoding); each decoder gets `memory_bytes` of address space, and each
    file `seconds` to be read, and as many of the processor's time to be decoded (a busy machine blames no file).
    """

    def __init__(self, count: int, limits: Limits, *, memory_bytes: int, seconds: float) -> None:
        self.count = count
        self.limits = limits
        self._seconds = seconds
        self._settings = {"limits": asdict(limits), "memory_bytes": memory_bytes, "seconds": seconds}
        # Last in, first out: a pool that is larger than the need starts no more processes than needed.
        self._idle: queue.LifoQueue[_Decoder | None] = queue.LifoQueue()
        for _ in range(count):
            self._idle.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the decoders that are idle; one at work ends with its input."""
        for _ in range(self._idle.qsize()):
            decoder = self._idle.get()
            if decoder is not None:
                decoder.stop()
            self._idle.put(None)

    def prepare(self, source: Source, size: int, *, border: Border = DEFAULT_BORDER, mode: Mode = "exact") -> Prepared:
        """Read, compare the hash, decode and preprocess one file to size x size.

        Raises UnreadableImage with every code of reading and preprocessing, `changed_since_submission`, and
        `unreadable` where a decoder crashed twice over the file or ran out of time; RootUnavailable where the root
        does not answer; DecodersUnavailable where no decoder starts.
        """
        head, body = self._ask({"do": "prepare", "size": size, "border": asdict(border), "mode": mode}, source)
        pixels = np.frombuffer(body, np.uint8).reshape(size, size)
        return Prepared(pixels, evidence_of(head["evidence"]), float(head["seconds"]))

    def review_copy(self, source: Source) -> bytes:
        """The picture's own samples (`images.review`) as `images.as_png` keeps them. Raises as `prepare` does."""
        return self._ask({"do": "review_copy"}, source)[1]

    def verify(self, source: Source) -> None:
        """Read one file and compare its hash, no more. Raises as `prepare` does where that fails."""
        self._ask({"do": "verify"}, source)

    def _ask(self, order: dict[str, Any], source: Source) -> tuple[dict[str, Any], bytes]:
        order |= asdict(source)
        head, body = self._answer(order)
        if "root" in head:
            raise RootUnavailable(head["root"])
        if "code" in head:
            raise UnreadableImage(Reason(head["code"]), head["detail"])
        return head, body

    def _answer(self, order: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Ask decoders until one answers, or the file, or the machine, is to blame for that none does."""
        died = stalled = 0
        while True:
            try:
                with self._borrowed() as decoder:
                    return decoder.ask(order, self._seconds, _most_bytes(order, self.limits))
            except _Died as error:
                if error.by == signal.SIGPROF:
                    raise UnreadableImage(Reason.UNREADABLE, f"not decoded within {self._seconds:g} s") from error
                died += 1
                if died >= (KILLED if error.by in _FROM_OUTSIDE else CRASHED):
                    raise UnreadableImage(Reason.UNREADABLE, f"its decoder {error}, {died} times") from error
            except _TimedOut as error:
                stalled += 1
                if stalled == STALLED:
                    raise DecodersUnavailable("decoders get no processor time: fewer, or a quieter machine?") from error

    @contextmanager
    def _borrowed(self) -> Iterator["_Decoder"]:
        """An idle decoder, started if need be; one that fails is ended, and its place stays."""
        decoder = self._idle.get()
        kept = None
        try:
            if decoder is None or not decoder.is_alive():
                decoder = _Decoder(self._settings)
            yield decoder
            kept = decoder
        finally:
            if kept is None and decoder is not None:
                decoder.kill()
            self._idle.put(kept)


def evidence_of(said: dict[str, Any]) -> Evidence:
    """What was cut, as a decoder says; how to show the copy only where that is in bounds."""
    return Evidence(**{**said, "crop": Box(*said["crop"]), "display": checked(said.get("display"))})


def _most_bytes(order: dict[str, Any], limits: Limits) -> int:
    """No honest answer is longer: a decoder that a hostile file has taken over must not fill the worker's memory."""
    return int(order["size"]) ** 2 if "size" in order else 3 * limits.max_pixels + 2**20


class _Decoder:
    """One decoder process and the pipes to it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "workers.decoder", json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # codecs print what they see, and that is patients'
                env=_environment(settings),
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for the worker, which then finishes its chunk
            )
        except OSError as error:
            raise DecodersUnavailable(f"no decoder starts: {error.strerror}") from error
        pipes = [pipe for pipe in (self._process.stdin, self._process.stdout) if pipe is not None]
        self._pipes = tuple(pipes)
        self._stdin, self._stdout = (pipe.fileno() for pipe in pipes)
        try:
            self._receive(time.monotonic() + START_SECONDS, 0)
        except (_Died, _TimedOut) as error:
            self.kill()
            raise DecodersUnavailable(
                f"no decoder starts (it {error}): more memory, or a lower limit of pixels?"
            ) from error

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, order: dict[str, Any], seconds: float, most_bytes: int) -> tuple[dict[str, Any], bytes]:
        """Send an order; its file must be read in `seconds`, and answered for in some twice that: the decoder ends
        itself when it has used up `seconds` of the processor's time."""
        try:
            os.write(self._stdin, _packed(order))
        except BrokenPipeError as error:
            raise _Died("died idle") from error
        try:
            head, body = self._receive(time.monotonic() + seconds, 0)
        except _TimedOut as error:
            raise RootUnavailable(f"root {order['root']} gave no file within {seconds:g} s: check it") from error
        if "read" in head:
            head, body = self._receive(time.monotonic() + 2 * seconds + SLACK_SECONDS, most_bytes)
        return head, body

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
        length = int.from_bytes(self._exactly(_LENGTH, deadline), "little")
        if length > _LONGEST_HEADER:
            raise _Died("spoke out of turn")
        try:
            head = dict(json.loads(self._exactly(length, deadline)))
            size = int(head.get("bytes", 0))
        except (ValueError, TypeError) as error:
            raise _Died("spoke out of turn") from error
        if size > most_bytes:
            raise _Died("answered at too great a length")
        return head, self._exactly(size, deadline)

    def _exactly(self, size: int, deadline: float) -> bytes:
        """Read `size` bytes. Raises _TimedOut, and _Died at the end of the pipe."""
        parts: list[bytes] = []
        poll = select.poll()
        poll.register(self._stdout, select.POLLIN)
        while size:
            if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                raise _TimedOut
            part = os.read(self._stdout, min(size, 2**20))
            if not part:
                raise self._end()
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _end(self) -> _Died:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return _Died("fell silent")
        return _Died(f"was ended by {signal.Signals(-code).name}", -code) if code < 0 else _Died(f"ended with {code}")


def _packed(message: dict[str, Any]) -> bytes:
    text = json.dumps(message).encode()
    return len(text).to_bytes(_LENGTH, "little") + text


def _environment(settings: dict[str, Any]) -> dict[str, str]:
    """What a decoder may know: where to find its code, and no passwords."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
    # A second line behind our own reading of the headers, should OpenCV read one of them differently.
    one["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(settings["limits"]["max_pixels"])
    return kept | one | {"PYTHONPATH": _PROJECT, "LC_ALL": "C.UTF-8"}
