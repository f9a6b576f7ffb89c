"""A pool of small, resource-limited processes that read and prepare foreign files: a bomb or a crash costs one file.

The worker's side. A decoder is `python -m workers.decoder`; the two talk over the decoder's standard input and
output in messages of a 4-byte length, JSON, and raw bytes. A decoder ends when its input does, so none outlives its
worker (a death signal would be tied to the thread that started it, and threads come and go here).
"""

import hashlib
import queue
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import numpy as np

from db.errors import DecodersUnavailable, RootUnavailable, UnreadableImage
from db.words import Reason
from workers.decoder_link import Decoder, Died, TimedOut
from workers.images import Limits
from workers.images.display import checked
from workers.preprocessing import DEFAULT_BORDER, Border, Box, Evidence, Mode, Pixels

# How often a file may cost a decoder before it is called unreadable. A codec that crashes does so again; what is killed
# from outside (an operator, the kernel short of memory) is not the file's fault, unless it happens again and again.
CRASHED, KILLED, STALLED = 2, 5, 2
# Beyond that a file costs so much more than asking for it that a decoder is better free after each one, for whoever
# waits for a review copy.
QUICK_SECONDS = 0.03
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Source:
    """A submitted file: path below root (surrogate escapes allowed), and what it hashed to; "" is not compared."""

    root: str
    path: str
    sha256: str = ""


