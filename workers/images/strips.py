"""Whether the strips of a TIFF, or the segments of a DICOM RLE picture, unfold to what they must, byte for byte."""

import zlib

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from workers.images.fields import damaged
from workers.images.tiff import Layout, Part

Numbers = NDArray[np.int64]
_CLEAR, _END, _FIRST = 256, 257, 258
_UNKNOWN = "a strip that does not unfold to what its size needs"


def check_strips(layout: Layout) -> None:
    """Raise UnreadableImage(unreadable) unless each strip or tile is whole. Reads no compression but those below."""
    check = _CHECKS.get(layout.compression)
    if check is None:
        raise damaged(f"compression {layout.compression} is not read")
    for part in layout.parts:
        if not check(part, layout.tables):
            raise damaged(_UNKNOWN)


def _plain(part: Part, tables: bytes) -> bool:
    return len(part.stored) >= part.needed


def _deflated(part: Part, tables: bytes) -> bool:
    """Its checksum too, which libtiff does not look at."""
    unpacker, found, left = zlib.decompressobj(), 0, part.stored
    try:
        while not unpacker.eof and left and found <= part.needed:
            found += len(unpacker.decompress(left, 2**20))
            left = unpacker.unconsumed_tail
    except zlib.error:
        return False
    return unpacker.eof and found == part.needed


def _packed(part: Part, tables: bytes) -> bool:
    return unpacked_length(part.stored) == part.needed


def unpacked_length(data: bytes) -> int:
    """Bytes that PackBits data (TIFF 6.0 section 9, DICOM PS3.5 annex G) unfold to; -1 where they end within a run.
    A last byte alone is padding."""
    at, found, size = 0, 0, len(data)
    while at < size - 1:
        head = data[at]
        if head < 128:
            at += head + 2
            found += head + 1
        elif head == 128:
            at += 1
        else:
            at += 2
            found += 257 - head
    return found if at <= size else -1


def _jpeg(part: Part, tables: bytes) -> bool:
    whole = tables[:-2] + part.stored[2:] if tables else part.stored
    try:
        grey = simplejpeg.decode_jpeg(whole, "GRAY")
    except ValueError:
        return False
    return bool(grey.shape[:2] == (part.height, part.width))


_WIDTHS = np.repeat([9, 10, 11, 12], [254, 512, 1024, 2306])
_STARTS = np.concatenate([[0], np.cumsum(_WIDTHS)[:-1]])


def _lzw(part: Part, tables: bytes) -> bool:
    return lzw_length(part.stored, part.needed) == part.needed


def lzw_length(data: bytes, most: int) -> int:
    """Bytes that TIFF's LZW data unfold to; -1 where they make no sense or have no end. Stops beyond `most`.

    A code's width depends only on how many came since the table was cleared, so each such run is read at once.
    """
    padded = np.frombuffer(data + bytes(8), np.uint8).astype(np.int64)
    at, found, bits = 0, 0, 8 * len(data)
    while at < bits and found <= most:
        codes = _codes(padded, at, bits)
        stops = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        if not len(stops):
            return -1
        count = int(stops[0])
        length = _strings(codes[:count])
        if length < 0:
            return -1
        found += length
        if codes[count] == _END:
            return found
        at += int(_STARTS[count] + _WIDTHS[count])
    return -1


def _codes(padded: Numbers, at: int, bits: int) -> Numbers:
    starts = at + _STARTS
    inside = int(np.searchsorted(starts + _WIDTHS, bits, "right"))
    starts, widths = starts[:inside], _WIDTHS[:inside]
    byte = starts >> 3
    three = padded[byte] << 16 | padded[byte + 1] << 8 | padded[byte + 2]
    return np.asarray(three >> (24 - (starts & 7) - widths) & ((1 << widths) - 1), np.int64)


def _strings(codes: Numbers) -> int:
    """The length of the strings of a run of codes together; -1 for a code that is not in the table yet."""
    numbers = np.arange(len(codes))
    if (codes[:1] >= _CLEAR).any() or (codes > _END + numbers).any():
        return -1
    longer = (codes >= _FIRST).astype(np.int64)
    # The string of entry 258 + n is that of code n and one byte more; follow these links, doubling the stride.
    parent = np.where(codes >= _FIRST, codes - _FIRST, numbers)
    while longer[parent].any():
        longer, parent = longer + longer[parent], parent[parent]
    return int(longer.sum()) + len(codes)


_CHECKS = {1: _plain, 5: _lzw, 7: _jpeg, 8: _deflated, 32773: _packed, 32946: _deflated}
