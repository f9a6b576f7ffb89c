"""The viewer on the scan page of the application itself, as a reader meets it."""

import cv2
import numpy as np
import pytest
from viewing import attribute, canvas, facts, matrix

from db.files import derived_path

axe = pytest.importorskip("axe_playwright_python.sync_playwright")

WINDOWS = [{"name": "</button><b>LUNG\u202e", "low": 30000.0, "high": 30200.0}]


def evidence(display):
    return {
        **{"width": 640, "height": 800, "top": 20, "bottom": 0, "left": 0, "right": 10},
        **{"crop": [90, 0, 630, 630], "input_size": 64, "display": display},
    }


@pytest.fixture
def scan(room):
    """A flagged scan whose samples differ in the low 8 of 16 bits alone, with a square in picture and heat map."""
    room.user()
    stated = facts(low=30000, high=30255, windows=WINDOWS, spacing=[0.5, 0.5], spacing_kind="detector")
    key = room.one(evidence=evidence(stated))
    samples = np.full((800, 640), 30000, np.uint16)
    samples[200:260, 400:460] = 30255
    heat = np.zeros((400, 320, 4), np.uint8)
    heat[100:130, 200:230] = 255
    for kind, picture in (("image", samples), ("heat", heat), ("input", samples[:64, :64].astype(np.uint8))):
        cv2.imwrite(str(derived_path(room.config.derived, key, kind)), picture)
    return key


def test_a_reader_sees_sixteen_bits_with_the_heat_map_on_its_place(scan, window):
    page = window("dr-a")
    page.goto(f"/scan/{scan}")
    page.wait_for_selector("#viewer[data-state=ready][data-heat-state=ready]")

    for key in "rh+":
        page.keyboard.press(key)

    bright = np.argwhere(canvas(page, channel=0) == 255) + 0.5
    hot = np.argwhere(canvas(page, "overlay", channel=3) > 100) + 0.5
    scale = float(attribute(page, "zoom"))
    assert attribute(page, "bits") == "16"
    assert np.abs(bright.mean(0) - hot.mean(0)).max() <= scale  # a picture pixel
    assert np.abs(bright.mean(0)[::-1] - matrix(page) @ (430, 230, 1)).max() <= max(scale, 1)


def test_a_window_s_name_from_the_file_is_text(scan, window):
    page = window("dr-a")
    page.goto(f"/scan/{scan}")
    page.wait_for_selector("#viewer[data-state=ready]")
    button = page.locator("button[data-preset=header]")

    page.keyboard.press("6")

    assert "</button><b>LUNG" in button.inner_text()
    assert "\u202e" not in button.inner_text()
    assert (attribute(page, "low"), attribute(page, "high")) == ("30000", "30200")


def test_with_every_tool_in_use_axe_finds_nothing(scan, window):
    page = window("dr-a")
    page.goto(f"/scan/{scan}")
    page.wait_for_selector("#viewer[data-state=ready]")

    for key in "xgtih":
        page.keyboard.press(key)
    page.wait_for_selector("[data-part=input]")

    found = axe.Axe().run(page, "#viewer")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found.response["violations"]] == []