@dataclass(frozen=True)
class Prepared:
    """What a decoder hands back: the model's input, what was cut, and the seconds it took there; besides, those for
    which the storage was `waited` for."""

    pixels: Pixels
    evidence: Evidence
    seconds: float
    waited: float = 0.0

    @cached_property
    def pixels_sha256(self) -> str:
        """SHA-256 of the model's input, in hex: scores of the same pixels need not be computed twice."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()


class DecoderPool:
    """`count` decoders, started when first needed and again when they die. Thread-safe: one caller, one decoder.

    `limits` are the pictures' (checked before decoding); each decoder gets `memory_bytes` of address space, and each
    file `seconds` to be read, and as many of the processor's time to be decoded (a busy machine blames no file).
    """

    def __init__(self, count: int, limits: Limits, *, memory_bytes: int, seconds: float) -> None:
        self.count = count
        self.limits = limits
        self._seconds = seconds
        self._usual_seconds = 0.0  # of a file: the newest count most
        self._settings = {"limits": asdict(limits), "memory_bytes": memory_bytes, "seconds": seconds}
        # Last in, first out: a pool that is larger than the need starts no more processes than needed.
        self._idle: queue.LifoQueue[Decoder | None] = queue.LifoQueue()
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

    def prepare(
        self,
        source: Source,
        size: int,
        *,
        border: Border = DEFAULT_BORDER,
        mode: Mode = "exact",
        reduce: tuple[str, ...] = (),
    ) -> Prepared:
        """Read, compare the hash, decode and preprocess one file to size x size.

        Raises UnreadableImage with every code of reading and preprocessing, `changed_since_submission`, and
        `unreadable` where a decoder crashed twice over the file or ran out of time; RootUnavailable where the root
        does not answer; DecodersUnavailable where no decoder starts.
        """
        answer = _prepared(self._answer(_order(size, border, mode, reduce) | asdict(source)), size)
        if isinstance(answer, UnreadableImage):
            raise answer
        return answer

    def prepare_many(
        self,
        sources: Sequence[Source],
        size: int,
        *,
        border: Border = DEFAULT_BORDER,
        mode: Mode = "exact",
        reduce: tuple[str, ...] = (),
    ) -> Iterator[Prepared | UnreadableImage]:
        """As `prepare`, some files: an answer for each in turn, as it comes, or what made it unreadable. Where files
        have been quick they go to one decoder in one order; one that costs the decoder costs no other: it and those
        after it are asked for one by one. Raises RootUnavailable, DecodersUnavailable."""
        order, files = _order(size, border, mode, reduce), [asdict(source) for source in sources]
        answered = 0
        if len(files) > 1 and self._usual_seconds < QUICK_SECONDS:
            with suppress(Died, TimedOut), self._borrowed() as decoder:
                for answer in decoder.ask_many(order, files, self._seconds, _most_bytes(order, self.limits)):
                    answered += 1
                    if answered < len(files):
                        yield self._noted(_prepared(answer, size))
        if 0 < answered == len(files):  # the decoder is free again: whoever takes the last answer may ask no further
            yield self._noted(_prepared(answer, size))
        for file in files[answered:]:
            try:
                yield self._noted(_prepared(self._answer(order | file), size))
            except UnreadableImage as error:  # it cost decoders
                yield error

    def _noted(self, answer: Prepared | UnreadableImage) -> Prepared | UnreadableImage:
        """Learn how long files take just now."""
        if isinstance(answer, Prepared):
            self._usual_seconds += (answer.seconds - self._usual_seconds) / 8
        return answer

    def review_copy(self, source: Source) -> bytes:
        """The picture's own samples (`images.review`) as `images.as_png` keeps them. Raises as `prepare` does."""
        return self._ask({"do": "review_copy"}, source)[1]

    def verify(self, source: Source) -> None:
        """Read one file and compare its hash, no more. Raises as `prepare` does where that fails."""
        self._ask({"do": "verify"}, source)

    def _ask(self, order: dict[str, Any], source: Source) -> tuple[dict[str, Any], bytes]:
        head, body = self._answer(order | asdict(source))
        _refuse(head)
        return head, body

    def _answer(self, order: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Ask decoders until one answers, or the file, or the machine, is to blame for that none does."""
        died = stalled = 0
        while True:
            try:
                with self._borrowed() as decoder:
                    return decoder.ask(order, self._seconds, _most_bytes(order, self.limits))
            except Died as error:
                if error.by == signal.SIGPROF:
                    raise UnreadableImage(Reason.UNREADABLE, f"not decoded within {self._seconds:g} s") from error
                died += 1
                if died >= (KILLED if error.by in _FROM_OUTSIDE else CRASHED):
                    raise UnreadableImage(Reason.UNREADABLE, f"its decoder {error}, {died} times") from error
            except TimedOut as error:
                stalled += 1
                if stalled == STALLED:
                    raise DecodersUnavailable("decoders get no processor time: fewer, or a quieter machine?") from error

    @contextmanager
    def _borrowed(self) -> Iterator[Decoder]:
        """An idle decoder, started if need be; one that fails is ended, and its place stays."""
        decoder = self._idle.get()
        kept = None
        try:
            if decoder is None or not decoder.is_alive():
                decoder = Decoder(self._settings)
            yield decoder
            kept = decoder
        finally:
            if kept is None and decoder is not None:
                decoder.kill()
            self._idle.put(kept)


def _order(size: int, border: Border, mode: Mode, reduce: tuple[str, ...]) -> dict[str, Any]:
    return {"do": "prepare", "size": size, "border": asdict(border), "mode": mode, "reduce": reduce}


def _refuse(head: dict[str, Any]) -> None:
    if "root" in head:
        raise RootUnavailable(head["root"])
    if "code" in head:
        raise UnreadableImage(Reason(head["code"]), head["detail"])


def _prepared(answer: tuple[dict[str, Any], bytes], size: int) -> Prepared | UnreadableImage:
    head, body = answer
    try:
        _refuse(head)
    except UnreadableImage as error:
        return error
    pixels = np.frombuffer(body, np.uint8).reshape(size, size)
    return Prepared(pixels, evidence_of(head["evidence"]), float(head["seconds"]), float(head["waited"]))


def evidence_of(said: dict[str, Any]) -> Evidence:
    """What was cut, as a decoder says; how to show the copy only where that is in bounds."""
    return Evidence(**{**said, "crop": Box(*said["crop"]), "display": checked(said.get("display"))})


def _most_bytes(order: dict[str, Any], limits: Limits) -> int:
    """No honest answer is longer: a decoder that a hostile file has taken over must not fill the worker's memory."""
    return int(order["size"]) ** 2 if "size" in order else 3 * limits.max_pixels + 2**20
