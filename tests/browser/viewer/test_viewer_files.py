"""Grey PNG files decoded in the browser, to the byte; others refused, each for its reason."""

import base64
import hashlib
import zlib

import cv2
import numpy as np
from viewing import RANDOM, attribute, chunk, noise, png

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
