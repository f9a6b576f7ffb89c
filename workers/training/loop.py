"""The fine-tuning loop: stages of growing input size, the early layers frozen, the best epoch kept (2.3, R14)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from workers import networks
from workers.networks import Weights
from workers.training import metrics
from workers.training.augmentation import augment
from workers.training.data import Examples


@dataclass(frozen=True)
class Stage:
    """So many epochs at one input size (pixels), the learning rate falling to nothing along a cosine."""

    size: int
    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of training besides the images and the first weights."""

    architecture: str
    head: str
    classes: tuple[str, ...]
    stages: tuple[Stage, ...]
    freeze_through: str | None  # the last layer that stays as it is; None trains all
    batch_size: int = 16
    dropout: float = 0.3
    label_smoothing: float = 0.05
    weight_decay: float = 0.02
    seed: int = 1


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Shuffled, augmented batches; which pictures and changes depends on seed, epoch and position alone."""

    def __init__(self, examples: Examples, recipe: Recipe, stage: Stage, epoch: int) -> None:
        super().__init__()
        self.examples, self.recipe, self.stage = examples, recipe, stage
        self.seed = (recipe.seed, stage.size, round(stage.learning_rate * 1e9), epoch)
        self.order = np.random.default_rng(self.seed).permutation(len(examples))

    def __len__(self) -> int:
        return len(self.order) // self.recipe.batch_size

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        chosen = self.order[index * self.recipe.batch_size : (index + 1) * self.recipe.batch_size]
        rng = np.random.default_rng((*self.seed, index))
        pixels = np.stack([augment(self.examples.pixels[i], rng) for i in chosen])
        return resized(pixels, self.stage.size), targets(self.examples.labels[chosen], len(self.recipe.classes))


def resized(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(N, S, S) -> (N, size, size, 1)."""
    if pixels.shape[1] != size:
        pixels = np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in pixels])
    return pixels[..., None].astype(np.uint8, copy=False)


def targets(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """(N,) -> (N, 1) of 0 and 1 for two classes, else one column a class."""
    if classes == 2:
        return labels[:, None].astype(np.float32)
    return np.eye(classes, dtype=np.float32)[labels]


def train(recipe: Recipe, first: Weights, training: Examples, validation: Examples) -> Weights:
    """Run all stages from the weights `first`; return those of the best epoch of the last stage."""
    keras.utils.set_random_seed(recipe.seed)
    weights = first
    for stage in recipe.stages:
        weights = _run_stage(recipe, stage, weights, training, validation)
    return weights


def skeleton(recipe: Recipe, size: int) -> keras.Model:
    """Build the folded network of a recipe at an input size, with random weights."""
    classes = len(recipe.classes)
    return networks.fold(
        networks.build(recipe.architecture, recipe.head, classes, input_size=size, dropout=recipe.dropout)
    )


def freeze(model: keras.Model, through: str | None) -> None:
    """Freeze all layers up to and with the one named, and every BatchNormalization left after folding."""
    frozen = [layer.name for layer in model.layers].index(through) if through else -1
    for position, layer in enumerate(model.layers):
        layer.trainable = position > frozen and not isinstance(layer, keras.layers.BatchNormalization)


def _run_stage(recipe: Recipe, stage: Stage, weights: Weights, training: Examples, validation: Examples) -> Weights:
    model = skeleton(recipe, stage.size)
    networks.assign(model, weights)
    freeze(model, recipe.freeze_through)
    _compile(model, recipe, stage, len(training) // recipe.batch_size)
    best, least = weights, float("inf")
    for epoch in range(stage.epochs):
        model.fit(Batches(training, recipe, stage, epoch), epochs=1, verbose=2)
        loss = _report(model, recipe, stage, epoch, validation)
        if loss < least:
            best, least = networks.named_weights(model), loss
    return best


def _compile(model: keras.Model, recipe: Recipe, stage: Stage, steps: int) -> None:
    schedule = keras.optimizers.schedules.CosineDecay(
        stage.learning_rate / 20,
        decay_steps=max(1, stage.epochs * steps - steps // 4),
        warmup_target=stage.learning_rate,
        warmup_steps=max(1, steps // 4),
    )
    kind = keras.losses.BinaryCrossentropy if len(recipe.classes) == 2 else keras.losses.CategoricalCrossentropy
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay, global_clipnorm=1.0),
        kind(label_smoothing=recipe.label_smoothing),
        jit_compile=False,  # XLA's convolutions are slower than oneDNN's on a CPU
    )


def _report(model: keras.Model, recipe: Recipe, stage: Stage, epoch: int, validation: Examples) -> float:
    """Print the validation figures of an epoch; return the cross-entropy that picks the best."""
    scores = model.predict(resized(validation.pixels, stage.size), batch_size=64, verbose=0).astype(np.float64)
    wanted = targets(validation.labels, len(recipe.classes))
    right = np.where(wanted == 1, scores, 1 - scores) if scores.shape[1] == 1 else (scores * wanted).sum(axis=1)
    loss = float(-np.log(np.clip(right, 1e-7, 1)).mean())
    area = metrics.auc(validation.labels > 0, 1 - scores[:, 0] if scores.shape[1] > 1 else scores[:, 0])
    said = f"{stage.size} px, epoch {epoch + 1}: validation loss {loss:.4f}, AUC {area.value:.4f}"
    print(said, file=sys.stderr, flush=True)
    return loss


def parse_stages(texts: Sequence[str]) -> tuple[Stage, ...]:
    """Read stages from "SIZE:EPOCHS:LEARNING_RATE" texts. Raises ValueError on anything else."""
    return tuple(
        Stage(int(size), int(epochs), float(rate)) for size, epochs, rate in (text.split(":") for text in texts)
    )
