"""A frozen base sees each picture once: its features are kept, and the head alone is trained on them, in seconds."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from workers import networks
from workers.networks import Weights
from workers.preprocessing import Pixels
from workers.training import loop
from workers.training.augmentation import augment
from workers.training.checkpoints import Place, digest_of
from workers.training.examples import Examples
from workers.training.recipes import Fitted, History, Progress, Recipe, silent
from workers.training.strategies import Strategy

Features = NDArray[np.float16]  # (N, F): of the pooled or the whole last map, as the head wants

BATCH = 32
HEAD_LAYERS = ("hidden", "scores")


def nothing(done: int, of: int) -> None:
    """Say nothing."""


def features(
    recipe: Recipe,
    base_weights: Weights,
    pixels: NDArray[np.uint8],
    *,
    cache: Path | None = None,
    copy: int | None = None,
    progress: Callable[[int, int], None] = nothing,
) -> Features:
    """Give what the head of a recipe sees of pictures (N, S, S) through a frozen base: `Body.features` for one call."""
    return Body(recipe, base_weights, cache).features(pixels, copy=copy, progress=progress)


class Body:
    """A folded network up to its head. `weights` are the folded network's; those of its head are not looked at.

    With a `cache` folder each picture's features are computed once for a base, and what is there already survives
    Ctrl-C; where everything is there, the network is not even built.
    """

    def __init__(self, recipe: Recipe, weights: Weights, cache: Path | None = None) -> None:
        self.recipe, self.size, self.cache = recipe, recipe.stages[-1].size, cache
        self.weights = {name: values for name, values in weights.items() if not _in_head(name)}

    def features(
        self,
        pixels: NDArray[np.uint8],
        *,
        copy: int | None = None,
        progress: Callable[[int, int], None] = nothing,
    ) -> Features:
        """Features (N, F) float16 of pictures (N, S, S).

        `copy` asks for the augmented copy of that number instead of the pictures as they are: which changes it gets
        depends on the recipe's seed and augmentation, the number and the picture alone.
        """
        wanted = [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]
        shelf = None if self.cache is None else self.cache / self._key(copy)
        known = {} if shelf is None else {name: _read(shelf / f"{name}.npy") for name in set(wanted)}
        rows = {name: row for name, row in known.items() if row is not None}
        lacking = {name: image for name, image in zip(wanted, pixels, strict=True) if name not in rows}
        names = list(lacking)
        for start in range(0, len(names), BATCH):
            part = names[start : start + BATCH]
            seen = self._see(np.stack([self._changed(lacking[name], name, copy) for name in part]))
            for name, row in zip(part, seen, strict=True):
                rows[name] = row
                if shelf is not None:
                    _write(shelf / f"{name}.npy", row)
            progress(len(wanted) - len(names) + start + len(part), len(wanted))
        return np.stack([rows[name] for name in wanted])

    @cached_property
    def _network(self) -> keras.Model:
        with loop.computing(self.recipe.precision):
            network = loop.skeleton(self.recipe, self.size)
        networks.assign(network, {**networks.named_weights(network), **self.weights})
        body = keras.Model(network.input, network.get_layer(HEAD_LAYERS[0]).input)
        # Not compiled, Keras would take XLA (see loop.compile_model).
        body.compile(jit_compile="auto" if keras.config.backend() == "jax" else False)
        return body

    @cached_property
    def _digest(self) -> str:
        return digest_of(self.weights)

    def _key(self, copy: int | None) -> str:
        """Name everything besides the picture that decides its features."""
        recipe = self.recipe
        said = [recipe.architecture, recipe.head, str(self.size), recipe.precision, self._digest]
        if copy is not None:
            said += [str(recipe.augmentation), str(recipe.seed), str(copy)]
        return hashlib.sha256("\n".join(said).encode()).hexdigest()[:32]

    def _changed(self, pixels: Pixels, name: str, copy: int | None) -> Pixels:
        if copy is None:
            return pixels
        rng = np.random.default_rng((self.recipe.seed, copy, int(name[:16], 16)))
        return augment(pixels, rng, self.recipe.augmentation)

    def _see(self, pixels: NDArray[np.uint8]) -> Features:
        """Look at BATCH pictures or fewer; always in a full batch, so that nothing is compiled anew."""
        padded = np.concatenate([pixels, np.zeros((BATCH - len(pixels), *pixels.shape[1:]), np.uint8)])
        seen = self._network.predict(loop.resized(padded, self.size), batch_size=BATCH, verbose=0)
        limit = np.finfo(np.float16).max
        kept: Features = np.clip(seen[: len(pixels)].astype(np.float32), -limit, limit).astype(np.float16)
        return kept


def _in_head(name: str) -> bool:
    return name.split("/")[0] in HEAD_LAYERS


def _read(path: Path) -> NDArray[np.float16] | None:
    try:
        row: NDArray[np.float16] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return row if row.ndim == 1 and row.dtype == np.float16 else None


def _write(path: Path, row: NDArray[np.float16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.part")
    with draft.open("wb") as file:
        np.save(file, row)
    draft.replace(path)


@dataclass(frozen=True)
class Known:
    """Features (N, F) and labels (N,) side by side."""

    features: Features
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Head:
    """A trained head: its weights by name, and how it came about."""

    weights: Weights
    history: History
    stopped: bool = False


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Shuffled batches of features; the order depends on seed and epoch alone. A last, smaller batch is left out."""

    def __init__(self, known: Known, recipe: Recipe, epoch: int) -> None:
        super().__init__()
        self.known, self.recipe = known, recipe
        self.order = np.random.default_rng((recipe.seed, epoch)).permutation(len(known.labels))
        self.batch_size = min(recipe.batch_size, len(self.order))
        self.costs = loop.costs(known.labels, recipe)

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        labels = self.known.labels[chosen]
        wanted = loop.targets(labels, len(self.recipe.classes))
        return self.known.features[chosen].astype(np.float32), wanted, self.costs[labels]


