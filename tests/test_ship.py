"""From fitted weights to a trained model's folder: calibrated, rounded, gated, with a threshold that says why."""

from pathlib import Path

import numpy as np
import pytest
from small_models import offer_small, small_weights

from workers import trained_models, weights
from workers.scoring import Scorer
from workers.trained_models import IntendedUse
from workers.training import calibration, gate, ship
from workers.training.data import Examples, Split


@pytest.fixture
def small(monkeypatch):
    offer_small(monkeypatch)


def draft(*classes, flags):
    return ship.Draft("tiny", "1", "small", "pooled256", classes, flags, IntendedUse(18, "tests"))


def graded(count, classes, seed):
    """Pictures whose brightness tells the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = rng.integers(0, 120, (count, 32, 32)) + (130 // classes * labels)[:, None, None]
    return Examples(pixels.astype(np.uint8), labels, tuple(Path(f"{n}.png") for n in range(count)))


def sides(classes, *, training=60, validation=30, held_back=20):
    counts = {Split.TRAINING: training, Split.VALIDATION: validation, Split.HELD_BACK: held_back}
    return {side: graded(count, classes, seed) for seed, (side, count) in enumerate(counts.items())}


def write(folder, assembled):
    report = {"threshold": {"value": assembled.threshold, "why": assembled.why}}
    trained_models.write_folder(folder, assembled.model, report)


@pytest.mark.parametrize(("classes", "flags"), [(("a", "b"), ("b",)), (("a", "b", "c"), ("b", "c"))])
def test_a_folder_scores_as_it_was_judged(small, tmp_path, classes, flags):
    parts = sides(len(classes))

    assembled = ship.assemble(tmp_path, draft(*classes, flags=flags), small_weights(classes=len(classes)), parts)
    write(tmp_path, assembled)

    served = Scorer.load(tmp_path, batch_size=8).predict(parts[Split.HELD_BACK].pixels)
    np.testing.assert_allclose([one.score for one in served], assembled.held_back.scores, atol=1e-5)
    np.testing.assert_allclose([one.distance for one in served], assembled.held_back.distances, rtol=1e-3)
    np.testing.assert_allclose(assembled.score(parts[Split.HELD_BACK].pixels), assembled.held_back.scores, atol=1e-6)
    assert assembled.rounding["largest"] <= ship.ROUNDING


def test_warm_scores_are_those_before_the_temperature(small, tmp_path):
    values, parts = small_weights(), sides(2)

    assembled = ship.assemble(tmp_path, draft("a", "b", flags=("b",)), values, parts)

    plain = ship.run(assembled.model, values, parts[Split.VALIDATION])
    np.testing.assert_allclose(assembled.validation.warm, plain.class_scores, atol=0.01)


def test_no_held_back_images_are_no_error(small, tmp_path):
    assembled = ship.assemble(tmp_path, draft("a", "b", flags=("b",)), small_weights(), sides(2, held_back=0))

    assert ship.figures(assembled.held_back, 0.5) == {"images": 0}


def test_a_threshold_from_too_few_images_says_so(small, tmp_path):
    assembled = ship.assemble(tmp_path, draft("a", "b", flags=("b",)), small_weights(), sides(2))

    judged = assembled.validation
    assert "too few" in assembled.why
    assert np.mean(judged.scores[judged.truth] >= assembled.threshold) >= 0.95


def test_weights_that_eight_bits_would_change_keep_sixteen(small, tmp_path, monkeypatch):
    monkeypatch.setattr(ship, "ROUNDING", 0.0)

    assembled = ship.assemble(tmp_path, draft("a", "b", flags=("b",)), small_weights(), sides(2))

    assert assembled.model.encoding == weights.HALVES


@pytest.mark.parametrize("classes", [2, 4])
def test_the_temperature_of_boastful_scores_is_found_again(classes):
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 1.5, (20_000, classes))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random(20_000)[:, None] > np.cumsum(shares, axis=1)).sum(axis=1)
    boastful = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1, keepdims=True)

    assert calibration.fit_temperature(boastful, labels) == pytest.approx(2, abs=0.1)


def test_an_order_without_a_mistake_is_not_sharpened():
    scores = np.array([[0.6, 0.4], [0.3, 0.7]])

    assert calibration.fit_temperature(scores, np.array([0, 1])) == 1.0


def test_the_limit_of_few_images_is_generous_and_says_so():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((60, 12)).astype(np.float32)
    fitted = gate.fit(features[:40], gate.components(40))

    limit = gate.limit(fitted, features[40:])

    assert limit > ship.distances(fitted, features[40:]).max() * 1.5
    assert "too few" in gate.why(20)
