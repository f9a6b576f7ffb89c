"""Zoom, move, look at a value, measure: by pointer and by keys."""

import numpy as np
import pytest
from viewing import SMALL, attribute, canvas, facts, greys, matrix, noise, now, place, png, stage, to_picture


def test_the_wheel_zooms_around_the_pointer(table, page):
    table.lay(png(noise(900, 700)))
    table.open(page)
    box = stage(page)
    x, y = int(box["x"] + 0.6 * box["width"]), int(box["y"] + 0.3 * box["height"])
    page.mouse.move(x, y)
    before = to_picture(page, x, y)
    first = zoom = float(attribute(page, "zoom"))

    for delta in (-400, -400, 120, -300):
        page.mouse.wheel(0, delta)
        page.wait_for_function(
            "(zoom) => Math.abs(document.getElementById('viewer').dataset.zoom - zoom) > 1e-6", arg=zoom
        )
        zoom = float(attribute(page, "zoom"))

    assert zoom > 2
    # The picture begins at a whole device pixel: half a one off at first, and half a one off at last.
    assert np.abs(to_picture(page, x, y) - before).max() <= 0.5 / first + 0.5 / zoom


@pytest.mark.parametrize("how", ["middle", "right", "space"])
def test_the_picture_moves_with_the_pointer(table, page, how):
    table.lay(png(noise(900, 700)))
    table.open(page)
    page.keyboard.press("0")
    window, box, origin = now(page), stage(page), matrix(page)[:, 2]
    x, y = box["x"] + 300, box["y"] + 200

    page.mouse.move(x, y)
    if how == "space":
        page.keyboard.down("Space")
    page.mouse.down(button="left" if how == "space" else how)
    page.mouse.move(x + 37, y - 21, steps=4)
    page.mouse.up(button="left" if how == "space" else how)
    if how == "space":
        page.keyboard.up("Space")

    assert (matrix(page)[:, 2] - origin).tolist() == [37, -21]
    assert now(page) == window
    assert float(attribute(page, "zoom")) == 1  # Space did not reset


def test_two_fingers_zoom_and_move(table, window):
    table.lay(png(noise(900, 700)))
    page = window(viewport=SMALL, has_touch=True)
    table.open(page)
    page.keyboard.press("0")
    facing, box = now(page), stage(page)
    tools = page.context.new_cdp_session(page)

    def touch(kind, *fingers):
        points = [{"x": box["x"] + x, "y": box["y"] + 200, "id": number} for number, x in enumerate(fingers)]
        tools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 200, 300)
    between = to_picture(page, box["x"] + 250, box["y"] + 200)
    touch("touchMove", 180, 340)
    touch("touchMove", 160, 380)
    touch("touchEnd")

    zoom = float(attribute(page, "zoom"))
    assert zoom == pytest.approx(2.2, rel=0.02)
    assert np.abs(to_picture(page, box["x"] + 270, box["y"] + 200) - between).max() <= 3
    assert now(page) == facing


def test_keys_zoom_fit_move_and_reset(table, page):
    table.lay(png(noise(900, 700)))
    table.open(page)
    start = attribute(page, "matrix")
    fitted = float(attribute(page, "zoom"))

    page.keyboard.press("+")
    page.keyboard.press("+")
    larger, origin = float(attribute(page, "zoom")), matrix(page)[:, 2]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    moved = matrix(page)[:, 2] - origin
    page.keyboard.press("-")
    smaller = float(attribute(page, "zoom"))
    page.keyboard.press("=")
    again = attribute(page, "matrix")
    for key in "rhi3+":
        page.keyboard.press(key)
    page.keyboard.press("Space")

    assert larger == pytest.approx(fitted * 1.25**2)
    assert moved.tolist() == [-60, 60]
    assert smaller == pytest.approx(fitted * 1.25)
    assert again == start
    assert attribute(page, "matrix") == start
    assert (attribute(page, "preset"), attribute(page, "inverted")) == ("default", "false")


def test_nothing_of_an_earlier_view_stays(table, page):
    table.lay(png(np.full((90, 70), 65535, np.uint16)), display=facts())
    table.open(page)
    fitted = canvas(page, channel=0)

    for keys in ("++++r", "0", "Space"):
        for key in [keys] if keys == "Space" else keys:
            page.keyboard.press(key)
        seen, scale = canvas(page, channel=0), float(attribute(page, "zoom"))
        corners = [matrix(page) @ (x, y, 1) for x, y in ((0, 0), (70, 90))]
        (left, top), (right, bottom) = np.sort(np.clip(corners, 0, seen.shape[::-1]), 0)
        assert (seen > 0).sum() == pytest.approx((right - left) * (bottom - top), abs=sum(seen.shape)), (keys, scale)

    assert (seen == fitted).all()


