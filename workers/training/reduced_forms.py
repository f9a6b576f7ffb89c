"""Measure what decoding at a reduced size does to a trained model's scores, for each codec.

Validation images are small: each is enlarged to a radiograph's size under fine grain, so that there is something that a
reduced picture lacks, and written as a file; the same file is prepared whole and reduced, and both are scored at
float32. JPEG at quality 90; JPEG 2000 as DICOM of 12 bits with a window, in turn without loss and at a tenth of it.
"""

from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, JPEG2000Lossless

from workers import images, preprocessing, reduced
from workers.images import NotReduced
from workers.preprocessing import Pixels
from workers.training.data import LIMITS

IMAGES = 200  # as many of each class as there are
SIDES = 9, 11  # of an enlarged picture, in input sizes: 4 to 6 megapixels at 224 pixels
# Standard deviation, in grey levels of 256. The large X-rays at hand have 0.25 to 0.5 (median of the Laplacian).
GRAIN = 1.0
_BITS = 12


class Pairs(NamedTuple):
    """N prepared pictures twice, (N, S, S) uint8, and which of those asked about they are of: the others are prepared
    whole, reduced or not."""

    whole: NDArray[np.uint8]
    reduced: NDArray[np.uint8]
    numbers: NDArray[np.int64]


def pairs(pixels: NDArray[np.uint8], codec: str) -> Pairs:
    """Both preparations of (N, S, S) uint8, enlarged and written by a codec; one after the other, for the encoder of
    JPEG 2000 crashes where two threads use it."""
    found = [_pair(picture, _WRITERS[codec], codec, number) for number, picture in enumerate(pixels)]
    numbers = np.array([number for number, one in enumerate(found) if one is not None], np.int64)
    both = np.array([one for one in found if one is not None], np.uint8).reshape(-1, 2, *pixels.shape[1:])
    return Pairs(both[:, 0], both[:, 1], numbers)


def _pair(picture: Pixels, write: Callable[..., bytes], codec: str, number: int) -> tuple[Pixels, Pixels] | None:
    """None where such a file is prepared whole anyway."""
    size = len(picture)
    data = write(enlarged(picture, number), number)
    try:
        _, small, _ = reduced.prepare(data, LIMITS, size, (codec,), preprocessing.DEFAULT_BORDER, "exact")
    except NotReduced:
        return None
    return preprocessing.prepare(images.to_grey8(images.read(data, LIMITS)), size)[0], small


def enlarged(picture: Pixels, number: int) -> NDArray[np.float32]:
    """A picture of a radiograph's size and grain, H x W, 0-255; other ones for other numbers."""
    random = np.random.default_rng(number)
    height, width = random.integers(SIDES[0] * len(picture), SIDES[1] * len(picture), 2).tolist()
    large = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    large += np.float32(GRAIN) * random.standard_normal(large.shape, np.float32)
    return np.clip(large, 0, 255, out=large)


def jpeg(picture: NDArray[np.float32], number: int) -> bytes:
    """H x W, 0-255, as a grey JPEG."""
    return cv2.imencode(".jpg", np.rint(picture).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def jpeg_2000(picture: NDArray[np.float32], number: int) -> bytes:
    """H x W, 0-255, as a DICOM radiograph in JPEG 2000: without loss where the number is even."""
    most = 2**_BITS - 1
    samples = np.rint(picture * (most / 255)).astype(np.uint16)
    loss = [10.0] if number % 2 else None
    stream = encode_array(
        samples, photometric_interpretation=2, bits_stored=_BITS, codec_format=0, compression_ratios=loss
    )
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = JPEG2000 if number % 2 else JPEG2000Lossless
    data_set.SOPClassUID, data_set.SOPInstanceUID, data_set.Modality = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3", "DX"
    data_set.Rows, data_set.Columns = samples.shape
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation, data_set.PixelRepresentation = 1, "MONOCHROME2", 0
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit = 16, _BITS, _BITS - 1
    data_set.WindowCenter, data_set.WindowWidth = 2 ** (_BITS - 1), 2**_BITS
    data_set.PixelData = encapsulate([stream])
    data_set["PixelData"].VR = "OB"
    file = BytesIO()
    data_set.save_as(file, enforce_file_format=True)
    return file.getvalue()


_WRITERS: dict[str, Callable[..., bytes]] = {"jpeg": jpeg, "jpeg2000": jpeg_2000}
