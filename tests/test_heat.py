"""Heat maps lie over the picture they explain: at most one of its pixels off, whatever its size and crop."""

import cv2
import numpy as np
import pytest

from workers.heat import LONGEST_SIDE, OPACITY, SHADES, Grid, heatmap_png
from workers.preprocessing import Box, Evidence, prepare

ONES = np.ones((7, 7), np.float32)
# height, width, crop: even, odd, off centre, shrunk by a whole number, by an odd one, and a thin strip
PLACES = [
    (700, 900, (0, 100, 700, 700)),
    (301, 203, (61, 11, 181, 181)),
    (1023, 777, (123, 0, 777, 777)),
    (4096, 3072, (512, 0, 3072, 3072)),
    (3001, 2543, (229, 7, 2529, 2529)),
    (4321, 3457, (437, 13, 3431, 3431)),
    (2999, 1001, (1003, 1, 997, 997)),
]


def evidence(height, width, crop):
    return Evidence(height, width, 0, 0, 0, 0, crop=Box(*crop), input_size=224)


def overlay(heat, height, width, crop):
    """How hot each pixel is drawn, 0-1."""
    return hotness(heatmap_png(heat, evidence(height, width, crop)))


def hotness(png):
    """From a drawing's transparency, which is cut off to whole numbers, back to its shades."""
    alpha = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)[..., 3]
    return np.rint(alpha / (255 * OPACITY / SHADES) + 0.15) / SHADES


def over_the_image(alpha, height, width):
    """Where the middles of the overlay's rows and columns lie in the image, once a page has stretched it over it."""
    rows = (np.arange(alpha.shape[0]) + 0.5) * height / alpha.shape[0]
    columns = (np.arange(alpha.shape[1]) + 0.5) * width / alpha.shape[1]
    return rows, columns


def test_a_heat_map_lies_over_the_image_as_read_and_is_clear_outside_the_crop():
    alpha = overlay(ONES, 300, 200, (60, 10, 180, 180))

    assert alpha.shape == (300, 200)
    inside = np.zeros((300, 200), bool)
    inside[60:240, 10:190] = True
    assert (alpha[inside] == 1).all()
    assert (alpha[~inside] == 0).all()


def test_a_heat_map_of_a_large_image_is_smaller_in_proportion():
    assert overlay(ONES, 4096, 3072, (512, 0, 3072, 3072)).shape == (1024, 768)


def test_a_crop_of_a_thin_image_still_has_a_heat_map():
    alpha = overlay(ONES, 30_000, 64, (100, 0, 64, 64))

    assert max(alpha.shape) == LONGEST_SIDE
    assert alpha.max() > 0.9


@pytest.mark.parametrize(("height", "width", "crop"), PLACES)
@pytest.mark.parametrize("place", [(1, 5), (3, 3), (5, 2)])
def test_a_peak_is_drawn_within_a_pixel_of_its_place_in_the_image(height, width, crop, place):
    heat = np.zeros((7, 7), np.float32)
    heat[place] = 1

    alpha = overlay(heat, height, width, crop)

    rows, columns = over_the_image(alpha, height, width)
    top, left, side, _ = crop
    expected = top + (place[0] + 0.5) * side / 7, left + (place[1] + 0.5) * side / 7
    found = (alpha.sum(1) @ rows) / alpha.sum(), (alpha.sum(0) @ columns) / alpha.sum()
    assert found == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("height", "width", "crop"), PLACES)
def test_a_place_is_drawn_where_the_middle_of_what_it_sees_lies(height, width, crop):
    heat = np.zeros((7, 7), np.float32)
    heat[2, 4] = 1

    alpha = hotness(heatmap_png(heat, evidence(height, width, crop), Grid(0.5, 32)))

    rows, columns = over_the_image(alpha, height, width)
    top, left, side, _ = crop
    expected = top + (0.5 + 2 * 32) * side / 224, left + (0.5 + 4 * 32) * side / 224
    found = (alpha.sum(1) @ rows) / alpha.sum(), (alpha.sum(0) @ columns) / alpha.sum()
    assert found == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("height", "width", "crop"), PLACES)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_gradient_passes_its_half_within_a_pixel_of_the_middle_of_the_crop(height, width, crop, axis):
    ramp = np.linspace(0, 1, 7, dtype=np.float32)
    heat = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, (7, 7))

    alpha = overlay(heat, height, width, crop)

    places = over_the_image(alpha, height, width)[axis]
    start, side = crop[axis], crop[2]
    profile = alpha.max(1 - axis)
    middle = (places > start + side / 3) & (places < start + side * 2 / 3)  # straight there, in steps of a shade
    slope, offset = np.polyfit(places[middle], profile[middle], 1)
    assert (0.5 - offset) / slope == pytest.approx(start + side / 2, abs=1)
    assert slope == pytest.approx(7 / 6 / side, rel=0.02)


@pytest.mark.parametrize(("height", "width", "crop"), PLACES)
def test_the_crops_edges_are_drawn_within_a_pixel_of_where_they_are(height, width, crop):
    alpha = overlay(ONES, height, width, crop)

    top, left, side, _ = crop
    scale = height / alpha.shape[0], width / alpha.shape[1]
    down = alpha[:, alpha.shape[1] // 2] / alpha.max()
    across = alpha[round((top + side / 2) / scale[0])] / alpha.max()
    for profile, size, start in ((down, scale[0], top), (across, scale[1], left)):
        # The length of what is drawn, pixels that the edge cuts counted in part, and its middle.
        assert profile.sum() * size == pytest.approx(side, abs=1)
        middle = (np.arange(len(profile)) + 0.5) @ profile / profile.sum() * size
        assert middle == pytest.approx(start + side / 2, abs=1)


def test_the_overlay_and_what_the_model_saw_name_the_same_place():
    """A white square in a picture with a border, found in the model's input, put on the heat map, and drawn."""
    picture = np.full((877, 1003), 90, np.uint8) + np.random.default_rng(1).integers(0, 30, (877, 1003), np.uint8)
    picture[:, :101] = 0
    picture[:53] = 0
    picture[400:460, 600:660] = 255

    pixels, found = prepare(picture, 224)
    ys, xs = np.nonzero(pixels > 240)
    heat = cv2.GaussianBlur((pixels > 240).astype(np.float32), (0, 0), 4)
    alpha = hotness(heatmap_png(heat / heat.max(), found))

    assert len(ys) > 50
    assert len(xs) == len(ys)
    rows, columns = over_the_image(alpha, 877, 1003)
    at = (alpha.sum(1) @ rows) / alpha.sum(), (alpha.sum(0) @ columns) / alpha.sum()
    assert at == pytest.approx((430, 630), abs=2)  # a pixel of the input is 3.6 of the image
