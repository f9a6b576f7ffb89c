"""Walk a JPEG's segments: its size, and whether all of its scans are there (ITU T.81 annexes B and G, T.87 annex C).

What is inside a scan is for the strict decoder to tell; that whole scans are missing is not: a progressive JPEG cut
between two of them and closed again decodes to a blurred picture without a complaint.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from workers.images.fields import LOST, damaged, truncated, unpack

END, SCAN, APP1, APP14 = 0xD9, 0xDA, 0xE1, 0xEE
LOSSLESS, JPEG_LS, _TABLES = 0xC3, 0xF7, 0xC4
_NEXT_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)  # any number of \xff may come before it
_TEM = 0x01  # the only marker besides restarts (which the pattern passes over) that has no length
_FRAMES = {*range(0xC0, 0xD0), JPEG_LS} - {0xC4, 0xC8, 0xCC}  # tables and an extension lie among them
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
# Usual encoders write 10 or less, the most careful some 60; each costs a pass over the whole picture.
MOST_SCANS = 100
_MOST_SEGMENTS = 20_000


class Segment(NamedTuple):
    """A marker, and where its body (without the length) lies."""

    marker: int
    at: int
    length: int


class JpegFrame(NamedTuple):
    """A start-of-frame segment: which process, bits a sample, size, the components' identifiers."""

    marker: int
    precision: int
    height: int
    width: int
    components: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Bits of memory a pixel takes while it is decoded: a progressive one keeps its coefficients, of 16 bits."""
        return (24 if self.marker in _PROGRESSIVE else 8) * len(self.components)


def segments(data: bytes) -> Iterator[Segment]:
    """All segments up to the end of the picture, which must come; entropy-coded data are passed over."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        found = _NEXT_MARKER.search(data, at)
        if found is None:
            raise truncated("it ends before its picture does")
        marker, at = found.group(1)[0], found.end()
        if marker == END:
            return
        if marker in (_TEM, 0xD8):
            continue
        (length,) = unpack(">H", data, at)
        if length < 2 or at + length > len(data):
            raise truncated("it ends inside a segment")
        yield Segment(marker, at + 2, length - 2)
        at += length
    raise damaged(f"more than {_MOST_SEGMENTS:,} segments")


def frame_of(data: bytes) -> JpegFrame:
    """Its first frame header. Raises UnreadableImage(truncated, unreadable)."""
    for part in segments(data):
        if part.marker in _FRAMES:
            return _frame(data, part)
        if part.marker == SCAN:
            break
    raise damaged("a JPEG without a frame")


def check_scans(data: bytes) -> JpegFrame:
    """Its frame, when every component was sent, in a progressive one to the last bit."""
    frame, sent, scans, tables = None, dict[tuple[int, int], int](), 0, dict[int, int]()
    for part in segments(data):
        if part.marker == _TABLES:
            tables |= _first_symbols(data, part)
        elif part.marker in _FRAMES:
            if frame is not None:
                raise damaged("a JPEG of two frames")
            frame = _frame(data, part)
        elif part.marker == SCAN and frame is not None:
            scans += 1
            sent |= _sent(data, part, frame)
            _refuse_lost_block(data, part, frame, tables)
        if scans > MOST_SCANS:
            raise damaged(f"more than {MOST_SCANS} scans")
    if frame is None:
        raise damaged("a JPEG without a frame")
    last = 64 if frame.marker in _PROGRESSIVE else 1
    if any(sent.get((component, k), 1) for component in frame.components for k in range(last)):
        raise truncated("scans are missing")
    return frame


def _first_symbols(data: bytes, part: Segment) -> dict[int, int]:
    """The symbol whose code is all zeros, for each table of a segment (16 + number: one of AC coefficients)."""
    at, end, found = part.at, part.at + part.length, dict[int, int]()
    while at + 17 < end:
        count = sum(data[at + 1 : at + 17])
        found[data[at]] = data[at + 17]
        at += 17 + count
    return found


def _refuse_lost_block(data: bytes, part: Segment, frame: JpegFrame, tables: dict[int, int]) -> None:
    """A long run of zeros in a scan decodes to something, mostly without a complaint. It is damage unless zeros mean
    "nothing more in this block", as in the black border of a picture with tables of its own; in scans of DC alone
    they may, too."""
    start = part.at + part.length
    lost = data.find(LOST, start)
    if lost < 0:
        return
    (count,) = unpack("B", data, part.at)
    first = data[part.at + 1 + 2 * count]
    if frame.marker in _PROGRESSIVE and first == 0:
        return
    selectors = data[part.at + 2 : part.at + 2 + 2 * count : 2]
    if any(tables.get(16 + (selector & 15), 1) == 0 for selector in selectors) and frame.marker != LOSSLESS:
        return
    following = _NEXT_MARKER.search(data, start)
    if following is None or lost < following.start():
        raise damaged("a block of its scan is lost")


def _frame(data: bytes, part: Segment) -> JpegFrame:
    precision, height, width, count = unpack(">BHHB", data, part.at)
    if part.length < 6 + 3 * count:
        raise damaged("a frame header shorter than its components")
    return JpegFrame(part.marker, precision, height, width, tuple(data[part.at + 6 : part.at + 6 + 3 * count : 3]))


def _sent(data: bytes, part: Segment, frame: JpegFrame) -> dict[tuple[int, int], int]:
    """Which bit (0: the last) of which coefficient of which component a scan brings; others but the first one count
    in progressive frames only."""
    (count,) = unpack("B", data, part.at)
    if part.length < 4 + 2 * count:
        raise damaged("a scan header shorter than its components")
    components = data[part.at + 1 : part.at + 1 + 2 * count : 2]
    first, last, bits = data[part.at + 1 + 2 * count : part.at + 4 + 2 * count]
    if frame.marker not in _PROGRESSIVE:
        return {(component, 0): 0 for component in components}
    return {(component, k): bits & 15 for component in components for k in range(first, min(last, 63) + 1)}


def adobe_transform(data: bytes) -> int | None:
    """The colour transform of Adobe's marker (0 none, 1 YCbCr, 2 YCCK); None without the marker."""
    for part in segments(data):
        if part.marker == APP14 and part.length >= 12 and data.startswith(b"Adobe", part.at):
            return data[part.at + 11]
    return None
