from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from db.errors import UnreadableImage
from db.words import Reason
from workers.preprocessing import (
    Border,
    Box,
    Removed,
    equal_proportion,
    find_border,
    largest_centred_box,
    prepare,
)


def chest(height=300, width=300, seed=0):
    """A bright, noisy stand-in for anatomy: no line of it is border."""
    return np.random.default_rng(seed).integers(60, 200, (height, width), dtype=np.uint8)


def framed(top, bottom, left, right, level=0, height=300, width=300):
    return np.pad(chest(height, width), ((top, bottom), (left, right)), constant_values=level)


# The plain loops that the vectorised scan must agree with, written from R1 and R2 alone.


def plain_is_border(line, border):
    black = white = 0
    for value in line:
        black += value <= border.black_level
        white += value >= border.white_level
    return black / len(line) >= border.line_threshold or white / len(line) >= border.white_threshold


def plain_count(lines, border):
    removed, clean = 0, 0
    for number, line in enumerate(lines):
        if plain_is_border(line, border):
            removed, clean = number + 1, 0
        else:
            clean += 1
        if clean == border.clean_lines:
            break
    return removed


def plain_axis(lines, border):
    first = plain_count(lines, border)
    last = plain_count(list(reversed(lines[first:])), border)
    kept = len(lines) - first - last
    return (first, last) if kept > 0 and kept >= border.least_kept * len(lines) else (0, 0)


def plain_border(grey, border):
    rows = [list(row) for row in grey.tolist()]
    top, bottom = plain_axis(rows, border)
    rows = rows[top : len(rows) - bottom]
    return (top, bottom, *plain_axis([list(column) for column in zip(*rows, strict=True)], border))


some_pictures = arrays(
    np.uint8,
    st.tuples(st.integers(1, 150), st.integers(1, 12)),
    elements=st.sampled_from([0, 20, 21, 128, 249, 250, 255]),
    fill=st.sampled_from([0, 20, 128, 255]),
)
some_borders = st.builds(
    Border,
    black_level=st.sampled_from([0, 20, 130]),
    line_threshold=st.sampled_from([0.5, 0.75, 0.9, 1.0]),
    clean_lines=st.integers(1, 4),
    white_threshold=st.sampled_from([0.9, 0.99, 1.1]),
    least_kept=st.sampled_from([0.0, 0.1, 0.5]),
)


@settings(max_examples=300, deadline=None)
@given(some_pictures, some_borders)
def test_the_scan_agrees_with_a_plain_loop(grey, border):
    assert find_border(grey, border) == plain_border(grey, border)
    assert find_border(grey.T, border) == plain_border(grey.T, border)


@pytest.mark.parametrize("sides", [(0, 0, 0, 0), (7, 0, 0, 0), (0, 9, 0, 0), (3, 4, 5, 6), (90, 80, 70, 100)])
def test_black_bands_are_counted_on_each_side(sides):
    assert find_border(framed(*sides)) == sides


def test_a_line_exactly_on_the_threshold_is_border():
    at = chest(40, 30)
    at[0, :27] = 20
    below = at.copy()
    below[0, 0] = 21

    assert find_border(at).top == 1
    assert find_border(below).top == 0


def test_a_one_line_white_marker_inside_a_black_band_does_not_stop_the_scan_when_two_clean_lines_are_asked():
    picture = framed(10, 0, 0, 0)
    picture[5, 20:120] = 255

    assert find_border(picture, Border(clean_lines=2)).top == 10
    assert find_border(picture, Border(clean_lines=1)).top == 5


@pytest.mark.parametrize(("clean_lines", "marker", "top"), [(3, 2, 20), (3, 3, 8), (4, 3, 20), (2, 2, 8)])
def test_a_marker_thinner_than_the_clean_lines_asked_for_goes_with_the_band(clean_lines, marker, top):
    picture = framed(20, 0, 0, 0)
    picture[8 : 8 + marker, 20:120] = 255

    assert find_border(picture, Border(clean_lines=clean_lines)).top == top


def test_burned_in_letters_in_a_wide_band_do_not_cut_the_chest():
    picture = framed(60, 60, 60, 60)
    picture[20:40, 30:45] = 255

    assert find_border(picture) == (60, 60, 60, 60)


def test_columns_are_judged_on_the_rows_that_remain():
    picture = framed(150, 150, 0, 0, height=100)
    picture[150:250, :30] = 0
    picture[150:190, :30] = 128

    assert find_border(picture) == (150, 150, 0, 0)


def test_a_white_page_around_the_scan_is_cut_and_the_black_band_inside_it_too():
    black = framed(6, 6, 6, 6)
    page = np.pad(black, 4, constant_values=255)

    assert find_border(page) == (10, 10, 10, 10)
    assert find_border(page, Border(white_threshold=1.1)) == (0, 0, 0, 0)


def test_an_overexposed_belly_is_not_a_white_page():
    picture = chest()
    picture[270:, :290] = 255

    assert find_border(picture).bottom == 0


