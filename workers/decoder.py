"""The decoder process: reads, decodes and prepares one file at a time under hard limits. See `workers.decoding`.

Its settings are one JSON argument; orders come on standard input until that ends. Imports no TensorFlow and no
database.
"""

import hashlib
import json
import mmap
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from db.errors import RootUnavailable, UnreadableImage
from db.files import open_beneath
from db.words import Reason
from workers import reduced
from workers.background import settle
from workers.images import Image, Limits, as_png, read, review, to_grey8
from workers.preprocessing import Border, Evidence, Pixels, prepare

_BLOCK = 2**20
# Room for the pipes, one file, a folder on the way to it, and what the codecs load.
_OPEN_FILES = 64
# The worker ends a slow decoder in time; this one is for decoders whose worker is gone.
_GRACE_SECONDS = 10.0


def main() -> None:
    """Serve until standard input ends."""
    settings = json.loads(sys.argv[1])
    settle()
    limits = Limits(**settings["limits"])
    _confine(settings["memory_bytes"], limits)
    inbox, outbox = sys.stdin.buffer, _private_output()
    progress = mmap.mmap(settings["progress"], 1)
    number = 0
    _send(outbox, {"ready": True})
    while length := inbox.read(4):
        order = json.loads(inbox.read(int.from_bytes(length, "little")))
        for file in order.pop("files", [{}]):
            signal.setitimer(signal.ITIMER_REAL, 3 * settings["seconds"] + _GRACE_SECONDS)
            signal.setitimer(signal.ITIMER_PROF, settings["seconds"])  # its signal ends the process; the worker knows
            _send(outbox, *_answer(order | file, limits, progress, number))
            number += 1
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)


def _confine(memory_bytes: int, limits: Limits) -> None:
    cv2.setNumThreads(1)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold patients' pictures
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it has nothing to write to disk
    # Too little memory for the largest picture allowed is a wrong setting: fail now, before good scans are refused.
    np.empty(4 * limits.max_pixels, np.uint8)  # reserved, not touched
    # When a whole service is told to stop, its worker still finishes a chunk: the end of input is what ends us.
    for stop in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)


def _private_output() -> int:
    """Keep the answers' pipe for ourselves: a codec that prints must not speak in our name."""
    outbox = os.dup(1)
    os.dup2(2, 1)
    return outbox


def _send(outbox: int, head: dict[str, Any], body: bytes = b"") -> None:
    text = json.dumps(head | {"bytes": len(body)}).encode()
    message = memoryview(len(text).to_bytes(4, "little") + text + body)
    while message:
        message = message[os.write(outbox, message) :]


def _answer(order: dict[str, Any], limits: Limits, progress: mmap.mmap, number: int) -> tuple[dict[str, Any], bytes]:
    try:
        data, waited = _fetch(order, limits)
        progress[0] = is_read(number)
        told, body = _decode(order, data, limits)
        return told | {"waited": waited}, body
    except UnreadableImage as error:
        return {"code": error.code, "detail": error.detail}, b""
    except RootUnavailable as error:
        return {"root": str(error)}, b""
    except MemoryError:
        return {"code": Reason.TOO_LARGE, "detail": "decoding it needs more memory than a decoder may have"}, b""
    except Exception as error:  # noqa: BLE001 - foreign bytes through foreign code: anything may come; quote no value
        return {"code": Reason.UNREADABLE, "detail": f"{type(error).__name__} while decoding"}, b""


def is_read(number: int) -> int:
    """What a decoder notes in shared memory, one byte, when it has read the file of that number, counted from 0."""
    return number % 251 + 1


def _fetch(order: dict[str, Any], limits: Limits) -> tuple[bytes, float]:
    """The very bytes that are hashed are the ones decoded; and how many seconds the storage was waited for."""
    root, started = Path(order["root"]), time.perf_counter() - time.thread_time()
    file = open_beneath(root, order["path"])
    try:
        data = _all_bytes(file, limits.max_bytes)
        waited = time.perf_counter() - time.thread_time() - started
    except OSError as error:
        _require_answer(root)
        raise UnreadableImage(Reason.UNREADABLE, f"reading it fails: {error.strerror}") from error
    finally:
        os.close(file)
    if order["sha256"] and hashlib.sha256(data).hexdigest() != order["sha256"]:
        raise UnreadableImage(Reason.CHANGED_SINCE_SUBMISSION, "its content hashes to something else now")
    return data, waited


def _all_bytes(file: int, max_bytes: int) -> bytes:
    """In one piece, which need not be put together; of a file that grows, or storage that gives less, in several."""
    blocks: list[bytes] = []
    left = max_bytes + 1
    at_once = max(_BLOCK, os.fstat(file).st_size)
    while left and (block := os.read(file, min(at_once, left))):
        at_once = _BLOCK
        blocks.append(block)
        left -= len(block)
    if not left:
        raise UnreadableImage(Reason.TOO_LARGE, f"more than {max_bytes:,} bytes")
    return b"".join(blocks)


def _require_answer(root: Path) -> None:
    """Tell a bad file from storage that is gone: list the root."""
    try:
        with os.scandir(root) as listing:
            next(listing, None)
    except OSError as error:
        raise RootUnavailable(f"root {root} fails ({error.strerror}): repair it, then resume") from error


def _decode(order: dict[str, Any], data: bytes, limits: Limits) -> tuple[dict[str, Any], bytes]:
    started = time.perf_counter()
    if order["do"] == "verify":
        return {}, b""
    if order["do"] == "review_copy":
        return {}, as_png(review(data, limits))
    image, pixels, evidence = _prepared(order, data, limits)
    display = image.display.as_json() if image.display else None
    told = {"evidence": vars(evidence) | {"display": display}, "seconds": time.perf_counter() - started}
    return told, pixels.tobytes()


def _prepared(order: dict[str, Any], data: bytes, limits: Limits) -> tuple[Image, Pixels, Evidence]:
    """A file reduced, where that is asked for and comes out well; else whole, which also says what is refused."""
    size, border, mode = order["size"], Border(**order["border"]), order["mode"]
    if order.get("reduce"):
        with suppress(Exception):  # the whole picture tells
            return reduced.prepare(data, limits, size, tuple(order["reduce"]), border, mode)
    image = read(data, limits)
    return image, *prepare(to_grey8(image), size, border, mode)


if __name__ == "__main__":
    main()
