"""The viewer in a real browser: samples in their own depth, exact windows, everything aligned, nothing left behind."""

import base64
import hashlib
import zlib

import cv2
import numpy as np
import pytest
from viewing import LightTable, attribute, canvas, chunk, facts, matrix, png, serve

pytest.importorskip("playwright.sync_api")

RANDOM = np.random.default_rng(20261124)
SMALL = {"width": 1000, "height": 700}  # fewer pixels to carry out of the browser
# Every way to turn a picture that there is: four quarters, mirrored or not.
TURNS = ("", "r", "rr", "l", "h", "hr", "v", "vl")


@pytest.fixture(scope="module")
def table():
    yield from serve(LightTable())


@pytest.fixture
def window(chromium):
    """A browser window, `window(device_scale_factor=2)`, that fails the test on a script error or a blocked request."""
    contexts, complaints = [], []

    def opens(**options):
        contexts.append(chromium.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if "Policy" in message.text else None)
        return page

    yield opens
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(window):
    return window(viewport=SMALL)


def noise(height, width, most=65535, dtype=np.uint16):
    return RANDOM.integers(0, most + 1, (height, width)).astype(dtype)


def greys(samples, low, high, *, inverted=False):
    """The window's formula, as viewer_window.js states it."""
    grey = np.clip(np.floor((samples.astype(float) - low) * (255 / (high - low)) + 0.5), 0, 255).astype(np.uint8)
    return 255 - grey if inverted else grey


def shown(page, height, width):
    """What the canvas shows of an upright picture at 1:1, H x W, once grey."""
    left, top = matrix(page)[:, 2].astype(int)
    seen = canvas(page)[top : top + height, left : left + width]
    assert (seen[..., 0] == seen[..., 1]).all()
    assert (seen[..., 0] == seen[..., 2]).all()
    assert (seen[..., 3] == 255).all()
    return seen[..., 0]


def now(page):
    return float(attribute(page, "low")), float(attribute(page, "high"))


def stage(page):
    return page.locator("[data-part=stage]").bounding_box()


def place(page, x, y):
    """Where a point of the picture is on the screen, in CSS pixels."""
    box = page.locator("canvas[data-part=picture]").bounding_box()
    u, v = matrix(page) @ (x, y, 1) / page.evaluate("devicePixelRatio")
    return box["x"] + u, box["y"] + v


def to_picture(page, x, y):
    """The point of the picture at a place on the screen."""
    box = page.locator("canvas[data-part=picture]").bounding_box()
    place_of = matrix(page)
    device = np.array([x - box["x"], y - box["y"]]) * page.evaluate("devicePixelRatio")
    return np.linalg.solve(place_of[:, :2], device - place_of[:, 2])


# Samples and windows


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


# The file


CASES = [
    (dtype, filters, height, width)
    for dtype in (np.uint8, np.uint16)
    for filters in [(0,), (1,), (2,), (3,), (4,), (4, 3, 2, 1, 0)]
    for height, width in [(1, 1), (7, 13), (31, 64), (65, 33)]
]


def test_every_filter_depth_and_odd_width_decodes_to_the_same_samples(table, page):
    pictures = [noise(height, width, np.iinfo(dtype).max, dtype) for dtype, _, height, width in CASES]
    files = [png(samples, filters, pieces=3) for samples, (_, filters, *_) in zip(pictures, CASES, strict=True)]
    table.lay(files[0])
    table.open(page, is_mounted=False)

    got = page.evaluate(DECODE, [base64.b64encode(file).decode() for file in files])

    for samples, file, answer in zip(pictures, files, got, strict=True):
        assert (cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED) == samples).all()  # an honest file
        assert (answer["width"], answer["height"]) == samples.shape[::-1]
        assert answer["depth"] == 8 * samples.dtype.itemsize
        assert (np.array(answer["samples"], samples.dtype).reshape(samples.shape) == samples).all()


