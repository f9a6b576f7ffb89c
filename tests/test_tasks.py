"""One ring's work on the real ledger, with real decoders; the device is a stub that answers at once."""

import dataclasses
import os
from types import SimpleNamespace

import builders
import cv2
import numpy as np
import pytest
from night_shift import SIZE, Night, stub_scorer
from ready_home import STUB
from sqlalchemy import select, text

from db.errors import DatabaseUnreachable, DeviceUnsound
from db.files import derived_path
from db.schema import Entry, Outcome
from db.store import golden, models, reading, recovery, scoring, thresholds, worklist
from db.store.connection import connect
from db.store.sites import every_site, set_site
from db.words import Cause, Kind, Reason
from producer import submission
from workers import engines, tasks, trained_models
from workers.decoding import DecoderPool
from workers.golden import check, picture
from workers.line import AT_A_TIME
from workers.preprocessing import prepare
from workers.provisions import limits, stopping_note
from workers.shift import LOAD_FOR, Loaded, Shift
from workers.two_stage import Margin, TwoStage

SOUND = golden.Golden(0.4, 0.0)


@pytest.fixture(scope="module")
def decoders():
    from db.settings import Settings

    with DecoderPool(1, limits(Settings()), memory_bytes=2_000_000_000, seconds=30) as pool:
        yield pool


@pytest.fixture
def night(home, queue_server, decoders, tmp_path, request):
    made = Night(request.getfixturevalue("home"), decoders, tmp_path / "scans")
    yield made
    made.db.engine.dispose()


def test_a_broken_file_does_not_stop_its_chunk(night):
    night.scan("good.png")
    night.scan("broken.png", content=builders.bad_files()["cut.png"][1])
    night.submit()

    night.work()

    assert night.outcomes() == {"good.png": Kind.SCORED, "broken.png": Kind.REJECTED}
    assert night.lines()["broken.png"].reason == Reason.TRUNCATED


def test_what_changed_or_went_after_submission_is_rejected_and_says_which(night):
    for seed, name in enumerate(("gone.png", "changed.png", "good.png")):
        night.scan(name, seed=seed)
    night.submit()
    (night.folder / "gone.png").unlink()
    night.scan("changed.png", seed=99)

    night.work()

    reasons = {path: line.reason for path, line in night.lines().items()}
    assert reasons == {"gone.png": Reason.MISSING, "changed.png": Reason.CHANGED_SINCE_SUBMISSION, "good.png": None}


def test_a_patient_below_the_models_age_is_not_scored(night, tmp_path):
    night.scan("child.png")
    night.scan("adult.png", seed=1)
    (tmp_path / "m.csv").write_text("path,age\nchild.png,7\nadult.png,70\n")
    night.submit(manifest=tmp_path / "m.csv")

    night.work()

    assert night.lines()["child.png"].reason == Reason.OUTSIDE_INTENDED_USE
    assert night.outcomes()["adult.png"] == Kind.SCORED


