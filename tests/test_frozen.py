"""A head on a frozen base: features computed once a picture, cached on disk, trained on in seconds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_models import SIZE, offer_small, small_weights

from workers import networks
from workers.training import frozen, loop
from workers.training.augmentation import PAPER
from workers.training.examples import Examples
from workers.training.recipes import Recipe, Stage
from workers.training.strategies import Strategy


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    offer_small(monkeypatch)


def recipe(**fields):
    usual = Recipe(
        "small", "pooled256", ("dark", "bright"), (Stage(SIZE, 12, 5e-3),), strategy=Strategy.FROZEN, dropout=0.0
    )
    return replace(usual, **fields)


def dark_and_bright(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = rng.integers(0, 100, (count, SIZE, SIZE)) + 150 * labels[:, None, None]
    return Examples(pixels.astype(np.uint8), labels, tuple(Path(str(n)) for n in range(count)))


@pytest.mark.parametrize("head", networks.HEADS)
def test_features_are_what_the_head_sees(head):
    values, pixels = small_weights(head=head), dark_and_bright(40, 1).pixels
    model = loop.skeleton(recipe(head=head), SIZE)
    networks.assign(model, values)

    seen = frozen.features(recipe(head=head), values, pixels)

    scored = frozen.head_scores(recipe(head=head), {n: v for n, v in values.items() if n[0] in "hs"}, seen)
    assert seen.dtype == np.float16
    np.testing.assert_allclose(scored[:, 1:], model.predict(pixels[..., None], verbose=0), atol=2e-3)


def test_a_picture_is_looked_at_once(tmp_path):
    values, pixels = small_weights(), dark_and_bright(40, 1).pixels
    first = frozen.features(recipe(), values, pixels[:30], cache=tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    told = []

    again = frozen.features(recipe(), values, pixels[::-1], cache=tmp_path, progress=lambda *done: told.append(done))

    np.testing.assert_array_equal(again[::-1][:30], first)
    np.testing.assert_array_equal(again, frozen.features(recipe(), values, pixels[::-1]))
    assert len(files) == 30
    assert all(path.stat().st_mtime_ns == at for path, at in files.items())
    assert told == [(40, 40)]


def test_a_damaged_file_in_the_cache_is_made_again(tmp_path):
    values, pixels = small_weights(), dark_and_bright(4, 1).pixels
    first = frozen.features(recipe(), values, pixels, cache=tmp_path)
    for number, path in enumerate(sorted(tmp_path.rglob("*.npy"))):
        path.write_bytes(path.read_bytes()[: number * 60])

    again = frozen.features(recipe(), values, pixels, cache=tmp_path)

    np.testing.assert_array_equal(again, first)


def test_the_network_is_not_built_for_what_is_in_the_cache(tmp_path, monkeypatch):
    values, pixels = small_weights(), dark_and_bright(4, 1).pixels
    first = frozen.features(recipe(), values, pixels, cache=tmp_path)
    monkeypatch.setattr(networks, "ARCHITECTURES", {})

    again = frozen.features(recipe(), values, pixels, cache=tmp_path)

    np.testing.assert_array_equal(again, first)


def test_another_base_or_recipe_does_not_find_these_features(tmp_path):
    pixels = dark_and_bright(2, 1).pixels
    variants = [
        (recipe(), small_weights(), None),
        (recipe(), small_weights(seed=10), None),
        (recipe(head="flatten256"), small_weights(head="flatten256"), None),
        (recipe(), small_weights(), 0),
        (recipe(), small_weights(), 1),
        (recipe(seed=2), small_weights(), 0),
        (recipe(augmentation=PAPER), small_weights(), 0),
    ]

    for made, values, copy in variants:
        frozen.features(made, values, pixels, cache=tmp_path, copy=copy)

    assert len(list(tmp_path.iterdir())) == len(variants)


def test_the_head_of_the_base_does_not_matter_to_the_cache(tmp_path):
    pixels, values = dark_and_bright(2, 1).pixels, small_weights()
    for more in ({}, {"scores/bias": np.array([3], np.float32)}, small_weights(classes=3)):
        base = {name: array for name, array in {**values, **more}.items() if more or name[0] not in "hs"}
        frozen.features(
            recipe(), {**base, **{n: values[n] for n in values if n[0] not in "hs"}}, pixels, cache=tmp_path
        )

    assert len(list(tmp_path.iterdir())) == 1


def test_an_augmented_copy_depends_on_the_picture_and_its_number_alone():
    values, pixels = small_weights(), dark_and_bright(6, 1).pixels

    every = frozen.features(recipe(), values, pixels, copy=0)

    np.testing.assert_array_equal(frozen.features(recipe(), values, pixels[3:], copy=0), every[3:])
    assert (frozen.features(recipe(), values, pixels, copy=1) != every).any()


@pytest.mark.parametrize("copies", [0, 2])
def test_a_head_learns_and_the_base_stays(copies, tmp_path):
    first, seen = small_weights(), []

    fitted = frozen.train_head(
        recipe(),
        first,
        dark_and_bright(48, 1),
        dark_and_bright(40, 2),
        cache=tmp_path,
        copies=copies,
        seen=lambda *done: seen.append(done),
    )

    model = loop.skeleton(recipe(), SIZE)
    networks.assign(model, fitted.weights)
    unseen = dark_and_bright(40, 3)
    right = (model.predict(unseen.pixels[..., None], verbose=0)[:, 0] > 0.5) == unseen.labels
    assert right.mean() > 0.95
    assert fitted.weights.keys() == first.keys()
    np.testing.assert_array_equal(fitted.weights["late/kernel"], first["late/kernel"])
    assert fitted.parameters["frozen"] == sum(first[name].size for name in first if name[0] not in "hs")
    assert len(fitted.history.stages) == 12
    of = 48 * (1 + copies) + 40
    assert seen[-1] == (of, of)


def test_training_a_head_again_gives_the_same(tmp_path):
    images = dark_and_bright(48, 1), dark_and_bright(16, 2)

    runs = [frozen.train_head(recipe(), small_weights(), *images, cache=tmp_path).weights for _ in range(2)]

    np.testing.assert_allclose(runs[0]["hidden/kernel"], runs[1]["hidden/kernel"], atol=1e-5)


def test_ctrl_c_keeps_the_best_head_so_far():
    def progress(step):
        if step.epoch == 9:
            raise KeyboardInterrupt

    fitted = frozen.train_head(
        recipe(), small_weights(), dark_and_bright(48, 1), dark_and_bright(16, 2), progress=progress
    )

    assert fitted.stopped
    assert len(fitted.history.stages) == 8
