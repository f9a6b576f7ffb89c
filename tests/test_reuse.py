"""Nothing is computed twice, and nothing is taken over that does not stand: by the store, and by a worker at work."""

import dataclasses
from types import SimpleNamespace

import builders
import numpy as np
import pytest
from ledger import claim, folder, found, int8, newer_model, scored, submitted
from night_shift import SIZE, Night, stub_scorer
from ready_home import STUB
from sqlalchemy import event, select

from db.files import derived_path
from db.schema import Entry, Outcome, Scan
from db.store import certificate, models, reading, recovery, reuse, scoring, thresholds
from db.store.scoring import Made
from db.store.sites import add_site, set_site
from db.words import Kind, Reason
from deploy.drill import auditor, books
from producer import submission
from workers import reuse as of_worker
from workers import trained_models
from workers.decoding import DecoderPool
from workers.golden import picture
from workers.preparing import prepare_scan
from workers.provisions import limits
from workers.reuse import recipe
from workers.shift import Loaded
from workers.two_stage import Margin, TwoStage

FIRST, EXACT = "f" * 64, "e" * 64  # recipes: of the first of two stages, and of the second
MADE = Made("a" * 64, "1", EXACT)


def ended(db, *results, root="/night", **more):
    """A batch whose scans came to these; a result is made of its scan."""
    files = more.pop("files", None) or folder(len(results))
    batch = submitted(db, files, root, **more)
    held = claim(db)
    assert scoring.complete_chunk(db, held, [make(scan) for make, scan in zip(results, held.scans, strict=True)])
    return batch


def exactly(score, made=MADE, **more):
    return lambda scan: scored(scan, score, made=made, **more)


def at_first(score, holds_from, digest=MADE.pixels_sha256):
    return lambda scan: int8(scan, score, holds_from, made=Made(digest, "1", FIRST))


def turned_away(scan):
    return scoring.Rejected(scan.id, Reason.NOT_CHEST, "distance 3 from chest X-rays", made=MADE)


def standing(db, digest=MADE.pixels_sha256, recipes=(EXACT, FIRST)):
    return reuse.of_pixels(db, models.active(db).id, {digest}, recipes=recipes).get((digest, "1"))


def test_a_cleared_score_of_the_same_pixels_stands_for_whoever_would_compute_it_in_the_same_way(db):
    ended(db, exactly(0.3))

    known = standing(db)

    assert (known.kind, known.score, known.class_scores, known.engine) == ("scored", 0.3, {"covid": 0.3}, "tensorflow")
    assert (known.precision, known.device, known.made, known.outcome_id) == ("float32", "cpu", MADE, 1)
    assert standing(db, recipes=(FIRST,)) is None
    assert standing(db, digest="b" * 64) is None


def test_another_registration_of_the_same_weights_asks_by_its_own_threshold(db):
    ended(db, exactly(0.3))
    newer_model(db)
    assert standing(db).score == 0.3

    thresholds.set_threshold(db, models.active(db).id, 0.25, why="a test", by="test")

    assert standing(db) is None
    assert reuse.of_pixels(db, 1, {MADE.pixels_sha256}, recipes={EXACT})


def test_what_would_be_flagged_is_computed_whoever_else_had_cleared_it(db):
    ended(db, exactly(0.6), at_first(0.3, 0.4))

    assert standing(db) is None


def test_a_score_of_the_first_stage_stands_only_while_the_threshold_leaves_it_alone(db):
    ended(db, at_first(0.3, 0.4))
    assert standing(db).holds_from == 0.4

    thresholds.set_threshold(db, models.active(db).id, 0.35, why="a test", by="test")

    assert standing(db) is None


def test_the_exact_score_is_preferred_to_the_first_stages(db):
    ended(db, exactly(0.31), at_first(0.3, 0.4))

    assert standing(db).score == 0.31


def test_what_the_model_turned_away_stands(db):
    ended(db, turned_away)

    known = standing(db)

    assert (known.kind, known.detail) == ("rejected", "distance 3 from chest X-rays")


def test_what_was_taken_over_leads_to_where_it_was_computed(db):
    ended(db, exactly(0.3))
    ended(db, exactly(0.3, reused_from=1), files=folder(1, prefix="again"), root="/again")

    assert standing(db).outcome_id == 1
    (known,) = of_content(db, found("again0000.png").sha256).values()
    assert known.outcome_id == 1