DECODE = """async (files) => {
  const { decode } = await import("/static/png.js");
  const answers = [];
  for (const file of files) {
    try {
      const decoded = await decode(Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0)));
      answers.push({ ...decoded, samples: [...decoded.samples] });
    } catch (error) { answers.push(error.code ?? String(error)); }
  }
  return answers;
}"""


def test_other_files_are_refused_each_for_its_reason(table, page):
    good = png(noise(40, 30))
    colours = cv2.imencode(".png", noise(40, 30 * 3, 255, np.uint8).reshape(40, 30, 3))[1].tobytes()
    end = good.index(b"IEND") - 4
    wrong_sum = bytearray(good)
    wrong_sum[end - 5] ^= 1  # the last byte of the data: Adler-32
    wrong_header = bytearray(good)
    wrong_header[19] ^= 1
    files = {
        "not_png": b"\xff\xd8\xff\xe0" + good[4:],
        "kind": colours,
        "interlaced": png(noise(8, 8), interlace=1),
        "large": _file(_header(10_000, 10_000), bytes(9)),
        "cut_short": good[: end - 40],
        "kind ": good[:33] + chunk(b"tRNS", b"\0\0") + good[33:],
        "damaged": bytes(wrong_sum),
        "damaged ": bytes(wrong_header),
        "damaged  ": good[:8] + good[33:],  # no header
        "cut_short ": _file(_header(4, 9), bytes(4 * 5)),  # fewer rows than the header says
        "damaged   ": _file(_header(4, 2), bytes(4 * 5)),  # more rows
        "damaged    ": _file(_header(4, 1), b"\5" + bytes(4)),  # there is no filter 5
        "kind  ": _file(_header(8, 1, depth=4), bytes(5)),
    }
    table.lay(good)
    table.open(page, is_mounted=False)

    got = page.evaluate(DECODE, [base64.b64encode(file).decode() for file in files.values()])

    assert got == [code.strip() for code in files]


def _header(width, height, depth=8):
    return chunk(b"IHDR", np.array([width, height], ">u4").tobytes() + bytes([depth, 0, 0, 0, 0]))


def _file(header, rows):
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_picture_of_another_kind_is_shown_plainly_and_says_why(table, page):
    colours = cv2.imencode(".png", noise(40, 30 * 3, 255, np.uint8).reshape(40, 30, 3))[1].tobytes()
    table.lay(colours, heat=colours)

    assert not table.open(page)

    assert attribute(page, "state") == "plain"
    assert page.locator("img.viewer-plain").evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 30
    assert "not grey" in page.locator("[data-part=message]").inner_text()
    assert page.locator(".viewer button:not(:disabled)").count() == 0


def test_a_browser_that_cannot_inflate_shows_the_picture_plainly(table, page):
    table.lay(png(noise(40, 30)))
    page.add_init_script("delete globalThis.DecompressionStream")

    assert not table.open(page)

    assert attribute(page, "state") == "plain"
    assert "too old" in page.locator("[data-part=message]").inner_text()


def test_a_picture_that_does_not_come_says_so(table, page):
    table.lay(png(noise(40, 30)))
    table.open(page, is_mounted=False)
    table.pictures.clear()

    mounted = page.evaluate(
        "import('/static/viewer.js').then(({ mount }) => mount(document.getElementById('viewer')).ready)"
    )

    assert mounted is False
    assert attribute(page, "state") == "failed"
    assert "not stored here" in page.locator("[data-part=message]").inner_text()


def test_ten_megapixels_of_sixteen_bits_decode_to_the_byte(table, page):
    smooth = cv2.resize(noise(88, 72), (2880, 3520), interpolation=cv2.INTER_CUBIC)
    samples = smooth + RANDOM.integers(0, 8, smooth.shape, dtype=np.uint16)
    table.lay(cv2.imencode(".png", samples)[1].tobytes())

    assert table.open(page)

    digest = page.evaluate("""async () => {
      const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", viewer.picture.samples));
      return [...sum].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    }""")
    assert digest == hashlib.sha256(samples.astype("<u2").tobytes()).hexdigest()
    assert (attribute(page, "width"), attribute(page, "height"), attribute(page, "bits")) == ("2880", "3520", "16")


