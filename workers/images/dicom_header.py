"""Read the few DICOM header fields that decide what happens to a file, without building a data set.

A walker of our own, because it runs in the producer and headers are hostile: it follows no reference, keeps no
tree (nested sequences cost a counter), reads at most `HEADER_BYTES`, and inflates no more than that. pydicom, which
parses everything, only ever runs in the resource-limited decoders.
Sources: DICOM PS3.5 (7.1 explicit and implicit VR, 7.5 sequences, A.4 encapsulation, A.5 deflate), PS3.10 (7.1).
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from db.errors import UnreadableImage
from db.words import Reason

# Fields before the pixels of a radiograph take some kB; thumbnails and private blocks up to some 100 kB.
HEADER_BYTES = 2 * 2**20
LONGEST_VALUE = 1024
_DEEPEST = 200  # a structured report's tree has some twenty levels
_MOST_META = 1000  # of them a dozen are usual
_MOST_ELEMENTS = 100_000  # a radiograph has some hundred

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
DICOMDIR_CLASS = "1.2.840.10008.1.3.10"

PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
ENCRYPTED_ATTRIBUTES = 0x04000500
SYNTAX, CLASS = 0x00020010, 0x00020002
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
VRS = LONG | {
    *(
        b"AE",
        b"AS",
        b"AT",
        b"CS",
        b"DA",
        b"DS",
        b"DT",
        b"FL",
        b"FD",
        b"IS",
        b"LO",
        b"LT",
        b"PN",
        b"SH",
        b"SL",
    ),
    *(b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
}


class Element(NamedTuple):
    """One element at the top level: where its value starts, and its length (0xFFFFFFFF: until a delimiter)."""

    tag: int
    start: int
    length: int


@dataclass(frozen=True)
class Header:
    """The wanted top-level values, raw; how the data set at `begin` in `body` is written; where its pixels are."""

    values: dict[int, bytes]
    syntax: str
    body: bytes
    begin: int
    pixels: Element | None
    little: bool
    implicit: bool
    deflated_at: int = 0  # where in the file the deflated data set begins

    def text(self, tag: int) -> str:
        """The first value of a text field, without padding; empty where absent."""
        return self.texts(tag)[0]

    def texts(self, tag: int) -> list[str]:
        """All values of a text field; [""] where absent. Control characters are dropped: nobody's names hold them."""
        text = self.values.get(tag, b"").decode(self._encoding(), "replace")
        return ["".join(c for c in value if c.isprintable()).strip() for value in text.split("\\")]

    def number(self, tag: int) -> int | None:
        """A US or UL field; None where absent."""
        value = self.values.get(tag, b"")
        if len(value) not in (2, 4):
            return None
        return int.from_bytes(value, "little" if self.little else "big")

    def _encoding(self) -> str:
        charset = self.values.get(0x00080005, b"")
        return "utf-8" if b"192" in charset else "gb18030" if b"GB" in charset else "latin-1"


def starts_dicom(head: bytes) -> bool:
    """PS3.10 files, sealed ones, and the old habit of leaving out the preamble (it starts with group 8 or 2)."""
    if head[128:132] == b"DICM" or is_sealed(head):
        return True
    return head[:2] in (b"\x08\0", b"\x02\0") and head[3:4] == b"\0" and _plausible(head[2:8])


def is_sealed(head: bytes) -> bool:
    """A Secure DICOM File: an enveloped CMS message (PS3.15 B.1; the OID is RFC 5652's envelopedData)."""
    return head[:1] == b"\x30" and b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03" in head[:32]


def _plausible(rest: bytes) -> bool:
    return rest[0:1] in (b"\0", b"\1", b"\5", b"\x08", b"\x12", b"\x16", b"\x18") and (
        rest[2:4] in VRS or rest[4:6] == b"\0\0"
    )


def parse(data: bytes, wanted: frozenset[int], *, limit: int) -> Header:
    """Walk the top level up to the pixels, and no further than `limit` bytes of the data set (of a deflated
    one, HEADER_BYTES).

    Raises UnreadableImage: truncated where it ends within an element, encrypted where it is sealed, unreadable
    where it does not inflate.
    """
    if is_sealed(data):
        raise UnreadableImage(Reason.ENCRYPTED, "a sealed (CMS) DICOM file")
    meta, begin = _meta(data)
    syntax = meta.get(SYNTAX, b"").rstrip(b"\0 ").decode("ascii", "replace")
    body, deflated_at = data, begin
    if syntax == DEFLATED:
        limit = HEADER_BYTES
        body, begin = inflate(data[begin:], limit), 0
    implicit = body[begin + 4 : begin + 6] not in VRS if syntax in ("", DEFLATED) else syntax == IMPLICIT
    little = body[begin : begin + 2] != b"\0\x08" if not syntax else syntax != BIG_ENDIAN
    values, pixels = dict(meta), None
    for element in _elements(body, begin, limit, little=little, implicit=implicit):
        if element.tag in PIXELS:
            pixels = element
            break
        if element.tag in wanted:
            values[element.tag] = _value(body, element)
    guessed = IMPLICIT if implicit else EXPLICIT if little else BIG_ENDIAN
    return Header(values, syntax or guessed, body, begin, pixels, little, implicit, deflated_at)


