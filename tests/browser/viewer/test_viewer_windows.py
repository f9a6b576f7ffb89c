"""Samples in their own depth through a window: what the canvas holds is the formula, exactly."""

import numpy as np
import pytest
from viewing import RANDOM, attribute, facts, greys, noise, now, png, shown, stage


def test_a_difference_in_the_low_eight_bits_alone_is_seen(table, page):
    samples = (0x7500 + np.arange(256, dtype=np.uint16)).reshape(16, 16).repeat(8, 0).repeat(8, 1)
    table.lay(png(samples), display=facts(low=0x7500, high=0x75FF))
    table.open(page)

    page.keyboard.press("0")

    seen = shown(page, *samples.shape)
    assert (seen == greys(samples, 0x7500, 0x75FF)).all()
    assert len(np.unique(seen)) == 256


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_canvas_holds_the_formula_exactly_for_any_window(table, page, dtype):
    samples = noise(203, 317, np.iinfo(dtype).max, dtype)
    most = int(samples.max())
    windows = [
        {"name": "narrow", "low": most / 3, "high": most / 3 + 7.5},
        {"name": "odd", "low": -90.25, "high": most},
    ]
    table.lay(png(samples), display=facts(low=0, high=most, windows=windows))
    table.open(page)
    page.keyboard.press("0")

    for key in "135671i6":
        page.keyboard.press(key)
        inverted = attribute(page, "inverted") == "true"
        assert (shown(page, *samples.shape) == greys(samples, *now(page), inverted=inverted)).all(), key

    assert inverted
    assert now(page) == (most / 3, most / 3 + 7.5)


def test_dragging_left_and_right_widens_up_and_down_moves_the_window(table, page):
    samples = noise(203, 317)
    table.lay(png(samples), display=facts(low=20000, high=40000))
    table.open(page)
    page.keyboard.press("0")
    box = stage(page)
    x, y = box["x"] + 300, box["y"] + 150

    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 90, y + 30, steps=3)
    page.mouse.up()

    low, high = now(page)
    assert high - low == pytest.approx(20000 * np.exp(0.3), rel=1e-6)
    assert (low + high) / 2 > 30000  # dragged down: darker
    assert attribute(page, "preset") == ""
    assert page.locator("[data-preset][aria-pressed=true]").count() == 0
    assert (shown(page, *samples.shape) == greys(samples, low, high)).all()


def test_level_and_width_move_by_keyboard_alone(table, page):
    table.lay(png(noise(100, 100)), display=facts(low=10000, high=30000, slope=0.5, unit="HU"))
    table.open(page)

    page.locator("[data-part=level]").focus()
    page.keyboard.press("ArrowRight")
    after_level = now(page)
    page.locator("[data-part=width]").focus()
    page.keyboard.press("ArrowLeft")

    assert after_level[1] - after_level[0] == pytest.approx(20000)
    assert 0 < after_level[0] - 10000 < 1000
    narrower = now(page)
    assert narrower[1] - narrower[0] < 20000
    assert sum(narrower) == pytest.approx(sum(after_level))
    assert "HU" in page.locator("[data-part=level]").evaluate("(slider) => slider.ariaValueText")


def test_presets_are_what_they_say(table, page):
    samples = np.clip(RANDOM.normal(30000, 4000, (400, 300)), 1000, 60000).astype(np.uint16)
    samples[:40] = 0  # a border, which preprocessing removed
    samples[50, 50] = 65000
    evidence = {
        **{"width": 300, "height": 400, "top": 40, "bottom": 0, "left": 0, "right": 0},
        **{"crop": [70, 0, 300, 300], "input_size": 64},
    }
    windows = [{"name": "CHEST", "low": 20000, "high": 41000}]
    table.lay(png(samples), evidence=evidence, display=facts(low=500, high=50500, windows=windows))
    table.open(page)

    got = {}
    for key in "123456":
        page.keyboard.press(key)
        got[key] = now(page)
        assert page.locator("[data-preset][aria-pressed=true] kbd").inner_text() == key

    inside = np.sort(samples[40:].ravel())
    low, high = (int(inside[int(np.ceil(share * inside.size)) - 1]) for share in (0.01, 0.99))
    middle = (low + high) / 2
    assert got == {
        **{"1": (500, 50500), "2": (0, 65000), "3": (low, high)},
        **{"4": (low, middle), "5": (middle, high), "6": (20000, 41000)},
    }


def test_hounsfield_presets_go_through_slope_and_intercept(table, page):
    table.lay(png(noise(90, 90, 4095)), display=facts(low=0, high=4095, slope=2.0, intercept=-1024.0, unit="HU"))
    table.open(page)

    page.keyboard.press("4")

    assert now(page) == ((-1350 + 1024) / 2, (150 + 1024) / 2)
    assert page.locator("[data-part=window]").inner_text() == "Window -1,350 HU to 150 HU"


def test_without_facts_the_picture_s_own_range_is_the_window(table, page):
    samples = np.clip(noise(90, 90), 1200, 3000)
    table.lay(png(samples))

    assert table.open(page)

    assert now(page) == (1200, 3000)
