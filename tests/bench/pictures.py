"""Pictures for the benches: real ones from NIGHTREAD_TEST_DATA where it is set, else the shipped samples."""

import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy import home
from workers import images

SAMPLES = Path(home.__file__).parent / "samples"


def pictures(count: int) -> list[NDArray[np.uint8]]:
    """At most `count` grey pictures of 224 x 224 to write as JPEG files."""
    data = os.environ.get("NIGHTREAD_TEST_DATA")
    files = sorted(Path(data, "cxr").rglob("*.jpg")) if data else sorted((SAMPLES / "scans").iterdir())
    contents = (file.read_bytes() for file in files[:: max(1, len(files) // count)])
    read = (images.to_grey8(images.read(content, images.Limits())) for content in contents)
    return [cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA) for picture in read]


def write(file: Path, picture: NDArray[np.uint8], noise: np.random.Generator) -> None:
    """Write the picture with one grey level of noise, which makes it new to any site."""
    changed = np.clip(picture.astype(np.int16) + noise.integers(-1, 2, picture.shape), 0, 255).astype(np.uint8)
    cv2.imwrite(str(file), changed)
