"""What may run beside float32, and two stages: every flag and every rejection is a float32 decision."""

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from plain_models import safetensors, write_plain

from db.errors import ModelRefused
from workers import model_folders, parity, trained_models
from workers.parity import Looked
from workers.trained_models import File
from workers.two_stage import Margin, TwoStage, log_odds, needs_second, stages

LIMIT = 2.0


def looked(scores, distances=None):
    scores = np.asarray(scores, np.float64)
    return Looked(scores, np.ones(len(scores)) if distances is None else np.asarray(distances, np.float64))


def compared(wanted, found, *, threshold=0.5):
    truth = np.arange(len(wanted.scores)) % 2 == 1
    return parity.compare(wanted, found, truth, threshold=threshold, limit=LIMIT)


# The figures


def test_the_same_scores_agree_in_everything():
    same = looked(np.linspace(0, 1, 200))

    agreement = compared(same, same)

    assert parity.refusal(agreement) is None
    assert (agreement.largest, agreement.auc_difference, agreement.flips, agreement.gate_flips) == (0, 0, 0, 0)


def test_one_score_in_a_hundred_may_not_differ_by_more_than_the_limit():
    wanted = looked(np.linspace(0, 0.4, 1000))
    moved = wanted.scores.copy()
    moved[:20] += 0.03

    assert "one score in a hundred differs by 0.0300" in parity.refusal(compared(wanted, looked(moved)))
    moved[5:20] = wanted.scores[5:20]
    assert parity.refusal(compared(wanted, looked(moved))) is None


def test_a_decision_may_differ_beside_the_threshold_and_nowhere_else():
    scores = np.full(1000, 0.1)
    near, far = scores.copy(), scores.copy()
    near[0], far[0] = 0.51, 0.53
    flipped = np.where(scores == 0.1, 0.1, 0.1)

    beside, beyond = (compared(looked(wanted), looked(flipped)) for wanted in (near, far))

    assert (beside.flips, beside.flips_outside, parity.refusal(beside)) == (1, 0, None)
    assert parity.refusal(beyond) == "1 decisions differ further than 0.02 from the threshold"


def test_no_image_may_change_sides_at_the_gate():
    scores = np.full(1000, 0.1)
    distances = np.ones(1000)
    turned = distances.copy()
    turned[3] = 2.5

    agreement = compared(looked(scores, distances), looked(scores, turned))

    assert parity.refusal(agreement) == "1 images are on the other side of the gate"


def test_scores_that_are_no_numbers_are_refused():
    wanted = looked(np.linspace(0, 1, 100))
    broken = wanted.scores.copy()
    broken[:50] = np.nan

    assert "differs by nan" in parity.refusal(compared(wanted, looked(broken)))


def test_the_area_under_the_curve_counts_ties_half():
    assert parity._auc(np.array([False, True, True]), np.array([0.5, 0.5, 0.9])) == 0.75


# The margin


def test_the_margin_covers_half_as_much_again_as_the_largest_shortfall():
    wanted = looked([0.2, 0.5, 0.999, 0.3], [1.0, 1.9, 1.0, 1.0])
    found = looked([0.1, 0.6, 0.5, 0.3], [0.9, 1.9, 1.0, 1.0])

    margin = parity.tail(wanted, found, LIMIT)

    assert margin.log_odds == pytest.approx(1.5 * (log_odds(np.array(0.2)) - log_odds(np.array(0.1))))
    assert margin.distance == pytest.approx(1.5 * 0.1)


def test_what_falls_short_by_no_more_than_the_margin_is_looked_at_again():
    margin = Margin(log_odds=1.0, distance=0.1)
    rng = np.random.default_rng(0)
    exact = rng.random(10_000)
    short = 1 / (1 + np.exp(-(log_odds(exact) - rng.uniform(-2, 1.0, 10_000))))
    near = np.zeros(10_000)

    for threshold in (0.02, 0.0806, 0.5, 0.97):
        again = needs_second(short, near, threshold, LIMIT, margin)
        assert not (~again & (exact >= threshold)).any()


def test_at_thresholds_beyond_the_measured_ones_everything_is_looked_at_again():
    for threshold in (0.0, 0.005, 0.995, 1.0):
        assert needs_second(np.array([0.5, 1e-9]), np.zeros(2), threshold, LIMIT, Margin(0.1, 0.1)).all()


# Two stages


@dataclass(frozen=True)
class Said:
    score: float
    distance: float
    made_by: dict | None = None
    first_score: float | None = None
    holds_from: float | None = None


class Stage:
    """A scorer that gives what it is told and counts what it is asked."""

    gate_limit = LIMIT
    model = "the model"

    def __init__(self, precision, scores, distances):
        self.precision, self.scores, self.distances = precision, np.asarray(scores), np.asarray(distances)
        self.asked = []

    def describe(self):
        return {"engine": "openvino", "precision": self.precision, "device": "cpu"}

    def predict(self, pixels):
        self.asked.append([int(one[0, 0]) for one in pixels])
        return [Said(float(self.scores[i]), float(self.distances[i])) for i in self.asked[-1]]


def pictures(count):
    return np.stack([np.full((2, 2), number, np.uint8) for number in range(count)])


def two_stages():
    fast = Stage("int8", [0.01, 0.30, 0.60, 0.01], [1.0, 1.0, 1.0, 1.95])
    exact = Stage("float32", [0.02, 0.28, 0.49, 0.03], [1.0, 1.0, 1.0, 2.10])
    return TwoStage(fast, exact, Margin(log_odds=0.5, distance=0.1))


