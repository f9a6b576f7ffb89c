"""A worker on a GPU: several batches offered at once and two under way; the device itself is a stub."""

import dataclasses
import threading

import builders
import numpy as np
import pytest
from night_shift import SIZE, Night, stub_scorer

from db.words import Cause, Kind
from workers import engines
from workers.decoding import DecoderPool
from workers.images import Limits, read, to_grey8
from workers.preprocessing import prepare
from workers.shift import Loaded

SCANS = 21


@pytest.fixture
def night(home, queue_server, tmp_path):
    with DecoderPool(1, Limits(), memory_bytes=2_000_000_000, seconds=30) as decoders:
        made = Night(home, decoders, tmp_path / "scans")
        made.hand.device = "gpu:0"
        put_in(made, batch_size=2)
        yield made
        made.db.engine.dispose()


def put_in(night, *, batch_size):
    """The stub as a GPU's engine; above every score, so that no picture is kept."""
    night.hand.batch_size = batch_size
    plain = stub_scorer(night, batch_size)
    running = dataclasses.replace(plain.engine, device="gpu:0", under_way=engines.under_way("gpu:0"))
    view = dataclasses.replace(night.model, threshold=0.99)
    loaded = Loaded(view, dataclasses.replace(plain, engine=running), batch_size)
    night.hand._loaded[night.model.id] = loaded
    return loaded


def fill(night):
    """Scans of different greys; path -> the score that the stub gives it."""
    expected = {}
    for number in range(SCANS):
        content = builders.encoded(
            ".png", np.clip(builders.CHEST.astype(int) // 2 + 4 * number, 0, 255).astype(np.uint8)
        )
        night.scan(f"{number:02d}.png", content=content)
        pixels, _ = prepare(to_grey8(read(content, Limits())), SIZE)
        expected[f"{number:02d}.png"] = float(pixels.mean() / 255)
    return expected


def test_each_scan_gets_its_own_score_whatever_is_under_way_beside_it(night):
    expected = fill(night)
    threads = set()

    def device(batch):
        threads.add(threading.current_thread().name)
        return batch.mean(axis=(1, 2, 3)) / 255

    night.device = device
    night.submit()

    night.work()

    assert {path: line.score for path, line in night.lines().items()} == pytest.approx(expected, abs=1e-5)
    assert len(set(expected.values())) == SCANS
    assert night.hand.at_once == 16
    assert threads <= {"engine_0", "engine_1"}


def test_one_scan_that_the_engine_fails_over_costs_no_other_its_score_and_few_calls(night):
    expected = fill(night)
    poison, calls = max(expected.values()), []

    def device(batch):
        means = batch.mean(axis=(1, 2, 3)) / 255
        calls.append(len(means))
        if (means > poison - 1e-3).any():
            raise RuntimeError("this one is too much")
        return means

    night.device = device
    night.submit()

    night.work()

    outcomes = night.outcomes()
    (failed,) = [path for path, outcome in outcomes.items() if outcome == Kind.FAILED]
    assert expected[failed] == poison
    assert night.lines()[failed].reason == Cause.ENGINE_ERROR
    assert list(outcomes.values()).count(Kind.SCORED) == SCANS - 1
    assert len(calls) < 2 * SCANS


def test_without_room_for_a_batch_the_worker_goes_on_with_half_of_it(night, monkeypatch):
    expected = fill(night)
    put_in(night, batch_size=4)
    monkeypatch.setattr(type(night.hand), "_load", lambda hand, model_id: put_in(night, batch_size=hand.batch_size))

    def device(batch):
        if len(batch) > 2:
            raise MemoryError
        return batch.mean(axis=(1, 2, 3)) / 255

    night.device = device
    night.submit()

    night.work()

    assert {path: line.score for path, line in night.lines().items()} == pytest.approx(expected, abs=1e-5)
    assert night.hand.batch_size == 2