def inflate(data: bytes, limit: int) -> bytes:
    """At most `limit` bytes of a deflated data set: 292 kB were seen to grow to 570 MB."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit)
    except zlib.error as error:
        raise UnreadableImage(Reason.UNREADABLE, "its deflated part does not inflate") from error


def _value(data: bytes, element: Element) -> bytes:
    return data[element.start : element.start + min(element.length, LONGEST_VALUE)]


def _meta(data: bytes) -> tuple[dict[int, bytes], int]:
    """Group 2, which is explicit little endian, and where the data set after it begins."""
    at = 132 if data[128:132] == b"DICM" else 0
    meta: dict[int, bytes] = {}
    walked = 0
    while data[at : at + 2] == b"\x02\0":
        tag, _, start, length = _head(data, at, little=True, implicit=False)
        meta[tag] = _value(data, Element(tag, start, length))
        at, walked = start + length, walked + 1
        if walked > _MOST_META:
            raise UnreadableImage(Reason.UNREADABLE, f"more than {_MOST_META:,} elements of its meta header")
    return meta, at


def _elements(data: bytes, at: int, limit: int, *, little: bool, implicit: bool) -> Iterator[Element]:
    """The top-level elements. A sequence of undefined length costs one more entry in `opened`, nothing else."""
    opened: list[bool] = []  # whether each enclosing level is written implicitly
    walked = 0
    while at < len(data):
        if at >= limit:
            return
        walked += 1
        if walked > _MOST_ELEMENTS:
            raise UnreadableImage(Reason.UNREADABLE, f"more than {_MOST_ELEMENTS:,} elements before its pixels")
        tag, vr, start, length = _head(data, at, little=little, implicit=implicit)
        if tag in (_ITEM_END, _SEQUENCE_END):
            implicit, at = (opened.pop() if opened else implicit), start
            continue
        if not opened and tag != _ITEM:
            yield Element(tag, start, length)
        if length == _UNDEFINED:
            opened.append(implicit)
            if len(opened) > _DEEPEST:
                raise UnreadableImage(Reason.UNREADABLE, f"sequences nested more than {_DEEPEST} deep")
            # PS3.5 6.2.2: a sequence of unknown VR is written implicitly whatever surrounds it.
            implicit, at = implicit or vr == b"UN", start
        else:
            at = start + length
    if (at > len(data) or opened) and len(data) < limit:
        raise UnreadableImage(Reason.TRUNCATED, f"it ends inside an element, at byte {len(data)}")


def _head(data: bytes, at: int, *, little: bool, implicit: bool) -> tuple[int, bytes, int, int]:
    """(tag, VR, where the value starts, its length)."""
    end = "<" if little else ">"
    try:
        group, element = struct.unpack_from(end + "HH", data, at)
        tag, vr = group << 16 | element, data[at + 4 : at + 6]
        if implicit or group == 0xFFFE or vr not in VRS:
            return tag, b"", at + 8, struct.unpack_from(end + "I", data, at + 4)[0]
        if vr in LONG:
            return tag, vr, at + 12, struct.unpack_from(end + "I", data, at + 8)[0]
        return tag, vr, at + 8, struct.unpack_from(end + "H", data, at + 6)[0]
    except struct.error as error:
        raise UnreadableImage(Reason.TRUNCATED, f"it ends inside its header, at byte {len(data)}") from error


def pixel_bytes(header: Header) -> int:
    """Bytes of pixel data that are there, at most what is promised. Raises UnreadableImage(truncated).

    Encapsulated pixels (undefined length) are walked fragment by fragment.
    """
    assert header.pixels is not None  # noqa: S101
    _, at, length = header.pixels
    if length != _UNDEFINED:
        if at + length > len(header.body):
            raise UnreadableImage(
                Reason.TRUNCATED, f"{length:,} bytes of pixels promised, {len(header.body) - at:,} there"
            )
        return length
    found = 0
    for _ in range(_MOST_ELEMENTS):
        tag, _, at, size = _head(header.body, at, little=header.little, implicit=True)
        if tag == _SEQUENCE_END:
            return found
        if tag != _ITEM or size == _UNDEFINED:
            raise UnreadableImage(Reason.UNREADABLE, "its pixel fragments make no sense")
        found, at = found + size, at + size
        if at > len(header.body):
            raise UnreadableImage(Reason.TRUNCATED, "its last pixel fragment lies beyond its end")
        if at == len(header.body):
            raise UnreadableImage(Reason.TRUNCATED, "its pixel data has no end")
    raise UnreadableImage(Reason.UNREADABLE, f"more than {_MOST_ELEMENTS:,} pixel fragments")