def head_network(recipe: Recipe, width: int) -> keras.Model:
    """The head alone: features (B, F) -> scores, with the names that it has in the whole network."""
    inputs = keras.Input((width,), name="features")
    return keras.Model(inputs, networks.classifier(inputs, len(recipe.classes), recipe.dropout))


def fit_head(recipe: Recipe, training: Known, validation: Known, *, progress: Progress = silent) -> Head:
    """Train a new head on features through the recipe's last stage; keep the epoch with the least validation loss.

    Ctrl-C ends it with the best epoch so far, once there is one.
    """
    recipe = replace(recipe, stages=recipe.stages[-1:])
    keras.utils.set_random_seed(recipe.seed)
    model = head_network(recipe, training.features.shape[1])
    first = networks.named_weights(model)
    place = Place(first, first)
    stopped = False
    try:
        loop.run_stage(
            model,
            recipe,
            place,
            lambda epoch: _Batches(training, recipe, epoch),
            (validation.features.astype(np.float32), validation.labels),
            progress=progress,
        )
    except KeyboardInterrupt:
        if not place.records:
            raise
        stopped = True
    return Head(place.best, History(tuple(place.records)), stopped)


def head_scores(recipe: Recipe, head: Weights, known: Features) -> NDArray[np.float64]:
    """Class scores (N, C) that a head gives to features (N, F)."""
    model = head_network(recipe, known.shape[1])
    networks.assign(model, head)
    return loop.class_scores(model.predict(known.astype(np.float32), batch_size=256, verbose=0))


def train_head(
    recipe: Recipe,
    base_weights: Weights,
    training: Examples,
    validation: Examples,
    *,
    cache: Path | None = None,
    copies: int = 0,
    progress: Progress = silent,
    seen: Callable[[int, int], None] = nothing,
) -> Fitted:
    """Train the head alone on a frozen base (`base_weights`, folded); give the weights of the whole network.

    The training pictures count as they are, and with `copies` in so many augmented copies besides. `seen(done, of)`
    tells how many pictures the base has looked at; `progress` tells of the head's epochs.
    """
    of = len(training) * (1 + copies) + len(validation)
    body, done = Body(recipe, base_weights, cache), 0

    def look(examples: Examples, copy: int | None) -> Features:
        nonlocal done
        before = done
        told = body.features(examples.pixels, copy=copy, progress=lambda n, _: seen(before + n, of))
        done += len(examples)
        seen(done, of)
        return told

    views = [look(training, copy) for copy in (None, *range(copies))]
    known = Known(np.concatenate(views), np.tile(training.labels, len(views)))
    head = fit_head(recipe, known, Known(look(validation, None), validation.labels), progress=progress)
    base = {name: values for name, values in base_weights.items() if not _in_head(name)}
    counted = replace(recipe, strategy=Strategy.FROZEN, freeze_through=None).parameters()
    return Fitted({**base, **head.weights}, head.history, counted, head.stopped)
