"""Walk the headers of raster files by hand: size, pages and completeness, before any decoder sees a byte.

Decoders are lenient where screening must not be: OpenCV returns half-grey pictures for cut-off files and the first
page of many. Each `measure_*` returns a Frame or raises UnreadableImage (truncated, multi_frame, unreadable).
Sources: PNG 3rd edition and its APNG chunks; ITU T.81 annex B; TIFF 6.0; Microsoft BITMAPINFOHEADER; RFC 9649.
"""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from db.errors import UnreadableImage
from db.words import Reason
from workers.images.fields import damaged, truncated, unpack
from workers.images.jpeg import APP1, SCAN, check_scans, segments
from workers.images.picture import Frame
from workers.images.tiff import ORIENTATION, first, tiff_pages

PNG = b"\x89PNG\r\n\x1a\n"
_PNG_NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples a pixel
_MOST_CHUNKS = 50_000  # of a PNG: 256 MB in parts of 8 kB are 32,000


class Chunk(NamedTuple):
    """A PNG chunk: its kind, where its body lies, and where the next chunk begins."""

    kind: bytes
    at: int
    end: int


def _chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks of a PNG up to its IEND, which must come."""
    at = len(PNG)
    for _ in range(_MOST_CHUNKS):
        (length,) = unpack(">I", data, at)
        chunk = Chunk(data[at + 4 : at + 8], at + 8, at + 12 + length)
        if chunk.end > len(data):
            raise truncated("it ends inside a chunk")
        yield chunk
        if chunk.kind == b"IEND":
            return
        at = chunk.end
    raise damaged(f"more than {_MOST_CHUNKS:,} chunks")


def measure_png(data: bytes) -> Frame:
    """Every chunk must be whole, match its checksum, and IEND must come."""
    frame, orientation, whole = None, 1, memoryview(data)
    for kind, at, end in _chunks(data):
        if zlib.crc32(whole[at - 4 : end - 4]) != unpack(">I", data, end - 4)[0]:
            raise damaged("a chunk does not match its checksum")
        if kind == b"IHDR":
            if frame is not None or end - at != 17:
                raise damaged("a PNG of two headers, or of a strange one")
            width, height, depth, colours = unpack(">IIBB", data, at)
            frame = Frame(height, width, depth=depth * _PNG_SAMPLES.get(colours, 4))
        elif kind == b"acTL" and unpack(">I", data, at)[0] > 1:
            raise UnreadableImage(Reason.MULTI_FRAME, "an animated PNG")
        elif kind == b"eXIf":
            orientation = exif_orientation(data[at : end - 4])
        elif kind not in _PNG_NEEDED and not kind[0] & 0x20:
            raise damaged("a critical chunk that is not known")  # PNG 3rd edition, 13.2
    if frame is None:
        raise damaged("a PNG without a header")
    return frame._replace(orientation=orientation)


def plain_png(data: bytes) -> bytes:
    """The same PNG without what its picture does not need: texts and profiles that inflate to anything."""
    return PNG + b"".join(data[at - 8 : end] for kind, at, end in _chunks(data) if kind in _PNG_NEEDED)


def measure_jpeg(data: bytes) -> Frame:
    """Every segment must be whole and every scan there; whether these are sound is for the strict decoder to tell."""
    orientation = 1
    found = check_scans(data)
    for marker, at, length in segments(data):
        if marker == SCAN:
            break
        if marker == APP1 and data.startswith(b"Exif\0\0", at):
            orientation = exif_orientation(data[at + 6 : at + length])
    return Frame(found.height, found.width, orientation, depth=found.depth)


def exif_orientation(block: bytes) -> int:
    """The orientation of an EXIF block (a TIFF in itself); 1 where there is none or it makes no sense."""
    try:
        return first(next(tiff_pages(block), {}), ORIENTATION, 1)
    except UnreadableImage:
        return 1


def measure_bmp(data: bytes) -> Frame:
    """Uncompressed rows must lie within the file, and be all that it says there is."""
    size, _, start, header = unpack("<IIII", data, 2)
    if header == 12:
        width, height, _, depth = unpack("<HHHH", data, 18)
        packing = 0
    else:
        width, height, _, depth, packing = unpack("<iiHHI", data, 18)
    height = abs(height)
    if packing not in (0, 3):  # runs that end too early, or too late, are shown as they come
        raise damaged("a compressed BMP is not read")
    if start < 14 + header:
        raise damaged("its rows begin inside its header")
    needed = start + (width * depth + 31) // 32 * 4 * height
    if width > 0:
        if needed > len(data):
            raise truncated(f"{needed:,} bytes of rows promised, {len(data):,} there")
        if header < 124 and min(size, len(data)) > needed + 4:  # a profile may come after the longest header's rows
            raise damaged("more rows than its header says")
    return Frame(height, width, depth=max(depth, 8))


def measure_webp(data: bytes) -> Frame:
    """The RIFF must be whole; size from the first picture chunk."""
    (length,) = unpack("<I", data, 4)
    if length + 8 > len(data):
        raise truncated(f"{length + 8:,} bytes promised, {len(data):,} there")
    frame, orientation, at = None, 1, 12
    for _ in range(_MOST_CHUNKS):
        if at + 8 > length + 8:
            break
        kind, size = data[at : at + 4], unpack("<I", data, at + 4)[0]
        if kind in (b"ANIM", b"ANMF"):
            raise UnreadableImage(Reason.MULTI_FRAME, "an animated WebP")
        if kind == b"EXIF":
            orientation = exif_orientation(data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0"))
        frame = frame or _webp_frame(kind, data, at + 8)
        at += 8 + size + size % 2
    if frame is None:
        raise damaged("a WebP without a picture")
    return frame._replace(orientation=orientation)


def _webp_frame(kind: bytes, data: bytes, at: int) -> Frame | None:
    if kind == b"VP8 ":
        width, height = unpack("<HH", data, at + 6)
        return Frame(height & 0x3FFF, width & 0x3FFF, depth=24)
    if kind == b"VP8L":
        (bits,) = unpack("<I", data, at + 1)
        return Frame((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, depth=32)
    if kind == b"VP8X":
        wide, high = (int.from_bytes(data[at + n : at + n + 3], "little") + 1 for n in (4, 7))
        return Frame(high, wide, depth=32)
    return None
