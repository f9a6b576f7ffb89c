"""From labelled images to a trained model's folder with its report: what `nightread train` does, step by step."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from db.errors import Refused
from workers import golden, networks, trained_models
from workers.networks import Weights
from workers.trained_models import IntendedUse
from workers.training import bases, curves, data, fingerprints, frozen, gate, loop, metrics, reports, ship, shortcuts
from workers.training.data import Collection, Examples, Excluded, Split
from workers.training.recipes import Fitted, Progress, Recipe
from workers.training.ship import Assembled, Draft, Judged
from workers.training.strategies import Strategy

PACKAGES = ("nightread", "keras", "tensorflow", "numpy", "opencv-python-headless")
# The held-back side alone judges a model where it has so many images of each kind; else validation is added to it.
ENOUGH = 30
SEEN = (Split.TRAINING, Split.VALIDATION)  # whoever evaluates the model on these is warned
LIMITS = (
    "Measured on images of the collections that it was trained on: at another site it may be much worse. Evaluate it "
    "on your own images before relying on a threshold.",
    "Research, not diagnosis: it flags what a physician should read first.",
)


@dataclass(frozen=True)
class Plan:
    """What was asked for. `copies` are augmented copies of each image where the base is frozen; `cache` is where
    features of a frozen base are kept."""

    folder: Path
    name: str
    version: str
    recipe: Recipe
    flag_classes: tuple[str, ...]
    intended_use: IntendedUse
    command: str
    copies: int = 0
    cache: Path | None = None
    prevalence: float = curves.PREVALENCE
    thumbnails: bool = True


@dataclass(frozen=True)
class Made:
    """A finished folder and its report; `stopped` tells that Ctrl-C ended training early."""

    folder: Path
    report: dict[str, Any]
    stopped: bool


@dataclass(frozen=True)
class Material:
    """The images on their sides, and what takes no part."""

    sides: dict[Split, Examples]
    excluded: tuple[Excluded, ...]

    @classmethod
    def of(cls, collection: Collection) -> "Material":
        """Part a collection. Raises DataRefused where it is too small."""
        sides, left_out = data.training_sides(collection)
        return cls(sides, (*collection.excluded, *left_out))


def make(
    plan: Plan,
    material: Material,
    base: bases.Base,
    *,
    progress: Progress,
    say: Callable[[str], None] = lambda line: None,
) -> Made:
    """Train, calibrate, judge, audit and write the folder. A run that was stopped is gone on with; the folder appears
    whole or not at all. Raises Refused where it exists."""
    if plan.folder.exists():
        raise Refused(f"{plan.folder} exists: give the trained model another --version")
    draft = plan.folder.with_name(f"{plan.folder.name}.draft")
    if plan.recipe.strategy == Strategy.FROZEN:
        say("the frozen base looks at every picture once, which takes longest; then the head trains")
    fitted = fit(plan, material, base, checkpoint=draft / "checkpoint", progress=progress)
    say("calibrating, judging, auditing")
    folder = draft / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    assembled = ship.assemble(folder, _draft(plan), fitted.weights, material.sides)
    report = _report(plan, material, base, fitted, assembled)
    _write(plan, folder, material, assembled, report)
    folder.rename(plan.folder)
    shutil.rmtree(draft)
    return Made(plan.folder, report, fitted.stopped)


def fit(plan: Plan, material: Material, base: bases.Base, *, checkpoint: Path, progress: Progress) -> Fitted:
    """Train the head alone on features of a frozen base, or the network from the base's weights on."""
    training, validation = material.sides[Split.TRAINING], material.sides[Split.VALIDATION]
    if plan.recipe.strategy == Strategy.FROZEN:
        return frozen.train_head(
            plan.recipe, base.weights, training, validation, cache=plan.cache, copies=plan.copies, progress=progress
        )
    first = first_weights(plan.recipe, base.weights)
    return loop.train(plan.recipe, first, training, validation, checkpoint=checkpoint, progress=progress)


def first_weights(recipe: Recipe, base: Weights) -> Weights:
    """A base's weights, and a head's: the base's own where one fits, else new, drawn by the recipe's seed."""
    keras.utils.set_random_seed(recipe.seed)
    new = networks.named_weights(loop.skeleton(recipe, recipe.stages[-1].size))
    return new | {name: values for name, values in base.items() if name in new and values.shape == new[name].shape}


def summary(made: Made) -> dict[str, Any]:
    """What `train --json` gives: the shape of `evaluate`'s, with parameters and the folder."""
    model, report = trained_models.load_folder(made.folder), made.report
    return {
        "model": f"{model.name} {model.version}",
        "n": report["judged"]["images"],
        "threshold": report["threshold"]["value"],
        **{name: value for name, value in report["judged"].items() if name != "images"},
        "parameters": report["parameters"],
        "folder": str(made.folder),
    }


def intended_use(classes: Sequence[str], minimum_age: int, said: str | None) -> IntendedUse:
    """Whom and what the model is for; what nobody said is said of any model here."""
    plain = f"Frontal chest images like those it was trained on: {' or '.join(classes)}. Research, not diagnosis."
    return IntendedUse(minimum_age, said or plain)


