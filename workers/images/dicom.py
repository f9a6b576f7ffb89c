"""Decode a DICOM image: modality LUT, then VOI (LUT or window), then the inversion of MONOCHROME1 (PS3.4 N.2).

Runs pydicom, and the codecs behind it, on foreign bytes: call it in the decoders.
"""

import logging
import warnings
from dataclasses import replace
from io import BytesIO

import numpy as np
import pydicom.config
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.filereader import read_dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from db.errors import UnreadableImage
from db.words import Reason
from workers.images.codestreams import DCT, check_stream
from workers.images.complaints import taken_seriously
from workers.images.dicom_display import FAILURES, Values, copy_levels, spacing_of
from workers.images.dicom_header import DEFLATED, EXPLICIT, HEADER_BYTES, Header, inflate, parse, pixel_bytes
from workers.images.dicom_rules import WANTED, refuse_strange_samples, refuse_what_is_no_picture, uncompressed_bytes
from workers.images.fields import damaged, truncated
from workers.images.levels import Levels, count, of_raster, significant_bits
from workers.images.picture import Frame, Limits, Samples, by_rows, check, to_grey
from workers.images.raster import grey_of_jpeg

# pydicom quotes values in what it logs and warns of, and those are patients'.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_MOST_PADDING = 512  # zeros after the pixels, as some modalities write
# One codec for each, whatever else is installed: they differ in what they refuse (pyjpegls takes seconds and gigabytes
# over a cut stream, Pillow is there in some environments only).
_CODECS = {
    **dict.fromkeys(("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"), "gdcm"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"), "gdcm"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"), "gdcm"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"), "pylibjpeg"),
    "1.2.840.10008.1.2.5": "pydicom",
}
_UNCOMPRESSED = {EXPLICIT, DEFLATED, "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"}


def measure_dicom(data: bytes, limits: Limits) -> tuple[Header, Frame]:
    """Its header and size, within limits. Raises UnreadableImage: all that the rules refuse, too_large, truncated."""
    header = parse(data, WANTED, limit=len(data))
    if header.syntax == DEFLATED and header.pixels is None and len(header.body) >= HEADER_BYTES:
        raise UnreadableImage(
            Reason.TOO_LARGE, f"no pixels within the first {HEADER_BYTES:,} bytes that it inflates to"
        )
    frame = refuse_what_is_no_picture(header)
    check(frame, limits)
    refuse_strange_samples(header)
    if header.syntax in _UNCOMPRESSED:
        header = _whole(data, header, uncompressed_bytes(header, frame))
    else:
        pixel_bytes(header)
    return header, frame


def _whole(data: bytes, header: Header, needed: int) -> Header:
    """The header of a picture that is not compressed, its body inflated as far as the pixels that are needed. Too few
    of them is truncated; too many means that the header lies about the size, and a slanted picture would come out."""
    assert header.pixels is not None  # noqa: S101
    _, start, promised = header.pixels
    if header.syntax == DEFLATED:
        header = replace(
            header, body=inflate(data[header.deflated_at :], start + max(needed, min(promised, needed + 1)))
        )
        found = min(promised, len(header.body) - start)
    else:
        found = pixel_bytes(header)
    if found < needed:
        raise truncated(f"{found:,} bytes of pixels for {needed:,}")
    excess = header.body[start + needed : start + found]
    if promised > needed + _MOST_PADDING or (excess.strip(b"\0") and len(excess) > 1):
        raise damaged("more pixels than its header says")
    return header


