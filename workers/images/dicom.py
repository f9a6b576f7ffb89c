"""Decode a DICOM image: modality LUT, then VOI (LUT or window), then the inversion of MONOCHROME1 (PS3.4 N.2).

Runs pydicom, and the codecs behind it, on foreign bytes: call it in the decoders.
"""

import logging
import struct
import warnings
from io import BytesIO

import cv2
import numpy as np
import pydicom.config
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.filereader import read_dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, JPEGBaseline8Bit

from db.errors import UnreadableImage
from db.words import Reason
from workers.images.dicom_header import DEFLATED, EXPLICIT, Header, parse, pixel_bytes
from workers.images.dicom_rules import WANTED, refuse_what_is_no_picture, uncompressed_bytes
from workers.images.headers import measure_jpeg
from workers.images.picture import Frame, Image, Samples, fill, significant_bits, to_grey
from workers.images.raster import decode_jpeg

# pydicom quotes values in what it logs and warns of, and those are patients'.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

Values = NDArray[np.float64]
_UNCOMPRESSED = {EXPLICIT, DEFLATED, "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"}
# What hostile or merely odd data sets were seen to raise; RecursionError is a RuntimeError.
_FAILURES = (
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError, EOFError, OSError),
    *(struct.error, cv2.error),
)


def measure_dicom(data: bytes, max_bytes: int) -> tuple[Header, Frame]:
    """Its header and size. Raises UnreadableImage: all that the rules refuse, too_large, truncated."""
    header = parse(data, WANTED, limit=max_bytes + 1)
    if len(header.body) > max_bytes:
        raise UnreadableImage(Reason.TOO_LARGE, f"it inflates to more than {max_bytes:,} bytes")
    frame = refuse_what_is_no_picture(header)
    needed, found = uncompressed_bytes(header, frame), pixel_bytes(header)
    if header.syntax in _UNCOMPRESSED and found < needed:
        raise UnreadableImage(Reason.TRUNCATED, f"{found:,} bytes of pixels for {needed:,}")
    return header, frame


def decode_dicom(header: Header, frame: Frame) -> Image:
    """The picture as its header wants it shown. Raises UnreadableImage(unreadable); quotes no value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = _decode(_data_set(header))
        except _FAILURES as error:
            raise UnreadableImage(Reason.UNREADABLE, f"DICOM: {type(error).__name__} while decoding") from error
    if image.samples.shape != (frame.height, frame.width):
        raise UnreadableImage(Reason.UNREADABLE, "it decodes to another size than its header says")
    return image


def _data_set(header: Header) -> Dataset:
    stream = BytesIO(header.body)
    stream.seek(header.begin)
    data_set = read_dataset(stream, is_implicit_VR=header.implicit, is_little_endian=header.little)
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = UID(EXPLICIT if header.syntax == DEFLATED else header.syntax)
    return data_set


def _decode(data_set: Dataset) -> Image:
    stored = _stored(data_set)
    if stored.dtype.kind not in "iu" or stored.dtype.itemsize > 2:
        raise UnreadableImage(Reason.UNREADABLE, f"samples of type {stored.dtype}; 8 or 16 bits are read")
    kind = data_set.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        stored = apply_color_lut(stored, data_set)
    if stored.ndim == 3:
        grey: Samples = to_grey(np.ascontiguousarray(stored[:, :, ::-1]))
        return fill(grey.astype(np.uint16), "dicom") if grey.dtype != np.uint8 else Image(grey, 8, "dicom")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableImage(Reason.UNREADABLE, "a photometric interpretation that is not read")
    return _show(stored, data_set)


def _stored(data_set: Dataset) -> NDArray[np.integer]:
    """The pixels as stored. Grey JPEG baseline goes our own strict way: gdcm ends the process over broken ones."""
    if data_set.file_meta.TransferSyntaxUID != JPEGBaseline8Bit or data_set.SamplesPerPixel != 1:
        return pixel_array(data_set)
    stream = next(generate_frames(data_set.PixelData, number_of_frames=1))
    promised = Frame(data_set.Rows, data_set.Columns)
    found = measure_jpeg(stream)
    if (found.height, found.width) != (promised.height, promised.width):
        raise UnreadableImage(Reason.UNREADABLE, "its JPEG has another size than its header says")
    return decode_jpeg(stream, promised).samples


def _show(stored: NDArray[np.integer], data_set: Dataset) -> Image:
    """Work out one output value for each value in use (at most 65,536), then look every pixel up."""
    if stored.dtype.kind == "u":
        stored = stored & (2 ** min(int(data_set.BitsStored), 16) - 1)  # the bits above may hold overlays
    low, high = int(stored.min()), int(stored.max())
    inputs = np.arange(low, high + 1)
    offsets = (stored.astype(np.int32) - low).astype(np.uint16)
    if stored.dtype.itemsize == 1:
        bits = min(int(data_set.BitsStored), 8)
    else:
        bits = max(significant_bits(offsets if low < 0 else stored.astype(np.uint16)), 8)
    shown = _voi(inputs, data_set, min(low, 0), bits)
    if data_set.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    shown[_padding(inputs, data_set)] = 0
    if bits <= 8:
        return Image(np.rint(shown * 255).astype(np.uint8)[offsets], 8, "dicom")
    return Image(np.rint(shown * 65535).astype(np.uint16)[offsets], bits, "dicom")


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
