"""The corpus: every kind of bad or odd file gets its code, in bounds, through decoders, intake and the ledger."""

import contextlib
import dataclasses
import hashlib
import os
import threading
from dataclasses import dataclass

import pytest
from corpus import HIDDEN, SCORED, Draw, bombs, kinds
from corpus.folders import CASES
from corpus.running import Runner, decoders_of, drawn, peak_mb, pool
from fuzz.__main__ import through_decoders
from night_shift import MODEL

from db.errors import UnreadableImage
from db.store import models, reading
from db.words import Kind, Reason
from producer import submission
from workers import tasks
from workers.decoding import Source
from workers.shift import Loaded, Shift

EVERY = kinds()
MIB_OF_A_DECODER = 1024
SECONDS_OF_A_FILE = 5


@pytest.fixture(scope="module")
def decoders():
    with pool() as opened:
        yield opened


def test_the_corpus_has_more_than_eighty_kinds_under_every_code_that_bytes_can_earn():
    expected = {EVERY[name].make(Draw(seed)).reason for seed, name in enumerate(EVERY)}

    assert len(EVERY) + len(CASES) > 80
    assert expected == {
        *(SCORED, Reason.EMPTY, Reason.NOT_AN_IMAGE, Reason.TRUNCATED, Reason.UNREADABLE, Reason.TOO_LARGE),
        *(Reason.TOO_SMALL, Reason.UNSUPPORTED_TRANSFER_SYNTAX, Reason.ENCRYPTED, Reason.MULTI_FRAME),
        *(Reason.NOT_FRONTAL, Reason.NOT_CHEST, Reason.BLANK),
    }


def test_a_seed_makes_the_same_file_again_and_another_one_another():
    for name in ("grey.png", "jpeg_lossless.dcm", "zeroed.jpg", "lzw.tif", "deflated_pixels.dcm"):
        make = EVERY[name].make
        assert make(Draw(7)).data == make(Draw(7)).data != make(Draw(8)).data


@pytest.mark.timeout(900)
def test_each_kind_of_file_gets_its_code_in_bounds_and_no_decoder_dies(decoders, tmp_path):
    runner = Runner(decoders, tmp_path)

    for some in drawn(list(EVERY.values()), 2 * len(EVERY), first_seed=1):
        runner.work(some)

    assert runner.run.wrong == []
    assert (runner.run.files, runner.run.deaths) == (2 * len(EVERY), 0)
    assert 0 < runner.run.peak_mb < MIB_OF_A_DECODER
    # On a machine of two busy cores: the bound on the processor's time is the decoders' own.
    assert max(account.slowest for account in runner.run.kinds.values()) < 10 * SECONDS_OF_A_FILE


@pytest.mark.timeout(300)
def test_a_few_seconds_of_mutated_files_break_no_contract(tmp_path):
    assert through_decoders("decoders", 5, 7, tmp_path, tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"file"}  # no decoder died, none was slow


@pytest.mark.parametrize(
    ("data", "kilobytes"),
    [(bombs.issues_png(), 18), (bombs.issues_dicom(), 292)],
    ids=["17 kB to 144 MB", "292 kB to 570 MB"],
)
def test_a_bomb_is_refused_without_the_memory_being_used(data, kilobytes, tmp_path):
    assert len(data) <= kilobytes * 1000
    (tmp_path / "bomb").write_bytes(data)
    (tmp_path / "good.png").write_bytes(EVERY["grey.png"].make(Draw(1)).data)
    others = decoders_of(os.getpid())

    with pool() as fresh:
        fresh.prepare(Source(str(tmp_path), "good.png"), 64)
        (process,) = decoders_of(os.getpid()) - others
        before = peak_mb(process)
        with pytest.raises(UnreadableImage) as refused:
            fresh.prepare(Source(str(tmp_path), "bomb"), 64)
        grown = peak_mb(process) - before

    assert refused.value.code is Reason.TOO_LARGE
    assert grown < 10


