"""Labelled images from folders, seen as scoring sees them, and split so that no image is on two sides."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from db.errors import UnreadableImage
from workers import images, preprocessing
from workers.images import Limits
from workers.preprocessing import Pixels

LIMITS = Limits(max_bytes=200_000_000, max_pixels=100_000_000, min_side=64)


class Split(StrEnum):
    """Which side of an experiment an image is on."""

    TRAINING = "training"
    VALIDATION = "validation"  # picks the epoch, the temperature and the threshold
    HELD_BACK = "held_back"  # the tenth that never trains and never picks


@dataclass(frozen=True)
class Example:
    """One labelled image: `label` counts into the classes; `pixels` as `preprocessing.prepare` gives them."""

    path: Path
    label: int
    sha256: str
    pixels: Pixels


@dataclass(frozen=True)
class Examples:
    """Images side by side: pixels (N, S, S) uint8, labels (N,) int64, paths in the same order."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.labels)


def split_of(sha256: str) -> Split:
    """Say which side a file's content hash (hex) puts it on: a tenth held back, a seventh of the rest validates."""
    number = int(sha256, 16)
    if number % 10 == 0:
        return Split.HELD_BACK
    return Split.VALIDATION if number // 10 % 7 == 0 else Split.TRAINING


def load(folders: Sequence[Path], classes: Sequence[str], size: int) -> Iterator[Example]:
    """Read FOLDER/CLASS/* of every folder and class, prepared to size x size; what cannot be read is left out."""
    files = [
        (path, label)
        for folder in folders
        for label, name in enumerate(classes)
        for path in sorted((folder / name).iterdir())
        if path.is_file()
    ]
    with ThreadPoolExecutor() as pool:
        for example in pool.map(lambda file: _load_one(file[0], file[1], size), files):
            if example is not None:
                yield example


def prepared(content: bytes, size: int) -> Pixels:
    """Pixels of one file's bytes, exactly as scoring makes them. Raises UnreadableImage."""
    pixels, _ = preprocessing.prepare(images.to_grey8(images.read(content, LIMITS)), size)
    return pixels


def _load_one(path: Path, label: int, size: int) -> Example | None:
    content = path.read_bytes()
    try:
        return Example(path, label, hashlib.sha256(content).hexdigest(), prepared(content, size))
    except UnreadableImage:
        return None


def split(examples: Iterator[Example] | Sequence[Example]) -> dict[Split, Examples]:
    """Part examples by content hash; copies of one picture count once, on the most guarded side any of them has.

    Copies are files whose prepared pixels are equal, whatever their bytes. A picture that carries two labels is
    left out of all sides.
    """
    copies: dict[bytes, list[Example]] = {}
    for example in examples:
        copies.setdefault(hashlib.sha256(example.pixels.tobytes()).digest(), []).append(example)
    sides: dict[Split, list[Example]] = {side: [] for side in Split}
    for group in copies.values():
        if len({example.label for example in group}) == 1:
            kept = max(group, key=lambda example: list(Split).index(split_of(example.sha256)))
            sides[split_of(kept.sha256)].append(kept)
    return {side: gather(members) for side, members in sides.items()}


def draw(examples: Examples, count: int) -> Examples:
    """Draw up to `count` of them without repeating any; the same ones every time."""
    chosen = np.random.default_rng(1).permutation(len(examples))[:count]
    return Examples(examples.pixels[chosen], examples.labels[chosen], tuple(examples.paths[index] for index in chosen))


def gather(examples: Sequence[Example]) -> Examples:
    """Put examples side by side."""
    return Examples(
        np.stack([example.pixels for example in examples]) if examples else np.empty((0, 0, 0), np.uint8),
        np.array([example.label for example in examples], np.int64),
        tuple(example.path for example in examples),
    )