@pytest.mark.parametrize("scale", [0.9, 0.5, 1 / 3, 0.271, 0.06])
def test_a_small_view_averages_every_pixel(table, page, scale):
    samples = noise(301, 203)
    table.lay(png(samples))
    table.open(page)

    seen = resampled(page, scale, samples.shape)

    # Halved as often as leaves a pixel for each of the screen's, then the mean by area.
    level, halvings = samples.astype(float), min(int(-np.log2(scale) + 1e-9), 3)  # 3: 38 pixels are left
    for _ in range(halvings):
        level = cv2.copyMakeBorder(level, 0, len(level) % 2, 0, level.shape[1] % 2, cv2.BORDER_REPLICATE)
        level = level.reshape(len(level) // 2, 2, -1, 2).mean((1, 3))
    sizes = zip(seen.shape, level.shape, strict=True)
    down, across = (area_weights(count, size, scale * 2**halvings) for count, size in sizes)
    assert np.abs(seen - down @ level @ across.T)[:-1, :-1].max() <= 1 + halvings  # each halving rounds
    assert seen.mean() == pytest.approx(samples.mean(), rel=0.02)


@pytest.mark.parametrize(("scale", "is_blended"), [(1.7, True), (2, True), (4, False), (5.5, False)])
def test_an_enlarged_view_blends_up_to_four_times_and_then_shows_the_pixels(table, page, scale, is_blended):
    samples = noise(40, 30)
    table.lay(png(samples))
    table.open(page)

    seen = resampled(page, scale, samples.shape)

    rows, columns = ((np.arange(int(size * scale)) + 0.5) / scale for size in samples.shape)
    if is_blended:
        expected = blended(blended(samples.astype(float), rows - 0.5).T, columns - 0.5).T
    else:
        expected = samples[np.ix_(rows.astype(int), columns.astype(int))]
    assert np.abs(seen - expected).max() <= (1 if is_blended else 0)


def blended(lines, places):
    """Lines at places between whole numbers, the first and last repeated outside."""
    first = np.floor(places).astype(int)
    share = (places - first)[:, None]
    least, most = (np.clip(first + step, 0, len(lines) - 1) for step in (0, 1))
    return lines[least] * (1 - share) + lines[most] * share


def resampled(page, scale, shape):
    """What viewer_resample.js makes of the whole picture, in samples."""
    got = page.evaluate(
        """async ([scale, shape]) => {
          const { resample } = await import("/static/viewer_resample.js");
          const [rows, columns] = shape.map((size) => Math.floor(size * scale));
          const axes = [{ from: 0, to: columns }, { from: 0, to: rows }];
          return [...resample(viewer.picture, scale, ...axes, new Uint16Array(rows * columns))];
        }""",
        [scale, list(shape)],
    )
    return np.array(got).reshape([int(size * scale) for size in shape])


def area_weights(count, size, scale):
    """Share of each of `size` pixels in each of `count` screen pixels, count x size."""
    edges = np.arange(count + 1) / scale
    starts = np.arange(size)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.clip(overlap, 0, None) * scale


# Alignment


def dotted(height, width, x, y, side):
    """A black picture with a white square, and the heat map with the same one, at half the size."""
    samples = np.zeros((height, width), np.uint16)
    samples[y : y + side, x : x + side] = 65535
    heat = np.zeros((height // 2, width // 2, 4), np.uint8)
    heat[y // 2 : (y + side) // 2, x // 2 : (x + side) // 2] = 255
    return png(samples), cv2.imencode(".png", heat)[1].tobytes()


def centre(weights):
    """Centre of mass in canvas pixels, (u, v)."""
    rows, columns = np.indices(weights.shape) + 0.5
    return np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()


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


EVIDENCE = {
    **{"width": 400, "height": 600, "top": 50, "bottom": 20, "left": 0, "right": 10},
    **{"crop": [140, 0, 380, 380], "input_size": 64},
}


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


# Moving, looking, measuring


def test_the_wheel_zooms_around_the_pointer(table, page):
    table.lay(png(noise(900, 700)))
    table.open(page)
    box = stage(page)
    x, y = box["x"] + 0.6 * box["width"], box["y"] + 0.3 * box["height"]
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
    page.keyboard.press("t")

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


# Keys and the page around


def test_keys_are_letters_in_a_field_and_off_where_they_are_switched_off(table, page):
    table.lay(png(noise(90, 70)), png(noise(90, 70)))
    table.open(page)

    page.locator("#note").focus()
    page.keyboard.type("mirth 7 +")
    page.keyboard.press("ArrowLeft")
    typed = page.input_value("#note")
    page.locator("#note").blur()
    page.evaluate("localStorage.setItem('nightread.shortcuts', 'off')")
    page.keyboard.press("m")
    page.keyboard.press("2")
    still = [attribute(page, "preset"), page.get_attribute("[data-tool=heat]", "aria-pressed")]
    page.evaluate("localStorage.removeItem('nightread.shortcuts')")
    page.keyboard.press("m")

    assert typed == "mirth 7 +"
    assert still == ["default", "true"]
    assert page.get_attribute("[data-tool=heat]", "aria-pressed") == "false"


def test_a_toolbar_is_one_stop_and_its_buttons_are_walked_with_arrows(table, page):
    table.lay(png(noise(90, 70)))
    table.open(page)
    focused = "(({ tool, preset, part }) => tool ?? preset ?? part)(document.activeElement.dataset)"

    page.keyboard.press("Tab")
    first = page.evaluate(focused)
    page.keyboard.press("ArrowRight")
    second = page.evaluate(focused)
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    around = page.evaluate(focused)
    page.keyboard.press("Enter")
    pressed = page.get_attribute("[data-tool=invert]", "aria-pressed")
    stops = []
    for _ in range(4):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(focused))

    assert (first, second, around, pressed) == ("invert", "lens", "invert", "true")
    assert stops == ["default", "level", "width", "stage"]


def test_the_heat_map_fades_and_goes(table, page):
    image, heat = dotted(300, 200, x=60, y=100, side=40)
    table.lay(image, heat)
    table.open(page)
    page.wait_for_selector("#viewer[data-heat-state=ready]")

    strength = [canvas(page, "overlay", channel=3).max()]
    page.locator("[data-part=opacity]").fill("20")
    strength.append(canvas(page, "overlay", channel=3).max())
    page.keyboard.press("m")
    strength.append(canvas(page, "overlay", channel=3).max())

    assert strength == pytest.approx([0.7 * 255, 0.2 * 255, 0], abs=1)


def test_a_lost_heat_map_leaves_the_picture(table, page):
    table.lay(png(noise(90, 70)), heat=b"no picture")
    assert table.open(page)

    page.wait_for_selector("#viewer[data-heat-state=failed]")

    assert page.is_disabled("[data-tool=heat]")
    assert "heat map could not be loaded" in page.locator("[data-part=message]").inner_text()


# Coming and going


def test_a_preloaded_picture_is_shown_without_a_request(table, page):
    image, heat = dotted(300, 200, x=60, y=100, side=40)
    table.lay(image, heat)
    table.open(page, is_mounted=False)

    came = page.evaluate("import('/static/viewer.js').then(({ preload }) => preload('/image.png', '/heat.png'))")
    asked = dict(table.asked)
    table.pictures.clear()
    page.evaluate("""() => import("/static/viewer.js").then(({ mount }) => {
      window.viewer = mount(document.getElementById("viewer"));
      return viewer.ready;
    })""")

    assert came is True
    assert asked == {"image.png ahead": 1, "heat.png ahead": 1}
    assert dict(table.asked) == asked
    assert canvas(page, channel=0).max() == 255
    page.wait_for_selector("#viewer[data-heat-state=ready]")


def test_a_preload_that_fails_is_asked_for_again(table, page):
    table.lay(png(noise(90, 70)))
    table.open(page, is_mounted=False)
    kept = dict(table.pictures)
    table.pictures.clear()

    came = page.evaluate("import('/static/viewer.js').then(({ preload }) => preload('/image.png', null))")
    table.pictures.update(kept)
    mounted = page.evaluate(
        "import('/static/viewer.js').then(({ mount }) => mount(document.getElementById('viewer')).ready)"
    )

    assert (came, mounted) == (False, True)


def test_fifty_scans_leave_nothing_behind(table, page):
    samples = noise(600, 500)
    seen = cv2.imencode(".png", noise(64, 64, 255, np.uint8))[1].tobytes()
    evidence = {**EVIDENCE, "width": 500, "height": 600}
    table.lay(png(samples), dotted(600, 500, 60, 100, 40)[1], seen, evidence=evidence, display=facts())
    table.open(page)
    tools = page.context.new_cdp_session(page)
    read_scans(page, 3)
    before = held(tools)

    read_scans(page, 50)

    after = held(tools)
    assert after == before
    assert before["pictures"] == 3  # the last ones, the one on the screen among them
    page.keyboard.press("i")  # one viewer answers, not fifty
    assert attribute(page, "inverted") == "true"


def read_scans(page, count):
    """Mount a fresh section for each of so many scans, use it, and destroy the one before, as reading.js does."""
    page.evaluate(
        """async (count) => {
          for (let scan = 0; scan < count; scan += 1) {
            viewer.destroy();
            const old = document.getElementById("viewer");
            const section = old.cloneNode(true);
            section.dataset.image = `/image.png?scan=${scan}-${performance.now()}`;
            old.replaceWith(section);
            window.viewer = mount(section);
            if (scan % 5 === 4) viewer.destroy(); // gone before its picture came
            await viewer.ready;
            for (const tool of ["crop", "lens", "ruler", "right", "in"]) viewer.act(tool);
            viewer.draw();
          }
          await viewer.ready;
          viewer.destroy();
          window.viewer = mount(document.getElementById("viewer")); // again on the same section
          await viewer.ready;
        }""",
        count,
    )


def held(tools):
    """What the page holds after collecting garbage: listeners on window and document, pictures, canvases."""
    tools.send("HeapProfiler.enable")
    for _ in range(3):
        tools.send("HeapProfiler.collectGarbage")
    listeners = 0
    for target in ("window", "document"):
        found = tools.send("Runtime.evaluate", {"expression": target})["result"]["objectId"]
        listeners += len(tools.send("DOMDebugger.getEventListeners", {"objectId": found})["listeners"])
    pictures = "import('/static/viewer_picture.js').then(({ Picture }) => Picture.prototype)"
    return {
        "listeners": listeners,
        "pictures": how_many(tools, pictures),
        "canvases": how_many(tools, "HTMLCanvasElement.prototype"),
    }


def how_many(tools, kind):
    """Objects of a prototype that are alive."""
    prototype = tools.send("Runtime.evaluate", {"expression": kind, "awaitPromise": True})["result"]["objectId"]
    found = tools.send("Runtime.queryObjects", {"prototypeObjectId": prototype})["objects"]["objectId"]
    call = {"objectId": found, "functionDeclaration": "function () { return this.length; }", "returnByValue": True}
    count = tools.send("Runtime.callFunctionOn", call)["result"]["value"]
    tools.send("Runtime.releaseObject", {"objectId": found})  # it would keep all that it found
    return count
