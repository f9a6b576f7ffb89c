"""Which random changes training makes to its images, how often and how strongly: R8 to R13, and more of ours.

Frames, exposure, sharpness and compression tell sources apart, and sources tell classes apart in public
collections (a network that sees only the outer frame reaches AUC 0.74 on ours): `screening` disturbs each at random.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.random import Generator

from workers.preprocessing import Pixels
from workers.training import changes
from workers.training.examples import Examples

CELL = 160  # pixels a side of a picture on the contact sheet
_OPTION = re.compile(r"(?P<name>\w+)(=(?P<low>\d+(\.\d+)?)\.\.(?P<high>\d+(\.\d+)?))?(@(?P<chance>\d+(\.\d+)?))?")


@dataclass(frozen=True)
class Change:
    """A change and its usual chance and range; `least` and `most` bound any range. (0, 0): it has no range."""

    apply: Callable[[Pixels, Generator, float, float], Pixels]
    chance: float
    low: float = 0
    high: float = 0
    least: float = 0
    most: float = 0


# In the order in which they are made. The first six are the paper's; it gives 10 to 45 degrees and nothing else.
CHANGES: Mapping[str, Change] = MappingProxyType(
    {
        "flip_horizontal": Change(changes.flip_horizontal, 0.5),
        "flip_vertical": Change(changes.flip_vertical, 0.5),
        "shift": Change(changes.shift, 0.5, 0.02, 0.1, 0, 0.5),
        "rotation": Change(changes.rotation, 0.5, 10, 45, 0, 180),
        "saturation": Change(changes.saturation, 0.5, 0.5, 1.5, 0, 4),
        "contrast": Change(changes.contrast, 0.5, 0.7, 1.3, 0, 4),
        "move": Change(changes.move, 0.9, 0, 10, 0, 180),
        "equalise": Change(changes.equalise, 0.1, 1, 3, 0.1, 10),
        "expose": Change(changes.expose, 0.8, 0.67, 1.5, 0.1, 10),
        "soften": Change(changes.soften, 0.25, 0.3, 1.3, 0.1, 10),
        "grain": Change(changes.grain, 0.25, 1, 8, 0, 64),
        "compress": Change(changes.compress, 0.25, 35, 90, 1, 100),
        "frame": Change(changes.frame, 0.4, 0, 0.12, 0, 0.4),
        "cover": Change(changes.cover, 0.3, 0.05, 0.25, 0, 0.9),
    }
)


@dataclass(frozen=True)
class Option:
    """One change, the chance (0-1) that an image gets it, and the range of its strength."""

    name: str
    chance: float
    low: float
    high: float

    def __str__(self) -> str:
        strength = f"={self.low:g}..{self.high:g}" if CHANGES[self.name].most else ""
        return f"{self.name}{strength}@{self.chance:g}"


@dataclass(frozen=True)
class Augmentation:
    """Changes in their order, each made or not by its own chance: random combinations of all of them (R13)."""

    options: tuple[Option, ...]

    def __str__(self) -> str:
        """What `parse` reads."""
        return ",".join(map(str, self.options)) or "none"

    def remarks(self) -> tuple[str, ...]:
        """What the user should know."""
        grey = any(option.name == "saturation" for option in self.options)
        return ("saturation changes nothing: every image is grey here (R11)",) if grey else ()


def _usual(*names: str) -> Augmentation:
    kept = [(name, change) for name, change in CHANGES.items() if name in names]
    return Augmentation(tuple(Option(name, change.chance, change.low, change.high) for name, change in kept))


NONE = Augmentation(())
PAPER = _usual("flip_horizontal", "flip_vertical", "shift", "rotation", "saturation", "contrast")
SCREENING = _usual("flip_horizontal", "move", "equalise", "expose", "soften", "grain", "compress", "frame", "cover")
PRESETS: Mapping[str, Augmentation] = MappingProxyType({"none": NONE, "paper": PAPER, "screening": SCREENING})


def parse(text: str) -> Augmentation:
    """Read a preset's name, or changes such as "rotation=10..45,contrast=0.7..1.3@0.8,flip_horizontal".

    `=LOW..HIGH` is the range and `@CHANCE` how often; what is not said is as usual. Raises ValueError, in one
    sentence, on anything else.
    """
    if text in PRESETS:
        return PRESETS[text]
    options = {option.name: option for option in map(_parse_option, text.split(","))}
    return Augmentation(tuple(options[name] for name in CHANGES if name in options))


def _parse_option(text: str) -> Option:
    found = _OPTION.fullmatch(text.strip())
    if found is None or found["name"] not in CHANGES:
        raise ValueError(
            f"{text.strip()!r} is neither a preset ({', '.join(PRESETS)}) nor NAME[=LOW..HIGH][@CHANCE] "
            f"with a NAME of {', '.join(CHANGES)}"
        )
    change = CHANGES[found["name"]]
    low, high, chance = (
        float(found[part] or usual)
        for part, usual in (("low", change.low), ("high", change.high), ("chance", change.chance))
    )
    if found["low"] and not change.most:
        raise ValueError(f"{found['name']} has no range")
    if not change.least <= low <= high <= change.most or not 0 <= chance <= 1:
        raise ValueError(
            f"{text.strip()!r}: the range lies within {change.least:g}..{change.most:g}, the chance in 0..1"
        )
    return Option(found["name"], chance, low, high)


def augment(pixels: Pixels, rng: Generator, augmentation: Augmentation = SCREENING) -> Pixels:
    """Change one image (S x S, 0-255) at random; the same generator state gives the same picture."""
    for option in augmentation.options:
        if rng.random() < option.chance:
            pixels = CHANGES[option.name].apply(pixels, rng, option.low, option.high)
    return pixels


def contact_sheet(examples: Examples, augmentation: Augmentation, rng: Generator, *, rows: int = 6) -> bytes:
    """A PNG to look at: a row for each of the first `rows` images; as it is, each change alone, four combinations."""
    columns = ["as it is", *(option.name for option in augmentation.options), *("combined",) * 4]
    sheet = np.full((24 + rows * (CELL + 4), len(columns) * (CELL + 4)), 255, np.uint8)
    for column, name in enumerate(columns):
        cv2.putText(sheet, name, (column * (CELL + 4) + 2, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 0, 1, cv2.LINE_AA)
    for row, pixels in enumerate(examples.pixels[:rows]):
        alone = [CHANGES[option.name].apply(pixels, rng, option.low, option.high) for option in augmentation.options]
        combined = [augment(pixels, rng, augmentation) for _ in range(4)]
        for column, picture in enumerate([pixels, *alone, *combined]):
            top, left = 24 + row * (CELL + 4), column * (CELL + 4)
            sheet[top : top + CELL, left : left + CELL] = cv2.resize(
                picture, (CELL, CELL), interpolation=cv2.INTER_AREA
            )
    return bytes(cv2.imencode(".png", sheet)[1])