def test_a_dark_scan_is_not_cut_to_nothing():
    dark = np.full((300, 300), 10, dtype=np.uint8)
    dark[140:150, 120:180] = 60

    assert find_border(dark) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("height", "width", "ratio", "box"),
    [
        (100, 200, (1, 1), (0, 50, 100, 100)),
        (200, 100, (1, 1), (50, 0, 100, 100)),
        (101, 200, (1, 1), (0, 49, 101, 101)),
        (100, 100, (4, 3), (12, 0, 75, 100)),
        (90, 90, (3, 4), (0, 11, 90, 67)),
    ],
)
def test_the_largest_box_of_a_shape_is_centred(height, width, ratio, box):
    assert largest_centred_box(height, width, *ratio) == box


@given(*[st.integers(1, 3000)] * 2, *[st.integers(1, 50)] * 2)
def test_the_box_fits_keeps_its_shape_and_cannot_grow(height, width, ratio_w, ratio_h):
    box = largest_centred_box(height, width, ratio_w, ratio_h)

    assert box.top + box.height <= height
    assert box.left + box.width <= width
    assert box.height == height or box.width == width
    assert abs(box.width * ratio_h - box.height * ratio_w) < max(ratio_w, ratio_h)


@pytest.mark.parametrize(
    ("removed", "box"),
    [
        (Removed(10, 10, 0, 0), (10, 10, 380, 580)),  # D = 20: ten columns on each side
        (Removed(0, 0, 30, 10), (20, 30, 360, 560)),  # D = -40: twenty rows on each side
        (Removed(5, 0, 0, 0), (5, 2, 395, 595)),  # D = 5: two on the left, three on the right
        (Removed(0, 0, 0, 5), (2, 0, 395, 595)),  # D = -5: two at the top, three at the bottom
    ],
)
def test_the_papers_rule_takes_the_same_number_of_lines_from_both_axes(removed, box):
    assert equal_proportion(400, 600, removed, "paper") == box


def test_the_papers_rule_keeps_the_ratio_of_square_pictures_only():
    square = equal_proportion(500, 500, Removed(40, 20, 0, 10), "paper")
    wide = equal_proportion(500, 1000, Removed(40, 20, 0, 10), "paper")

    assert square.width == square.height
    assert wide.width / wide.height != pytest.approx(2, abs=0.01)


@given(st.integers(50, 2000), st.integers(50, 2000), *[st.integers(0, 12)] * 4)
def test_the_exact_rule_keeps_the_ratio_of_every_picture(height, width, top, bottom, left, right):
    removed = Removed(top, bottom, left, right)

    box = equal_proportion(height, width, removed, "exact")

    assert abs(box.width * height - box.height * width) < max(width, height)
    assert box.top >= top
    assert box.top + box.height <= height - bottom
    assert box.left >= left
    assert box.left + box.width <= width - right


def test_prepare_says_what_it_cut():
    pixels, evidence = prepare(framed(30, 10, 20, 0, height=500, width=700), 224)

    assert pixels.shape == (224, 224)
    assert pixels.dtype == np.uint8
    assert asdict(evidence) == {
        "height": 540,
        "width": 720,
        "top": 30,
        "bottom": 10,
        "left": 20,
        "right": 0,
        "crop": (30, 120, 500, 500),
        "input_size": 224,
        "display": None,  # a decoder's, which has read the file
        "preprocessing": "1",
    }


def test_the_crop_in_the_evidence_is_what_was_resized():
    picture = framed(3, 4, 5, 6, height=224, width=224)

    pixels, evidence = prepare(picture, 224)
    box = Box(*evidence.crop)
    same, _ = prepare(picture, box.height)

    assert np.array_equal(same, picture[box.top : box.top + box.height, box.left : box.left + box.width])
    assert pixels.shape == (224, 224)


def test_a_picture_of_the_right_size_without_a_border_is_left_as_it_is():
    picture = chest(224, 224)

    assert np.array_equal(prepare(picture, 224)[0], picture)


@pytest.mark.parametrize("size", [224, 299])
def test_a_large_picture_shrinks_by_averaging(size):
    flat = np.tile(np.array([[50, 150], [150, 50]], dtype=np.uint8), (size, size))
    flat[:, : size // 2] //= 2

    pixels, _ = prepare(flat, size)

    assert set(np.unique(pixels[:, size // 2 + 1 :])) == {100}


@pytest.mark.parametrize("level", [0, 12, 128, 255])
def test_one_colour_is_blank(level):
    with pytest.raises(UnreadableImage) as refused:
        prepare(np.full((300, 300), level, dtype=np.uint8), 224)

    assert refused.value.code is Reason.BLANK


def test_letters_on_an_empty_plate_are_blank():
    plate = np.full((400, 400), 5, dtype=np.uint8)
    plate[20:40, 20:32] = 255

    with pytest.raises(UnreadableImage) as refused:
        prepare(plate, 224)

    assert refused.value.code is Reason.BLANK


def test_too_few_pixels_inside_the_border_are_refused():
    with pytest.raises(UnreadableImage) as refused:
        prepare(framed(100, 100, 100, 100, height=50, width=50), 224)

    assert refused.value.code is Reason.TOO_SMALL
