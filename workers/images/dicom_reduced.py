"""Decode a DICOM picture at a reduced size where its grey levels come out as from the whole one.

How a picture is shown hangs on its brightest samples, and a reduced picture lacks some of them. So only such pictures
are reduced that use all the bits that their header promises, beyond doubt: then nothing hangs on single samples.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_frames

from workers.images import reduced
from workers.images.codestreams import DCT, JPEG_2000, check_stream
from workers.images.complaints import taken_seriously
from workers.images.dicom import data_set_of, grey_levels
from workers.images.dicom_display import FAILURES
from workers.images.dicom_header import Header
from workers.images.levels import Table, count
from workers.images.picture import Frame
from workers.images.reduced import NotReduced, Plan, Reduced

_CODEC = {**dict.fromkeys(DCT, "jpeg"), **dict.fromkeys(JPEG_2000, "jpeg2000")}
# All bits are used beyond doubt where this share of the samples lies that far within their upper half.
_BRIGHT_SHARE, _BRIGHT = 0.02, 1.05
# Fields that give single stored values a meaning of their own, or decide by all that are in use.
_BY_VALUE = ("PixelPaddingValue", "ModalityLUTSequence")


def decode(header: Header, frame: Frame, plan: Plan) -> Reduced:
    """The reduced picture of a header that was found sound. Raises NotReduced, and UnreadableImage where its
    compressed picture is not what the header says."""
    codec = _CODEC.get(header.syntax)
    if codec is None:
        raise NotReduced("syntax")
    factor = plan.factor(codec, frame)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data_set = data_set_of(header)
            levels = grey_levels(_stored(data_set, header.syntax, frame, factor), data_set)
        except FAILURES as error:
            raise NotReduced("refused") from error
    _require_smooth(levels.seen)
    ahead = (factor - 1) / 2 if codec == "jpeg2000" else 0.0
    return Reduced(levels.for_model(), factor, frame.height, frame.width, ahead)


def _stored(data_set: Dataset, syntax: str, frame: Frame, factor: int) -> NDArray[np.unsignedinteger]:
    grey = data_set.SamplesPerPixel == 1 and data_set.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2")
    if not grey or data_set.PixelRepresentation != 0 or any(name in data_set for name in _BY_VALUE):
        raise NotReduced("samples")
    stream = next(generate_frames(data_set.PixelData, number_of_frames=1))
    said = check_stream(stream, syntax, data_set)
    if said.precision != data_set.BitsStored:
        raise NotReduced("bits")
    with taken_seriously():
        if syntax in DCT:
            stored: NDArray[np.unsignedinteger] = reduced.jpeg(stream, frame, factor)
        else:
            stored = reduced.jpeg_2000(stream, frame, said.precision, factor)
    _require_all_bits(stored, said.precision)
    return stored


def _require_all_bits(stored: NDArray[np.unsignedinteger], precision: int) -> None:
    half = int(_BRIGHT * 2 ** (precision - 1))
    if count(stored)[half:].sum() < _BRIGHT_SHARE * stored.size:
        raise NotReduced("bits")


def _require_smooth(seen: Table | None) -> None:
    """A table that rises or falls all the way; in any other, the average over some pixels means nothing."""
    steps = np.diff(np.zeros(1) if seen is None else seen.astype(np.int64))
    if (steps > 0).any() and (steps < 0).any():
        raise NotReduced("table")
