"""What a compressed DICOM picture says of itself, held against what the DICOM header says of it.

Codecs believe the stream, their callers the header: a stream of 60,000 x 60,000 pixels under a header of 300 x 300 is
a bomb, and one of more rows than its header says is half a picture. gdcm ends the process over some contradictions.
Sources: ITU T.81 (JPEG), T.87 (JPEG-LS), T.800 annex A (JPEG 2000), DICOM PS3.5 annex G (RLE).
"""

from typing import NamedTuple

import simplejpeg
from pydicom import Dataset

from db.errors import UnreadableImage
from db.words import Reason
from workers.images.fields import LOST, damaged, unpack
from workers.images.jpeg import JPEG_LS, LOSSLESS, check_scans, frame_of
from workers.images.strips import unpacked_length

DCT = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")  # JPEG baseline and extended
_RLE = "1.2.840.10008.1.2.5"
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")


class Stream(NamedTuple):
    """What a compressed picture says of itself."""

    height: int
    width: int
    samples: int
    precision: int


def check_stream(stream: bytes, syntax: str, data_set: Dataset) -> Stream:
    """What the stream says of itself. Raises UnreadableImage (unreadable, truncated, unsupported_transfer_syntax) where
    the header says otherwise, where it is not whole, or where no codec reads it."""
    if syntax == _RLE:
        return _rle(stream, data_set)
    said = _jpeg_2000(stream) if syntax in JPEG_2000 else _jpeg(stream, syntax)
    if (said.height, said.width, said.samples) != (data_set.Rows, data_set.Columns, data_set.SamplesPerPixel):
        raise damaged("its compressed picture has another size than its header says")
    if (said.precision > 8) != (data_set.BitsAllocated > 8):
        raise damaged("its compressed picture has samples of another size than its header says")
    if syntax in DCT:
        _check_strictly(stream, said)
    # More bits in the stream than are stored are usual above 8 (gdcm writes 16); at 8, gdcm ends the process.
    fits = data_set.BitsStored <= said.precision if said.precision > 8 else data_set.BitsStored == said.precision
    if syntax not in (*DCT, *JPEG_2000) and not fits:
        raise damaged(f"{data_set.BitsStored} bits stored, {said.precision} in its compressed picture")
    return said


def _jpeg(stream: bytes, syntax: str) -> Stream:
    frame = frame_of(stream)
    lossless = JPEG_LS if syntax in _JPEG_LS else LOSSLESS
    if syntax not in DCT and frame.marker != lossless:
        raise damaged("its compressed picture is of another kind than its header says")
    if syntax not in _JPEG_LS:  # whose markers hide in other ways
        check_scans(stream)
    return Stream(frame.height, frame.width, len(frame.components), frame.precision)


def _check_strictly(stream: bytes, said: Stream) -> None:
    if said.precision != 8:
        raise UnreadableImage(Reason.UNSUPPORTED_TRANSFER_SYNTAX, f"JPEG of {said.precision} bits")
    if said.samples == 1:
        return  # its only decoder is the strict one
    try:
        simplejpeg.decode_jpeg(stream, "GRAY")
    except ValueError as error:
        cut = "premature end" in str(error).lower()
        raise UnreadableImage(Reason.TRUNCATED if cut else Reason.UNREADABLE, f"JPEG: {error}") from error


def _jpeg_2000(stream: bytes) -> Stream:
    """From the SIZ segment, which comes first in the codestream; a JP2 wrapper around it is not DICOM's, but seen."""
    at = stream.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0:
        raise damaged("no JPEG 2000 codestream")
    if LOST in stream:
        raise damaged("a block of its codestream is lost")
    wide, high, left, top = unpack(">IIII", stream, at + 8)
    tile_wide, tile_high = unpack(">II", stream, at + 24)
    (samples, precision) = unpack(">HB", stream, at + 40)
    tiles = -(-wide // max(tile_wide, 1)) * -(-high // max(tile_high, 1))
    if not tile_wide or not tile_high or tiles > 65_535:
        raise damaged("JPEG 2000 tiles of no size, or too many")
    return Stream(high - top, wide - left, samples, (precision & 0x7F) + 1)


def _rle(stream: bytes, data_set: Dataset) -> Stream:
    count, *offsets = unpack("<16I", stream, 0)
    needed = data_set.SamplesPerPixel * (data_set.BitsAllocated // 8)
    ends = [*offsets[1 : max(count, 1)], len(stream)]
    if count != needed or offsets[0] < 64 or any(a >= b for a, b in zip(offsets[:count], ends, strict=True)):
        raise damaged("its RLE segments make no sense")
    for start, end in zip(offsets[:count], ends, strict=True):
        if unpacked_length(stream[start:end]) != data_set.Rows * data_set.Columns:
            raise damaged("its RLE segments unfold to another size than its header says")
    return Stream(data_set.Rows, data_set.Columns, data_set.SamplesPerPixel, data_set.BitsAllocated)
