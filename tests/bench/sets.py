"""The sets that benches screen, made here from the shipped samples; nothing in them comes from a patient.

P: 224-pixel PNG. J: 5-megapixel JPEG. N: 1024 x 1024 PNG. D: 10-megapixel DICOM, 14 bits in 16, uncompressed. K: the
same in JPEG 2000 without loss. Each file is a sample enlarged, under grain of its own: new to any site and any cache.

How many a night flags is set, not found: under the shipped model a share of FLAGGED scores above THRESHOLD, a few more
near enough that two stages look twice, the rest well below. (At the threshold that the model recommends nearly every
drawing would be flagged; what is computed for a scan does not hang on where the threshold lies.)
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy import draw_samples
from workers import images

Grey = NDArray[np.uint8]
SAMPLES = draw_samples.SAMPLES / "scans"
CLEAR = ("chest-07.png", "chest-08.jpg", "chest-17.jpg", "chest-21.png", "chest-23.jpg", "chest-24.dcm")
DOUBTED = ("chest-22.jpg",)
POSITIVE = ("chest-25.jpg",)
FLAGGED = float(os.environ.get("BENCH_FLAGGED", "0.03"))  # of a set
# Flagged or not, looked at twice: as the parity report found among validation images without a finding (0.115).
LOOKED_AT = float(os.environ.get("BENCH_LOOKED_AT", "0.11"))
THRESHOLD = 0.985
SIZES = {"P": (224, 224), "J": (2400, 2080), "N": (1024, 1024), "D": (3520, 2860), "K": (3520, 2860)}
COUNTS = {"P": 1600, "J": 640, "N": 1000, "D": 320, "K": 24}  # files of a round: some 15 to 30 seconds on 2 cores
GRAIN = {"P": 1.0, "J": 3.0, "N": 3.0, "D": 3.0, "K": 3.0}  # standard deviation in grey levels of 256
GOLDEN = 0.618033988749895  # its multiples, less whole numbers, are spread evenly
ROOM = 64  # pixels by which the grain is shifted from file to file


def scaled(name: str, share: float = 1.0) -> int:
    """Files of a round: COUNTS, times BENCH_SIZE (1 where it is not set), times `share`."""
    return max(16, int(COUNTS[name] * share * float(os.environ.get("BENCH_SIZE", "1"))))


def write_set(name: str, folder: Path, count: int, seed: int) -> None:
    """Write `count` files of a set that no other seed gives."""
    folder.mkdir(parents=True)
    numbers = [part for part in np.array_split(np.arange(count), os.cpu_count() or 1) if len(part)]
    # Spawned: a fork of a process in which an engine runs would hang.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as several:
        list(several.map(_write_some, *zip(*((name, folder, part.tolist(), seed) for part in numbers), strict=True)))


def _write_some(name: str, folder: Path, numbers: list[int], seed: int) -> None:
    cv2.setNumThreads(1)
    for number in numbers:
        random = np.random.default_rng([seed, number])
        WRITERS[name](folder / f"{number:06d}", grained(name, number, random), seed * 1_000_000 + number)


def picture_of(number: int) -> str:
    """The sample that the file of this number shows: FLAGGED of them one, LOOKED_AT less FLAGGED another, spread over
    the set."""
    place = number * GOLDEN % 1
    several = POSITIVE if place < FLAGGED else DOUBTED if place < LOOKED_AT else CLEAR
    return several[number % len(several)]


def grained(name: str, number: int, random: np.random.Generator) -> NDArray[np.float32]:
    """The picture of one file, H x W, 0-255."""
    picture = enlarged(name, picture_of(number))
    height, width = picture.shape
    top, left = random.integers(0, ROOM, 2)
    layer = grain(name)[top : top + height, left : left + width]
    layer = layer[:: random.choice([1, -1]), :: random.choice([1, -1])]
    made: NDArray[np.float32] = picture + layer
    made[:ROOM, :ROOM] += random.standard_normal((ROOM, ROOM), np.float32) * GRAIN[name]  # its own, wherever shifted
    return np.clip(made, 0, 255, out=made)


@cache
def enlarged(name: str, sample: str) -> NDArray[np.float32]:
    """A shipped sample in the size of a set; where that is no square it goes on beyond the sample's edges."""
    grey = images.to_grey8(images.read((SAMPLES / sample).read_bytes(), images.Limits()))
    height, width = SIZES[name]
    side = min(height, width)
    how = cv2.INTER_AREA if side < len(grey) else cv2.INTER_CUBIC
    square = cv2.resize(grey, (side, side), interpolation=how).astype(np.float32)
    down, across = (height - side) // 2, (width - side) // 2
    return cv2.copyMakeBorder(square, down, down, across, across, cv2.BORDER_REFLECT).astype(np.float32)


@cache
def grain(name: str) -> NDArray[np.float32]:
    """A layer of grain a little larger than a set's pictures."""
    height, width = SIZES[name]
    random = np.random.default_rng(7)
    return random.standard_normal((height + ROOM, width + ROOM), np.float32) * np.float32(GRAIN[name])


def _png(file: Path, picture: NDArray[np.float32], number: int) -> None:
    cv2.imwrite(str(file.with_suffix(".png")), np.rint(picture).astype(np.uint8))


def _jpeg(file: Path, picture: NDArray[np.float32], number: int) -> None:
    cv2.imwrite(str(file.with_suffix(".jpg")), np.rint(picture).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])


def _dicom(
    file: Path, picture: NDArray[np.float32], number: int, compress: Callable[[Any], None] | None = None
) -> None:
    dataset = draw_samples.header(number)
    dataset.Rows, dataset.Columns = picture.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 14, 13
    dataset.PixelData = np.rint(picture * (16383 / 255)).astype(np.uint16).tobytes()
    dataset["PixelData"].VR = "OW"
    if compress:
        compress(dataset)
    dataset.save_as(file.with_suffix(".dcm"), enforce_file_format=True)


def _jpeg2000(file: Path, picture: NDArray[np.float32], number: int) -> None:
    from pydicom.uid import JPEG2000Lossless

    _dicom(file, picture, number, lambda dataset: dataset.compress(JPEG2000Lossless))


WRITERS = {"P": _png, "J": _jpeg, "N": _png, "D": _dicom, "K": _jpeg2000}
