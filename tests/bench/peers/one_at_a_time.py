"""The same OpenVINO model in a folder script: one image after the other, all cores on each. PRECISION is its argument;
with a second, `pydicom`, files are DICOM and are read by pydicom with pylibjpeg as its manual shows."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from same_model import CORES, compiled, prepared, score
from serving import serve


def by_pydicom(file: Path) -> NDArray[np.uint8]:
    """Decode, stretch to 8 bits, cut to the middle square, shrink."""
    data_set = pydicom.dcmread(file)
    data_set.pixel_array_options(
        decoding_plugin="pylibjpeg"
    ) if data_set.file_meta.TransferSyntaxUID.is_compressed else None
    stored = data_set.pixel_array.astype(np.float32)
    grey = ((stored - stored.min()) * (255 / max(float(np.ptp(stored)), 1.0))).astype(np.uint8)
    side = min(grey.shape)
    top, left = ((length - side) // 2 for length in grey.shape)
    return cv2.resize(grey[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_AREA)


def main() -> None:
    model = compiled(sys.argv[1], threads=CORES, streams=None)
    read = by_pydicom if sys.argv[2:] == ["pydicom"] else prepared

    def screen(files: list[Path]) -> dict[str, list[float]]:
        return {"scores": [score(model({0: read(file)[None, ..., None]})) for file in files][:32]}

    model({0: np.zeros((1, 224, 224, 1), np.uint8)})
    serve(screen)


if __name__ == "__main__":
    main()
