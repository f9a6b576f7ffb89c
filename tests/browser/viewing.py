"""A light table for the tests of the viewer: a small web server with the headers of ours, that shows `_viewer.html`
with pictures that a test lays on it, and grey PNG files written with any filter."""

from __future__ import annotations

import base64
import json
import struct
import threading
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from flask import Response, render_template_string, request
from werkzeug.serving import WSGIRequestHandler, make_server

from webui import display, headers, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from playwright.sync_api import Page

SMALL = {"width": 1000, "height": 700}  # a window with fewer pixels to carry out of the browser
RANDOM = np.random.default_rng(20261124)
PAGE = """<!doctype html><html lang="en"><head><title>Light table</title>
<link rel="icon" href="/static/icon.svg">
<link rel="stylesheet" href="/static/nightread.css"><link rel="stylesheet" href="/static/viewer.css"></head>
<body class="reading"><main id="main"><h1 class="hidden">Light table</h1><div class="scan">{% include "_viewer.html" %}
<aside class="panel"><label>Note <input id="note"></label></aside></div></main></body></html>"""
MOUNT = """async () => {
  const { mount, preload } = await import("/static/viewer.js");
  Object.assign(window, { mount, preload, viewer: mount(document.getElementById("viewer")) });
  return viewer.ready;
}"""


@dataclass
class LightTable:
    """Pictures by name, and what the page is told of them."""

    address: str = ""
    pictures: dict[str, bytes] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def lay(self, image: bytes, heat: bytes | None = None, seen: bytes | None = None, **told: Any) -> None:
        """Put these on the table, instead of what lay there; `told` is `evidence` and `display`."""
        laid = {"image.png": image, "heat.png": heat, "input.png": seen}
        self.pictures = {name: data for name, data in laid.items() if data is not None}
        self.told = {"evidence": None, "display": None, **told}
        self.asked.clear()

    def open(self, page: Page, *, is_mounted: bool = True) -> bool:
        """Load the page; whether the viewer shows the picture itself."""
        page.goto(f"{self.address}/")
        return bool(is_mounted and page.evaluate(MOUNT))


class Quiet(WSGIRequestHandler):
    """No line for every request."""

    def log(self, *_: object) -> None:
        """Say nothing."""


def serve(table: LightTable) -> Iterator[LightTable]:
    """The table in service, in a thread of this process."""
    app = headers.QuietFlask("webui")
    for part in (display, text):
        part.install(app)
    headers.install(app, https=False)
    app.add_url_rule("/", "table", lambda: render_template_string(PAGE, **addresses(table), **table.told))
    app.add_url_rule("/<name>", "picture", lambda name: picture(table, name))
    server = make_server("localhost", 0, app, threaded=True, request_handler=Quiet)
    table.address = f"http://localhost:{server.port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield table
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def addresses(table: LightTable) -> dict[str, str | None]:
    kinds = ("image", "heat", "input")
    return {f"{kind}_url": f"/{kind}.png" if f"{kind}.png" in table.pictures else None for kind in kinds}


def picture(table: LightTable, name: str) -> Response:
    ahead = " ahead" if request.headers.get("X-Nightread-Ahead") else ""
    table.asked[name + ahead] += 1
    if name not in table.pictures:
        return Response("none", 404)
    return Response(table.pictures[name], mimetype="image/png")


def png(samples: NDArray[Any], filters: Sequence[int] = (0,), *, pieces: int = 1, **header: int) -> bytes:
    """H x W uint8 or uint16 as a grey PNG whose row n uses filter `filters[n % len(filters)]` (0-4), its data in so
    many IDAT chunks; `header` overrides colour and interlace, for files that lie about themselves."""
    height, width = samples.shape
    step = samples.dtype.itemsize
    raw = np.frombuffer(samples.astype(samples.dtype.newbyteorder(">")).tobytes(), np.uint8).reshape(height, -1)
    rows = []
    for row in range(height):
        above = raw[row - 1] if row else np.zeros_like(raw[0])
        kind = filters[row % len(filters)]
        rows.append(bytes([kind]) + filtered(kind, raw[row].astype(int), above.astype(int), step).tobytes())
    packed = zlib.compress(b"".join(rows), 1)
    cut = -(-len(packed) // pieces)
    head = struct.pack(">IIBBBBB", width, height, 8 * step, header.get("colour", 0), 0, 0, header.get("interlace", 0))
    data = [chunk(b"IDAT", packed[at : at + cut]) for at in range(0, len(packed), cut)]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(data) + chunk(b"IEND", b"")


def filtered(kind: int, row: NDArray[Any], above: NDArray[Any], step: int) -> NDArray[np.uint8]:
    """One row as PNG clause 9.2 filters it."""
    left, corner = np.roll(row, step), np.roll(above, step)
    left[:step] = corner[:step] = 0
    estimate = left + above - corner
    away = [abs(estimate - neighbour) for neighbour in (left, above, corner)]
    paeth = np.where((away[0] <= away[1]) & (away[0] <= away[2]), left, np.where(away[1] <= away[2], above, corner))
    expected = (np.zeros_like(row), left, above, (left + above) // 2, paeth)[kind]
    return ((row - expected) % 256).astype(np.uint8)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def attribute(page: Page, name: str) -> str:
    """What the viewer says of itself, once what is drawn is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.get_attribute("#viewer", f"data-{name}") or ""


def matrix(page: Page) -> NDArray[np.float64]:
    """Picture pixels to device pixels of the canvas, 2 x 3."""
    a, b, c, d, e, f = map(float, attribute(page, "matrix").split())
    return np.array([[a, c, e], [b, d, f]])


def canvas(page: Page, part: str = "picture", *, channel: int | None = None) -> NDArray[np.uint8]:
    """A canvas's pixels, H x W x 4 (red, green, blue, alpha), or one channel of them."""
    attribute(page, "matrix")
    got = page.evaluate(PIXELS, [part, channel])
    flat = np.frombuffer(base64.b64decode(got["text"]), np.uint8)
    return flat.reshape(got["height"], got["width"], *([4] if channel is None else []))


PIXELS = """([part, channel]) => {
  const canvas = document.querySelector(`[data-part=${part}]`);
  const { width, height } = canvas;
  let { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  if (channel !== null) {
    const all = data;
    data = new Uint8Array(width * height);
    for (let at = 0; at < data.length; at += 1) data[at] = all[4 * at + channel];
  }
  let text = "";
  for (let at = 0; at < data.length; at += 32768) text += String.fromCharCode(...data.subarray(at, at + 32768));
  return { width, height, text: btoa(text) };
}"""


def facts(**stated: Any) -> dict[str, Any]:
    """A `display` as screening writes it."""
    plain = {"bits": 16, "low": 0.0, "high": 65535.0, "windows": [], "slope": 1.0, "intercept": 0.0, "unit": ""}
    return json.loads(json.dumps({**plain, "spacing": None, "spacing_kind": None, "inverted": False, **stated}))


def noise(height, width, most=65535, dtype=np.uint16):
    """Samples from 0 to `most`, H x W."""
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
    """The window in force, in samples."""
    return float(attribute(page, "low")), float(attribute(page, "high"))


def stage(page):
    """The box of the stage, CSS pixels."""
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


EVIDENCE = {
    **{"width": 400, "height": 600, "top": 50, "bottom": 20, "left": 0, "right": 10},
    **{"crop": [140, 0, 380, 380], "input_size": 64},
}
