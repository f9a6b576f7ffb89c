"""Walk a TIFF's directory, and check that its strips hold what they must: libtiff fills with black what is missing.

Sources: TIFF 6.0 (sections 9 PackBits, 13 LZW), Adobe's TIFF Technical Note 2 (JPEG), BigTIFF.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from db.errors import UnreadableImage
from db.words import Reason
from workers.images.fields import damaged, truncated, unpack
from workers.images.picture import Frame

ORIENTATION = 274
_TYPES = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q"}  # the integers, and JPEG tables; nothing else is asked for
_KIND, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_OFFSETS, _SAMPLES, _ROWS, _SIZES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES, _JPEG_TABLES = 322, 323, 324, 325, 347
_WANTED = {
    *(_KIND, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _OFFSETS, _SAMPLES, _ROWS, _SIZES, _PLANAR),
    *(_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES, _JPEG_TABLES, ORIENTATION),
}
_LISTS = {_OFFSETS, _SIZES, _TILE_OFFSETS, _TILE_SIZES, _JPEG_TABLES}
_MOST_PAGES, _MOST_ENTRIES, _MOST_VALUES = 100, 4096, 2**20
_YCBCR = 6


class Field(NamedTuple):
    """A TIFF field: where its values lie, the struct format of one, the values (the first ones of long lists that
    nobody needs)."""

    start: int
    form: str
    values: tuple[int, ...]


Page = dict[int, Field]


class Part(NamedTuple):
    """A strip or tile: its bytes as stored, and how many it must unfold to."""

    stored: bytes
    needed: int
    height: int
    width: int


class Layout(NamedTuple):
    """What the strips of a TIFF are: how compressed, and the tables that JPEG strips share."""

    compression: int
    tables: bytes
    parts: list[Part]


def first(page: Page, tag: int, default: int) -> int:
    """The first value of a field."""
    values = page[tag].values if tag in page else ()
    return values[0] if values else default


def tiff_pages(data: bytes) -> Iterator[Page]:
    """The wanted integer fields of each page (IFD), classic or BigTIFF, either byte order."""
    end = "<" if data[:2] == b"II" else ">"
    big = unpack(end + "H", data, 2)[0] == 43
    count_form, entry_form, offset_form, at = ("Q", "HHQ", "Q", 8) if big else ("H", "HHI", "I", 4)
    (at,) = unpack(end + offset_form, data, at)
    seen = set[int]()
    while at:
        if at in seen or len(seen) >= _MOST_PAGES:
            raise damaged("its directories go round in a circle, or on for ever")
        seen.add(at)
        (count,) = unpack(end + count_form, data, at)
        at += struct.calcsize("=" + count_form)
        size = struct.calcsize("=" + entry_form + offset_form)
        if at + count * size > len(data):
            raise truncated("its directory lies beyond its end")
        if count > _MOST_ENTRIES:
            raise damaged(f"a directory of {count:,} entries")
        yield _page(data, end, at, count, entry_form, offset_form)
        (at,) = unpack(end + offset_form, data, at + count * size)


def _page(data: bytes, end: str, at: int, count: int, entry_form: str, offset_form: str) -> Page:
    page: Page = {}
    for tag, field in _fields(data, end, at, count, entry_form, offset_form):
        if tag in page:  # decoders differ in which one they take
            raise damaged("a directory that gives a field twice")
        page[tag] = field
    return page


def _fields(
    data: bytes, end: str, at: int, count: int, entry_form: str, offset_form: str
) -> Iterator[tuple[int, Field]]:
    head, inline = struct.calcsize("=" + entry_form), struct.calcsize("=" + offset_form)
    for entry in range(at, at + count * (head + inline), head + inline):
        tag, kind, n = unpack(end + entry_form, data, entry)
        form = _TYPES.get(kind)
        if tag not in _WANTED or form is None:
            continue
        size = n * struct.calcsize("=" + form)
        start = entry + head if size <= inline else unpack(end + offset_form, data, entry + head)[0]
        if start + size > len(data):
            raise truncated("its directory points beyond its end")
        if n > _MOST_VALUES:
            raise damaged(f"a field of {n:,} values")
        few = n if tag in _LISTS else min(n, 16)
        yield tag, Field(start, end + form, unpack(f"{end}{few}{form}", data, start))


def measure_tiff(data: bytes) -> Frame:
    """One page besides thumbnails; every strip or tile must lie within the file."""
    page = _picture(data)
    none = Field(0, "", ())
    for at, sizes in ((_OFFSETS, _SIZES), (_TILE_OFFSETS, _TILE_SIZES)):
        strips = zip(page.get(at, none).values, page.get(sizes, none).values, strict=False)
        if any(offset + size > len(data) for offset, size in strips):
            raise truncated("its strips lie beyond its end")
    from_white = first(page, _PHOTOMETRIC, 1) == 0
    depth = max(page[_BITS].values, default=1) * max(first(page, _SAMPLES, 1), 1) if _BITS in page else 1
    return Frame(first(page, _HEIGHT, 0), first(page, _WIDTH, 0), first(page, ORIENTATION, 1), from_white, depth)


def _picture(data: bytes) -> Page:
    found: list[Page] = []
    for page in tiff_pages(data):
        if not first(page, _KIND, 0) & 1:
            found.append(page)
        if len(found) > 1:
            raise UnreadableImage(Reason.MULTI_FRAME, "more than one page")
    if not found or not first(found[0], _WIDTH, 0) or not first(found[0], _HEIGHT, 0):
        raise damaged("a TIFF without a picture")
    return found[0]


def plain_tiff(data: bytes) -> bytes:
    """The same TIFF, saying that it is upright and counts from black: OpenCV obeys that for 8 bits, not for 16."""
    plain = bytearray(data)
    for page in tiff_pages(data):
        for tag in (ORIENTATION, _PHOTOMETRIC):
            if tag in page and (tag == ORIENTATION or page[tag].values[:1] == (0,)):
                struct.pack_into(page[tag].form, plain, page[tag].start, 1)
    return bytes(plain)


def layout(data: bytes) -> Layout:
    """The strips or tiles of a TIFF whose size was found within limits. Raises UnreadableImage(unreadable) where
    they are fewer than its size needs, or stored in a way that is not read."""
    page = _picture(data)
    bits, samples, planes = _depth(page)
    tiled = _TILE_WIDTH in page
    width = first(page, _TILE_WIDTH, 0) if tiled else first(page, _WIDTH, 0)
    whole_width, whole_height = first(page, _WIDTH, 0), first(page, _HEIGHT, 0)
    rows = first(page, _TILE_HEIGHT, 0) if tiled else min(first(page, _ROWS, whole_height), whole_height)
    if not width or not rows:
        raise damaged("strips or tiles of no size")
    across, down = -(-whole_width // width), -(-whole_height // rows)
    at, sizes = (_TILE_OFFSETS, _TILE_SIZES) if tiled else (_OFFSETS, _SIZES)
    if any(len(page[tag].values) != across * down * planes if tag in page else True for tag in (at, sizes)):
        raise damaged("another number of strips or tiles than its size needs")
    row_bytes = (width * (samples // planes) * bits + 7) // 8
    parts = []
    for number, (offset, size) in enumerate(zip(page[at].values, page[sizes].values, strict=True)):
        height = rows if tiled else min(rows, whole_height - number % down * rows)
        if offset < 8 or not size:
            raise damaged("a strip that is nowhere")
        parts.append(Part(data[offset : offset + size], row_bytes * height, height, width))
    tables = bytes(page[_JPEG_TABLES].values) if _JPEG_TABLES in page else b""
    return Layout(first(page, _COMPRESSION, 1), tables, parts)


def _depth(page: Page) -> tuple[int, int, int]:
    """(bits a sample, samples a pixel, planes)."""
    depths = set(page[_BITS].values) if _BITS in page else {1}
    samples = first(page, _SAMPLES, 1)
    planes = samples if first(page, _PLANAR, 1) == 2 else 1
    if len(depths) != 1 or not 1 <= samples <= 4:
        raise damaged("samples of several depths, or more than four a pixel")
    bits = depths.pop()
    if bits not in (1, 2, 4, 8, 16):
        raise damaged(f"{bits} bits a sample; 1, 2, 4, 8 and 16 are read")
    if planes > 1 and bits > 8:  # OpenCV 5.0 mixes them up
        raise damaged("planes of 16 bits, one after the other, are not read")
    if first(page, _PHOTOMETRIC, 1) == _YCBCR and first(page, _COMPRESSION, 1) != 7:
        raise damaged("YCbCr without JPEG is not read")
    return bits, samples, planes
