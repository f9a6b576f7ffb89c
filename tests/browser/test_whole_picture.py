"""From the bytes of a 12-bit DICOM, read and kept as a worker does it, to the pixels of the canvas in the real reading
room: windowing and the heat map's place."""

import json

import numpy as np
import pytest
from drawn_night import PLACES, Film, dicom_of, submit
from driving import opens
from viewing import attribute, canvas, matrix

SIDE = 300


@pytest.fixture
def on_screen(room, window):
    """Show a film at one picture pixel to one device pixel; the page."""

    def show(samples: np.ndarray, **fields):
        room.user()
        (key,) = submit(room, Film("one.dcm", dicom_of(samples, **fields), hot=(3, 2)))
        page = window("dr-a")
        page.goto(f"/scan/{key}")
        opens(page, "one.dcm")
        page.wait_for_selector("#viewer[data-heat-state=ready]")
        page.keyboard.press("0")
        return page

    return show


def steps() -> np.ndarray:
    """Sixteen even columns of 12-bit samples with a lighter frame, so that nothing is cut as a border: H x W."""
    picture = np.repeat(np.linspace(300, 3900, 16).astype(np.uint16), 20)[None, :].repeat(SIDE, axis=0)
    return np.ascontiguousarray(picture)


def at(page, shown: np.ndarray, column: float, row: float) -> int:
    """The grey on the canvas where a pixel of the picture lies."""
    x, y = matrix(page) @ (column, row, 1)
    return int(shown[int(y), int(x)])


def test_the_samples_of_a_12_bit_dicom_are_on_the_canvas_through_the_window(on_screen):
    samples = steps()
    page = on_screen(samples)  # its header says centre 2,000 and width 3,000
    page.keyboard.press("6")  # that window, as the header states it
    shown = canvas(page, channel=0)

    low, high = (float(attribute(page, name)) for name in ("low", "high"))
    middle = [(n * 20 + 10, SIDE / 2) for n in range(16)]
    seen = [at(page, shown, x, y) for x, y in middle]
    wanted = [np.clip((float(samples[0, int(x)]) - low) / (high - low), 0, 1) * 255 for x, _ in middle]

    assert (attribute(page, "bits"), page.get_attribute("#viewer", "data-width")) == ("16", "320")
    assert (low, high) == pytest.approx((500, 3500), abs=2)
    assert seen == pytest.approx(wanted, abs=1)
    assert len(set(seen)) > 10  # more than a handful of steps: not 8 bits stretched


def test_more_contrast_shows_what_eight_bits_would_lose(on_screen):
    samples = steps()
    samples[100:200, 100:200] = 2000
    samples[140:160, 140:160] = 2003  # less than one of 256 grey levels apart
    page = on_screen(samples)

    wide = canvas(page, channel=0)
    before = at(page, wide, 150, 150) - at(page, wide, 120, 120)
    page.evaluate(NARROW)
    narrow = canvas(page, channel=0)

    assert before == 0
    assert at(page, narrow, 150, 150) - at(page, narrow, 120, 120) > 20


NARROW = """() => {
  const set = (part, value) => {
    const slider = document.querySelector(`[data-part=${part}]`);
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  };
  set("width", 20);
  set("level", 2001);
}"""


def test_the_heat_maps_warm_place_lies_on_the_pixel_where_the_network_saw_it(on_screen):
    page = on_screen(steps())
    opacity = canvas(page, "overlay", channel=3).astype(float)
    top, left, height, width = json.loads(page.get_attribute("#viewer", "data-evidence"))["crop"]

    down, across = np.mgrid[: opacity.shape[0], : opacity.shape[1]] + 0.5
    middle = [(opacity * along).sum() / opacity.sum() for along in (across, down)]
    column, row, _ = np.linalg.inv(np.vstack([matrix(page), [0, 0, 1]])) @ (*middle, 1)

    # Row 3 and column 2 of the seven by seven places of the square that the network was given.
    assert row == pytest.approx(top + 3.5 * height / PLACES, abs=1)
    assert column == pytest.approx(left + 2.5 * width / PLACES, abs=1)
