"""Sound files that were cut, closed again, zeroed in part or flipped by a bit: none may score unnoticed.

Formats without a checksum cannot show everything: their kinds are `silent`, and the run says how many of them scored.
"""

import re
import struct

import cv2
import numpy as np
from builders import dicom, encoded, pillow
from PIL import Image as Pillow

from corpus import Draw, File, Kind
from corpus.dicoms import BASELINE, EXTENDED, JPEG_2000, JPEG_LS, LOSSLESS, RLE, enclosed, stream_of
from corpus.rasters import assembled_png, jpeg, lossless_jpeg, png
from corpus.tiffs import tiff
from db.words import Reason

TRUNCATED, UNREADABLE = Reason.TRUNCATED, Reason.UNREADABLE
END_OF_JPEG, END_OF_PNG = b"\xff\xd9", b"\0\0\0\0IEND\xaeB`\x82"


def _tiff(compression: str):
    def make(draw: Draw) -> bytes:
        if compression == "none":
            return tiff(draw.grey)
        options = {"quality": 95} if compression == "jpeg" else {}
        return pillow(Pillow.fromarray(draw.grey), "TIFF", compression=compression, **options)

    return make


def _progressive(draw: Draw) -> bytes:
    return jpeg(draw, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


def _webp(draw: Draw) -> bytes:
    return encoded(".webp", draw.grey, cv2.IMWRITE_WEBP_QUALITY, 90)


def _lossless_webp(draw: Draw) -> bytes:
    return pillow(Pillow.fromarray(draw.rgb), "WEBP", lossless=True)


def _png(draw: Draw) -> bytes:
    return encoded(".png", draw.grey)


# How to make a sound file of each format, and whether every damage to its pixels shows.
SOUND = {
    "png": (_png, True),
    "jpg": (jpeg, False),
    "progressive.jpg": (_progressive, False),
    "lossless.jpg": (lambda d: lossless_jpeg(d.grey), False),
    "plain.tif": (_tiff("none"), False),
    "lzw.tif": (_tiff("tiff_lzw"), False),
    "deflated.tif": (_tiff("tiff_adobe_deflate"), True),
    "packbits.tif": (_tiff("packbits"), False),
    "jpeg.tif": (_tiff("jpeg"), False),
    "bmp": (lambda d: encoded(".bmp", d.grey), False),
    "lossy.webp": (_webp, False),
    "lossless.webp": (_lossless_webp, False),
    "plain.dcm": (lambda d: dicom(d.grey), False),
}
STREAMS = {
    "jpeg": BASELINE,
    "extended": EXTENDED,
    "lossless": LOSSLESS,
    "jpeg_ls": JPEG_LS,
    "jpeg_2000": JPEG_2000,
    "rle": RLE,
}


def _cut(name: str, closing: bytes = b""):
    """Cut at a multiple of 5 %. A TIFF's directory may lie after its pixels, so that any cut shows in it."""

    def make(draw: Draw) -> File:
        data = SOUND[name][0](draw)
        length = int(len(data) * draw.twentieth())
        return File(data[:length] + closing, TRUNCATED)

    return make


def _cut_stream(name: str, *, closed: bool):
    """The compressed picture inside DICOM, cut at a multiple of 5 %; the DICOM around it is whole."""

    def make(draw: Draw) -> File:
        stream = stream_of(draw.grey, STREAMS[name])
        cut = stream[: int(len(stream) * draw.twentieth())] + (END_OF_JPEG if closed else b"")
        reason = TRUNCATED if name in ("jpeg", "extended") or (name == "lossless" and not closed) else UNREADABLE
        return File(enclosed(cut, STREAMS[name], draw.grey), reason)

    return make


def _between_scans(draw: Draw) -> File:
    """A progressive JPEG cut between two scans and closed: decoders show it, blurred."""
    data = _progressive(draw)
    starts = [found.start() for found in re.finditer(b"\xff\xda", data)]
    return File(data[: int(draw.rng.choice(starts[1:]))] + END_OF_JPEG, TRUNCATED)


def _short_rows(draw: Draw) -> File:
    """A PNG whose chunks are all sound and whose rows end early."""
    import zlib

    rows = b"".join(b"\0" + row.tobytes() for row in draw.grey)
    packed = zlib.compress(rows[: int(len(rows) * draw.twentieth())])
    height, width = draw.grey.shape
    return File(assembled_png(struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), packed), UNREADABLE)


def _cut_rows(draw: Draw) -> File:
    """A PNG whose deflate stream was cut, under a checksum made anew."""
    data = png(draw.grey)
    at = data.index(b"IDAT") + 4
    packed = data[at : at + int.from_bytes(data[at - 8 : at - 4])]
    return File(png(draw.grey, body=packed[: int(len(packed) * draw.twentieth())]), UNREADABLE)


def _short_strip(compression: str):
    """A TIFF one of whose strips is said to be shorter than it is."""

    def make(draw: Draw) -> File:
        data = bytearray(_tiff(compression)(draw))
        at, form, count = _sizes(data)
        number = int(draw.rng.integers(count))
        place = at + struct.calcsize(form) * number
        (size,) = struct.unpack_from(form, data, place)
        struct.pack_into(form, data, place, max(int(size * draw.twentieth()), 1))
        return File(bytes(data), UNREADABLE)

    return make


