"""What a backbone learns from: findings where there are labels, else which way up a picture is."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from db.errors import DataRefused, Refused, UnreadableImage
from workers import networks
from workers.networks import Weights
from workers.training import augmentation, bases, data, listing, loop, recipes
from workers.training.augmentation import SCREENING, Augmentation
from workers.training.examples import Collection, Example, Examples, Excluded, Sides, Split
from workers.training.recipes import Progress, Recipe, Stage
from workers.training.study_protocol import Say

TURNS = ("0", "90", "180", "270")  # degrees, counter-clockwise
# A flipped picture turned by 90 degrees is one turned by 270: no answer would be right.
UPRIGHT = Augmentation(tuple(option for option in SCREENING.options if not option.name.startswith("flip")))
HEAD = "pooled256"
LEAST = 8  # images without labels: fewer teach nothing


@dataclass(frozen=True)
class Task:
    """What to learn, from which images; `listed` is a hash over the content hashes of all that were read."""

    name: str
    classes: tuple[str, ...]
    sides: Sides
    left_out: int
    listed: str


def run(
    folders: Sequence[Path], *, architecture: str, source: str, task: str, stages: Sequence[str], batch_size: int,
    augmentation: str | None, checkpoint: Path | None, seed: int, progress: Progress, say: Say,
) -> tuple[Weights, dict[str, Any]]:  # fmt: skip
    """Train; give the folded base and what made it. Raises DataRefused, Refused, WeightsUnavailable."""
    if architecture not in networks.ARCHITECTURES:
        raise Refused(f"no architecture {architecture!r}: there are {', '.join(networks.ARCHITECTURES)}")
    planned = _stages(stages)
    chosen = read(folders, task, max(stage.size for stage in planned))
    counts = {side.value: len(chosen.sides[side]) for side in Split}
    say(
        f"task {chosen.name} ({', '.join(chosen.classes)}): " + ", ".join(f"{n:,} {side}" for side, n in counts.items())
    )
    recipe = Recipe(
        architecture, HEAD, chosen.classes, planned, augmentation=_changes(augmentation, chosen.name),
        batch_size=batch_size, normalise=True, seed=seed,
    )  # fmt: skip
    base = bases.load(architecture, source)
    fitted = loop.train(
        recipe, _first(recipe, base.weights), chosen.sides[Split.TRAINING], chosen.sides[Split.VALIDATION],
        checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    return bases.without_head(fitted.weights), {
        "architecture": architecture,
        "task": chosen.name,
        "classes": list(chosen.classes),
        "images": counts,
        "left_out": chosen.left_out,
        "data_sha256": chosen.listed,
        "from": {"weights": base.label, "sha256": base.sha256},
        "seed": seed,
        "stages": list(stages),
        "augmentation": str(recipe.augmentation),
        "best": _best(fitted.history.stages),
        "stopped": fitted.stopped,
    }


def write(path: Path, weights: Weights, metadata: dict[str, str]) -> None:
    """Write a backbone's file whole or not at all."""
    content = save({name: np.ascontiguousarray(values) for name, values in weights.items()}, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)


def read(folders: Sequence[Path], task: str, size: int) -> Task:
    """Read the images for a task; `auto` takes labels where all DATA have them. Raises DataRefused."""
    labelled = all(path.is_file() or listing.class_folders(path) for path in folders)
    return _labels(folders, size) if task == "labels" or (task == "auto" and labelled) else _rotation(folders, size)


def _labels(folders: Sequence[Path], size: int) -> Task:
    collection = data.read(folders, size)
    sides, excluded = data.training_sides(collection)
    left_out = len(collection.excluded) + len(excluded)
    return Task("labels", collection.classes, sides, left_out, _listed(collection.examples))


def _rotation(folders: Sequence[Path], size: int) -> Task:
    read = [_read_one(path, size) for folder in folders for path in _files(folder)]
    examples = tuple(one for one in read if isinstance(one, Example))
    unreadable = tuple(one for one in read if isinstance(one, Excluded))
    sides, excluded = data.parted(Collection(("picture",), examples, unreadable))
    training, validation = len(sides[Split.TRAINING]), len(sides[Split.VALIDATION])
    if training < LEAST or not validation:
        raise DataRefused(
            f"{', '.join(map(str, folders))}: {training} images to learn from and {validation} to validate with, of "
            f"{len(read)} files; at least {LEAST} and 1 are needed"
        )
    turned = {side: _turned(images) for side, images in sides.items()}
    return Task("rotation", TURNS, turned, len(unreadable) + len(excluded), _listed(examples))


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataRefused(f"{folder}: the rotation task takes folders of images")
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _read_one(path: Path, size: int) -> Example | Excluded:
    try:
        content = path.read_bytes()
        return Example(path, 0, hashlib.sha256(content).hexdigest(), data.prepared(content, size))
    except (UnreadableImage, OSError) as error:
        return Excluded(path, str(error))


def _turned(examples: Examples) -> Examples:
    """Each picture four times, turned by a quarter more each time; labels count the quarters."""
    count = len(examples)
    pixels = [np.rot90(examples.pixels, quarter, axes=(1, 2)) for quarter in range(len(TURNS))] if count else []
    return Examples(
        np.concatenate(pixels) if count else examples.pixels,
        np.repeat(np.arange(len(TURNS)), count),
        examples.paths * len(TURNS),
    )


def _listed(examples: Sequence[Example]) -> str:
    return hashlib.sha256("\n".join(sorted(one.sha256 for one in examples)).encode()).hexdigest()


def _stages(texts: Sequence[str]) -> tuple[Stage, ...]:
    try:
        return recipes.parse_stages(texts)
    except ValueError as error:
        raise Refused(f"--stage {' '.join(texts)}: SIZE:EPOCHS:RATE is needed, as in 96:12:5e-4") from error


def _changes(asked: str | None, task: str) -> Augmentation:
    if asked is None:
        return UPRIGHT if task == "rotation" else SCREENING
    try:
        changes = augmentation.parse(asked)
    except ValueError as error:
        raise Refused(f"--augment: {error}") from error
    if task == "rotation" and any(option.name.startswith("flip") for option in changes.options):
        raise Refused("--augment: a flip makes turned pictures ambiguous; leave flips out of the rotation task")
    return changes


def _first(recipe: Recipe, base: Weights) -> Weights:
    """The folded network's first weights: the base's, and a random head."""
    return {**networks.named_weights(loop.skeleton(recipe, recipe.stages[-1].size)), **base}


def _best(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The epoch that was kept: the least validation loss of the last stage."""
    last = [record for record in records if record["stage"] == records[-1]["stage"]]
    kept = min(last, key=lambda record: record["val_loss"])
    return {name: round(float(kept[name]), 4) for name in ("val_loss", "val_accuracy")} | {"epoch": kept["epoch"]}
