"""Augmentation: the paper's changes R8 to R13, ours, how they are named on the command line, the contact sheet."""

import cv2
import numpy as np
import pytest

from workers.training import augmentation, changes
from workers.training.augmentation import CHANGES, PRESETS, augment, parse
from workers.training.examples import Examples


def picture(seed, size=96):
    rough = np.random.default_rng(seed).integers(40, 200, (12, 12), dtype=np.uint8)
    return cv2.resize(rough, (size, size), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "saturation"])
def test_every_change_gives_another_picture_of_the_same_kind(name):
    before, change = picture(1), CHANGES[name]

    after = change.apply(before, np.random.default_rng(5), change.low, change.high)

    assert after.shape == before.shape
    assert after.dtype == np.uint8
    assert (after != before).any()
    np.testing.assert_array_equal(before, picture(1))


def test_flips_exchange_sides():
    before, rng = picture(1), np.random.default_rng(5)

    np.testing.assert_array_equal(changes.flip_horizontal(before, rng, 0, 0), before[:, ::-1])
    np.testing.assert_array_equal(changes.flip_vertical(before, rng, 0, 0), before[::-1])


def centre(pixels):
    rows, columns = np.nonzero(pixels > 128)
    return np.array([columns.mean(), rows.mean()])


def dot(row, column, size=101):
    pixels = np.zeros((size, size), np.uint8)
    pixels[row - 3 : row + 4, column - 3 : column + 4] = 255
    return pixels


def test_shifts_go_up_down_left_right_and_any_mix():
    moves = [centre(changes.shift(dot(50, 50), np.random.default_rng(n), 0.1, 0.1)) - 50 for n in range(100)]

    assert {tuple(np.rint(move / 10).astype(int)) for move in moves} == {
        (x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)
    }


def test_rotations_turn_either_way_by_10_to_45_degrees():
    low, high = CHANGES["rotation"].low, CHANGES["rotation"].high

    turned = [centre(changes.rotation(dot(50, 80), np.random.default_rng(n), low, high)) - 50.5 for n in range(100)]

    degrees = np.degrees([np.arctan2(y, x) for x, y in turned])
    assert (low, high) == (10, 45)
    assert np.abs(degrees).min() > 8
    assert np.abs(degrees).max() < 47
    assert (degrees > 0).any()
    assert (degrees < 0).any()


def test_contrast_draws_greys_apart_or_together():
    before, rng = picture(1), np.random.default_rng(5)

    assert changes.contrast(before, rng, 1.3, 1.3).std() > before.std() * 1.1
    assert changes.contrast(before, rng, 0.7, 0.7).std() < before.std() * 0.8


def test_saturation_changes_colours_and_leaves_grey_images_as_they_are():
    grey = picture(1)
    colours = np.stack([grey, grey // 2, grey // 3], axis=2)

    np.testing.assert_array_equal(changes.saturation(grey, np.random.default_rng(5), 0.5, 0.6), grey)
    assert (changes.saturation(colours, np.random.default_rng(5), 0.5, 0.6) != colours).any()
    assert "grey" in parse("saturation").remarks()[0]
    assert not parse("rotation").remarks()


def test_the_papers_changes_combine_at_random():
    paper = PRESETS["paper"]

    results = {augment(picture(1), np.random.default_rng(n), paper).tobytes() for n in range(30)}

    names = [option.name for option in paper.options]
    assert names == ["flip_horizontal", "flip_vertical", "shift", "rotation", "saturation", "contrast"]
    assert len(results) > 20


@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_seed_changes_a_picture_alike(preset):
    first, again = (augment(picture(1), np.random.default_rng(5), PRESETS[preset]) for _ in range(2))
    others = [augment(picture(1), np.random.default_rng(n), PRESETS[preset]) for n in range(6, 12)]

    np.testing.assert_array_equal(first, again)
    assert any((first != other).any() for other in others) == (preset != "none")


def test_changes_are_named_with_range_and_chance():
    options = parse("rotation=5..20@1, flip_horizontal ,contrast@0.25").options

    assert [(option.name, option.chance, option.low, option.high) for option in options] == [
        ("flip_horizontal", 0.5, 0, 0),
        ("rotation", 1, 5, 20),
        ("contrast", 0.25, 0.7, 1.3),
    ]


@pytest.mark.parametrize("preset", PRESETS)
def test_what_an_augmentation_says_of_itself_is_read_back(preset):
    assert parse(str(PRESETS[preset])) == PRESETS[preset]
    assert parse(preset) == PRESETS[preset]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("spin", "'spin' is neither"),
        ("", "'' is neither"),
        ("rotation=45..10", "range lies within 0..180"),
        ("rotation=10..400", "range lies within 0..180"),
        ("contrast@2", "chance in 0..1"),
        ("flip_vertical=1..2", "has no range"),
        ("rotation=10-45", "is neither"),
        ("contrast=1.2.3..2", "is neither"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse(text)


def test_the_contact_sheet_shows_each_change_and_combinations():
    examples = Examples(np.stack([picture(1), picture(2)]), np.array([0, 1]), ())

    first, again = (
        augmentation.contact_sheet(examples, PRESETS["paper"], np.random.default_rng(1), rows=2) for _ in range(2)
    )

    sheet = cv2.imdecode(np.frombuffer(first, np.uint8), cv2.IMREAD_UNCHANGED)
    assert first == again
    assert sheet.shape == (24 + 2 * (augmentation.CELL + 4), (1 + 6 + 4) * (augmentation.CELL + 4))
    assert sheet.std() > 10
