"""Which images a study draws: never the held-back tenth, no picture twice, the same ones for every architecture."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from db.errors import DataRefused
from workers.training import data
from workers.training.data import Examples, Split

Indices = NDArray[np.int64]  # positions among examples
Labels = NDArray[np.int64]
LEAST = 10  # images of a class: fewer cannot be split 80 to 20 and tell anything
SIZE = 224  # pixels at which copies are recognised: the input of VGG-19 and ResNet-50


@dataclass(frozen=True)
class Pool:
    """What may be drawn: `examples` at `SIZE` pixels, each picture and each known patient once."""

    classes: tuple[str, ...]
    examples: Examples
    held_back: int
    left_out: int

    def per_class(self) -> int:
        """Images of the rarest class."""
        return int(np.bincount(self.examples.labels, minlength=len(self.classes)).min())


def read(folders: Sequence[Path], classes: Sequence[str] | None, progress: Callable[[int, int], None]) -> Pool:
    """Read labelled folders (or CSV files). Raises DataRefused where a class has under ten usable images."""
    collection = data.read(folders, SIZE, classes=classes, progress=progress)
    sides, excluded = data.parted(collection)
    usable = {path for side in (Split.TRAINING, Split.VALIDATION) for path in sides[side].paths}
    # By path: draws then depend on the images and the seed, not on which side came first.
    found = sorted((one for one in collection.examples if one.path in usable), key=lambda one: one.path)
    kept = {one.patient or str(one.path): one for one in reversed(found)}
    examples = data.gather(list(reversed(kept.values())))
    again = len(found) - len(kept)
    pool = Pool(collection.classes, examples, len(sides[Split.HELD_BACK]), len(excluded) + again)
    if pool.per_class() < LEAST:
        raise DataRefused(
            f"{', '.join(map(str, folders))}: a class has only {pool.per_class()} images beside the held-back tenth; "
            f"a study needs {LEAST} of each"
        )
    return pool


def at(examples: Examples, size: int) -> Examples:
    """Give the same images prepared at another input size."""
    if len(examples) == 0 or examples.pixels.shape[1] == size:
        return examples
    pixels = np.stack([data.prepared(path.read_bytes(), size) for path in examples.paths])
    return Examples(pixels, examples.labels, examples.paths)


def balanced(labels: NDArray[np.int64], per_class: int, rng: Generator, *, without: Sequence[int] = ()) -> Indices:
    """Draw `per_class` indices of each label, mixed; none of `without`. The first 2k of them are balanced too."""
    free = np.setdiff1d(np.arange(len(labels)), np.asarray(without, np.int64))
    columns = [rng.permutation(free[labels[free] == label])[:per_class] for label in np.unique(labels)]
    if any(len(column) < per_class for column in columns):
        raise DataRefused(f"{min(map(len, columns))} images of a class are left, {per_class} needed")
    return np.stack(columns, axis=1).ravel()


def eighty_twenty(labels: NDArray[np.int64], rng: Generator) -> tuple[Indices, Indices]:
    """Split at random into 80 % and 20 %, each label in the same proportion (the paper does not say whether)."""
    sides: tuple[list[Indices], list[Indices]] = ([], [])
    for label in np.unique(labels):
        mixed = rng.permutation(np.flatnonzero(labels == label))
        cut = max(1, round(len(mixed) * 0.2))
        sides[0].append(mixed[cut:])
        sides[1].append(mixed[:cut])
    return np.concatenate(sides[0]), np.concatenate(sides[1])


def digest(examples: Examples) -> str:
    """One sha256 over the pixels of all images, in order: says which images a run used without naming one."""
    return hashlib.sha256(np.ascontiguousarray(examples.pixels).tobytes()).hexdigest()
