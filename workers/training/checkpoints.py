"""What a stopped run goes on from: the weights of the last and the best epoch, and where it was."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from db.errors import Refused
from workers.networks import Weights
from workers.training.examples import Examples

PLACE = "progress.json"


@dataclass
class Place:
    """Where a run is: `stage` and `epoch` are the next to do, from 0; the losses are validation losses.

    `last` are the weights to go on from, `best` those of the stage's best epoch so far. `since_best` counts epochs.
    """

    last: Weights
    best: Weights
    stage: int = 0
    epoch: int = 0
    least: float | None = None
    since_best: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)

    def moved(self, weights: Weights, record: dict[str, Any]) -> None:
        """Take in an epoch that is over."""
        self.last, self.epoch = weights, self.epoch + 1
        self.records.append(record)
        self.since_best += 1
        if self.least is None or record["val_loss"] < self.least:
            self.best, self.least, self.since_best = weights, record["val_loss"], 0

    def next_stage(self) -> None:
        """Go on from the best of the stage that is over."""
        self.last, self.stage, self.epoch, self.least, self.since_best = self.best, self.stage + 1, 0, None, 0


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds one run; `digest` is of its recipe, images and first weights, and another run's is refused.

    The optimiser's moments are not kept: they start anew, the learning rate goes on where it was.
    """

    folder: Path
    digest: str

    def restore(self, first: Weights) -> Place:
        """Give the place that was saved, or the beginning. Raises Refused where the folder holds another run."""
        path = self.folder / PLACE
        if not path.exists():
            return Place(first, first)
        try:
            saved = json.loads(path.read_text("utf-8"))
            if saved.pop("digest") != self.digest:
                raise Refused(
                    f"{self.folder} holds a run with another recipe, other images or other weights: "
                    "name another folder or delete it"
                )
            last, best = (load_file(self.folder / saved.pop(name)) for name in ("last", "best"))
            return Place(last, best, **saved)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise Refused(f"{path} cannot be read: delete {self.folder} to begin again") from error

    def save(self, place: Place) -> None:
        """Write a place; a run that is killed meanwhile finds the one before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        last = self._write(place.last)
        best = last if place.best is place.last else self._write(place.best)
        said = {name: value for name, value in vars(place).items() if name not in ("last", "best")}
        draft = self.folder / f"{PLACE}.part"
        draft.write_text(json.dumps({**said, "digest": self.digest, "last": last, "best": best}), "utf-8")
        draft.replace(self.folder / PLACE)
        for path in self.folder.glob("*.safetensors"):
            if path.name not in (last, best):
                path.unlink()

    def _write(self, weights: Weights) -> str:
        name = f"{digest_of(weights)[:16]}.safetensors"
        if not (self.folder / name).exists():
            draft = self.folder / f"{name}.part"
            save_file(weights, draft)
            draft.replace(self.folder / name)
        return name


def digest_of(weights: Weights) -> str:
    """Give a hash (hex) of weights by name and value."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(f"{name}{weights[name].shape}".encode() + weights[name].tobytes())
    return total.hexdigest()


def digest_of_run(recipe_digest: str, first: Weights, *sides: Examples) -> str:
    """Give a hash (hex) of a recipe, the weights it begins with, and the images and labels that it is used on."""
    total = hashlib.sha256(f"{recipe_digest}{digest_of(first)}".encode())
    for examples in sides:
        total.update(examples.pixels.tobytes() + examples.labels.tobytes())
    return total.hexdigest()
