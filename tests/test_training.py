"""Training: splits that share no picture, reproducible augmentation, figures with honest intervals, one tiny run."""

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_models import offer_small, small_weights

from workers import networks
from workers.gate import distances
from workers.training import augmentation, calibration, data, gate, loop, metrics
from workers.training.data import Example, Split, split_of


def picture(seed, size=96):
    return np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)


def example(seed, *, sha256=None, label=0, pixels=None):
    pixels = picture(seed) if pixels is None else pixels
    return Example(Path(f"{seed}.png"), label, sha256 or hashlib.sha256(bytes([seed])).hexdigest(), pixels)


HELD_BACK, VALIDATION, TRAINING = f"{20:064x}", f"{71:064x}", f"{11:064x}"


def test_hashes_divisible_by_ten_are_held_back():
    assert split_of(HELD_BACK) == Split.HELD_BACK
    assert split_of(VALIDATION) == Split.VALIDATION
    assert split_of(TRAINING) == Split.TRAINING


def test_about_a_tenth_is_held_back():
    sides = [split_of(hashlib.sha256(str(n).encode()).hexdigest()) for n in range(5000)]

    assert 0.085 < sides.count(Split.HELD_BACK) / 5000 < 0.115
    assert 0.11 < sides.count(Split.VALIDATION) / 5000 < 0.15


@pytest.mark.parametrize("guarded", [HELD_BACK, VALIDATION])
def test_copies_of_one_picture_are_on_the_most_guarded_side_alone(guarded):
    pixels = picture(1)
    copies = [example(1, sha256=TRAINING, pixels=pixels), example(2, sha256=guarded, pixels=pixels)]

    sides = data.split(copies)

    assert len(sides[split_of(guarded)]) == 1
    assert len(sides[Split.TRAINING]) == 0


def test_a_picture_with_two_labels_teaches_nothing():
    pixels = picture(1)

    sides = data.split([example(1, label=0, pixels=pixels), example(2, label=1, pixels=pixels)])

    assert sum(map(len, sides.values())) == 0


def test_folders_are_read_as_scoring_reads_them(tmp_path):
    for name in ("normal", "covid"):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / "covid" / "a.png"), picture(1))
    (tmp_path / "normal" / "b.png").write_text("not an image")

    (found,) = data.load([tmp_path], ["normal", "covid"], 64)

    assert found.label == 1
    assert found.pixels.shape == (64, 64)
    assert found.sha256 == hashlib.sha256((tmp_path / "covid" / "a.png").read_bytes()).hexdigest()


@pytest.mark.parametrize("change", [change for change, _ in augmentation.CHANGES], ids=lambda change: change.__name__)
def test_every_change_gives_a_picture_of_the_same_kind(change):
    before = picture(1)

    after = change(before, np.random.default_rng(5))

    assert after.shape == before.shape
    assert after.dtype == np.uint8
    assert (after != before).any()


def test_the_same_seed_changes_a_picture_alike():
    first, again = (augmentation.augment(picture(1), np.random.default_rng(5)) for _ in range(2))
    other = augmentation.augment(picture(1), np.random.default_rng(6))

    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_picture_that_was_given_is_not_changed():
    before = picture(1)

    for seed in range(20):
        augmentation.augment(before, np.random.default_rng(seed))

    np.testing.assert_array_equal(before, picture(1))


def test_the_temperature_of_boastful_scores_is_found_again():
    rng = np.random.default_rng(4)
    log_odds = rng.normal(0, 1.5, 20_000)
    truth = rng.random(20_000) < 1 / (1 + np.exp(-log_odds))
    boastful = 2 * log_odds

    temperature = calibration.fit_temperature(np.where(truth, boastful, -boastful))

    assert temperature == pytest.approx(2, abs=0.1)


def test_the_gate_keeps_its_own_kind_and_refuses_strangers():
    rng = np.random.default_rng(0)
    shape = rng.standard_normal((8, 60))
    chests = [
        (rng.standard_normal((count, 8)) @ shape + 0.1 * rng.standard_normal((count, 60))).astype(np.float32)
        for count in (400, 200)
    ]
    strangers = rng.standard_normal((100, 60)).astype(np.float32) * 3

    fit = gate.fit(chests[0], 8)
    limit = gate.limit(fit, chests[1], refused=0.01, margin=1.0)

    assert np.mean(distances(fit, chests[0]) > limit) < 0.03
    assert np.mean(distances(fit, strangers) > limit) == 1.0
    assert np.median(distances(fit, chests[0])) == pytest.approx(1, abs=0.2)


@pytest.fixture
def small(monkeypatch):
    offer_small(monkeypatch)
    return loop.Recipe(
        "small", "pooled256", ("dark", "bright"), (loop.Stage(16, 1, 3e-3), loop.Stage(32, 3, 8e-3)), "early",
        batch_size=8, dropout=0.0,
    )  # fmt: skip


def dark_and_bright(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = rng.integers(0, 100, (count, 32, 32)) + 130 * labels[:, None, None]
    return data.Examples(pixels.astype(np.uint8), labels, tuple(Path(str(n)) for n in range(count)))


def test_training_learns_what_can_be_learned_and_leaves_frozen_layers_alone(small):
    first = small_weights()

    trained = loop.train(small, first, dark_and_bright(96, 1), dark_and_bright(40, 2))

    unseen = dark_and_bright(40, 3)
    model = loop.skeleton(small, 32)
    networks.assign(model, trained)
    scores = model.predict(unseen.pixels[..., None], verbose=0)[:, 0]
    assert metrics.auc(unseen.labels == 1, scores.astype(float)).value > 0.95
    np.testing.assert_array_equal(trained["early/kernel"], first["early/kernel"])
    assert (trained["late/kernel"] != first["late/kernel"]).any()


def test_training_again_gives_the_same_weights(small):
    first = small_weights()

    runs = [loop.train(small, first, dark_and_bright(32, 1), dark_and_bright(16, 2)) for _ in range(2)]

    for name, values in runs[0].items():
        np.testing.assert_allclose(values, runs[1][name], atol=1e-5)


@pytest.mark.skipif("NIGHTREAD_TEST_DATA" not in os.environ, reason="NIGHTREAD_TEST_DATA names no real images")
def test_no_real_picture_is_on_two_sides():
    folder = Path(os.environ["NIGHTREAD_TEST_DATA"]) / "cxr"

    sides = data.split(data.load([folder], ["normal", "covid"], 64))

    seen = [{image.tobytes() for image in examples.pixels} for examples in sides.values()]
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert len(sides[Split.HELD_BACK]) > 400
