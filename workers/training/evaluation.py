"""Judging a trained model on labelled images, through the readers, preprocessing and engine of screening."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from db.errors import DataRefused
from db.settings import settings
from workers import engines, trained_models
from workers.scoring import Scorer
from workers.trained_models import TrainedModel
from workers.training import curves, data, fingerprints, listing, metrics, reports
from workers.training.examples import Collection, Examples, Excluded, Split, gather, take
from workers.training.listing import Listed

Progress = Callable[[int, int], None]
FIGURES = ("auc", "sensitivity", "specificity", "accuracy", "precision", "f1")


@dataclass(frozen=True)
class Labelled:
    """Images to judge by, each picture once, with labels counting into the model's classes; what was left out; and
    words for where they come from."""

    examples: Examples
    excluded: tuple[Excluded, ...]
    source: str


@dataclass(frozen=True)
class Evaluation:
    """What the model says of N images: class scores (N, C), and whether the gate let each through (N,). `seen` is
    how many of them trained the model, None where it does not say."""

    model: TrainedModel
    threshold: float
    examples: Examples
    class_scores: NDArray[np.float32]
    passed: NDArray[np.bool_]
    excluded: tuple[Excluded, ...]
    source: str
    seen: int | None

    @property
    def label(self) -> str:
        return f"{self.model.name} {self.model.version}"

    def as_json(self) -> dict[str, Any]:
        """The shape that others build on (design); a figure that these images cannot give is null."""
        truth, scores = self._judged()
        found = metrics.as_json(metrics.evaluate(truth, scores, self.threshold))
        return {
            "model": self.label,
            "n": len(scores),
            "threshold": self.threshold,
            **{name: found.get(name) for name in FIGURES},
            **({"per_class": self._tables()["per_class"]} if len(self.model.classes) > 2 else {}),
            "images": self._counts(self.passed),
            "rejected": self._counts(~self.passed),
            "seen_in_training": self.seen,
            "excluded": [{"path": str(one.path), "why": one.why} for one in self.excluded],
        }

    def report(self) -> dict[str, Any]:
        """A report of these images for `reports.page`."""
        told = self.as_json()
        figures = {name: told[name] for name in FIGURES if told[name]}
        flattering = f"{self.seen} of these images trained the model or chose its threshold: the figures flatter it."
        return {
            "judged": {"images": told["n"], **figures},
            "judged_on": self.source,
            "threshold": {"value": self.threshold, "why": ""},
            "rejected": {name: count for name, count in told["rejected"].items() if count},
            "data": {
                "classes": list(self.model.classes),
                "flag_classes": list(self.model.flag_classes),
                "counts": {"judged": told["images"]},
                "excluded": told["excluded"],
            },
            "warnings": [flattering] if self.seen else [],
            "made_by": {"created": datetime.now(UTC).isoformat(timespec="seconds")},
            **self._tables(),
        }

    def write_page(self, file: Path, *, thumbnails: bool) -> None:
        """Write the report as one HTML file."""
        truth, scores = self._judged()
        kept = take(self.examples, np.flatnonzero(self.passed))
        worst = reports.worst(kept, truth, scores, self.threshold, self.model.classes) if thumbnails else []
        reports.write(file, self.report(), model=self.model, mistakes=worst)

    def _judged(self) -> tuple[metrics.Truth, metrics.Scores]:
        names = self.model.classes, self.model.flag_classes
        return curves.flags(self.examples.labels[self.passed], self.class_scores[self.passed], *names)

    def _tables(self) -> dict[str, Any]:
        names = self.model.classes, self.model.flag_classes
        labels, scores = self.examples.labels[self.passed], self.class_scores[self.passed]
        return curves.tables(labels, scores, *names, self.threshold)

    def _counts(self, chosen: NDArray[np.bool_]) -> dict[str, int]:
        labels = self.examples.labels[chosen]
        return {name: int(np.sum(labels == label)) for label, name in enumerate(self.model.classes)}


def read(
    paths: Sequence[Path],
    model: TrainedModel,
    renamed: Mapping[str, str],
    *,
    held_back: bool,
    progress: Progress = lambda done, of: None,
) -> Labelled:
    """Read labelled images for a model; `renamed` says which of its classes a class folder counts as.

    Copies count once, pictures with two labels not at all. Raises DataRefused where a class is none of the model's,
    and where nothing readable is left.
    """
    entries = [entry for path in paths for entry in listing.listed(path)]
    counted = _counting_as(entries, model, renamed)
    labels = [counted[entry.label] for entry in entries]
    examples, unreadable = data.read_listed(entries, labels, model.input_size, progress)
    if held_back:
        sides, left_out = data.parted(Collection(model.classes, tuple(examples), ()))
        kept = sides[Split.HELD_BACK]
    else:
        unique, left_out = data.unique(examples)
        kept = gather(unique)
    if not len(kept):
        what = "of the held-back tenth" if held_back else "that can be read"
        raise DataRefused(f"{', '.join(map(str, paths))}: no image {what}")
    source = f"images of {', '.join(path.resolve().name for path in paths)}"
    return Labelled(kept, (*unreadable, *left_out), f"{source}, the held-back tenth" if held_back else source)


def evaluate(
    folder: Path,
    threshold: float,
    labelled: Labelled,
    *,
    device: str = "cpu",
    progress: Progress = lambda done, of: None,
) -> Evaluation:
    """Score the images as a worker would. Raises ModelRefused, and DataRefused where the gate refuses every image."""
    config = settings()
    batch, threads = engines.batch_size(config.engine_batch, device), config.engine_threads or None
    scorer = Scorer.load(folder, batch_size=batch, threads=threads, device=device)
    examples, model = labelled.examples, scorer.model
    class_scores, passed = np.zeros((len(examples), len(model.classes)), np.float32), np.zeros(len(examples), bool)
    for start in range(0, len(examples), batch):  # a batch at a time: each prediction holds its last map
        for place, one in enumerate(scorer.predict(examples.pixels[start : start + batch]), start):
            class_scores[place] = [one.class_scores[name] for name in model.classes]
            passed[place] = one.is_chest
        progress(min(start + batch, len(examples)), len(examples))
    if not passed.any():
        raise DataRefused(f"the gate took none of the {len(examples)} images for a chest X-ray: nothing has a score")
    seen = _seen(folder, examples.pixels)
    return Evaluation(model, threshold, examples, class_scores, passed, labelled.excluded, labelled.source, seen)


def _counting_as(entries: Sequence[Listed], model: TrainedModel, renamed: Mapping[str, str]) -> dict[str, int]:
    """The label of each class folder. Raises DataRefused for one that is none of the model's classes."""
    found = sorted({entry.label for entry in entries})
    classes = ", ".join(model.classes)
    for folder, name in renamed.items():
        if folder not in found:
            raise DataRefused(f"--as {folder}={name}: there is no class folder {folder!r} (found: {', '.join(found)})")
        if name not in model.classes:
            raise DataRefused(f"--as {folder}={name}: {model.name} {model.version} has no class {name!r} ({classes})")
    folded = {name.casefold(): name for name in model.classes}
    meant = {
        name: renamed.get(name) or (name if name in model.classes else folded.get(name.casefold())) for name in found
    }
    if foreign := [name for name, known in meant.items() if known is None]:
        raise DataRefused(
            f"class {', '.join(foreign)} is none of the classes of {model.name} {model.version} ({classes}): say what "
            f"it counts as, for example --as {foreign[0]}={model.classes[0]}"
        )
    return {name: model.classes.index(known) for name, known in meant.items() if known is not None}


def _seen(folder: Path, pixels: NDArray[np.uint8]) -> int | None:
    known = trained_models.read_report(folder).get("data", {}).get("seen")
    return fingerprints.known(known, pixels) if isinstance(known, str) else None
