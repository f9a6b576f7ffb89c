"""Picture, heat map and the square the model saw lie on each other, however they are turned."""

import cv2
import numpy as np
import pytest
from viewing import EVIDENCE, SMALL, attribute, canvas, centre, dotted, facts, greys, matrix, noise, png

# Every way to turn a picture that there is: four quarters, mirrored or not.
TURNS = ("", "r", "rr", "l", "h", "hr", "v", "vl")


@pytest.mark.parametrize(("ratio", "zooms"), [(1, ""), (1, "+++"), (2, "0"), (2, "+++")])
def test_the_heat_map_lies_on_the_picture_however_it_is_turned(table, window, ratio, zooms):
    image, heat = dotted(1000, 700, x=420, y=300, side=60)
    table.lay(image, heat, display=facts())
    page = window(device_scale_factor=ratio, viewport=SMALL)
    table.open(page)
    page.wait_for_selector("#viewer[data-heat-state=ready]")

    for turn in TURNS:
        page.keyboard.press("Space")
        for key in turn + zooms:
            page.keyboard.press(key)
        picture, over = canvas(page, channel=0) > 127, canvas(page, "overlay", channel=3) / 255
        found, where, scale = centre(picture), matrix(page) @ (450, 330, 1), float(attribute(page, "zoom"))

        assert np.abs(centre(over) - found).max() <= scale, (turn, zooms)  # a picture pixel
        assert np.abs(found - where).max() <= max(scale, 1), (turn, zooms)
        sides = [np.ptp(np.nonzero(part.any(axis))[0]) + 1 for part in (picture, over > 0.3) for axis in (0, 1)]
        assert np.abs(np.array(sides) - 60 * scale).max() <= 2 + scale, (turn, zooms)


@pytest.mark.parametrize("zooms", ["", "0", "+++++++"])
def test_pixels_that_are_not_square_are_shown_as_high_as_they_are(table, page, zooms):
    image, heat = dotted(300, 400, x=200, y=140, side=40)  # 20 mm wide, 40 mm high
    table.lay(image, heat, display=facts(spacing=[1.0, 0.5], spacing_kind="calibrated"))
    table.open(page)
    page.wait_for_selector("#viewer[data-heat-state=ready]")

    for turn in ("", "r", "hr"):
        page.keyboard.press("Space")
        for key in turn + zooms:
            page.keyboard.press(key)
        picture, over = canvas(page, channel=0) > 127, canvas(page, "overlay", channel=3) / 255
        scale, where = float(attribute(page, "zoom")), matrix(page) @ (220, 160, 1)
        wide, high = (np.ptp(np.nonzero(picture.any(axis))[0]) + 1 for axis in (0, 1))

        assert (wide, high) == pytest.approx((40 * scale, 80 * scale)[:: -1 if turn else 1], abs=2), (turn, zooms)
        assert np.abs(centre(over) - centre(picture)).max() <= scale
        assert np.abs(centre(picture) - where).max() <= max(scale, 1)


def test_the_two_turns_and_flips_do_what_their_names_say(table, page):
    samples = np.zeros((60, 60), np.uint16)
    samples[:20, :20], samples[:20, 40:] = 60000, 30000  # bright in the upper left, half bright in the upper right
    table.lay(png(samples), display=facts())
    table.open(page)
    corners = {}

    for turn in TURNS:
        page.keyboard.press("Space")
        page.keyboard.press("0")
        for key in turn:
            page.keyboard.press(key)
        place_of = matrix(page)
        left, top = (int(min(place_of[n] @ (x, y, 1) for x in (0, 60) for y in (0, 60))) for n in (0, 1))
        seen = canvas(page, channel=0)[top : top + 60, left : left + 60]
        corners[turn] = [int(seen[y, x]) for y, x in ((10, 10), (10, 50), (50, 50), (50, 10))]  # clockwise

    bright, half = (int(grey) for grey in greys(np.array([60000, 30000]), 0, 65535))
    assert corners == {
        **{"": [bright, half, 0, 0], "r": [0, bright, half, 0], "rr": [0, 0, bright, half], "l": [half, 0, 0, bright]},
        **{
            "h": [half, bright, 0, 0],
            "hr": [0, half, bright, 0],
            "v": [0, 0, half, bright],
            "vl": [0, half, bright, 0],
        },
    }


def test_that_a_picture_is_mirrored_is_said(table, page):
    table.lay(png(noise(60, 90)))
    table.open(page)
    said = page.locator("[data-part=turned]")
    upright = said.text_content()

    page.keyboard.press("h")
    attribute(page, "matrix")
    mirrored = said.inner_text()
    page.keyboard.press("h")
    page.keyboard.press("r")
    attribute(page, "matrix")

    assert upright == ""
    assert "left and right are swapped" in mirrored
    assert said.inner_text() == "turned 90°"


@pytest.mark.parametrize("ratio", [1, 2])
def test_the_square_the_model_saw_lies_where_it_was_cut(table, window, ratio):
    seen = cv2.imencode(".png", noise(64, 64, 255, np.uint8))[1].tobytes()
    table.lay(png(noise(600, 400)), seen=seen, evidence=EVIDENCE)
    page = window(device_scale_factor=ratio)
    table.open(page)
    assert page.is_hidden("[data-part=inset]")
    assert table.asked["input.png"] == 0

    page.keyboard.press("x")

    for keys in ("", "+++", "r", "h"):
        for key in keys:
            page.keyboard.press(key)
        over, place_of, scale = canvas(page, "overlay", channel=3), matrix(page), float(attribute(page, "zoom"))
        reach = 1 + 2 * ratio / scale  # picture pixels: past the line around the square
        for x, y, is_shaded in [
            *[(200, 140 - reach, True), (200, 140 + reach, False), (200, 520 - reach, False), (200, 520 + reach, True)],
            *[(380 - reach, 300, False), (380 + reach, 300, True), (100, 300, False)],
        ]:
            u, v = np.floor(place_of @ (x, y, 1)).astype(int)
            if 0 <= v < len(over) and 0 <= u < over.shape[1]:
                assert (over[v, u] > 0) == is_shaded, (keys, x, y)
    assert page.locator("[data-part=input]").evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 64
    assert "Model input, 64 × 64" in page.locator("[data-part=inset]").inner_text()