def test_float32_looks_again_at_what_may_be_flagged_or_turned_away():
    both = two_stages()

    found = both.predict(pictures(4), threshold=0.5)

    assert (both.first.asked, both.second.asked) == ([[0, 1, 2, 3]], [[2, 3]])
    assert [one.score for one in found] == [0.01, 0.30, 0.49, 0.03]
    assert [one.made_by["precision"] for one in found] == ["int8", "int8", "float32", "float32"]
    assert [one.first_score for one in found] == [None, None, 0.60, 0.01]
    assert found[3].distance == 2.10


def test_a_score_of_the_first_stage_says_from_which_threshold_on_it_stands():
    both = two_stages()

    low, middle, again, _ = both.predict(pictures(4), threshold=0.5)

    assert again.holds_from is None
    assert low.holds_from == pytest.approx(0.0164, abs=1e-4)
    for threshold, looked_again in ((middle.holds_from + 1e-6, False), (middle.holds_from - 1e-6, True)):
        (asked,) = needs_second(np.array([middle.score]), np.ones(1), threshold, LIMIT, both.margin)
        assert asked == looked_again


def test_a_lower_threshold_makes_it_look_at_more():
    both = two_stages()

    both.predict(pictures(4), threshold=0.3)

    assert both.second.asked == [[1, 2, 3]]


def test_both_stages_have_to_be_proved():
    both = two_stages()

    assert stages(both) == (both.first, both.second)
    assert stages(both.first) == (both.first,)


# The report, and what it allows


def form(**changed):
    same = looked(np.linspace(0, 1, 200))
    return {**parity.told(compared(same, same)), "golden_score": 0.8, **changed}


def report_of(model, int8, *, forms=None, **changed):
    return {
        "weights_sha256": model.weights.sha256,
        "int8_sha256": int8.sha256,
        "margin": {"log_odds": 0.5, "distance": 0.1},
        "forms": {"bfloat16": form(), "int8": form(), "two_stage": form()} if forms is None else forms,
        **changed,
    }


@pytest.fixture
def folder(tmp_path):
    return write_plain(tmp_path / "plain-1")


def put_in(folder, **changed):
    import hashlib

    model, content = trained_models.load_folder(folder), safetensors("int8")
    int8 = File("int8.safetensors", hashlib.sha256(content).hexdigest())
    text = json.dumps(report_of(model, int8, **changed)).encode()
    named = File("parity.json", hashlib.sha256(text).hexdigest())
    files = {int8.file: content, named.file: text}
    model_folders.put_in(folder, replace(model, int8=int8, parity=named), files)
    return trained_models.load_folder(folder)


def engine(*precisions):
    return SimpleNamespace(can=lambda precision: precision in precisions)


EVERYTHING = engine("float32", "bfloat16", "int8")


def test_the_fastest_that_the_report_allows_and_the_processor_does_is_chosen(folder):
    report = parity.read(folder, put_in(folder))

    assert parity.chosen(report, "auto", EVERYTHING) == "two_stage"
    assert parity.chosen(report, "auto", engine("float32", "bfloat16")) == "bfloat16"
    assert parity.chosen(report, "auto", engine("float32")) == "float32"
    assert parity.chosen(None, "auto", EVERYTHING) == "float32"
    assert parity.chosen(report, "int8", EVERYTHING) == "int8"
    assert parity.golden_score(report, "int8") == 0.8


def test_a_setting_cannot_ask_for_what_the_report_refuses(folder):
    refused = parity.read(
        folder, put_in(folder, forms={"int8": form(p99=0.07, refused="it differs"), "two_stage": form()})
    )

    with pytest.raises(ModelRefused, match="NIGHTREAD_PRECISION=int8 is not for this model: it differs"):
        parity.chosen(refused, "int8", EVERYTHING)
    with pytest.raises(ModelRefused, match="does not tell of bfloat16"):
        parity.chosen(refused, "bfloat16", EVERYTHING)
    with pytest.raises(ModelRefused, match="it has no parity report"):
        parity.chosen(None, "two_stage", EVERYTHING)
    with pytest.raises(ModelRefused, match="cannot be had on this machine"):
        parity.chosen(refused, "two_stage", engine("float32"))


def test_a_folder_takes_in_its_faster_forms_whole(folder):
    before = {file.file for file in trained_models.files(folder)}

    model = put_in(folder)

    assert {file.file for file in trained_models.files(folder)} - before == {"int8.safetensors", "parity.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["plain-1"]
    assert model_folders.registration(folder).weights_sha256 == model.weights.sha256


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"weights_sha256": "0" * 64}, "is about other weights"),
        ({"int8_sha256": "0" * 64}, "is about other weights"),
        ({"forms": {"int8": form(p99=0.07)}}, "allows int8 against its own figures"),
        ({"forms": {"int8": {"refused": None}}}, "is no parity report"),
        ({"forms": []}, "is no parity report"),
        ({"margin": {"log_odds": float("nan"), "distance": 0.1}}, "is no parity report"),
        ({"margin": {"log_odds": -1, "distance": 0.1}}, "is no parity report"),
    ],
)
def test_a_report_that_does_not_fit_is_refused_and_the_folder_stays_as_it_was(folder, changed, why):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    with pytest.raises(ModelRefused, match=why):
        put_in(folder, **changed)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["plain-1"]


def test_an_int8_form_without_its_report_is_refused(folder):
    model = put_in(folder)
    trained_models.write_model(folder, replace(model, parity=None))

    with pytest.raises(ModelRefused, match="int8 form without its parity report"):
        trained_models.load_folder(folder)
    with pytest.raises(ModelRefused, match="int8 form without its parity report"):
        model_folders.registration(folder)
