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
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from db import migrate
from db.errors import NightreadError, Refused, RootUnavailable
from db.settings import settings
from db.store import models
from db.store.connection import connect
from db.store.scoring import Claim, Rejected, WaitingScan
from workers import background, model_folders, preparing, tasks
from workers.decoding import Prepared
from workers.line import Line
from workers.provisions import decoder_pool, threads
from workers.reading_speed import Reading, read_for
from workers.shift import Loaded, Shift
from workers.two_stage import TwoStage

ROUNDS = 5
LEAST_ROUNDS = 3  # a median of fewer tells nothing of the spread
# How the time is shared out; what a night is made of gets most of it.
SHARES = {"engine": 0.25, "preparation": 0.3, "together": 0.35, "reading": 0.1}
KEPT = 256  # prepared scans that the engine alone is measured on
PROBED = 8  # scans by which a sample is judged
BY = "nightread plan"


class Rehearsal(Shift):
    """A worker's shift whose chunks are in no ledger."""

    def renew(self, claim: Claim, *, breadcrumb: int | None = None) -> bool:
        return True


class Bench:
    """A worker's shift with the scans of a sample, gone through again and again; at least one is prepared."""

    def __init__(self, hand: Shift, loaded: Loaded, scans: Sequence[WaitingScan], kept: Sequence[Prepared]) -> None:
        self.hand, self.loaded = hand, loaded
        self.rejected: Counter[str] = Counter()
        self.looked = 0
        self.scans = scans
        self._endless = zip(count(1), cycle(scans))
        self._kept = list(kept)

    def engine(self, images: int) -> int:
        """Score so many prepared scans, more or less: whole calls of the engine."""
        size = self.hand.at_once
        calls = max(1, round(images / size))
        given = islice(cycle([one.pixels for one in self._kept]), calls * size)
        pixels = np.stack(list(given))
        for start in range(0, len(pixels), size):
            tasks.predict(self.hand, self.loaded, pixels[start : start + size])
        return len(pixels)

    def preparation(self, scans: int) -> int:
        """Prepare so many scans in the decoder processes, at least two for each."""
        scans = max(scans, 2 * self.hand.decoders.count)
        self._prepare(scans)
        return scans

    def together(self, scans: int) -> Iterator[int]:
        """Score about so many scans from their files as in a night, chunk by chunk with the next one prepared ahead:
        yields once the first chunk is ready, and how many were scored at the end. As many are prepared in between."""
        size = min(max(scans // 2, 2 * self.hand.decoders.count), self.hand.config.chunk_size)
        begun: list[tasks.Begun] = []
        with ThreadPoolExecutor(1, "ahead") as ahead, Line(self.hand.decoders.count) as line:
            ready = self._prepare(size)
            yield 0
            chunks = max(1, round(scans / size))
            for _ in range(chunks):
                upcoming = ahead.submit(self._prepare, size)
                begun.append(tasks.begin(self.hand, ready, line))
                ready = upcoming.result()
            for part in (part for chunk in begun for part in chunk.slices):
                part.result()
        yield chunks * size

    def flagged(self) -> tuple[int, int]:
        """How many of the kept scans the model flags, of how many."""
        pixels = np.stack([one.pixels for one in self._kept])
        found = tasks.predict(self.hand, self.loaded, pixels)
        return sum(one.is_chest and one.score >= self.loaded.view.threshold for one in found), len(found)

    def _prepare(self, size: int) -> preparing.Prepared:
        turns = islice(self._endless, size)
        scans = tuple(replace(scan, id=number, key=secrets.token_hex(16)) for number, scan in turns)
        claim = Claim(scans[0].id, secrets.token_hex(16), 0, self.loaded.view.id, attempts=1, scans=scans)
        found = preparing.prepare(self.hand, self.loaded, claim)
        self.looked += size
        self.rejected.update(one.reason for one in found.rejected if isinstance(one, Rejected))
        self._kept += [one for _, one in found.ready[: KEPT - len(self._kept)]]
        return found


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
        sample, bench, passed_over = _choose(hand, loaded, order["samples"])
        spent = time.monotonic() - started  # to load the engine, at most half of the time
        seen = _in_rounds(bench, order["seconds"] - min(spent, order["seconds"] / 2))
        flagged, of = bench.flagged()
        return {
            **_described(hand, loaded),
            **seen,
            "sample": sample,
            "passed_over": passed_over,
            "files": len(bench.scans),
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
    config = settings().model_copy(update={"home": Path(order["home"]), "database_url": "", "prepared_cache": ""})
    cv2.setNumThreads(1)
    db = connect(config)
    migrate.upgrade(db)
    given = model_folders.registration(Path(order["model"]))
    if order["threshold"] is not None:
        given = replace(given, threshold=order["threshold"])
    hand = Rehearsal(config, db, order["device"], decoder_pool(config))
    return hand, hand.model(models.register(db, given, by=BY))


def _choose(hand: Shift, loaded: Loaded, samples: Sequence[dict[str, Any]]) -> tuple[str, Bench, list[dict[str, str]]]:
    """The first sample of which a picture can be prepared; why each before it was passed over."""
    passed_over: list[dict[str, str]] = []
    for sample in samples:
        scans = [WaitingScan(number, secrets.token_hex(16), **scan) for number, scan in enumerate(sample["scans"])]
        found, why = _tried(hand, loaded, scans)
        if found is not None:
            return sample["name"], found, passed_over
        passed_over.append({"sample": sample["name"], "why": why})
    raise Refused("; ".join(f"{one['sample']}: {one['why']}" for one in passed_over))


def _tried(hand: Shift, loaded: Loaded, scans: list[WaitingScan]) -> tuple[Bench | None, str]:
    """The scans whose root answers, where one of the first few can be prepared; else None, and why."""
    kept: list[Prepared] = []
    refused: Counter[str] = Counter()
    away: set[str] = set()
    for scan in scans:
        if len(kept) + sum(refused.values()) >= PROBED or scan.root in away:
            continue
        try:
            found = preparing.prepare_scan(hand, loaded, scan)
        except RootUnavailable:
            away.add(scan.root)
            continue
        if isinstance(found, Rejected):
            refused[found.reason] += 1
        else:
            kept.append(found)
    if kept:
        return Bench(hand, loaded, [scan for scan in scans if scan.root not in away], kept), ""
    told = [f"{number} {reason}" for reason, number in refused.most_common()]
    told += ["its folder does not answer"] if away else []
    return None, f"no picture could be prepared ({', '.join(told)})"


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
        read.append(read_for(budget["reading"], bench.scans, at_once=bench.hand.decoders.count))
        rates |= {name: seen[name][-1] for name in rates}
    seen["reading"] = [one.bytes / one.seconds for one in read]
    files = sum(one.files for one in read)
    return {**seen, "mean_bytes": sum(one.bytes for one in read) / files if files else 0.0}


def _timed(do: Callable[[int], int], scans: int) -> float:
    """Scans a second of a step that says how many it did."""
    started = time.perf_counter()
    done = do(scans)
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
        "cache_left_out": settings().prepared is not None,
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
