"""What this machine gives, measured as a worker works and in a process of its own, because it loads the engine:
`python -m workers.measuring`, an order as JSON on standard input, what was seen as JSON on standard output.

Engine alone, preparation alone, both as in a night, and reading follow each other in rounds, so that whatever disturbs
the machine for a while disturbs all of them. The database is a fresh one in the folder that the order names, the
pictures of flagged scans are written there, too: the queue's own is not touched."""

import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from db import migrate
from db.errors import NightreadError, Refused, RootUnavailable
from db.settings import settings
from db.store import models
from db.store.connection import connect
from db.store.scoring import Rejected, WaitingScan
from workers import background, model_folders, tasks
from workers.decoding import Prepared
from workers.preparing import prepare_scan
from workers.reading_speed import Reading, read_for
from workers.shift import Loaded, Shift, decoder_pool, threads
from workers.two_stage import TwoStage

ROUNDS = 5
LEAST_ROUNDS = 3  # a median of fewer tells nothing of the spread
# How the time is shared out; what a night is made of gets most of it.
SHARES = {"engine": 0.25, "preparation": 0.3, "together": 0.35, "reading": 0.1}
KEPT = 256  # prepared scans that the engine alone is measured on
PROBED = 8  # scans by which a sample is judged
BY = "nightread plan"