def _sizes(data: bytes) -> tuple[int, str, int]:
    """Where the strips' sizes lie, as what, and how many."""
    from workers.images.tiff import tiff_pages

    field = next(tiff_pages(bytes(data)))[279]
    return field.start, field.form, len(field.values)


def _webp_sized_anew(name: str):
    """A WebP cut, its sizes corrected."""

    def make(draw: Draw) -> File:
        data = SOUND[name][0](draw)
        cut = bytearray(data[: int(len(data) * draw.twentieth()) // 2 * 2])
        struct.pack_into("<I", cut, 4, len(cut) - 8)
        struct.pack_into("<I", cut, 16, len(cut) - 20)
        return File(bytes(cut), UNREADABLE)

    return make


def _zeroed(name: str, size: int = 512):
    def make(draw: Draw) -> File:
        sound, shows = SOUND[name]
        data = sound(draw)
        at = _inside(draw, name, data, size)
        length = min(size, len(data) // 8)
        hurt = data[:at] + bytes(length) + data[at + length :]
        return File(hurt, UNREADABLE, silent=not shows)

    return make


def _flipped(name: str):
    def make(draw: Draw) -> File:
        sound, shows = SOUND[name]
        data = bytearray(sound(draw))
        data[_inside(draw, name, data, 1)] ^= 1 << int(draw.rng.integers(8))
        return File(bytes(data), UNREADABLE, silent=not shows)

    return make


def _inside(draw: Draw, name: str, data: bytes, size: int) -> int:
    """A place in the middle of the pixels: headers are for the cuts and the fuzzers."""
    low, high = {"plain.tif": (0.05, 0.7), "bmp": (0.2, 0.9)}.get(name, (0.25, 0.8))
    return int(len(data) * draw.fraction(low, high))


def _hurt_stream(name: str, *, zeroed: bool):
    def make(draw: Draw) -> File:
        stream = bytearray(stream_of(draw.grey, STREAMS[name]))
        at = int(len(stream) * draw.fraction(0.25, 0.85))
        if zeroed:
            stream[at : at + 512] = bytes(len(stream[at : at + 512]))
        else:
            stream[at] ^= 1 << int(draw.rng.integers(8))
        return File(enclosed(bytes(stream), STREAMS[name], draw.grey), UNREADABLE, silent=True)

    return make


def _wrong_checksum(draw: Draw) -> File:
    data = bytearray(_png(draw))
    data[int(draw.rng.integers(50, len(data) - 20))] ^= 0xFF
    return File(bytes(data), UNREADABLE)


def _hole(draw: Draw) -> File:
    """A restart interval left out: the markers' numbers tell."""
    data = encoded(".jpg", np.tile(draw.grey, (2, 2)), cv2.IMWRITE_JPEG_RST_INTERVAL, 4)
    marks = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    first = int(draw.rng.integers(1, len(marks) - 4))
    return File(data[: marks[first]] + data[marks[first + 2] :], UNREADABLE)


KINDS = [
    *(Kind(f"cut.{name}", f"{name} cut at a multiple of 5 %", _cut(name)) for name in SOUND),
    *(
        Kind(f"closed.{name}", f"{name} cut and closed with an end marker", _cut(name, END_OF_JPEG))
        for name in ("jpg", "progressive.jpg", "lossless.jpg")
    ),
    Kind("closed.png", "PNG cut and closed with an end chunk", _cut("png", END_OF_PNG)),
    Kind("between_scans.jpg", "progressive JPEG cut between two scans and closed", _between_scans),
    Kind("short_rows.png", "PNG of sound chunks and too few rows", _short_rows),
    Kind("cut_rows.png", "PNG whose deflate stream is cut, its checksum made anew", _cut_rows),
    *(
        Kind(f"short_strip_{name}.tif", f"TIFF ({name}) with a strip cut short", _short_strip(name))
        for name in ("none", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    ),
    *(
        Kind(f"sized_anew.{name}", f"{name} cut, its sizes corrected", _webp_sized_anew(name))
        for name in ("lossy.webp", "lossless.webp")
    ),
    *(Kind(f"cut_{name}.dcm", f"DICOM with a cut {name} stream", _cut_stream(name, closed=False)) for name in STREAMS),
    *(
        Kind(f"closed_{name}.dcm", f"DICOM with a {name} stream cut and closed", _cut_stream(name, closed=True))
        for name in STREAMS
    ),
    Kind("checksum.png", "PNG with a chunk that fails its checksum", _wrong_checksum),
    Kind("hole.jpg", "JPEG that lacks restart intervals", _hole),
    *(Kind(f"zeroed.{name}", f"{name} with 512 bytes zeroed", _zeroed(name)) for name in SOUND),
    *(
        Kind(f"zeroed_{name}.dcm", f"DICOM, {name}, 512 bytes zeroed", _hurt_stream(name, zeroed=True))
        for name in STREAMS
    ),
    *(Kind(f"flipped.{name}", f"{name} with one bit flipped", _flipped(name)) for name in SOUND),
    *(
        Kind(f"flipped_{name}.dcm", f"DICOM, {name}, one bit flipped", _hurt_stream(name, zeroed=False))
        for name in STREAMS
    ),
]  # fmt: skip
