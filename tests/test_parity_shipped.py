"""The model that ships: its faster forms keep the limits on pictures drawn here, and say what its report says."""

import builders
import numpy as np
import pytest

pytest.importorskip("openvino", reason="the extra `worker` is not installed")

from workers import golden, images, parity, preprocessing, trained_models
from workers.engines import openvino as engine
from workers.engines import tensorflow
from workers.reduced import MOST
from workers.scoring import Scorer
from workers.two_stage import TwoStage

DRAWN = 40
THRESHOLD = trained_models.recommended_threshold(trained_models.SHIPPED).value


@pytest.fixture(scope="module")
def pixels():
    """The golden image, and drawn chests from faint to dense."""
    chests = [preprocessing.prepare(builders.chest(seed=seed), 224)[0] for seed in range(DRAWN - 1)]
    return np.stack([golden.picture(224), *chests])


def load(precision, name="openvino"):
    return Scorer.load(trained_models.SHIPPED, batch_size=8, threads=2, engine=name, precision=precision)


@pytest.fixture(scope="module")
def exact(pixels):
    return load("float32", "tensorflow").predict(pixels)


def scores(predictions):
    return np.array([one.score for one in predictions])


def report():
    return parity.read(trained_models.SHIPPED, trained_models.load_folder(trained_models.SHIPPED))


def test_float32_is_the_same_on_both_engines(pixels, exact):
    found = load("float32").predict(pixels)

    np.testing.assert_allclose(scores(found), scores(exact), atol=1e-4)
    np.testing.assert_allclose([one.distance for one in found], [one.distance for one in exact], rtol=1e-3)
    for mine, theirs in zip(found, exact, strict=True):
        np.testing.assert_allclose(mine.heat(), theirs.heat(), atol=0.01)


@pytest.mark.skipif(not engine.can("bfloat16"), reason="this processor does not compute at bfloat16")
def test_bfloat16_keeps_the_limits(pixels, exact):
    found = load("bfloat16").predict(pixels)

    assert parity.why_not(report(), "bfloat16") is None
    assert refusal_of(found, exact) is None


def test_float16_keeps_the_limits_as_a_gpu_runs_it(pixels, exact, monkeypatch):
    """Compiled by XLA for this CPU, which a worker on a CPU may not use."""
    with pytest.raises(parity.ModelRefused, match="cannot be had on this machine's engine"):
        load("float16", "tensorflow")
    monkeypatch.setattr(tensorflow, "can", lambda precision: precision in tensorflow.PRECISIONS)

    scorer = load("auto", "tensorflow")

    assert scorer.describe()["precision"] == "float16"
    found = scorer.predict(pixels)
    assert refusal_of(found, exact) is None
    assert found[0].score == pytest.approx(scorer.golden_score, abs=golden.SCORE_TOLERANCE)


@pytest.mark.skipif(not engine.can("int8"), reason="this processor does not compute at int8")
def test_two_stages_keep_the_limits_and_flag_by_float32_alone(pixels, exact):
    both = load("auto")
    assert isinstance(both, TwoStage)

    found = both.predict(pixels, threshold=THRESHOLD)

    assert refusal_of(found, exact) is None
    flagged = [one for one in found if one.score >= THRESHOLD or not one.is_chest]
    assert flagged
    assert {one.made_by["precision"] for one in flagged} == {"float32"}
    assert (scores(exact)[scores(found) < THRESHOLD] < THRESHOLD).all()


@pytest.mark.skipif(not engine.can("int8"), reason="this processor does not compute at int8")
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_the_golden_image_scores_as_the_report_says(precision):
    told = parity.golden_score(report(), precision)
    if not engine.can(precision):
        pytest.skip(f"this processor does not compute at {precision}")
    stage = load("auto").first if precision == "int8" else load(precision)

    (seen,) = stage.predict(golden.picture(224)[None])

    assert stage.golden_score == told
    assert seen.score == pytest.approx(told, abs=golden.SCORE_TOLERANCE)


def test_what_its_report_refuses_does_not_run():
    refused = parity.why_not(report(), "int8")

    assert refused is not None
    with pytest.raises(parity.ModelRefused, match="NIGHTREAD_PRECISION=int8 is not for this model"):
        load("int8")


def test_reduced_decoding_breaks_the_limit_and_so_does_not_run():
    assert parity.reductions(report(), "auto") == ()
    with pytest.raises(parity.ModelRefused, match="NIGHTREAD_DECODE=reduced is not for this model"):
        parity.reductions(report(), "reduced")


def test_the_report_tells_of_reduced_decoding_by_codec_and_on_how_many_images():
    told = report()

    assert [codec for codec in images.CODECS if parity.reduced_form(codec) in told["forms"]] == list(images.CODECS)
    assert all(told["reduced"][codec]["reduced"] >= parity.LEAST_IMAGES for codec in images.CODECS)
    assert told["reduced"]["factor"] == MOST
    for codec in images.CODECS:
        form = told["forms"][parity.reduced_form(codec)]
        assert (codec in parity.reductions(told, "auto")) == (form["p99"] <= 0.01 and not form["flips_outside"])


def refusal_of(found, exact):
    looked = [parity.Looked(scores(one), np.array([each.distance for each in one])) for one in (exact, found)]
    truth = np.arange(len(found)) % 2 == 1  # drawn pictures have none: the area under the curve is not looked at
    limit = trained_models.load_folder(trained_models.SHIPPED).gate.limit
    return parity.refusal(parity.compare(*looked, truth, threshold=THRESHOLD, limit=limit))
