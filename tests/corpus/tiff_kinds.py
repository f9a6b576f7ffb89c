"""TIFF in every usual and unusual form: what must score, in these grey levels, and what is not read."""

import cv2
import numpy as np
from builders import encoded, pillow
from PIL import Image as Pillow

from corpus import SCORED, Draw, File, Kind
from corpus.rasters import UNREADABLE, few, few_bits, turned
from corpus.tiffs import assembled, tiff
from db.words import Reason


def _tiff(pixels: str = "grey", reason: Reason | None = SCORED, tolerance: float = 0, **options):
    return lambda draw: File(tiff(getattr(draw, pixels), **options), reason, None if reason else draw.grey, tolerance)


def _white(pixels: str, highest: int):
    def make(draw: Draw) -> File:
        wide = getattr(draw, pixels)
        return File(tiff((highest - wide).astype(wide.dtype), fields={262: (3, [0])}), SCORED, draw.grey)

    return make


def _squeezed(compression: str, pixels: str = "grey", tolerance: float = 0):
    def make(draw: Draw) -> File:
        image = Pillow.fromarray(getattr(draw, pixels))
        options = {"quality": 95} if compression == "jpeg" else {}
        return File(pillow(image, "TIFF", compression=compression, **options), SCORED, draw.grey, tolerance)

    return make


def _fax(draw: Draw) -> File:
    return File(pillow(Pillow.fromarray(draw.grey).convert("1"), "TIFF", compression="group4"), UNREADABLE)


def _paletted_tiff(draw: Draw) -> File:
    colours = [257 * (255 - level) for level in range(256)] * 3
    return File(tiff(draw.grey, fields={262: (3, [3]), 320: (3, colours)}), SCORED, 255 - draw.grey)


def _predicted(draw: Draw) -> File:
    steps = draw.grey.copy()
    steps[:, 1:] -= draw.grey[:, :-1]
    return File(tiff(steps, deflate=True, fields={317: (3, [2])}), SCORED, draw.grey)


def _two_pages(draw: Draw) -> File:
    done, data = cv2.imencodemulti(".tif", [draw.grey] * int(draw.rng.integers(2, 5)))
    assert done
    return File(data.tobytes(), Reason.MULTI_FRAME)


def _cmyk_tiff(draw: Draw) -> File:
    ink = np.dstack([np.zeros_like(draw.grey)] * 3 + [255 - draw.grey])
    return File(tiff(ink), SCORED, draw.grey, 1)


def _tiff_of_five(draw: Draw) -> File:
    return File(tiff(np.dstack([draw.grey] * 5)), UNREADABLE)


def _no_strip(draw: Draw) -> File:
    sizes = {279: (4, [0] * -(-len(draw.grey) // 40))}
    return File(tiff(draw.grey, fields=sizes), UNREADABLE)


def _too_few_strips(draw: Draw) -> File:
    described = {256: (4, [draw.grey.shape[1]]), 257: (4, [len(draw.grey)]), 258: (3, [8]), 278: (4, [10])}
    return File(assembled([draw.grey[:10].tobytes()], described | {262: (3, [1]), 277: (3, [1])}), UNREADABLE)


def _four_bit_tiff(draw: Draw) -> File:
    rows, levels = few_bits(draw.grey, 4)
    return File(tiff(rows, fields={258: (3, [4]), 256: (4, [levels.shape[1]])}), UNREADABLE)


KINDS = [
    Kind("grey.tif", "TIFF, 8 bits in strips", _tiff()),
    Kind("sixteen_big_endian.tif", "TIFF, 16 bits, big endian", _tiff("wide", end=">")),
    Kind("twelve.tif", "12 bits in a 16-bit TIFF", _tiff("twelve", tolerance=1)),
    Kind("big.tif", "BigTIFF", _tiff(big=True)),
    Kind("big_endian_big.tif", "BigTIFF, 16 bits, big endian", _tiff("wide", big=True, end=">")),
    Kind("tiles.tif", "TIFF in tiles", _tiff(tile=64)),
    Kind("planes.tif", "TIFF, one colour after the other", _tiff("rgb", planar=True)),
    Kind("deflated.tif", "TIFF, deflated", _tiff(deflate=True)),
    Kind("predicted.tif", "TIFF, deflated after horizontal differencing", _predicted),
    Kind("lzw.tif", "TIFF, LZW", _squeezed("tiff_lzw")),
    Kind("lzw_sixteen.tif", "TIFF, LZW of 16 bits", _squeezed("tiff_lzw", "wide")),
    Kind("packbits.tif", "TIFF, PackBits", _squeezed("packbits")),
    Kind("jpeg.tif", "TIFF of JPEG strips", _squeezed("jpeg", tolerance=2)),
    Kind("white_is_zero.tif", "TIFF that counts from white", _white("grey", 255)),
    Kind("white_is_zero_sixteen.tif", "TIFF of 16 bits that counts from white", _white("wide", 65535)),
    Kind("palette.tif", "TIFF with a palette that turns black and white over", _paletted_tiff),
    Kind("one_bit.tif", "TIFF of 1 bit", few(1, "tiff")),
    Kind("four_bit.tif", "TIFF of 4 bits, which OpenCV does not read", _four_bit_tiff),
    Kind("cmyk.tif", "TIFF of four inks", _cmyk_tiff),
    Kind("turned.tif", "TIFF that asks to be turned", turned("TIFF")),
    Kind("pages.tif", "TIFF of several pages", _two_pages),
    Kind("fax.tif", "TIFF, fax compression", _fax),
    Kind("float.tif", "TIFF of real numbers", lambda d: File(encoded(".tif", d.grey.astype(np.float32)), UNREADABLE)),
    Kind("signed.tif", "TIFF of signed samples", _tiff("wide", UNREADABLE, fields={339: (3, [2])})),
    Kind(
        "planes_sixteen.tif",
        "TIFF, planes of 16 bits: OpenCV mixes them up",
        lambda d: File(tiff(np.dstack([d.wide] * 3), planar=True), UNREADABLE),
    ),
    Kind("five_channels.tif", "TIFF of five samples a pixel", _tiff_of_five),
    Kind("no_strips.tif", "TIFF whose strips have no bytes", _no_strip),
    Kind("too_few_strips.tif", "TIFF of fewer strips than its size needs", _too_few_strips),
]
