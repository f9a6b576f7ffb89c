"""Walk the headers of raster files by hand: size, pages and completeness, before any decoder sees a byte.

Decoders are lenient where screening must not be: OpenCV returns half-grey pictures for cut-off files and the first
page of many. Each `measure_*` returns a Frame or raises UnreadableImage (truncated, multi_frame, unreadable).
Sources: PNG 3rd edition and its APNG chunks; ITU T.81 annex B; TIFF 6.0; Microsoft BITMAPINFOHEADER; RFC 9649.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from db.errors import UnreadableImage
from db.words import Reason
from workers.images.picture import Frame

PNG = b"\x89PNG\r\n\x1a\n"
_NEXT_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)
_ORIENTATION = 274
_STAND_ALONE = {0x01, *range(0xD0, 0xD8)}
_NOT_FRAMES = {0xC4, 0xC8, 0xCC}  # tables among the start-of-frame markers C0-CF


def truncated(what: str) -> UnreadableImage:
    """The error for a file that ends before its picture does."""
    return UnreadableImage(Reason.TRUNCATED, what)


def unpack(form: str, data: bytes, at: int) -> tuple[int, ...]:
    """struct.unpack_from that reports the end of the file as truncation."""
    try:
        return struct.unpack_from(form, data, at)
    except struct.error as error:
        raise truncated(f"it ends inside its header, at byte {len(data)}") from error


def measure_png(data: bytes) -> Frame:
    """Every chunk must be whole, match its checksum, and IEND must come."""
    frame, orientation, at, kind = None, 1, len(PNG), b""
    while kind != b"IEND":
        length, kind = unpack(">I4s", data, at)  # type: ignore[assignment]
        body = data[at + 8 : at + 8 + length]
        (checksum,) = unpack(">I", data, at + 8 + length)
        if zlib.crc32(kind + body) != checksum:
            raise UnreadableImage(Reason.UNREADABLE, f"its {kind!r} chunk does not match its checksum")
        if kind == b"IHDR":
            width, height = unpack(">II", body, 0)
            frame = Frame(height, width)
        elif kind == b"acTL" and unpack(">I", body, 0)[0] > 1:
            raise UnreadableImage(Reason.MULTI_FRAME, "an animated PNG")
        elif kind == b"eXIf":
            orientation = exif_orientation(body)
        at += 12 + length
    if frame is None:
        raise UnreadableImage(Reason.UNREADABLE, "a PNG without a header")
    return Frame(frame.height, frame.width, orientation)


def measure_jpeg(data: bytes) -> Frame:
    """Every segment up to the first scan must be whole; whether the scans are is for the strict decoder to tell."""
    frame, orientation = None, 1
    for marker, at, length in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
            height, width = unpack(">HH", data, at + 1)
            frame = Frame(height, width)
        elif marker == 0xE1 and data[at : at + 6] == b"Exif\0\0":
            orientation = exif_orientation(data[at + 6 : at + length])
    if frame is None:
        raise UnreadableImage(Reason.UNREADABLE, "a JPEG without a frame")
    return Frame(frame.height, frame.width, orientation)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, offset of its body, length of the body) up to the first scan, or the end of the image."""
    at = 2
    while found := _NEXT_MARKER.search(data, at):
        marker, at = found.group(1)[0], found.end()
        if marker in (0xD9, 0xDA):
            return
        if marker in _STAND_ALONE:
            continue
        (length,) = unpack(">H", data, at)
        if length < 2 or at + length > len(data):
            break
        yield marker, at + 2, length - 2
        at += length
    raise truncated("it ends before its first scan")


def jpeg_has(data: bytes, marker: int, start: bytes) -> bool:
    """Whether a segment of that marker begins with these bytes."""
    return any(kind == marker and data.startswith(start, at) for kind, at, _ in _jpeg_segments(data))


def exif_orientation(block: bytes) -> int:
    """The orientation of an EXIF block (a TIFF in itself); 1 where there is none or it makes no sense."""
    try:
        return _first(next(tiff_pages(block), {}), _ORIENTATION, 1)
    except UnreadableImage:
        return 1


_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}  # the integers; nothing else is asked for
_KIND, _WIDTH, _HEIGHT, _PHOTOMETRIC, _OFFSETS, _SIZES = 254, 256, 257, 262, 273, 279
_TILE_OFFSETS, _TILE_SIZES = 324, 325
_WANTED = {
    *(_KIND, _WIDTH, _HEIGHT, _PHOTOMETRIC, _OFFSETS, _SIZES, _TILE_OFFSETS, _TILE_SIZES, _ORIENTATION),
}
_MOST_PAGES = 1000


class Field(NamedTuple):
    """A TIFF field: where its values lie, the struct format of one, the values."""

    start: int
    form: str
    values: tuple[int, ...]


Page = dict[int, Field]


def _first(page: Page, tag: int, default: int) -> int:
    values = page[tag].values if tag in page else ()
    return values[0] if values else default