def test_the_bytes_that_are_hashed_are_the_bytes_that_are_decoded(decoders, tmp_path):
    """One file is swapped for another as fast as can be: what is scored is the first, or else it has changed."""
    first, second = (EVERY["grey.png"].make(Draw(seed)).data for seed in (1, 2))
    for name, data in (("scan.png", first), ("first", first), ("second", second)):
        (tmp_path / name).write_bytes(data)
    digest = hashlib.sha256(first).hexdigest()
    expected = decoders.prepare(Source(str(tmp_path), "first"), 64).pixels
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            for name in ("second", "first"):
                os.link(tmp_path / name, tmp_path / "next")
                os.replace(tmp_path / "next", tmp_path / "scan.png")  # noqa: PTH105

    swapper = threading.Thread(target=swap)
    swapper.start()
    outcomes = []
    try:
        for _ in range(200):
            with contextlib.suppress(UnreadableImage):
                outcomes.append(decoders.prepare(Source(str(tmp_path), "scan.png", digest), 64).pixels)
    finally:
        stop.set()
        swapper.join()

    assert outcomes
    assert all((pixels == expected).all() for pixels in outcomes)


# The same corpus, and what a folder can hold besides, as a batch in the ledger.


@dataclass(frozen=True)
class Guess:
    score: float
    class_scores: dict
    is_chest: bool = True
    distance: float = 0.0
    made_by: None = None
    first_score: None = None
    holds_from: None = None


class StubScorer:
    """What a worker asks of a Scorer; scores by the picture's mean, below every threshold: no picture is kept."""

    gate_limit = 1.0
    model = MODEL

    def predict(self, pixels):
        means = [float(one.mean()) / 1000 for one in pixels]
        return [Guess(mean, {"covid": mean}) for mean in means]

    def describe(self):
        return {"engine": "stub", "precision": "float32", "device": "cpu"}


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request, queue_server):
    from db.settings import settings
    from db.store.connection import connect

    request.getfixturevalue("home")  # what submission asks for besides the database it is given
    config = settings() if request.param == "sqlite" else request.getfixturevalue("_postgres_config")
    opened = connect(config)
    yield config, opened
    opened.engine.dispose()


def lay_out(folder):
    """A folder of every kind and every case; what must become of each path."""
    expected, silent = {}, set()
    for seed, kind in enumerate(EVERY.values(), 5000):
        file = kind.make(Draw(seed))
        name = f"{seed}-{kind.name}"
        (folder / name).write_bytes(file.data)
        expected[name] = file.reason
        silent |= {name} if file.silent else set()
    for seed, case in enumerate(CASES, 9000):
        below = folder / case.name
        below.mkdir()
        for path, reason in case.place(below, Draw(seed)).items():
            expected[f"{case.name}/{os.fsdecode(path)}"] = reason
    return expected, silent


def scored_by_a_worker(config, db, decoders, folder, *, then):
    """Submit, do what happens in between, work until nothing waits; path -> reason (None: scored)."""
    model = models.active(db)
    hand = Shift(config, db, "cpu", decoders)
    view = dataclasses.replace(model, threshold=0.99)
    hand._loaded[model.id] = Loaded(view, StubScorer(), hand.full_batch)
    batch = submission.submit(db, folder, site_name="local").batch_id
    then()
    for _ in range(50):
        if reading.totals(db, batch).waiting == 0:
            break
        tasks.work(hand)
    lines = list(reading.report_lines(db, batch))
    assert {line.outcome for line in lines} <= {Kind.SCORED, Kind.REJECTED}
    return {line.path: None if line.outcome == Kind.SCORED else Reason(line.reason) for line in lines}


@pytest.mark.timeout(900)
def test_every_file_of_the_corpus_ends_in_the_ledger_as_expected(ledger, decoders, tmp_path):
    config, db = ledger
    folder = tmp_path / "scans"
    folder.mkdir()
    expected, silent = lay_out(folder)

    def between():
        for seed, case in enumerate(CASES, 9000):
            case.later(folder / case.name, Draw(seed))

    found = scored_by_a_worker(config, db, decoders, folder, then=between)

    assert found.keys() == expected.keys()
    assert {path: reason for path, reason in found.items() if path in silent and reason not in HIDDEN} == {}
    sure = expected.keys() - silent
    assert {path: found[path] for path in sure} == {path: expected[path] for path in sure}