def test_a_flagged_scan_keeps_a_lossless_copy_what_the_model_saw_and_a_heat_map_and_another_one_keeps_nothing(night):
    night.device = lambda batch: np.where(batch.mean(axis=(1, 2, 3)) > 150, 0.9, 0.1)
    bright = np.clip(builders.CHEST.astype(int) + 90, 0, 255).astype(np.uint8)
    night.scan("bright.png", content=builders.encoded(".png", bright))
    night.scan("dark.png", content=builders.encoded(".png", builders.CHEST // 2))
    night.submit()

    night.work()

    kept = [scan.key for scan in worklist.unread_everywhere(night.db, night.model.id)]
    assert len(kept) == 1
    copy, seen, heat = (
        cv2.imread(str(derived_path(night.hand.config.derived, kept[0], kind)), cv2.IMREAD_UNCHANGED)
        for kind in ("image", "input", "heat")
    )
    assert np.array_equal(copy, bright)
    assert np.array_equal(seen, prepare(bright, night.model.input_size)[0])
    assert heat.shape == (*bright.shape, 4)
    assert len(list(night.hand.config.derived.rglob("*.png"))) == 3


def test_an_outcome_says_how_its_copy_is_to_be_shown_whether_it_is_flagged_or_not(night):
    night.device = lambda batch: np.full(len(batch), 0.1)
    deep = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2000, "WindowWidth": 3000, "RescaleSlope": 2}
    night.scan("deep.dcm", content=builders.dicom(builders.CHEST.astype(np.uint16) * 16, **deep, RescaleIntercept=-100))
    night.submit()

    night.work()

    with night.db.reading() as session:
        display = session.scalars(select(Outcome)).one().evidence["display"]
    assert (display["bits"], display["slope"], display["intercept"]) == (12, 2, -100)
    assert (display["low"], display["high"]) == (300, 1799.5)
    assert display["spacing_kind"] == "detector"


def test_a_drawn_scan_keeps_the_same_pictures_as_a_flagged_one_and_is_on_the_list_with_its_share(night):
    set_site(night.db, "local", {"sample_share": 1.0}, by="test")
    night.device = lambda batch: np.where(batch.mean(axis=(1, 2, 3)) > 150, 0.9, 0.1)
    bright = np.clip(builders.CHEST.astype(int) + 90, 0, 255).astype(np.uint8)
    night.scan("bright.png", content=builders.encoded(".png", bright))
    night.scan("dark.png", content=builders.encoded(".png", builders.CHEST // 2))
    night.submit()

    night.work()

    with night.db.reading() as session:
        listed = session.execute(select(Entry.score, Entry.share).order_by(Entry.score)).all()
    assert [(round(score, 3), share) for score, share in listed] == [(0.1, 1.0), (0.9, None)]
    kept = [scan.key for scan in worklist.unread_everywhere(night.db, night.model.id)]
    for key in kept:
        assert all(derived_path(night.hand.config.derived, key, kind).is_file() for kind in ("image", "input", "heat"))
    assert len(list(night.hand.config.derived.rglob("*.png"))) == 6


def test_scans_are_drawn_by_chance_with_their_sites_share():
    def drawn(share):
        scans = [scoring.WaitingScan(1, "k", "/", "p", None, None, sample_share=share) for _ in range(2000)]
        assert all(scan.drawn == scan.drawn for scan in scans)  # one lot a claim, however often it is asked
        return [scan.drawn for scan in scans]

    assert set(drawn(0.0)) == {None}
    assert set(drawn(1.0)) == {1.0}
    assert 350 < drawn(0.25).count(0.25) < 650  # 500, and more than seven deviations either way


def test_an_engine_that_fails_over_one_scan_fails_that_one_alone(night):
    for number in range(5):
        night.scan(f"{number}.png", seed=number)
    bright = np.clip(builders.CHEST.astype(int) + 90, 0, 255).astype(np.uint8)
    night.scan("poison.png", content=builders.encoded(".png", bright))

    def device(batch):
        means = batch.mean(axis=(1, 2, 3))
        if (means > 170).any():
            raise RuntimeError("this one is too much")
        return means / 255

    night.device = device
    night.submit()

    night.work()

    assert night.outcomes().pop("poison.png") == Kind.FAILED
    assert night.lines()["poison.png"].reason == Cause.ENGINE_ERROR
    assert [night.outcomes()[f"{number}.png"] for number in range(5)] == [Kind.SCORED] * 5


def test_a_score_that_is_no_probability_is_a_failure_and_not_a_score(night):
    night.scan("one.png")
    night.device = lambda batch: np.where(is_golden(batch), 0.5, np.nan)
    night.submit()

    night.work()

    assert night.lines()["one.png"].reason == Cause.ENGINE_ERROR


@pytest.mark.parametrize("error", [RuntimeError("the device is gone"), MemoryError(), ValueError("nonsense")])
def test_a_broken_engine_blames_no_scan_and_costs_none_and_the_heartbeat_says_so(night, error):
    night.scan("one.png")
    night.submit()
    night.load(batch_size=1)

    def device(batch):
        raise error

    night.device = device

    night.work()

    assert night.outcomes() == {"one.png": "waiting"}
    assert night.hand.doing == "refuses stub 1: device unsound"
    claim = scoring.claim_chunk(night.db, "sound", trained_model_id=night.model.id, lease_seconds=30)
    assert claim.attempts == 1


def test_a_device_without_room_for_this_image_alone_is_a_failure_of_ours(night):
    night.scan("one.png")
    night.load(batch_size=1)

    def device(batch):
        if not is_golden(batch).all():
            raise MemoryError
        return np.full(len(batch), 0.5)

    night.device = device
    night.submit()

    night.work()

    assert night.lines()["one.png"].reason == Cause.OUT_OF_MEMORY


def test_a_root_that_does_not_answer_waits_at_no_cost_and_holds_up_nobody_else(night, tmp_path):
    night.scan("away.png")
    away = night.submit(urgent=True)
    night.folder.rename(tmp_path / "unmounted")
    night.folder = tmp_path / "other"
    night.folder.mkdir()
    night.scan("here.png", seed=1)
    here = night.submit()

    night.work()

    assert reading.totals(night.db, here).scored == 1
    assert reading.totals(night.db, away).waiting == 1
    claim = scoring.claim_chunk(night.db, "other", trained_model_id=night.model.id, lease_seconds=30)
    assert (claim.batch_id, claim.attempts) == (away, 1)


def test_told_to_stop_it_completes_what_is_scored_and_gives_back_the_rest(night):
    for number in range(64):
        night.scan(f"{number:02d}.png", seed=number)
    note = stopping_note(night.hand.config, os.getppid())
    note.parent.mkdir()

    def device(batch):
        note.touch()
        return batch.mean(axis=(1, 2, 3)) / 255

    night.device = device
    night.submit()

    night.work()

    totals = reading.totals(night.db, night.batch)
    most = AT_A_TIME * 16  # what the device had begun
    assert 16 <= totals.scored <= most < 64
    assert (totals.scored + totals.waiting, totals.failed) == (64, 0)
    note.unlink()
    claim = scoring.claim_chunk(night.db, "next", trained_model_id=night.model.id, lease_seconds=30)
    assert (len(claim.scans), claim.attempts) == (totals.waiting, 1)


def test_results_of_a_lost_claim_count_for_nothing(night):
    night.scan("one.png")

    def device(batch):
        with night.db.writing() as session:  # as the sweep does when the lease ran out
            session.execute(text("UPDATE chunks SET lease_until = 0 WHERE completed_at IS NULL"))
        recovery.free_expired(night.db)
        night.device = lambda again: np.full(len(again), 0.25)
        return np.full(len(batch), 0.75)

    night.device = device
    night.submit()

    night.work()
    assert night.outcomes() == {"one.png": "waiting"}
    night.work()

    assert [line.score for line in night.lines().values()] == [0.25]


def test_after_a_worker_was_lost_each_scan_is_named_before_it_is_scored(night):
    for number in range(3):
        night.scan(f"{number}.png", seed=number)
    night.submit()
    lose_to_a_crash(night)
    seen = []

    def device(batch):
        seen.append(("golden" if is_golden(batch).all() else "scan", breadcrumb(night)))
        return batch.mean(axis=(1, 2, 3)) / 255

    night.device = device

    night.work()

    assert seen == [("golden", None), ("scan", 1), ("scan", 2), ("scan", 3)]
    assert set(night.outcomes().values()) == {Kind.SCORED}


def test_after_a_worker_was_lost_a_scan_is_named_before_it_is_decoded_and_until_its_pictures_are_kept(
    night, monkeypatch
):
    for number in range(2):
        night.scan(f"{number}.png", seed=number)
    night.submit()
    lose_to_a_crash(night)
    night.device = lambda batch: np.full(len(batch), 0.9)
    steps = []
    for module, name in ((tasks, "prepare_scan"), (tasks.derived, "keep"), (scoring, "complete_chunk")):
        monkeypatch.setattr(module, name, noting(steps, night, name, getattr(module, name)))

    night.work()

    assert steps == [
        ("prepare_scan", 1),
        ("keep", 1),
        ("prepare_scan", 2),
        ("keep", 2),
        ("complete_chunk", scoring.NOBODY),
    ]


def test_a_long_chunk_that_a_worker_was_lost_with_is_scored_by_a_model_loaded_for_single_images(night, monkeypatch):
    from workers import scoring as engine

    monkeypatch.setattr(engine.Scorer, "load", lambda *args, **more: stub_scorer(night, more["batch_size"]))
    for number in range(LOAD_FOR + 1):
        night.scan(f"{number}.png", seed=number)
    night.submit()
    lose_to_a_crash(night)
    batches = []
    night.device = lambda batch: (
        batches.append((len(batch), is_golden(batch).all())) or batch.mean(axis=(1, 2, 3)) / 255
    )

    night.work()

    assert batches == [(1, True)] + [(1, False)] * (LOAD_FOR + 1)
    assert set(night.outcomes().values()) == {Kind.SCORED}


def test_a_worker_that_scores_the_golden_image_wrongly_names_no_scan_and_leaves_the_chunk_to_others(night):
    night.scan("one.png")
    night.submit()
    golden.remember(night.db, night.model.id, engine="tensorflow", precision="float32", seen=SOUND, worker="first")
    lose_to_a_crash(night)
    night.device = lambda batch: np.full(len(batch), SOUND.score + 0.1)

    night.work()

    assert night.outcomes() == {"one.png": "waiting"}
    assert breadcrumb(night) is None
    assert night.hand.doing == "refuses stub 1: device unsound"
    claim = scoring.claim_chunk(night.db, "sound", trained_model_id=night.model.id, lease_seconds=30)
    assert claim.attempts == 2  # the crash, and this one: the unsound worker's own claim cost nothing


def test_a_place_of_the_batch_that_scores_wrongly_is_unsound(night):
    night.scan("one.png")
    night.submit()
    lose_to_a_crash(night)
    night.device = lambda batch: np.linspace(0.5, 0.6, len(batch))

    night.work()

    assert night.outcomes() == {"one.png": "waiting"}


def test_a_refused_model_is_tried_again_after_a_while(night, monkeypatch):
    night.scan("one.png")
    night.submit()
    lose_to_a_crash(night)
    night.device = lambda batch: np.full(len(batch), np.nan)
    night.work()
    night.device = lambda batch: np.full(len(batch), 0.5)
    night.load(batch_size=16)

    night.work()
    assert night.outcomes() == {"one.png": "waiting"}
    monkeypatch.setattr(night.hand, "_refused", {night.model.id: 0.0})  # the while is over
    night.work()

    assert night.outcomes() == {"one.png": Kind.SCORED}


def test_a_model_is_proved_when_it_is_loaded_and_the_first_that_runs_it_says_what_it_gives(night, monkeypatch):
    from workers import scoring as engine

    monkeypatch.setattr(engine.Scorer, "load", lambda *args, **more: stub_scorer(night, more["batch_size"]))
    monkeypatch.setattr(night.hand, "_loaded", {})
    night.device = lambda batch: np.full(len(batch), 0.25)

    night.hand.model(night.model.id)
    kept = golden.remembered(night.db, night.model.id, engine="tensorflow", precision="float32")
    night.hand._loaded.clear()
    night.device = lambda batch: np.full(len(batch), 0.75)

    assert kept.score == 0.25
    with pytest.raises(DeviceUnsound, match=r"scores 0\.750"):
        night.hand.model(night.model.id)


def test_a_model_whose_proof_was_interrupted_is_proved_before_it_is_used(night, monkeypatch):
    from workers import scoring as engine

    def away(*args, **more):
        raise DatabaseUnreachable("away")

    monkeypatch.setattr(engine.Scorer, "load", lambda *args, **more: stub_scorer(night, more["batch_size"]))
    monkeypatch.setattr(night.hand, "_loaded", {})
    proofs = []
    with monkeypatch.context() as patch:
        patch.setattr(golden, "remembered", away)
        with pytest.raises(DatabaseUnreachable):
            night.hand.model(night.model.id)
    night.device = lambda batch: proofs.append(is_golden(batch).all()) or np.full(len(batch), 0.5)

    night.hand.model(night.model.id)
    night.hand.model(night.model.id)

    assert proofs == [True]


def test_not_even_the_first_worker_may_differ_from_what_the_models_report_says(night):
    view = dataclasses.replace(night.model, report={"golden_score": 0.8})
    night.device = lambda batch: np.full(len(batch), 0.5)

    with pytest.raises(DeviceUnsound):
        check(night.db, view, stub_scorer(night, 4), count=4, worker="first")

    assert golden.remembered(night.db, view.id, engine="tensorflow", precision="float32") is None


def test_a_chunk_that_was_prepared_for_a_device_that_proved_unsound_meanwhile_is_given_back(night):
    for number in range(70):  # two chunks: the second is prepared while the first is scored
        night.scan(f"{number:02d}.png", seed=number)
    night.submit()

    def device(batch):
        raise RuntimeError("gone")

    night.device = device

    night.work()

    claims = [
        scoring.claim_chunk(night.db, "sound", trained_model_id=night.model.id, lease_seconds=30) for _ in range(2)
    ]
    assert [claim.attempts for claim in claims] == [1, 1]


def test_what_one_ring_could_not_finish_is_left_to_its_lease_and_not_renewed_by_the_next(night):
    night.scan("one.png")
    night.submit()

    def device(batch):
        raise KeyError("a bug of ours")

    night.device = device
    with pytest.raises(KeyError):
        night.work()

    assert night.hand._held == {}
    assert scoring.waiting_chunks(night.db) == 0


def test_a_ring_that_runs_out_of_memory_outside_the_engine_ends_and_the_worker_does_not(night, monkeypatch):
    night.scan("one.png")
    night.submit()
    monkeypatch.setattr(tasks, "shift", lambda: night.hand)
    monkeypatch.setattr(tasks.np, "stack", lambda pixels: raise_(MemoryError()))

    tasks.score()

    assert night.outcomes() == {"one.png": "waiting"}
    assert night.hand._held == {}


def raise_(error):
    raise error


def is_golden(batch):
    """Which of (B, S, S, 1) are the golden image."""
    return (batch[..., 0] == picture(SIZE)).all(axis=(1, 2))


def breadcrumb(night):
    with night.db.reading() as session:
        return session.scalar(text("SELECT breadcrumb FROM chunks ORDER BY id DESC"))


def noting(steps, night, name, function):
    def noted(*args, **more):
        steps.append((name, breadcrumb(night)))
        return function(*args, **more)

    return noted


def lose_to_a_crash(night):
    """A worker claimed the first chunk and died before it named a scan."""
    scoring.claim_chunk(night.db, "dies", trained_model_id=night.model.id, lease_seconds=-1)
    recovery.free_expired(night.db)


def test_a_model_that_cannot_run_holds_up_no_other(night, tmp_path):
    night.scan("old.png")
    old = night.submit(urgent=True)
    altered = dataclasses.replace(STUB, version="2", folder=str(tmp_path / "gone"))
    second = models.register(night.db, altered, by="test")
    models.activate(night.db, second, why="a test", by="test")
    night.hand._loaded[second] = night.hand._loaded.pop(night.model.id)
    night.folder = tmp_path / "other"
    night.folder.mkdir()
    night.scan("new.png", seed=1)
    new = night.submit()

    night.work()

    assert reading.totals(night.db, new).scored == 1
    assert (reading.totals(night.db, old).waiting, reading.totals(night.db, old).failed) == (1, 0)


def test_a_worker_keeps_pictures_by_the_threshold_that_rules_today(night):
    night.device = lambda batch: np.full(len(batch), 0.4)
    night.scan("one.png")
    night.submit()
    thresholds.set_threshold(night.db, night.model.id, 0.3, why="more", by="test")  # after the worker loaded the model

    night.work()

    assert night.lines()["one.png"].flagged
    assert len(list(night.hand.config.derived.rglob("*.heat.png"))) == 1


def test_urgent_scans_come_first(night, tmp_path):
    night.scan("routine.png")
    night.submit()
    night.folder = tmp_path / "urgent"
    night.folder.mkdir()
    night.scan("urgent.png", seed=1)
    urgent = night.submit(urgent=True)

    claim = scoring.claim_chunk(night.db, "w", trained_model_id=night.model.id, lease_seconds=30)

    assert claim.batch_id == urgent


def test_the_shipped_model_scores_and_explains_a_shipped_sample(home, decoders, tmp_path):
    from deploy.commands import SAMPLES
    from workers.model_folders import registration

    db = connect(home)
    lenient = dataclasses.replace(registration(trained_models.SHIPPED), threshold=0.0)
    models.activate(db, models.register(db, lenient, by="test"), why="test", by="test")
    sample = SAMPLES / "scans" / "chest-01.jpg"
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / sample.name).write_bytes(sample.read_bytes())
    batch = submission.submit(db, tmp_path / "scans", site_name="local").batch_id

    tasks.work(Shift(home, db, "cpu", decoders))

    (line,) = reading.report_lines(db, batch)
    assert (line.outcome, line.engine) == (Kind.SCORED, engines.chosen("auto", "cpu"))
    assert line.precision in ("float32", "int8")
    assert every_site(db)
    assert len(list(home.derived.rglob("*.heat.png"))) == 1


def test_every_flag_of_two_stages_is_a_float32_decision_and_says_so(night):
    """The first stage says more than there is of one scan, and less of another, each within the margin."""
    fast, exact = (SimpleNamespace(db=night.db, device=None) for _ in range(2))
    shown = {"low.png": 0, "over.png": 1, "under.png": 2}
    pictures = {name: builders.chest(seed=seed) for name, seed in shown.items()}
    for name, seed in shown.items():
        night.scan(name, seed=seed)
    means = []

    def scores(table):
        """Scores by the order in which pictures are first seen; the golden image is another."""

        def answer(batch):
            given = [float(one.mean()) for one in batch]
            means.extend(mean for mean in given if mean not in means)
            return np.array([table[means.index(mean) % 3] for mean in given])

        return answer

    fast.device, exact.device = scores([0.1, 0.6, 0.45]), scores([0.12, 0.4, 0.55])
    both = TwoStage(stub_scorer(fast, 16, "int8"), stub_scorer(exact, 16), Margin(log_odds=0.5, distance=0.1))
    night.hand._loaded[night.model.id] = Loaded(dataclasses.replace(night.model, threshold=0.5), both, 16)
    night.submit()

    night.work()

    lines = night.lines()
    assert len(pictures) == len(lines)
    assert {path: (line.precision, line.flagged) for path, line in lines.items()} == {
        "low.png": ("int8", False),
        "over.png": ("float32", False),
        "under.png": ("float32", True),
    }
    with night.db.reading() as session:
        kept = dict(
            session.execute(
                text(
                    "SELECT path, json_extract(evidence, '$.int8_score') FROM outcomes JOIN scans ON scans.id = scan_id"
                )
            ).all()
        )
    assert {path.decode(): score for path, score in kept.items()} == {
        "low.png": None,
        "over.png": pytest.approx(0.6),
        "under.png": pytest.approx(0.45),
    }


def test_a_threshold_lowered_meanwhile_lets_float32_look_at_what_int8_alone_had_seen(night):
    fast, exact = (SimpleNamespace(db=night.db, device=None) for _ in range(2))

    def lowered(batch):
        thresholds.set_threshold(night.db, night.model.id, 0.3, why="a test", by="test")
        return np.full(len(batch), 0.35)

    fast.device, exact.device = lowered, lambda batch: np.full(len(batch), 0.4)
    both = TwoStage(stub_scorer(fast, 16, "int8"), stub_scorer(exact, 16), Margin(log_odds=0.5, distance=0.1))
    night.hand._loaded[night.model.id] = Loaded(dataclasses.replace(night.model, threshold=0.5), both, 16)
    night.scan("seen.png")
    night.submit()

    night.work()
    assert night.outcomes() == {"seen.png": "waiting"}
    night.work()  # the sweep's next ring

    (line,) = night.lines().values()
    assert (line.precision, line.score, line.flagged) == ("float32", pytest.approx(0.4), True)