def tiff_pages(data: bytes) -> Iterator[Page]:
    """The wanted integer fields of each page (IFD), classic or BigTIFF, either byte order."""
    end = "<" if data[:2] == b"II" else ">"
    big = unpack(end + "H", data, 2)[0] == 43
    count_form, entry_form, offset_form, at = ("Q", "HHQ", "Q", 8) if big else ("H", "HHI", "I", 4)
    (at,) = unpack(end + offset_form, data, at)
    for _ in range(_MOST_PAGES):
        if not at:
            return
        (count,) = unpack(end + count_form, data, at)
        at += struct.calcsize("=" + count_form)
        size = struct.calcsize("=" + entry_form + offset_form)
        if at + count * size > len(data):
            raise truncated("its directory lies beyond its end")
        yield dict(_tiff_fields(data, end, at, count, entry_form, offset_form))
        (at,) = unpack(end + offset_form, data, at + count * size)


def _tiff_fields(
    data: bytes, end: str, at: int, count: int, entry_form: str, offset_form: str
) -> Iterator[tuple[int, Field]]:
    head, inline = struct.calcsize("=" + entry_form), struct.calcsize("=" + offset_form)
    for entry in range(at, at + count * (head + inline), head + inline):
        tag, kind, n = unpack(end + entry_form, data, entry)
        form = _TIFF_TYPES.get(kind)
        if tag not in _WANTED or form is None:
            continue
        size = n * struct.calcsize("=" + form)
        start = entry + head if size <= inline else unpack(end + offset_form, data, entry + head)[0]
        if start + size > len(data):
            raise truncated("its directory points beyond its end")
        yield tag, Field(start, end + form, unpack(f"{end}{n}{form}", data, start))


def measure_tiff(data: bytes) -> Frame:
    """One page besides thumbnails; every strip or tile must lie within the file."""
    pages = [page for page in tiff_pages(data) if not _first(page, _KIND, 0) & 1]
    if len(pages) > 1:
        raise UnreadableImage(Reason.MULTI_FRAME, f"{len(pages)} pages")
    if not pages or not _first(pages[0], _WIDTH, 0) or not _first(pages[0], _HEIGHT, 0):
        raise UnreadableImage(Reason.UNREADABLE, "a TIFF without a picture")
    page, none = pages[0], Field(0, "", ())
    for at, sizes in ((_OFFSETS, _SIZES), (_TILE_OFFSETS, _TILE_SIZES)):
        strips = zip(page.get(at, none).values, page.get(sizes, none).values, strict=False)
        if any(offset + size > len(data) for offset, size in strips):
            raise truncated("its strips lie beyond its end")
    from_white = _first(page, _PHOTOMETRIC, 1) == 0
    orientation = _first(page, _ORIENTATION, 1)
    return Frame(_first(page, _HEIGHT, 0), _first(page, _WIDTH, 0), orientation, from_white)


def plain_tiff(data: bytes) -> bytes:
    """The same TIFF, saying that it is upright and counts from black: OpenCV obeys that for 8 bits, not for 16."""
    plain = bytearray(data)
    for page in tiff_pages(data):
        for tag in (_ORIENTATION, _PHOTOMETRIC):
            if tag in page and (tag == _ORIENTATION or page[tag].values[:1] == (0,)):
                struct.pack_into(page[tag].form, plain, page[tag].start, 1)
    return bytes(plain)


def measure_bmp(data: bytes) -> Frame:
    """Uncompressed rows must lie within the file."""
    start, header = unpack("<II", data, 10)
    if header == 12:
        width, height, _, depth = unpack("<HHHH", data, 18)
        packing = 0
    else:
        width, height, _, depth, packing = unpack("<iiHHI", data, 18)
    height = abs(height)
    needed = start + (width * depth + 31) // 32 * 4 * height
    if packing in (0, 3) and needed > len(data):
        raise truncated(f"{needed:,} bytes of rows promised, {len(data):,} there")
    return Frame(height, width)


def measure_webp(data: bytes) -> Frame:
    """The RIFF must be whole; size from the first picture chunk."""
    (length,) = unpack("<I", data, 4)
    if length + 8 > len(data):
        raise truncated(f"{length + 8:,} bytes promised, {len(data):,} there")
    frame, orientation, at = None, 1, 12
    while at + 8 <= length + 8:
        kind, size = data[at : at + 4], unpack("<I", data, at + 4)[0]
        if kind in (b"ANIM", b"ANMF"):
            raise UnreadableImage(Reason.MULTI_FRAME, "an animated WebP")
        if kind == b"EXIF":
            orientation = exif_orientation(data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0"))
        frame = frame or _webp_frame(kind, data, at + 8)
        at += 8 + size + size % 2
    if frame is None:
        raise UnreadableImage(Reason.UNREADABLE, "a WebP without a picture")
    return Frame(frame.height, frame.width, orientation)


def _webp_frame(kind: bytes, data: bytes, at: int) -> Frame | None:
    if kind == b"VP8 ":
        width, height = unpack("<HH", data, at + 6)
        return Frame(height & 0x3FFF, width & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = unpack("<I", data, at + 1)
        return Frame((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    if kind == b"VP8X":
        wide, high = (int.from_bytes(data[at + n : at + n + 3], "little") + 1 for n in (4, 7))
        return Frame(high, wide)
    return None