class Bench:
    """A worker's shift with the scans of a sample, gone through again and again."""

    def __init__(self, hand: Shift, loaded: Loaded, scans: Sequence[WaitingScan]) -> None:
        self.hand, self.loaded = hand, loaded
        self.rejected: Counter[str] = Counter()
        self.looked = 0
        self._scans = scans
        self._endless = cycle(scans)
        self._kept: list[Prepared] = []

    def engine(self, count: int) -> int:
        """Score `count` prepared scans, more or less: whole calls of the engine."""
        size = self.hand.batch_size
        calls = max(1, round(count / size))
        given = islice(cycle([one.pixels for one in self._kept]), calls * size)
        pixels = np.stack(list(given))
        for start in range(0, len(pixels), size):
            tasks.predict(self.hand, self.loaded, pixels[start : start + size])
        return len(pixels)

    def preparation(self, count: int) -> int:
        """Prepare `count` scans in the decoder processes."""
        self._prepare(max(count, 2 * self.hand.decoders.count))
        return max(count, 2 * self.hand.decoders.count)

    def together(self, count: int) -> Iterator[int]:
        """Score about `count` scans from their files as in a night, chunk by chunk with the next one prepared ahead:
        yields once the first chunk is ready, and how many were scored at the end. As many are prepared in between."""
        size = min(max(count // 2, 2 * self.hand.decoders.count), self.hand.config.chunk_size)
        with ThreadPoolExecutor(1, "ahead") as ahead, ThreadPoolExecutor(self.hand.decoders.count, "keep") as keepers:
            ready = self._prepare(size)
            yield 0
            chunks = max(1, round(count / size))
            for _ in range(chunks):
                upcoming = ahead.submit(self._prepare, size)
                self._score(ready, keepers)
                ready = upcoming.result()
        yield chunks * size

    def flagged(self) -> tuple[int, int]:
        """How many of the kept scans the model flags, of how many."""
        pixels = np.stack([one.pixels for one in self._kept])
        found = tasks.predict(self.hand, self.loaded, pixels)
        return sum(one.is_chest and one.score >= self.loaded.view.threshold for one in found), len(found)

    def files(self) -> list[WaitingScan]:
        """The sample's scans, each once."""
        return list(self._scans)

    def _prepare(self, count: int) -> list[tuple[WaitingScan, Prepared]]:
        scans = [replace(scan, key=secrets.token_hex(16)) for scan in islice(self._endless, count)]
        with ThreadPoolExecutor(self.hand.decoders.count, "decode") as pool:
            found = list(pool.map(lambda scan: prepare_scan(self.hand, self.loaded, scan), scans))
        self.looked += count
        self.rejected.update(one.reason for one in found if isinstance(one, Rejected))
        ready = [(scan, one) for scan, one in zip(scans, found, strict=True) if not isinstance(one, Rejected)]
        self._kept += [one for _, one in ready[: KEPT - len(self._kept)]]
        return ready

    def _score(self, ready: Sequence[tuple[WaitingScan, Prepared]], keepers: ThreadPoolExecutor) -> None:
        size = self.hand.batch_size
        slices = [ready[start : start + size] for start in range(0, len(ready), size)]
        written = [one for part in slices for one in tasks.score_slice(self.hand, self.loaded, part, keepers)]
        for future in written:
            future.result()


def main() -> None:
    """Measure what the order on standard input says."""
    order = json.load(sys.stdin)
    background.give_way()
    try:
        said = measure(order)
    except NightreadError as error:
        said = {"error": str(error), "exit_code": int(error.exit_code)}
    except ModuleNotFoundError as error:
        said = {"missing": error.name}
    print(json.dumps(said))


def measure(order: dict[str, Any]) -> dict[str, Any]:
    """Measure for about `seconds`: `device`, `model` (its folder), `threshold` (None: the recommended one), `home` (an
    empty folder) and `samples`, the first of which that can be read is used. Raises what a worker would."""
    started = time.monotonic()
    hand, loaded = _ready(order)
    try:
        sample, scans, passed_over = _choose(hand, loaded, order["samples"])
        bench = Bench(hand, loaded, scans)
        spent = time.monotonic() - started  # to load the engine, at most half of the time
        seen = _in_rounds(bench, order["seconds"] - min(spent, order["seconds"] / 2))
        flagged, of = bench.flagged()
        return {
            **_described(hand, loaded),
            **seen,
            "sample": sample,
            "passed_over": passed_over,
            "files": len(scans),
            "looked": bench.looked,
            "rejected": dict(bench.rejected),
            "flagged": flagged,
            "flagged_of": of,
            "memory_bytes": _memory(hand),
        }
    finally:
        hand.decoders.close()


def _ready(order: dict[str, Any]) -> tuple[Shift, Loaded]:
    """A shift as a worker has it on this device, in a home folder of its own, with the model loaded and proved."""
    config = settings().model_copy(update={"home": Path(order["home"]), "database_url": ""})
    cv2.setNumThreads(1)
    db = connect(config)
    migrate.upgrade(db)
    given = model_folders.registration(Path(order["model"]))
    if order["threshold"] is not None:
        given = replace(given, threshold=order["threshold"])
    hand = Shift(config, db, order["device"], decoder_pool(config))
    return hand, hand.model(models.register(db, given, by=BY))


def _choose(
    hand: Shift, loaded: Loaded, samples: Sequence[dict[str, Any]]
) -> tuple[str, list[WaitingScan], list[dict[str, str]]]:
    """The first sample of which a picture can be prepared; why each before it was passed over."""
    passed_over: list[dict[str, str]] = []
    for sample in samples:
        scans = [WaitingScan(number, secrets.token_hex(16), **scan) for number, scan in enumerate(sample["scans"])]
        scans, why = _within_reach(hand, loaded, scans)
        if scans:
            return sample["name"], scans, passed_over
        passed_over.append({"sample": sample["name"], "why": why})
    raise Refused("; ".join(f"{one['sample']}: {one['why']}" for one in passed_over))


def _within_reach(hand: Shift, loaded: Loaded, scans: list[WaitingScan]) -> tuple[list[WaitingScan], str]:
    """The scans whose root answers, where at least one of the first can be prepared; else none, and why."""
    seen: Counter[str] = Counter()
    away: set[str] = set()
    for scan in scans:
        if sum(seen.values()) >= PROBED or scan.root in away:
            continue
        try:
            found = prepare_scan(hand, loaded, scan)
            seen["" if not isinstance(found, Rejected) else found.reason] += 1
        except RootUnavailable:
            away.add(scan.root)
    if not seen[""]:
        told = [f"{count} {reason}" for reason, count in seen.most_common() if reason]
        told += ["its folder does not answer"] if away else []
        return [], f"no picture could be prepared ({', '.join(told) or 'no file'})"
    return [scan for scan in scans if scan.root not in away], ""


def _in_rounds(bench: Bench, seconds: float) -> dict[str, Any]:
    """What each round gave: scans a second, bytes a second for reading; and the mean size of the files read."""
    budget = {name: share * seconds / ROUNDS for name, share in SHARES.items()}
    # The first of each starts decoders and fills caches; it only says how many scans the next may take.
    rates = {"preparation": _timed(bench.preparation, 1), "engine": _timed(bench.engine, 1)}
    rates = {name: _timed(getattr(bench, name), 1) for name in rates}
    rates["together"] = 1 / sum(1 / rate for rate in rates.values())
    seen: dict[str, list[float]] = {name: [] for name in SHARES}
    read: list[Reading] = []
    until = time.monotonic() + seconds
    for number in range(ROUNDS):
        if number >= LEAST_ROUNDS and time.monotonic() > until:
            break
        for name in ("engine", "preparation"):
            seen[name].append(_timed(getattr(bench, name), round(rates[name] * budget[name])))
        seen["together"].append(_steady(bench.together(round(rates["together"] * budget["together"]))))
        read.append(read_for(budget["reading"], bench.files(), at_once=bench.hand.decoders.count))
        rates |= {name: seen[name][-1] for name in rates}
    seen["reading"] = [one.bytes / one.seconds for one in read]
    files = sum(one.files for one in read)
    return {**seen, "mean_bytes": sum(one.bytes for one in read) / files if files else 0.0}


def _timed(do: Callable[[int], int], count: int) -> float:
    """Scans a second of a step that says how many it did."""
    started = time.perf_counter()
    done = do(count)
    return done / (time.perf_counter() - started)


def _steady(steps: Iterator[int]) -> float:
    """Scans a second between the first step, which has things going, and the last."""
    next(steps)
    started = time.perf_counter()
    done = next(steps)
    seconds = time.perf_counter() - started
    return done / seconds


def _described(hand: Shift, loaded: Loaded) -> dict[str, Any]:
    """What was measured: engine, precision, and what they had of this machine."""
    told = loaded.scorer.describe()
    precision = "two_stage" if isinstance(loaded.scorer, TwoStage) else told["precision"]
    return {
        "model": loaded.view.label,
        "engine_name": told["engine"],
        "precision": precision,
        "device": hand.device,
        "threads": threads(hand.config),
        "decoders": hand.decoders.count,
        "chunk_size": hand.config.chunk_size,
        "engine_batch": hand.batch_size,
    }


def _memory(hand: Shift) -> int:
    """Bytes that this process and its decoders held at their fullest."""
    children = Path("/proc/self/task").glob("*/children")
    numbers = ["self", *(number for file in children for number in file.read_text().split())]
    return sum(map(_peak, numbers))


def _peak(number: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{number}/status").read_text("utf-8", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
