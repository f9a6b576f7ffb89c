"""Who trains, who validates and who is held back: one side for a patient, one for a picture (design, "Training")."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from db.errors import DataRefused
from workers.training.examples import Collection, Example, Excluded, Sides, Split, gather

VALIDATES = 7  # one in so many of what is not held back
LEAST_PICTURES = 5  # of each class besides the held-back tenth: four to learn from, one to check with
GUARD = {side: rank for rank, side in enumerate((Split.TRAINING, Split.VALIDATION, Split.HELD_BACK))}


def split_of(digest: str) -> Split:
    """Say which side a hash (sha256, hex) puts a file or patient on: a tenth held back, a seventh of the rest
    validates."""
    number = int(digest, 16)
    if number % 10 == 0:
        return Split.HELD_BACK
    return Split.VALIDATION if number // 10 % VALIDATES == 0 else Split.TRAINING


def split(examples: Iterable[Example]) -> Sides:
    """Part examples as `parted` does, without saying what was left out."""
    return _part(tuple(examples))[0]


def parted(collection: Collection) -> tuple[Sides, tuple[Excluded, ...]]:
    """Part a collection; say what was left out and why.

    A patient's images are on one side, which the sha256 of the patient decides; without a patient the file's own
    does. What a CSV wants comes first (of a patient, the most guarded side that any image wants; where nothing wants
    to validate, a seventh of what wants to train does). But a file whose own hash is 0 modulo 10 never trains.
    Copies are files whose prepared pixels are equal, whatever their bytes: they count once, on the most guarded side
    that any of them has. A picture that carries two labels is left out. Where so few are there that training or
    validation lacks a class, the first seventh of each class by hash (at least one picture or patient) validates.
    """
    return _part(collection.examples)


def training_sides(collection: Collection) -> tuple[Sides, tuple[Excluded, ...]]:
    """Part a collection for training. Raises DataRefused where a class has too few pictures for it."""
    sides, excluded = parted(collection)
    for label, name in enumerate(collection.classes):
        held, validate, train = (
            int(np.sum(sides[side].labels == label)) for side in (Split.HELD_BACK, Split.VALIDATION, Split.TRAINING)
        )
        if train + validate < LEAST_PICTURES or not train or not validate:
            count = sum(example.label == label for example in collection.examples)
            raise DataRefused(
                f"class {name}: {train} images to train and {validate} to validate with, of {count} read ({held} are "
                f"held back, the rest left out); at least {LEAST_PICTURES} different ones besides the held-back tenth "
                f"are needed, of two patients or more"
            )
    return sides, excluded


def unique(examples: Sequence[Example]) -> tuple[tuple[Example, ...], tuple[Excluded, ...]]:
    """One example of each picture, in order, and what that leaves out: copies, and pictures with two labels."""
    return _unique(examples, _Wishes.of(examples))


@dataclass(frozen=True)
class _Wishes:
    """What a CSV wants: `patients` the side of each patient; `complete` says that something wants to validate."""

    patients: dict[str, Split]
    complete: bool

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "_Wishes":
        patients: dict[str, Split] = {}
        for example in examples:
            if example.patient and example.wanted:
                so_far = patients.get(example.patient, example.wanted)
                patients[example.patient] = max(so_far, example.wanted, key=GUARD.__getitem__)
        return cls(patients, any(example.wanted == Split.VALIDATION for example in examples))

    def wish(self, example: Example) -> Split | None:
        return self.patients.get(example.patient) if example.patient else example.wanted

    def is_free(self, example: Example) -> bool:
        """Whether we choose between training and validation."""
        wish = self.wish(example)
        return wish is None or (wish == Split.TRAINING and not self.complete)

    def side(self, example: Example) -> Split:
        wish, by_hash = self.wish(example), split_of(_unit(example))
        if wish == Split.TRAINING and not self.complete:
            return Split.VALIDATION if int(_unit(example), 16) // 10 % VALIDATES == 0 else Split.TRAINING
        return wish or by_hash


def _part(examples: Sequence[Example]) -> tuple[Sides, tuple[Excluded, ...]]:
    wishes = _Wishes.of(examples)
    kept, excluded = _unique(examples, wishes)
    objections = [(example, _objection(example, wishes)) for example in kept]
    members = [example for example, why in objections if why is None]
    sides = _every_class([wishes.side(example) for example in members], members, wishes)
    left_out = [Excluded(example.path, why) for example, why in objections if why is not None]
    gathered = {
        wanted: gather([example for example, side in zip(members, sides, strict=True) if side == wanted])
        for wanted in Split
    }
    return gathered, (*excluded, *left_out)


def _unit(example: Example) -> str:
    """The hash of what must not be divided: the patient, or the file."""
    return hashlib.sha256(example.patient.encode()).hexdigest() if example.patient else example.sha256


def _never_trains(example: Example) -> bool:
    return split_of(example.sha256) == Split.HELD_BACK


def _unique(examples: Sequence[Example], wishes: _Wishes) -> tuple[tuple[Example, ...], tuple[Excluded, ...]]:
    copies: dict[bytes, list[Example]] = {}
    for example in examples:
        copies.setdefault(hashlib.sha256(example.pixels.tobytes()).digest(), []).append(example)
    kept: list[Example] = []
    excluded: list[Excluded] = []
    for group in copies.values():
        if len({example.label for example in group}) > 1:
            others = " and ".join(sorted({str(example.path) for example in group}))
            excluded += [Excluded(one.path, f"the same picture in two classes: {others}") for one in group]
            continue
        first = max(group, key=lambda one: (_never_trains(one), GUARD[wishes.side(one)]))
        kept.append(first)
        excluded += [Excluded(one.path, f"the same picture as {first.path}") for one in group if one is not first]
    return tuple(kept), tuple(excluded)


def _objection(example: Example, wishes: _Wishes) -> str | None:
    """Why an example can be on no side, if so."""
    side, wish = wishes.side(example), wishes.wish(example)
    if _never_trains(example) and side != Split.HELD_BACK:
        return "its hash is of the held-back tenth, which never trains; its patient or the CSV wants it elsewhere"
    if example.wanted and example.wanted != wish:
        return f"the CSV wants it on the side {example.wanted}, and another image of its patient on {wish}"
    return None


def _every_class(sides: list[Split], members: Sequence[Example], wishes: _Wishes) -> list[Split]:
    """Small sets: a side may lack a class; then the first of each class by hash validate, the others train."""
    found = {side: {one.label for one, its in zip(members, sides, strict=True) if its == side} for side in Split}
    labels = found[Split.TRAINING] | found[Split.VALIDATION]
    if labels <= found[Split.TRAINING] and labels <= found[Split.VALIDATION]:
        return sides
    free = [wishes.is_free(one) and side != Split.HELD_BACK for one, side in zip(members, sides, strict=True)]
    units = [{_unit(one) for one, its in zip(members, free, strict=True) if its and one.label == la} for la in labels]
    if any(len(of_class) < 2 for of_class in units):
        return sides
    validate = {unit for of_class in units for unit in sorted(of_class)[: math.ceil(len(of_class) / VALIDATES)]}
    return [
        side if not its else Split.VALIDATION if _unit(one) in validate else Split.TRAINING
        for one, side, its in zip(members, sides, free, strict=True)
    ]
