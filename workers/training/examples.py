"""Labelled images in memory, and the sides of an experiment that they are on."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers.preprocessing import Pixels


class Split(StrEnum):
    """Which side of an experiment an image is on."""

    TRAINING = "training"
    VALIDATION = "validation"  # picks the epoch, the temperature and the threshold
    HELD_BACK = "held_back"  # the tenth that never trains and never picks


@dataclass(frozen=True)
class Facts:
    """Of the file, not of its picture: what a shortcut could use. `format` is the reader's name."""

    bytes: int
    width: int
    height: int
    format: str


@dataclass(frozen=True)
class Example:
    """One labelled image: `label` counts into the classes; `pixels` as `preprocessing.prepare` gives them.

    `wanted` is the side that a CSV asks for.
    """

    path: Path
    label: int
    sha256: str
    pixels: Pixels
    patient: str | None = None
    wanted: Split | None = None
    facts: Facts | None = None


@dataclass(frozen=True)
class Excluded:
    """A file that takes no part, and why, in one sentence without patient data."""

    path: Path
    why: str


@dataclass(frozen=True)
class Collection:
    """What was read: the classes in order, every readable image, and what was left out."""

    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    excluded: tuple[Excluded, ...]


@dataclass(frozen=True)
class Examples:
    """Images side by side: pixels (N, S, S) uint8, labels (N,) int64, paths and facts in the same order."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    paths: tuple[Path, ...]
    facts: tuple[Facts | None, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


Sides = dict[Split, Examples]


def gather(examples: Sequence[Example]) -> Examples:
    """Put examples side by side."""
    return Examples(
        np.stack([example.pixels for example in examples]) if examples else np.empty((0, 0, 0), np.uint8),
        np.array([example.label for example in examples], np.int64),
        tuple(example.path for example in examples),
        tuple(example.facts for example in examples),
    )


def take(examples: Examples, chosen: NDArray[np.integer]) -> Examples:
    """Those at the positions `chosen`, in that order."""
    return Examples(
        examples.pixels[chosen],
        examples.labels[chosen],
        tuple(examples.paths[index] for index in chosen),
        tuple(examples.facts[index] for index in chosen) if examples.facts else (),
    )


def draw(examples: Examples, count: int) -> Examples:
    """Draw up to `count` of them without repeating any; the same ones every time."""
    return take(examples, np.random.default_rng(1).permutation(len(examples))[:count])


def join(several: Sequence[Examples]) -> Examples:
    """Put sides one after the other; empty ones count for nothing."""
    filled = [examples for examples in several if len(examples)]
    if len(filled) < 2:
        return filled[0] if filled else several[0]
    return Examples(
        np.concatenate([examples.pixels for examples in filled]),
        np.concatenate([examples.labels for examples in filled]),
        tuple(path for examples in filled for path in examples.paths),
        tuple(fact for examples in filled for fact in examples.facts),
    )
