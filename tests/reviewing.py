"""Pictures as readers get them, for tests."""

import builders
import numpy as np
from builders import CHEST
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from workers.images import Limits, review

LIMITS = Limits(max_bytes=32 * 2**20)
TWELVE = CHEST.astype(np.uint16) * 16
DEEP = {"BitsStored": 12, "HighBit": 11}


def reviewed(data):
    """Samples as ints, and the display."""
    image = review(data, LIMITS)
    return image.samples.astype(int), image.display


def of_dicom(pixels=TWELVE, **fields):
    return reviewed(builders.dicom(pixels, **(DEEP if pixels.dtype.itemsize == 2 else {}) | fields))


def windowed(samples, display):
    """As a viewer shows it at first: 0-255."""
    return np.clip((samples - display.low) / (display.high - display.low), 0, 1) * 255


def lut(entries, *, bits=16, first=0, **fields):
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = np.asarray(entries).astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    for name, value in fields.items():
        setattr(item, name, value)
    return Sequence([item])