def _draft(plan: Plan) -> Draft:
    recipe = plan.recipe
    names = (plan.name, plan.version, recipe.architecture, recipe.head)
    return Draft(*names, recipe.classes, plan.flag_classes, plan.intended_use)


def _report(plan: Plan, material: Material, base: bases.Base, fitted: Fitted, assembled: Assembled) -> dict[str, Any]:
    model, sides = assembled.model, material.sides
    judged, examples, where = _judge(assembled, sides)
    held_back = ship.figures(assembled.held_back, assembled.threshold)
    return {
        "made_by": _made_by(plan, base, sides),
        "data": _data(model.classes, plan.flag_classes, material),
        "parameters": fitted.parameters,
        "history": list(fitted.history.stages),
        "threshold": {"value": assembled.threshold, "why": assembled.why},
        "validation": ship.figures(assembled.validation, assembled.threshold),
        **({"held_back": held_back} if held_back["images"] else {}),
        "judged": ship.figures(judged, assembled.threshold),
        "judged_on": where,
        **curves.tables(
            examples.labels,
            judged.class_scores,
            model.classes,
            model.flag_classes,
            assembled.threshold,
            prevalence=plan.prevalence,
        ),
        "calibration": curves.calibration(
            judged.truth, _flag_scores(assembled, judged), judged.scores, model.temperature
        ),
        "rounding": assembled.rounding,
        "golden_score": float(assembled.score(golden.picture(model.input_size)[None])[0]),  # what workers prove on
        "gate": _gate(assembled),
        "audit": shortcuts.audit(sides[Split.TRAINING], examples, _flags(assembled), assembled.score),
        "limits": list(LIMITS),
    }


def _judge(assembled: Assembled, sides: dict[Split, Examples]) -> tuple[Judged, Examples, str]:
    """What the figures of curves and audit come from: the held-back images, with validation's where they are few."""
    truth = assembled.held_back.truth
    if min(int(truth.sum()), int((~truth).sum())) >= ENOUGH:
        return assembled.held_back, sides[Split.HELD_BACK], "held-back images"
    both = (assembled.held_back, assembled.validation)
    joined = Judged(*(np.concatenate([getattr(one, name) for one in both]) for name in Judged.__dataclass_fields__))
    examples = data.join([sides[Split.HELD_BACK], sides[Split.VALIDATION]])
    return joined, examples, "held-back and validation images together, because either alone is too few"


def _flag_scores(assembled: Assembled, judged: Judged) -> metrics.Scores:
    scores: metrics.Scores = judged.warm[:, _flags(assembled)].sum(axis=1).astype(np.float64)
    return scores


def _flags(assembled: Assembled) -> list[int]:
    """The labels that flag."""
    return [assembled.model.classes.index(name) for name in assembled.model.flag_classes]


def _made_by(plan: Plan, base: bases.Base, sides: dict[Split, Examples]) -> dict[str, Any]:
    return {
        "command": plan.command,
        "recipe": {**asdict(plan.recipe), "augmentation": str(plan.recipe.augmentation), "copies": plan.copies},
        "base": {"weights": base.label, "sha256": base.sha256},
        "images_sha256": {side: _digest(examples) for side, examples in sides.items()},
        "versions": {name: version(name) for name in PACKAGES},
        "seed": plan.recipe.seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _digest(examples: Examples) -> str:
    """A hash over a side's pictures and labels, whatever their order."""
    pairs = zip(examples.pixels, examples.labels, strict=True)
    each = sorted(hashlib.sha256(pixels.tobytes() + bytes([label])).digest() for pixels, label in pairs)
    return hashlib.sha256(b"".join(each)).hexdigest()


def _data(classes: tuple[str, ...], flag_classes: tuple[str, ...], material: Material) -> dict[str, Any]:
    return {
        "classes": list(classes),
        "flag_classes": list(flag_classes),
        "counts": {
            side: {name: int(np.sum(examples.labels == label)) for label, name in enumerate(classes)}
            for side, examples in material.sides.items()
        },
        "excluded": [{"path": str(one.path), "why": one.why} for one in material.excluded],
        "seen": fingerprints.of(np.concatenate([material.sides[side].pixels for side in SEEN])),
    }


def _gate(assembled: Assembled) -> dict[str, Any]:
    limit = assembled.model.gate.limit
    found = {"validation": assembled.validation.distances, "held back": assembled.held_back.distances}
    return {
        "limit": limit,
        "why": gate.why(len(found["validation"])),
        "refused": {
            side: {"images": len(distances), **asdict(metrics.share(int((distances > limit).sum()), len(distances)))}
            for side, distances in found.items()
            if len(distances)
        },
    }


def _write(plan: Plan, folder: Path, material: Material, assembled: Assembled, report: dict[str, Any]) -> None:
    judged, examples, _ = _judge(assembled, material.sides)
    mistakes = (
        reports.worst(examples, judged.truth, judged.scores, assembled.threshold, assembled.model.classes)
        if plan.thumbnails
        else []
    )
    reports.write(folder / "report.html", report, model=assembled.model, mistakes=mistakes)
    trained_models.write_folder(folder, assembled.model, report)
