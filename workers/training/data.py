"""Labelled images from folders or CSVs, seen as scoring sees them, and split so that no image is on two sides."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from db.errors import DataRefused, UnreadableImage
from workers import images, preprocessing
from workers.images import Limits
from workers.preprocessing import Pixels
from workers.training import listing
from workers.training.examples import Collection, Example, Examples, Excluded, Facts, Split, draw, gather, join, take
from workers.training.listing import Listed
from workers.training.parting import parted, split, split_of, training_sides, unique

__all__ = [
    "Collection",
    "Example",
    "Examples",
    "Excluded",
    "Facts",
    "Split",
    "draw",
    "gather",
    "join",
    "load",
    "parted",
    "prepared",
    "read",
    "read_listed",
    "split",
    "split_of",
    "take",
    "training_sides",
    "unique",
]

LIMITS = Limits(max_bytes=200_000_000, max_pixels=100_000_000, min_side=64)
# What is looked for comes last, so that with two classes the score is its probability.
WITHOUT_FINDING = ("normal", "negative", "healthy")


def read(
    data: Sequence[Path],
    size: int,
    *,
    classes: Sequence[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Collection:
    """Read labelled images, prepared to size x size as scoring prepares them; `progress(done, of)` after each.

    Each of `data` is a folder of class folders or a CSV (path,label[,patient][,split]; paths count from the CSV's
    folder). The classes are those given, else those found, sorted, with "normal", "negative" or "healthy" first.
    A DICOM file's patient is used where a CSV names none. Unreadable images and classes that were not asked for are
    recorded in `excluded`. Raises DataRefused for fewer than two classes, a class without an image, and a bad CSV.
    """
    found = [entry for path in data for entry in listing.listed(path)]
    names = tuple(classes) if classes else _classes(data, found)
    if len(names) < 2:
        raise DataRefused(f"{_named(data)} has one class ({', '.join(names) or 'none'}); two or more are needed")
    asked = [entry for entry in found if entry.label in names]
    foreign = [
        Excluded(entry.path, f"its class {entry.label!r} was not asked for")
        for entry in found
        if entry.label not in names
    ]
    _require_each(names, Counter(entry.label for entry in found), _named(data), "images")
    examples, unreadable = read_listed(asked, [names.index(entry.label) for entry in asked], size, progress)
    _require_each(names, Counter(names[example.label] for example in examples), _named(data), "readable images")
    return Collection(names, tuple(examples), (*foreign, *unreadable))


def _classes(data: Sequence[Path], found: Sequence[Listed]) -> tuple[str, ...]:
    """Class folders count even where they are empty: a class without images is refused, not forgotten."""
    empty = {folder.name for path in data if path.is_dir() for folder in listing.class_folders(path)}
    names = empty | {entry.label for entry in found}
    return tuple(sorted(names, key=lambda name: (name.casefold() not in WITHOUT_FINDING, name)))


def _require_each(names: Sequence[str], counts: Counter[str], named: str, what: str) -> None:
    if lacking := [name for name in names if not counts[name]]:
        there = ", ".join(sorted(set(counts) - set(lacking))) or "nothing"
        raise DataRefused(f"{named}: no {what} of class {', '.join(lacking)}, but of {there}")


def _named(data: Sequence[Path]) -> str:
    return ", ".join(map(str, data))


def read_listed(
    entries: Sequence[Listed], labels: Sequence[int], size: int, progress: Callable[[int, int], None]
) -> tuple[list[Example], list[Excluded]]:
    """Read the files that were listed, each with its label; what cannot be read is given beside them."""
    examples: list[Example] = []
    excluded: list[Excluded] = []
    with ThreadPoolExecutor() as pool:
        for done, result in enumerate(pool.map(lambda entry, label: _read_one(entry, label, size), entries, labels)):
            (examples if isinstance(result, Example) else excluded).append(result)  # type: ignore[arg-type]
            progress(done + 1, len(entries))
    return examples, excluded


def _read_one(entry: Listed, label: int, size: int) -> Example | Excluded:
    try:
        content = entry.path.read_bytes()
        patient = entry.patient or images.tags(content[: images.HEADER_BYTES]).patient_id
        pixels, facts = _prepared(content, size)
    except OSError as error:
        return Excluded(entry.path, f"it may not be read: {error.strerror}")
    except UnreadableImage as error:
        return Excluded(entry.path, str(error))
    return Example(entry.path, label, hashlib.sha256(content).hexdigest(), pixels, patient, entry.wanted, facts)


def prepared(content: bytes, size: int) -> Pixels:
    """Pixels of one file's bytes, exactly as scoring makes them. Raises UnreadableImage."""
    return _prepared(content, size)[0]


def _prepared(content: bytes, size: int) -> tuple[Pixels, Facts]:
    image = images.read(content, LIMITS)
    pixels, evidence = preprocessing.prepare(images.to_grey8(image), size)
    return pixels, Facts(len(content), evidence.width, evidence.height, image.source)


def load(folders: Sequence[Path], classes: Sequence[str], size: int) -> Iterator[Example]:
    """Read FOLDER/CLASS/* of every folder and class; what cannot be read is left out."""
    entries = [entry for folder in folders for entry in listing.listed(folder) if entry.label in classes]
    labels = [classes.index(entry.label) for entry in entries]
    yield from read_listed(entries, labels, size, lambda done, of: None)[0]
