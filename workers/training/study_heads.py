"""Heads on a frozen base: the features of each image once, then many heads on parts of them.

A head here trains for a fixed number of epochs and none is picked, as the paper's protocol has no images to pick with.
With augmented copies an epoch sees each training image once: as it is or as one of its copies, drawn anew.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from workers import networks
from workers.networks import Weights
from workers.training import augmentation, frozen, study_draws
from workers.training.bases import Base
from workers.training.examples import Examples
from workers.training.loop import targets
from workers.training.recipes import Precision, Recipe, Stage
from workers.training.strategies import Strategy
from workers.training.study_draws import Indices, Labels
from workers.training.study_protocol import Protocol, Say

Scores = NDArray[np.float64]  # (N, 1) for two classes, else (N, classes)
Rows = NDArray[np.float16]  # (N, F)

LINE_SECONDS = 20.0  # between two lines of progress


@dataclass(frozen=True)
class Features:
    """What a head sees of each image: as it is (N, F), and of its augmented copies, (N, F) each."""

    plain: Rows
    copies: tuple[Rows, ...] = ()


@dataclass(frozen=True)
class Head:
    """A trained head, and what each epoch gave: loss, accuracy, and val_loss, val_accuracy where it was verified."""

    weights: Weights
    history: list[dict[str, float]]


def features(base: Base, examples: Examples, protocol: Protocol, copies: int, say: Say) -> Features:
    """Run the frozen base over images prepared at `study_draws.SIZE`, and over `copies` augmented copies of each.

    What is in the cache is not computed again.
    """
    pixels = study_draws.at(examples, base.input_size).pixels
    recipe = _recipe(base.architecture, base.input_size, protocol)
    body = frozen.Body(recipe, base.weights, protocol.cache)
    plain, *more = (body.features(pixels, copy=copy, progress=_telling(copy, say)) for copy in (None, *range(copies)))
    return Features(plain, tuple(more))


def _recipe(architecture: str, size: int, protocol: Protocol) -> Recipe:
    """What `frozen` needs to know; a cached feature depends on no other part of it."""
    return Recipe(
        architecture, protocol.head, ("negative", "positive"),
        (Stage(size, protocol.epochs, protocol.learning_rate),),
        strategy=Strategy.FROZEN, augmentation=augmentation.parse(protocol.augmentation), dropout=0.0,
        precision=Precision(protocol.precision), seed=protocol.seed,
    )  # fmt: skip


def _telling(copy: int | None, say: Say) -> Callable[[int, int], None]:
    """Say now and then how many images the base has seen."""
    last = [time.monotonic()]
    which = "as they are" if copy is None else f"augmented, copy {copy + 1}"

    def tell(done: int, of: int) -> None:
        if time.monotonic() - last[0] > LINE_SECONDS:
            last[0] = time.monotonic()
            say(f"  {done:,} of {of:,} images {which}")

    return tell


class _Epochs(keras.utils.PyDataset):  # type: ignore[misc]
    """Shuffled batches of features; which rows, and which copies, depends on the seed alone."""

    def __init__(self, known: Features, wanted: NDArray[np.float32], trained: Indices, protocol: Protocol) -> None:
        super().__init__()
        self.views, self.wanted, self.trained, self.size = (
            (known.plain, *known.copies), wanted, trained, protocol.batch_size,
        )  # fmt: skip
        self.rng = np.random.default_rng(protocol.seed)
        self.on_epoch_end()

    def on_epoch_end(self) -> None:
        self.order = self.rng.permutation(self.trained)
        self.drawn = self.rng.integers(len(self.views), size=len(self.order))

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        part = slice(index * self.size, (index + 1) * self.size)
        chosen = zip(self.drawn[part], self.order[part], strict=True)
        rows = np.stack([self.views[view][image] for view, image in chosen])
        return rows.astype(np.float32), self.wanted[self.order[part]]


def fit(
    known: Features,
    labels: Labels,
    trained: Indices,
    protocol: Protocol,
    *,
    classes: int,
    verified: Indices | None = None,
) -> Head:
    """Train a head (Table 6: 256 rectified units, then the scores) on the images `trained`.

    Those of `verified` are only watched.
    """
    keras.utils.set_random_seed(protocol.seed)
    model = _head(known.plain.shape[1], classes, protocol)
    wanted = targets(labels, classes)
    watched = None if verified is None else (known.plain[verified].astype(np.float32), wanted[verified])
    epochs = _Epochs(known, wanted, trained, protocol)
    told = model.fit(epochs, epochs=protocol.epochs, validation_data=watched, verbose=0).history
    history = [dict(zip(told, map(float, values), strict=True)) for values in zip(*told.values(), strict=True)]
    return Head(networks.named_weights(model), history)


def _head(width: int, classes: int, protocol: Protocol) -> keras.Model:
    rows = keras.Input((width,))
    model = keras.Model(rows, networks.classifier(rows, classes))
    loss = "binary_crossentropy" if classes == 2 else "categorical_crossentropy"
    jit = "auto" if keras.config.backend() == "jax" else False  # as in loop.compile_model
    model.compile(keras.optimizers.Adam(protocol.learning_rate), loss, metrics=["accuracy"], jit_compile=jit)
    return model


def scores(head: Head, rows: Rows) -> Scores:
    """Score images by their features; plain matrix products, so that no network is built for each head."""
    return np.concatenate([_scores(head.weights, rows[start : start + 256]) for start in range(0, len(rows), 256)])


def _scores(weights: Weights, rows: Rows) -> Scores:
    hidden = np.maximum(rows.astype(np.float32) @ weights["hidden/kernel"] + weights["hidden/bias"], 0)
    given = (hidden @ weights["scores/kernel"] + weights["scores/bias"]).astype(np.float64)
    if given.shape[1] == 1:
        return np.asarray(1 / (1 + np.exp(-np.clip(given, -700, 700))))
    powers = np.exp(given - given.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