def of_content(db, sha256, versions=("1", "1-reduced"), recipes=(EXACT, FIRST)):
    return reuse.of_content(db, models.active(db).id, {sha256}, recipes=recipes, versions=versions)


def test_content_stands_where_this_workers_eyes_could_have_seen_it_so(db):
    ended(db, exactly(0.3, dataclasses.replace(MADE, preprocessing="1-reduced")), turned_away)
    first, second = (found(name).sha256 for name in ("scan0000.png", "scan0001.png"))

    assert of_content(db, first)[first].score == 0.3
    assert of_content(db, first, versions={"1"}) == {}
    assert of_content(db, first, recipes={FIRST}) == {}
    assert of_content(db, second)[second].kind == Kind.REJECTED


def test_what_waits_failed_or_was_rejected_for_its_file_stands_for_nothing(db):
    submitted(db, folder(3))
    held = claim(db)
    unreadable = scoring.Rejected(held.scans[0].id, Reason.UNREADABLE, "x")
    scoring.complete_chunk(db, held, [unreadable, scoring.Failed(held.scans[1].id, "engine_error", "x")])

    digests = {file.sha256 for file in folder(3)}
    assert reuse.of_content(db, 1, digests, recipes={EXACT}, versions={"1"}) == {}


def test_a_score_that_was_taken_over_waits_where_a_threshold_set_meanwhile_would_flag_it(db):
    """There are no pictures of it: it must be computed."""
    batch = submitted(db, folder(1))
    held = claim(db)
    thresholds.set_threshold(db, models.active(db).id, 0.3, why="a test", by="test")

    scoring.complete_chunk(db, held, [scored(held.scans[0], 0.4, made=MADE, reused_from=1)])

    assert reading.totals(db, batch).waiting == 1
    assert claim(db).attempts == 1


def test_a_chunks_question_goes_by_an_index_on_both_databases(db):
    """Of any number of outcomes, those of the same pixels."""
    asked = []
    event.listen(db.engine, "before_cursor_execute", lambda c, cursor, sql, given, *_: asked.append((sql, given)))
    standing(db)
    sql, given = next(one for one in asked if "pixels_sha256" in one[0])

    with db.engine.connect() as connection:
        if not db.is_sqlite:
            connection.exec_driver_sql("SET enable_seqscan = off")
        explain = "EXPLAIN QUERY PLAN " if db.is_sqlite else "EXPLAIN "
        plan = "\n".join(str(row) for row in connection.exec_driver_sql(explain + sql, given))

    assert "ix_outcomes_pixels" in plan