def decode_dicom(header: Header, frame: Frame) -> Levels:
    """The picture: as its header wants it shown, and as its samples are. Raises UnreadableImage(unreadable); quotes no
    value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            levels = _decode(data_set_of(header))
        except FAILURES as error:
            raise UnreadableImage(Reason.UNREADABLE, f"DICOM: {type(error).__name__} while decoding") from error
    if levels.places.shape != (frame.height, frame.width):
        raise UnreadableImage(Reason.UNREADABLE, "it decodes to another size than its header says")
    return levels


def data_set_of(header: Header) -> Dataset:
    """What pydicom makes of a file whose header has been found sound."""
    stream = BytesIO(header.body)
    stream.seek(header.begin)
    data_set = read_dataset(stream, is_implicit_VR=header.implicit, is_little_endian=header.little)
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = UID(EXPLICIT if header.syntax == DEFLATED else header.syntax)
    return data_set


def _decode(data_set: Dataset) -> Levels:
    stored = _stored(data_set)
    if stored.dtype.kind not in "iu" or stored.dtype.itemsize > 2:
        raise UnreadableImage(Reason.UNREADABLE, f"samples of type {stored.dtype}; 8 or 16 bits are read")
    kind = data_set.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        stored = apply_color_lut(stored, data_set)
    if stored.ndim == 3:
        grey = to_grey(np.ascontiguousarray(stored[:, :, ::-1]))
        return _with_spacing(of_raster(grey if grey.dtype == np.uint8 else grey.astype(np.uint16), "dicom"), data_set)
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableImage(Reason.UNREADABLE, "a photometric interpretation that is not read")
    return grey_levels(stored, data_set)


def _with_spacing(levels: Levels, data_set: Dataset) -> Levels:
    spacing, kind = spacing_of(data_set)
    return replace(levels, display=replace(levels.display, spacing=spacing, spacing_kind=kind))


def _stored(data_set: Dataset) -> NDArray[np.integer]:
    """The pixels as stored. What a compressed stream says of itself is checked before its codec sees it."""
    syntax = str(data_set.file_meta.TransferSyntaxUID)
    # pydicom would drop the bits above those stored without a word; in signed samples they are sign bits.
    kept = {"correct_unused_bits": data_set.PixelRepresentation == 1}
    if syntax not in _CODECS:
        return pixel_array(data_set, view_only=True, **kept)
    stream = next(generate_frames(data_set.PixelData, number_of_frames=1))
    said = check_stream(stream, syntax, data_set)
    if syntax in DCT and said.samples == 1:
        return grey_of_jpeg(stream)
    stored, data_set.BitsStored = data_set.BitsStored, said.precision  # gdcm drops bits as well
    try:
        with taken_seriously():
            return pixel_array(data_set, decoding_plugin=_CODECS[syntax], **kept)
    finally:
        data_set.BitsStored = stored


def grey_levels(stored: NDArray[np.integer], data_set: Dataset) -> Levels:
    """Work out what becomes of each value in use (at most 65,536), so that every pixel need only be looked up."""
    if stored.dtype.kind == "u":
        stored = _without_overlays(stored, data_set)
    low, high = int(stored.min()), int(stored.max())
    inputs = np.arange(low, high + 1)
    places: Samples = stored  # type: ignore[assignment]
    if low or stored.dtype != np.uint16:
        places = by_rows(lambda rows: np.subtract(rows, low, dtype=np.int32), stored, np.uint16)
    counts = count(places)[: len(inputs)]
    if stored.dtype.itemsize == 1:
        bits = min(int(data_set.BitsStored), 8)
    else:
        bits = max(significant_bits(counts, first=max(low, 0)), 8)
    shown = _voi(inputs, data_set, min(low, 0), bits)
    if data_set.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    padding = _padding(inputs, data_set)
    shown[padding] = 0
    seen = np.rint(shown * 255).astype(np.uint8) if bits <= 8 else np.rint(shown * 65535).astype(np.uint16)
    copied, display = copy_levels(inputs, counts, padding, shown, data_set)
    return Levels(places, seen, copied, max(bits, 8), "dicom", display)


def _without_overlays(stored: NDArray[np.integer], data_set: Dataset) -> NDArray[np.integer]:
    """The bits that BitsStored says are the picture's. Those above it may hold overlays (PS3.3 C.9.2, retired); where
    no overlay says so, the header lies, and dropping them would wrap bright to dark."""
    most = 2 ** min(int(data_set.BitsStored), 16) - 1
    if int(stored.max()) <= most:
        return stored
    if not any(tag.group & 0xFF01 == 0x6000 and tag.elem == 0x0102 for tag in list(data_set.keys())):
        raise damaged("samples of more bits than its header says")
    return stored & stored.dtype.type(most)


def _voi(inputs: NDArray[np.integer], data_set: Dataset, floor: int, bits: int) -> Values:
    """Stored values to 0-1. Without a VOI, the significant bits from `floor` on fill the range."""
    values: Values = np.asarray(apply_modality_lut(inputs, data_set), np.float64)
    if data_set.get("VOILUTSequence"):
        depth = int(data_set.VOILUTSequence[0].LUTDescriptor[2])
        looked_up = np.asarray(apply_voi(np.rint(values).astype(np.int64), data_set), np.float64)
        return np.asarray(np.clip(looked_up / (2.0**depth - 1), 0, 1))
    centre, width = (_first(data_set.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is not None and width is not None and width >= 1:
        shown = window(values, centre, width, str(data_set.get("VOILUTFunction") or "LINEAR"))
        if np.ptp(shown) > 0:  # else the window misses every value in use: better shown without it than blank
            return shown
    ends = apply_modality_lut(np.array([floor, floor + 2**bits - 1]), data_set).astype(np.float64)
    return np.asarray(np.clip((values - ends.min()) / max(float(np.ptp(ends)), 1e-9), 0, 1))


def _first(value: object) -> float | None:
    values = value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]
    return float(str(values[0])) if values and values[0] not in (None, "") else None


def window(values: Values, centre: float, width: float, function: str) -> Values:
    """Values to 0-1 by LINEAR, LINEAR_EXACT or SIGMOID (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))))
    if function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, 1e-9)
    return np.asarray(np.clip((values - centre) / width + 0.5, 0, 1), np.float64)


def _padding(inputs: NDArray[np.integer], data_set: Dataset) -> NDArray[np.bool_]:
    """Which stored values are padding, to be shown black even in MONOCHROME1 (PS3.3 C.7.5.1.1.2)."""
    first = data_set.get("PixelPaddingValue")
    if not isinstance(first, int):
        return np.zeros(inputs.shape, bool)
    last = data_set.get("PixelPaddingRangeLimit")
    last = last if isinstance(last, int) else first
    return (inputs >= min(first, last)) & (inputs <= max(first, last))
