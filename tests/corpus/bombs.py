"""Small files that ask for much: pixels, inflated bytes, chunks, scans, directories, elements, nesting."""

import struct
import zlib

import builders
import cv2
import numpy as np
from builders import declared_deflated, dicom, dicom_in, dicom_set, encoded, png_bomb, png_chunk, with_fields, written

from corpus import SCORED, Draw, File, Kind
from corpus.dicoms import BASELINE, JPEG_2000, JPEG_LS, LOSSLESS, enclosed, stream_of
from corpus.rasters import assembled_png, jpeg, patched_frame, png
from corpus.tiffs import assembled, tiff
from db.words import Reason

TOO_LARGE, UNREADABLE = Reason.TOO_LARGE, Reason.UNREADABLE
_PIXELS = struct.pack("<HH", 0x7FE0, 0x0010)


def issues_png() -> bytes:
    """17 kB that unfold to 144 MB: 12,000 x 12,000 pixels of 1 bit, which a decoder turns into bytes."""
    packed = zlib.compress(bytes((12_000 // 8 + 1) * 12_000), 9)
    return assembled_png(struct.pack(">IIBBBBB", 12_000, 12_000, 1, 0, 0, 0, 0), packed)


def issues_dicom() -> bytes:
    """292 kB that inflate to 286 MB in front of the pixels; pydicom held them twice, 570 MB."""
    return builders.deflated_bomb(286)


def _huge_png(draw: Draw) -> File:
    return File(png_bomb(int(draw.rng.integers(10_001, 12_500))), TOO_LARGE)


def _largest_png(draw: Draw) -> File:
    """As many pixels as are read, an empty plate: 12 kB that a decoder turns into 100 MB."""
    height = int(draw.rng.integers(9_000, 10_001))
    packed = zlib.compress(bytes((10_000 // 8 + 1) * height), 9)
    return File(assembled_png(struct.pack(">IIBBBBB", 10_000, height, 1, 0, 0, 0, 0), packed), Reason.BLANK)


def _deepest_png(draw: Draw) -> File:
    """Eight bytes a pixel, as many of them as a decoder may use."""
    height = int(draw.rng.integers(4_900, 5_001))
    packed = zlib.compress(bytes((10_000 * 8 + 1) * height), 9)
    return File(assembled_png(struct.pack(">IIBBBBB", 10_000, height, 16, 6, 0, 0, 0), packed), Reason.BLANK)


def _largest_dicom(draw: Draw) -> File:
    """Two bytes a pixel, as many pixels as are read, deflated to some 200 kB."""
    pixels = np.zeros((int(draw.rng.integers(9_000, 10_001)), 10_000), np.uint16)
    return File(dicom_in("1.2.840.10008.1.2.1.99", pixels), Reason.BLANK)


def _largest_jpeg(draw: Draw) -> File:
    """Progressive, in colours: a decoder keeps all its coefficients."""
    pixels = np.full((7_000, int(draw.rng.integers(6_000, 6_301)), 3), 90, np.uint8)
    return File(encoded(".jpg", pixels, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), Reason.BLANK)


def _deep_png(draw: Draw) -> File:
    side = int(draw.rng.integers(8_000, 9_900))
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    return File(assembled_png(header, zlib.compress(draw.rng.bytes(100))), TOO_LARGE)


def _texts(kind: bytes, before: bytes):
    """A text or profile that inflates to hundreds of MB: it is not inflated."""

    def make(draw: Draw) -> File:
        packer = zlib.compressobj(9)
        packed = b"".join(packer.compress(bytes(2**20)) for _ in range(100)) + packer.flush()
        return File(png(draw.grey, extra=png_chunk(kind, before + packed)), SCORED, draw.grey)

    return make


def _chunks(draw: Draw) -> File:
    flood = png_chunk(b"teXt", b"") * int(draw.rng.integers(50_001, 60_000))
    return File(png(draw.grey, extra=flood), UNREADABLE)


def _rows_beyond(draw: Draw) -> File:
    """More rows than the size needs: no more are inflated than needed."""
    rows = b"".join(b"\0" + row.tobytes() for row in draw.grey)
    return File(png(draw.grey, body=zlib.compress(rows + bytes(50_000_000), 9)), SCORED, draw.grey)


def _huge_jpeg(draw: Draw) -> File:
    data = patched_frame(jpeg(draw), height=65_500)
    at = data.index(b"\xff\xc0")
    return File(data[: at + 7] + struct.pack(">H", 65_500) + data[at + 9 :], TOO_LARGE)


def _scans(draw: Draw) -> File:
    data = jpeg(draw, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = data.rindex(b"\xff\xda")
    return File(data[:last] + data[last:-2] * int(draw.rng.integers(150, 400)) + b"\xff\xd9", UNREADABLE)


def _segments(draw: Draw) -> File:
    data = jpeg(draw)
    return File(data[:2] + b"\xff\xfe\x00\x02" * int(draw.rng.integers(20_001, 40_000)) + data[2:], UNREADABLE)


def _huge_tiff(draw: Draw) -> File:
    side = int(draw.rng.integers(20_000, 65_000))
    return File(tiff(draw.grey, fields={256: (4, [side]), 257: (4, [side])}), TOO_LARGE)


def _loop(draw: Draw) -> File:
    """A second directory that is a thumbnail's, and says that the next one is itself."""
    data = tiff(draw.grey)
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    looped = bytearray(data)
    thumbnail = struct.pack("<HHHIII", 1, 254, 4, 1, 1, len(data))
    struct.pack_into("<I", looped, first + 2 + 12 * count, len(data))
    return File(bytes(looped) + thumbnail, UNREADABLE)


def _pages(draw: Draw) -> File:
    """Thousands of thumbnails' directories, each leading to the next."""
    data, count = tiff(draw.grey), int(draw.rng.integers(2_000, 5_000))
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    chained = bytearray(data)
    struct.pack_into("<I", chained, first + 2 + 12 * entries, len(data))
    chain = b"".join(struct.pack("<HHHIII", 1, 254, 4, 1, 1, len(data) + 18 * (n + 1)) for n in range(count))
    return File(bytes(chained) + chain, UNREADABLE)


def _entries(draw: Draw) -> File:
    fields = {tag: (3, [0]) for tag in range(30_000, 30_000 + int(draw.rng.integers(4_200, 9_000)))}
    return File(tiff(draw.grey, fields=fields), UNREADABLE)


def _beyond(draw: Draw) -> File:
    """A BigTIFF whose directory lies further away than a computer can count (found by fuzzing)."""
    data = bytearray(tiff(draw.grey, big=True))
    struct.pack_into("<Q", data, 8, 2**64 - 1 - int(draw.rng.integers(1000)))
    return File(bytes(data), Reason.TRUNCATED)


def _many_values(draw: Draw) -> File:
    """A list of strips that is most of the file."""
    values = [16] * (2**20 + int(draw.rng.integers(1, 1000)))
    return File(tiff(draw.grey, fields={273: (4, values)}), UNREADABLE)


def _twice(draw: Draw) -> File:
    """A width given twice: decoders differ in which one they take."""
    data = bytearray(tiff(draw.grey))
    (first,) = struct.unpack_from("<I", data, 4)
    data[first + 2 + 12 * 2 : first + 2 + 12 * 3] = data[first + 2 : first + 2 + 12]
    return File(bytes(data), UNREADABLE)


def _strip_bomb(draw: Draw) -> File:
    described = {256: (4, [128]), 257: (4, [128]), 258: (3, [8]), 259: (3, [8]), 262: (3, [1]), 277: (3, [1])}
    strip = zlib.compress(bytes(200_000_000 + draw.seed % 1000), 9)
    return File(assembled([strip], described | {278: (4, [128])}), UNREADABLE)


def _huge_bmp(draw: Draw) -> File:
    data = bytearray(encoded(".bmp", draw.grey))
    struct.pack_into("<iiHHI", data, 18, 30_000, int(draw.rng.integers(20_000, 30_000)), 1, 8, 0)
    return File(bytes(data), Reason.TRUNCATED)


def _huge_webp(draw: Draw) -> File:
    bits = 16_382 | 16_382 << 14
    body = b"VP8L" + struct.pack("<I", 2005) + b"\x2f" + struct.pack("<I", bits) + draw.rng.bytes(2000) + b"\0"
    return File(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body, TOO_LARGE)


def _webp_chunks(draw: Draw) -> File:
    flood = b"XXXX\0\0\0\0" * int(draw.rng.integers(60_000, 90_000))
    return File(b"RIFF" + struct.pack("<I", len(flood) + 4) + b"WEBP" + flood, UNREADABLE)


def _vast(syntax: str):
    return lambda draw: File(
        enclosed(stream_of(draw.grey, syntax), syntax, draw.grey, Rows=60_000, Columns=60_000), TOO_LARGE
    )


def _hidden(syntax: str, at: int, form: str):
    """A stream that says 60,000 x 60,000 (or all that its fields hold) under a header of modest size."""

    def make(draw: Draw) -> File:
        stream = bytearray(stream_of(draw.grey, syntax))
        marker = {JPEG_2000: b"\xff\x51", JPEG_LS: b"\xff\xf7", LOSSLESS: b"\xff\xc3"}[syntax]
        struct.pack_into(form, stream, stream.index(marker) + at, 60_000, 60_000)
        return File(enclosed(bytes(stream), syntax, draw.grey), UNREADABLE)

    return make


def _tiles(draw: Draw) -> File:
    """JPEG 2000 of one pixel a tile: as many tiles as pixels."""
    stream = bytearray(stream_of(draw.grey, JPEG_2000))
    struct.pack_into(">II", stream, stream.index(b"\xff\x51") + 22, 1, 1)
    large = np.zeros((300, 300), np.uint8)
    struct.pack_into(">II", stream, stream.index(b"\xff\x51") + 6, 300, 300)
    return File(enclosed(bytes(stream), JPEG_2000, large), UNREADABLE)


def _deflated_pixels(draw: Draw) -> File:
    """A modest picture whose pixel element inflates to hundreds of MB: no more of it than needed is inflated."""
    meta = written(with_fields(dicom_set(draw.grey), {"PixelData": None}))
    start = meta.index(b"\x08\x00\x16\x00", 132)
    megabytes, packer = int(draw.rng.integers(100, 300)), zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    element = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, megabytes * 2**20)
    body = packer.compress(meta[start:] + element)
    body += b"".join(packer.compress(bytes(2**20)) for _ in range(megabytes)) + packer.flush()
    return File(declared_deflated(meta[:start]) + body, UNREADABLE)


def _before_pixels(data: bytes, flood: bytes) -> bytes:
    at = data.index(_PIXELS)
    return data[:at] + flood + data[at:]


def _nested(draw: Draw) -> File:
    depth = int(draw.rng.integers(3_000, 9_000))
    opening = struct.pack("<HH2sHIHHI", 0x0040, 0xA730, b"SQ", 0, 2**32 - 1, 0xFFFE, 0xE000, 2**32 - 1)
    closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return File(_before_pixels(dicom(draw.grey), opening * depth + closing * depth), UNREADABLE)


def _elements(draw: Draw) -> File:
    flood = struct.pack("<HH2sH", 0x0041, 0x1001, b"LO", 0) * int(draw.rng.integers(100_001, 150_000))
    return File(_before_pixels(dicom(draw.grey), flood), UNREADABLE)


def _fragments(draw: Draw) -> File:
    data = enclosed(stream_of(draw.grey, BASELINE), BASELINE, draw.grey)
    flood = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * int(draw.rng.integers(100_001, 150_000))
    return File(data[:-8] + flood + data[-8:], UNREADABLE)


def _endless_meta(draw: Draw) -> File:
    """A meta header of which every byte is an element of no length."""
    data = dicom_in("1.2.840.10008.1.2", draw.grey)
    flood = struct.pack("<HH2sH", 2, 0x102, b"LO", 0) * int(draw.rng.integers(1_001, 150_000))
    return File(data[:132] + flood + data[132:], UNREADABLE)


KINDS = [
    Kind("bomb.png", "some kB that unfold to 100 MB and more", _huge_png),
    Kind("largest.png", "PNG of as many pixels as are read", _largest_png, one_in=10),
    Kind("deepest.png", "PNG of as much memory as a decoder may use", _deepest_png, one_in=10),
    Kind("largest.dcm", "DICOM of as many pixels as are read, two bytes each", _largest_dicom, one_in=10),
    Kind("largest.jpg", "progressive JPEG of as much memory as a decoder may use", _largest_jpeg, one_in=10),
    Kind("deep_bomb.png", "PNG of eight bytes a pixel, more than a decoder may use", _deep_png),
    Kind("text_bomb.png", "PNG with a text that inflates to 100 MB", _texts(b"zTXt", b"a\0\0")),
    Kind("profile_bomb.png", "PNG with a profile that inflates to 100 MB", _texts(b"iCCP", b"a\0\0")),
    Kind("chunks.png", "PNG of 50,000 chunks", _chunks),
    Kind("rows_beyond.png", "PNG of rows that its size does not need", _rows_beyond),
    Kind("bomb.jpg", "JPEG of 65,500 x 65,500 pixels, it says", _huge_jpeg),
    Kind("scans.jpg", "JPEG of hundreds of scans", _scans),
    Kind("segments.jpg", "JPEG of 20,000 comments", _segments),
    Kind("bomb.tif", "TIFF of billions of pixels, it says", _huge_tiff),
    Kind("loop.tif", "TIFF whose directories go round in a circle", _loop),
    Kind("thumbnails.tif", "TIFF of thousands of directories", _pages),
    Kind("entries.tif", "TIFF of thousands of fields", _entries),
    Kind("beyond.tif", "BigTIFF whose directory lies at the end of all numbers", _beyond),
    Kind("strips.tif", "TIFF of a million strips", _many_values),
    Kind("twice.tif", "TIFF that gives its width twice", _twice),
    Kind("strip_bomb.tif", "TIFF whose strip inflates to 200 MB", _strip_bomb),
    Kind("bomb.bmp", "BMP of 30,000 columns, it says", _huge_bmp),
    Kind("bomb.webp", "WebP of 16,383 x 16,383 pixels, it says", _huge_webp),
    Kind("chunks.webp", "WebP of 60,000 chunks", _webp_chunks),
    Kind("vast.dcm", "compressed DICOM of 60,000 x 60,000 pixels, it says", _vast(BASELINE)),
    Kind("jpeg_2000_bomb.dcm", "JPEG 2000 of 60,000 x 60,000 under a modest header", _hidden(JPEG_2000, 6, ">II")),
    Kind("jpeg_ls_bomb.dcm", "JPEG-LS of 60,000 x 60,000 under a modest header", _hidden(JPEG_LS, 5, ">HH")),
    Kind("lossless_bomb.dcm", "JPEG lossless of 60,000 x 60,000 under a modest header", _hidden(LOSSLESS, 5, ">HH")),
    Kind("tiles.dcm", "JPEG 2000 of as many tiles as pixels", _tiles),
    Kind("deflated_bomb.dcm", "DICOM whose data set inflates to hundreds of MB",
         lambda d: File(builders.deflated_bomb(int(d.rng.integers(100, 300))) + d.rng.bytes(9), TOO_LARGE)),
    Kind("deflated_pixels.dcm", "DICOM whose pixels inflate to hundreds of MB", _deflated_pixels),
    Kind("nested.dcm", "sequences nested thousands deep", _nested),
    Kind("elements.dcm", "DICOM of 100,000 elements", _elements),
    Kind("fragments.dcm", "DICOM of 100,000 pixel fragments", _fragments),
    Kind("endless_meta.dcm", "a meta header of thousands of elements", _endless_meta),
]  # fmt: skip