BASE = trained_models.TrainedModel(
    name="a",
    version="1",
    architecture="resnet50",
    head="pooled256",
    classes=("normal", "covid"),
    flag_classes=("covid",),
    input_size=64,
    preprocessing=trained_models.Preprocessing("1", "exact", trained_models.Border()),
    weights=trained_models.File("weights.safetensors", "1" * 64),
    encoding="",
    map_layer="",
    gate=trained_models.Gate(trained_models.File("gate.safetensors", "2" * 64), ("x",), 2.0),
    intended_use=trained_models.IntendedUse(18, ""),
    temperature=1.0,
    int8=trained_models.File("int8.safetensors", "3" * 64),
)
OTHERS = {
    "weights": trained_models.File("weights.safetensors", "9" * 64),
    "flag_classes": ("normal",),
    "classes": ("covid", "normal"),
    "input_size": 128,
    "architecture": "vgg16",
    "gate": dataclasses.replace(BASE.gate, limit=2.1),
    "preprocessing": dataclasses.replace(BASE.preprocessing, mode="paper"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_a_score_depends_on_makes_another_recipe(name):
    other = dataclasses.replace(BASE, **{name: OTHERS[name]})

    assert recipe(other, "openvino", "float32") != recipe(BASE, "openvino", "float32")


def test_engine_precision_the_ranges_of_int8_and_the_margin_make_another_recipe_and_a_name_does_not():
    requantised = dataclasses.replace(BASE, int8=trained_models.File("int8.safetensors", "8" * 64))
    renamed = dataclasses.replace(BASE, name="b", version="2", weights=trained_models.File("w", "1" * 64))
    first, wider = Margin(0.5, 0.1), Margin(0.6, 0.1)
    recipes = [
        recipe(BASE, "openvino", "float32"),
        recipe(BASE, "tensorflow", "float32"),
        recipe(BASE, "openvino", "int8"),
        recipe(requantised, "openvino", "int8"),
        recipe(BASE, "openvino", "int8", first),
        recipe(BASE, "openvino", "int8", wider),
    ]

    assert len(set(recipes)) == len(recipes)
    assert recipe(renamed, "openvino", "int8", first) == recipe(BASE, "openvino", "int8", first)
    assert recipe(requantised, "openvino", "float32") == recipes[0]


@pytest.fixture(scope="module")
def decoders():
    from db.settings import Settings

    with DecoderPool(1, limits(Settings()), memory_bytes=2_000_000_000, seconds=30) as pool:
        yield pool


class Counted(Night):
    """A shift that notes what it had to compute: images that the device was asked for, files that were decoded."""

    def __init__(self, *args):
        super().__init__(*args)
        self.computed, self.decoded, self.scores = 0, 0, lambda batch: np.full(len(batch), 0.1)
        self.device = self._answer
        self.hand.decoders = Watched(self.hand.decoders, self)

    def _answer(self, batch):
        shown = {one.tobytes() for one in batch[..., 0]}  # a short batch is filled up
        self.computed += len(shown - {picture(SIZE).tobytes(), bytes(SIZE * SIZE)})
        return self.scores(batch)

    def night(self, folder=None, site="local", **more):
        """Submit and work; what was computed and decoded for it."""
        self.computed = self.decoded = 0
        self.batch = submission.submit(self.db, folder or self.folder, site_name=site, **more).batch_id
        self.work()
        return self.computed, self.decoded

    def rows(self):
        with self.db.reading() as session:
            joined = select(Outcome).join(Scan, Scan.id == Outcome.scan_id).where(Scan.batch_id == self.batch)
            return session.scalars(joined.order_by(Scan.path, Outcome.generation)).all()


class Watched:
    """The real decoders, and how often they decoded."""

    def __init__(self, decoders, night):
        self._decoders, self._night = decoders, night

    def __getattr__(self, name):
        return getattr(self._decoders, name)

    def prepare_many(self, sources, *args, **more):
        self._night.decoded += len(sources)
        return self._decoders.prepare_many(sources, *args, **more)


@pytest.fixture
def night(db, queue_server, decoders, tmp_path, monkeypatch):
    monkeypatch.setattr("night_shift.connect", lambda home: db)
    monkeypatch.setattr(submission, "settings", lambda: db.config, raising=False)
    made = Counted(db.config, decoders, tmp_path / "scans")
    add_site(db, "north", by="test")
    return made


def test_another_sites_archive_of_the_same_files_costs_reading_only(night):
    for seed in range(3):
        night.scan(f"{seed}.png", seed=seed)
    assert night.night() == (3, 3)
    first = night.rows()

    assert night.night(site="north") == (0, 0)

    assert night.outcomes() == {f"{seed}.png": Kind.SCORED for seed in range(3)}
    assert [row.reused_from for row in night.rows()] == [row.id for row in first]
    same = ("score", "class_scores", "evidence", "engine", "precision", "device", "pixels_sha256", "recipe")
    for ours, theirs in zip(night.rows(), first, strict=True):
        assert [getattr(ours, name) for name in same] == [getattr(theirs, name) for name in same]
        assert ours.seconds < 5
    assert certificate.certify(night.db, night.batch).holds
    assert list(auditor._taken_over(books.read(night.db.config.database))) == []


def test_the_same_picture_in_another_file_is_decoded_and_not_inferred(night, tmp_path):
    night.scan("a.png")
    assert night.night() == (1, 1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.bmp").write_bytes(builders.encoded(".bmp", builders.chest(seed=0)))

    assert night.night(other) == (0, 1)

    (row,) = night.rows()
    assert (row.kind, row.reused_from) == (Kind.SCORED, 1)
    assert row.evidence["height"] == builders.chest(seed=0).shape[0]
    assert list(auditor._taken_over(books.read(night.db.config.database))) == []


def test_what_changed_or_went_since_it_was_submitted_is_found_although_its_score_is_known(night):
    for seed, name in enumerate(("changed.png", "gone.png", "good.png")):
        night.scan(name, seed=seed)
    night.night()
    night.batch = submission.submit(night.db, night.folder, site_name="north").batch_id
    night.scan("changed.png", seed=9)
    (night.folder / "gone.png").unlink()
    night.decoded = 0

    night.work()

    reasons = {path: line.reason for path, line in night.lines().items()}
    assert reasons == {"changed.png": Reason.CHANGED_SINCE_SUBMISSION, "gone.png": Reason.MISSING, "good.png": None}
    assert night.decoded == 0


def test_a_root_that_is_gone_lets_the_batch_wait_although_its_scores_are_known(night, tmp_path):
    night.scan("a.png")
    night.night()
    night.batch = submission.submit(night.db, night.folder, site_name="north").batch_id
    night.folder.rename(tmp_path / "unmounted")

    night.work()

    assert night.outcomes() == {"a.png": "waiting"}


def test_what_is_flagged_is_computed_for_each_site_and_each_has_its_pictures(night):
    night.scan("a.png")
    night.scores = lambda batch: np.full(len(batch), 0.9)
    night.night()

    assert night.night(site="north") == (1, 1)

    with night.db.reading() as session:
        keys = session.scalars(select(Scan.key).order_by(Scan.id)).all()
    for key in keys:
        assert all(derived_path(night.hand.config.derived, key, kind).is_file() for kind in ("image", "input", "heat"))
    assert [row.reused_from for row in night.rows()] == [None]


def test_what_is_drawn_for_reading_is_computed_and_has_its_pictures(night):
    night.scan("a.png")
    night.night()
    set_site(night.db, "north", {"sample_share": 1.0}, by="test")

    assert night.night(site="north") == (1, 1)

    with night.db.reading() as session:
        assert [tuple(row) for row in session.execute(select(Entry.share, Entry.score))] == [(1.0, pytest.approx(0.1))]
    assert len(list(night.hand.config.derived.rglob("*.heat.png"))) == 1


def test_of_two_scans_with_the_same_pixels_the_one_that_was_drawn_is_computed(night):
    night.scan("a.png")
    night.night()
    loaded = night.hand._loaded[night.model.id]
    decoded = prepare_scan(night.hand, loaded, scoring.WaitingScan(1, "k", str(night.folder), "a.png", None, None))
    plain = scoring.WaitingScan(1, "k", "/", "p", None, None)
    drawn = scoring.WaitingScan(2, "l", "/", "q", None, None, sample_share=1.0)

    known, others = of_worker.split(night.hand, loaded, [(plain, decoded), (drawn, decoded)])

    assert [result.scan_id for result in known] == [1]
    assert [scan.id for scan, _ in others] == [2]


def test_a_patient_below_the_models_age_is_turned_away_although_the_score_is_known(night, tmp_path):
    night.scan("a.png")
    night.night()
    (tmp_path / "m.csv").write_text("path,age\na.png,7\n")

    night.night(site="north", manifest=tmp_path / "m.csv")

    assert [row.reason for row in night.rows()] == [Reason.OUTSIDE_INTENDED_USE]


def test_what_is_no_chest_is_turned_away_again_without_a_look(night):
    night.scan("a.png")
    far = dataclasses.replace(night.hand._loaded[night.model.id].scorer.model.gate, limit=-1.0)
    loaded = night.hand._loaded[night.model.id]
    model = dataclasses.replace(loaded.scorer.model, gate=far)
    night.hand._loaded[night.model.id] = dataclasses.replace(
        loaded, scorer=dataclasses.replace(loaded.scorer, model=model)
    )
    night.night()
    first = night.rows()

    assert night.night(site="north") == (0, 0)

    assert [(row.reason, row.detail) for row in night.rows()] == [(Reason.NOT_CHEST, first[0].detail)]


def second_model(night, **other):
    """Another registration, in this worker's hand."""
    model_id = models.register(night.db, dataclasses.replace(STUB, version="2", **other), by="test")
    models.activate(night.db, model_id, why="a test", by="test")
    scorer = stub_scorer(night, 16)
    if "weights_sha256" in other:
        file = trained_models.File("", other["weights_sha256"])
        scorer = dataclasses.replace(scorer, model=dataclasses.replace(scorer.model, weights=file))
    night.hand._loaded[model_id] = Loaded(models.get(night.db, model_id), scorer, 16)


def test_a_second_registration_of_the_same_weights_computes_nothing_anew(night):
    night.scan("a.png")
    night.night()
    second_model(night)

    assert night.night() == (0, 0)

    assert [(row.trained_model_id, row.reused_from) for row in night.rows()] == [(2, 1)]
    assert certificate.certify(night.db, night.batch).holds


def test_other_weights_are_asked_themselves(night):
    night.scan("a.png")
    night.night()
    second_model(night, weights_sha256="7" * 64)

    assert night.night() == (1, 1)


def two_stages(night, first, second):
    fast, exact = (SimpleNamespace(db=night.db, device=None) for _ in range(2))
    fast.device, exact.device = (
        lambda batch: np.full(len(batch), first),
        lambda batch: night._answer(batch) * 0 + second,
    )
    both = TwoStage(stub_scorer(fast, 16, "int8"), stub_scorer(exact, 16), Margin(log_odds=0.5, distance=0.1))
    night.hand._loaded[night.model.id] = Loaded(dataclasses.replace(night.model, threshold=0.5), both, 16)


def told(night):
    return [(row.generation, row.precision, round(row.score, 3), row.flagged, row.reused_from) for row in night.rows()]


def test_a_threshold_that_is_lowered_after_the_night_lets_float32_look_at_what_int8_had_cleared(night):
    """From the first look over the lower threshold to the flag, with its pictures."""
    two_stages(night, first=0.35, second=0.42)
    night.scan("a.png")
    assert night.night()[0] == 0
    assert told(night) == [(0, "int8", 0.35, False, None)]

    done = thresholds.set_threshold(night.db, night.model.id, 0.4, why="a test", by="test")
    assert (done.newly_flagged, done.looked_again) == (0, 1)
    assert night.outcomes() == {"a.png": "waiting"}
    night.work()

    assert told(night) == [(0, "int8", 0.35, False, None), (1, "float32", 0.42, True, None)]
    with night.db.reading() as session:
        assert [tuple(row) for row in session.execute(select(Entry.state, Entry.share))] == [("unread", None)]
    assert len(list(night.hand.config.derived.rglob("*.heat.png"))) == 1
    assert certificate.certify(night.db, night.batch).holds
    assert list(auditor._once(books.read(night.db.config.database))) == []


def test_what_int8_cleared_is_taken_over_only_while_it_stands(night):
    two_stages(night, first=0.3, second=0.2)
    night.scan("a.png")
    night.night()
    assert night.night(site="north") == (0, 0)
    assert told(night) == [(0, "int8", pytest.approx(0.3), False, 1)]

    thresholds.set_threshold(night.db, night.model.id, 0.4, why="a test", by="test")
    night.work()

    # Both sites' scans wait: whether the second comes after the first is completed is chance.
    assert [row[:4] for row in told(night)] == [(0, "int8", 0.3, False), (1, "float32", 0.2, False)]


def test_what_float32_decided_tells_also_who_takes_it_over_what_int8_had_said(night):
    two_stages(night, first=0.45, second=0.2)
    night.scan("a.png")
    night.night()

    assert night.night(site="north") == (0, 0)

    (row,) = night.rows()
    assert (row.precision, row.evidence["int8_score"]) == ("float32", pytest.approx(0.45))


def test_a_worker_of_float32_alone_does_not_take_over_what_int8_said(night):
    two_stages(night, first=0.3, second=0.2)
    night.scan("a.png")
    night.night()
    night.load(batch_size=16)

    assert night.night(site="north") == (1, 1)


def test_a_worker_was_lost_with_the_chunk_and_the_next_one_takes_nothing_for_granted(night):
    night.scan("a.png")
    night.night()
    night.batch = submission.submit(night.db, night.folder, site_name="north").batch_id
    scoring.claim_chunk(night.db, "dies", trained_model_id=night.model.id, lease_seconds=-1)
    recovery.free_expired(night.db)
    night.computed = 0

    night.work()

    assert (night.computed, night.outcomes()) == (1, {"a.png": Kind.SCORED})


def test_what_reduced_eyes_saw_is_taken_over_by_such_eyes_alone(night):
    """And what exact eyes saw by either: it is the reference."""
    night.scan("a.jpg", content=builders.encoded(".jpg", builders.chest(1024, 1024)))
    night.scan("b.png", seed=1)
    exact = night.hand._loaded[night.model.id]
    night.hand._loaded[night.model.id] = dataclasses.replace(exact, reduce=("jpeg",))
    night.night()
    assert [row.preprocessing for row in night.rows()] == ["1-reduced", "1"]
    assert night.night(site="north") == (0, 0)

    night.hand._loaded[night.model.id] = exact
    add_site(night.db, "south", by="test")

    assert night.night(site="south") == (1, 1)
    assert [(row.preprocessing, row.reused_from is None) for row in night.rows()] == [("1", True), ("1", False)]