def test_a_double_click_brings_a_point_to_the_middle(table, page):
    table.lay(png(noise(900, 700)))
    table.open(page)
    page.keyboard.press("0")

    page.mouse.dblclick(*place(page, 300, 500))

    box = stage(page)
    middle = to_picture(page, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert np.abs(middle - (300, 500)).max() <= 2


@pytest.mark.parametrize("ratio", [1, 2])
def test_the_value_under_the_pointer_is_in_real_units(table, window, ratio):
    samples = noise(900, 700, 4095)
    table.lay(png(samples), display=facts(high=4095, slope=0.5, intercept=-1024.0, unit="HU"))
    page = window(device_scale_factor=ratio)
    table.open(page)
    value = page.locator("[data-part=value]")

    for keys, x, y in [("", 123, 456), ("r++", 350, 460), ("h", 340, 440)]:
        for key in keys:
            page.keyboard.press(key)
        at = place(page, x + 0.5, y + 0.5)
        page.mouse.move(*at)
        attribute(page, "matrix")
        x, y = np.floor(to_picture(page, *at)).astype(int)  # the mouse stops at whole CSS pixels
        expected = samples[y, x] * 0.5 - 1024
        assert value.inner_text() == f"x {x}, y {y}: {expected:,.10g} HU", keys

    box = stage(page)
    page.keyboard.press("Space")
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    attribute(page, "matrix")
    assert value.inner_text() == "outside the picture"


SPACINGS = [
    ({"spacing": [0.2, 0.1], "spacing_kind": "calibrated"}, (0.1, 0.2), "mm, calibrated"),
    ({"spacing": [0.143, 0.143], "spacing_kind": "detector"}, (0.143, 0.143), "mm on the detector"),
    ({}, (1, 1), "pixels; the file states no spacing"),
]


@pytest.mark.parametrize(("stated", "spacing", "words"), SPACINGS)
@pytest.mark.parametrize("keys", ["", "rh++"])
def test_the_ruler_measures_by_the_stated_spacing(table, page, stated, spacing, words, keys):
    table.lay(png(noise(900, 700)), display=facts(**stated))
    table.open(page)
    for key in keys + "t":
        page.keyboard.press(key)
    ends = [tuple(round(side) for side in place(page, *point)) for point in ((310, 420), (390, 480))]

    page.mouse.move(*ends[0])
    page.mouse.down()
    page.mouse.move(*ends[1], steps=3)
    page.mouse.up()

    across = (to_picture(page, *ends[1]) - to_picture(page, *ends[0])) * spacing
    attribute(page, "matrix")
    said = page.locator("[data-part=length]").inner_text()
    assert words in said
    assert float(said.split()[1].replace(",", "")) == pytest.approx(np.hypot(*across), abs=0.05 + 0.1 * spacing[0])
    assert np.hypot(*across) == pytest.approx(np.hypot(80 * spacing[0], 60 * spacing[1]), rel=0.05)


def test_the_ruler_works_by_two_clicks_and_by_arrow_keys(table, page):
    table.lay(png(noise(900, 700)), display=facts(spacing=[1.0, 1.0], spacing_kind="calibrated"))
    table.open(page)
    page.keyboard.press("0")
    page.keyboard.press("t")
    length = page.locator("[data-part=length]")

    page.mouse.click(*place(page, 300, 450))
    page.mouse.click(*place(page, 340, 480))
    attribute(page, "matrix")
    clicked = length.inner_text()
    page.keyboard.press("Shift+ArrowRight")
    attribute(page, "matrix")
    moved = length.inner_text()
    page.locator("[data-part=stage]").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+ArrowLeft")
    attribute(page, "matrix")
    other_end = length.inner_text()
    assert page.locator("[data-part=said]").inner_text() == other_end
    page.keyboard.press("t")

    assert page.locator("[data-part=said]").inner_text() == "Ruler: off"  # what a screen reader is told
    assert clicked == "Ruler: 50.0 mm, calibrated"
    assert moved == f"Ruler: {np.hypot(41, 30):.1f} mm, calibrated"
    assert other_end == f"Ruler: {np.hypot(42, 30):.1f} mm, calibrated"
    assert page.get_attribute("[data-tool=ruler]", "aria-pressed") == "false"


def test_the_magnifier_shows_what_is_under_it_larger(table, page):
    samples = noise(90, 70).repeat(10, 0).repeat(10, 1)
    table.lay(png(samples), display=facts())
    table.open(page)
    page.keyboard.press("0")
    page.keyboard.press("g")

    page.mouse.move(*place(page, 355, 455))
    attribute(page, "matrix")

    lens = canvas(page, "lens")
    middle = lens[len(lens) // 2, len(lens) // 2, 0]
    assert middle == greys(samples[455, 355], 0, 65535)
    # Three times as large: 10 picture pixels of one grey are 30 wide (blended for a pixel at both ends).
    row = lens[len(lens) // 2, :, 0]
    same = np.flatnonzero(row != middle) - len(lens) // 2
    assert 26 <= same[same > 0].min() - same[same < 0].max() <= 34
    box = page.locator("[data-part=lens]").bounding_box()
    x, y = place(page, 355, 455)
    assert abs(box["x"] + box["width"] / 2 - x) <= 1
    assert abs(box["y"] + box["height"] / 2 - y) <= 1
