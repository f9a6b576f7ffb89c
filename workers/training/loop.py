"""The fine-tuning loop: stages of growing input size, the best epoch kept, a stopped run goes on (2.3, R14)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from workers import networks
from workers.networks import Weights
from workers.networks.unfolding import unfold
from workers.training import metrics, strategies
from workers.training.augmentation import augment
from workers.training.checkpoints import Checkpoint, Place, digest_of_run
from workers.training.examples import Examples
from workers.training.recipes import (
    ClassWeights,
    Fitted,
    History,
    Precision,
    Progress,
    Recipe,
    Stage,
    Step,
    default_stages,
    parse_stages,
    silent,
)

__all__ = ["Fitted", "History", "Recipe", "Stage", "Step", "default_stages", "parse_stages", "train"]

CALIBRATES = 384  # training images that BatchNormalization is put back with
THREADS = 2

Batch = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Shuffled, augmented batches; which pictures and changes depends on seed, stage, epoch and position alone."""

    def __init__(self, examples: Examples, recipe: Recipe, stage: Stage, epoch: int) -> None:
        super().__init__(workers=THREADS, max_queue_size=3 * THREADS)
        self.examples, self.recipe, self.stage = examples, recipe, stage
        self.seed = (recipe.seed, stage.size, round(stage.learning_rate * 1e9), epoch)
        self.order = np.random.default_rng(self.seed).permutation(len(examples))
        self.costs = costs(examples.labels, recipe)
        self.batch_size = min(recipe.batch_size, len(examples))

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __getitem__(self, index: int) -> Batch:
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        rng = np.random.default_rng((*self.seed, index))
        pixels = np.stack([augment(self.examples.pixels[i], rng, self.recipe.augmentation) for i in chosen])
        labels = self.examples.labels[chosen]
        return resized(pixels, self.stage.size), targets(labels, len(self.recipe.classes)), self.costs[labels]


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


def costs(labels: NDArray[np.int64], recipe: Recipe) -> NDArray[np.float32]:
    """What a mistake in each class costs: 1, or with `balanced` so much that all classes cost the same together."""
    classes = len(recipe.classes)
    if recipe.class_weights == ClassWeights.NONE:
        return np.ones(classes, np.float32)
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * np.maximum(counts, 1))).astype(np.float32)


def train(
    recipe: Recipe,
    first: Weights,
    training: Examples,
    validation: Examples,
    *,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Fitted:
    """Run all stages from the weights `first` (of the folded network); keep the best epoch of the last stage.

    `checkpoint` is a folder, written after every epoch: with it the same call goes on where a stopped run was (the
    optimiser's moments start anew). Ctrl-C ends training with the best epoch so far, once there is one.
    Raises Refused where the folder holds another run.
    """
    run = _Run(recipe, training, validation, progress)
    kept = None
    if checkpoint is not None:
        kept = Checkpoint(checkpoint, digest_of_run(recipe.digest(), first, training, validation))
    with computing(recipe.precision):
        place = Place(first, first) if kept is None else kept.restore(first)
        if not place.records and recipe.normalise:
            place.last = place.best = run.unfolded(first)
        stopped = False
        try:
            run.go_on(place, kept)
        except KeyboardInterrupt:
            if not place.records:
                raise
            stopped = True
        weights = run.folded(place.best)
    return Fitted(weights, History(tuple(place.records)), recipe.parameters(), stopped)


@contextmanager
def computing(precision: Precision) -> Iterator[None]:
    """Build and run networks at a precision, and restore the one before."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision.value)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class _Run:
    """One call of `train`."""

    def __init__(self, recipe: Recipe, training: Examples, validation: Examples, progress: Progress) -> None:
        self.recipe, self.training, self.validation, self.progress = recipe, training, validation, progress

    def go_on(self, place: Place, kept: Checkpoint | None) -> None:
        """Do what is left of all stages from a place on."""
        while place.stage < len(self.recipe.stages):
            stage = self.recipe.stages[place.stage]
            keras.utils.set_random_seed(self.recipe.seed + 1000 * place.stage + place.epoch)
            model = self.network(stage.size)
            networks.assign(model, place.last)
            through = self.recipe.freeze_through or strategies.last_frozen(
                model, self.recipe.architecture, self.recipe.strategy
            )
            strategies.freeze(model, through, norms=not self.recipe.normalise)
            run_stage(
                model,
                self.recipe,
                place,
                lambda epoch, stage=stage: Batches(self.training, self.recipe, stage, epoch),  # type: ignore[misc]
                (resized(self.validation.pixels, stage.size), self.validation.labels),
                progress=self.progress,
                save=(lambda: None) if kept is None else (lambda: kept.save(place)),
            )
            place.next_stage()

    def network(self, size: int) -> keras.Model:
        """The network that trains."""
        return _built(self.recipe, size) if self.recipe.normalise else skeleton(self.recipe, size)

    def unfolded(self, first: Weights) -> Weights:
        """The weights `first` with BatchNormalization put back, by what it sees of some training images."""
        stage = self.recipe.stages[0]
        batches = Batches(self.training, self.recipe, stage, stage.epochs)
        some = range(min(len(batches), max(1, CALIBRATES // batches.batch_size)))
        return unfold(_built(self.recipe, stage.size), first, (batches[index][0] for index in some))

    def folded(self, weights: Weights) -> Weights:
        """Weights of the folded network from those of the one that trained."""
        if not self.recipe.normalise:
            return weights
        model = _built(self.recipe, self.recipe.stages[-1].size)
        networks.assign(model, weights)
        return networks.named_weights(networks.fold(model))


def skeleton(recipe: Recipe, size: int) -> keras.Model:
    """Build the folded network of a recipe at an input size, with random weights."""
    return networks.fold(_built(recipe, size))


def _built(recipe: Recipe, size: int) -> keras.Model:
    return networks.build(
        recipe.architecture, recipe.head, len(recipe.classes), input_size=size, dropout=recipe.dropout
    )


def run_stage(
    model: keras.Model,
    recipe: Recipe,
    place: Place,
    feed: Callable[[int], keras.utils.PyDataset],
    judged: tuple[NDArray[Any], NDArray[np.int64]],
    *,
    progress: Progress,
    save: Callable[[], None] = lambda: None,
) -> None:
    """Train a model through the epochs that are left of a stage; `feed(epoch)` gives batches, `judged` validates."""
    stage = recipe.stages[place.stage]
    steps = len(feed(place.epoch))
    compile_model(model, recipe, stage, steps, done=place.epoch * steps)
    while place.epoch < stage.epochs and not (recipe.patience and place.since_best >= recipe.patience):
        told = _Told(progress, place, len(recipe.stages), stage.epochs, steps)
        fitted = model.fit(feed(place.epoch), epochs=1, shuffle=False, verbose=0, callbacks=[told])
        record = {
            "stage": place.stage + 1,
            "epoch": place.epoch + 1,
            "size": stage.size,
            "loss": float(fitted.history["loss"][0]),
            "accuracy": float(fitted.history["accuracy"][0]),
            **judge(model, recipe, *judged),
        }
        place.moved(networks.named_weights(model), record)
        save()
        told.over(record)


class _Told(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells the caller after each batch, and after validation."""

    def __init__(self, progress: Progress, place: Place, stages: int, epochs: int, batches: int) -> None:
        super().__init__()
        self.progress, self.counts = progress, (place.stage + 1, stages, place.epoch + 1, epochs)
        self.batches = batches

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.progress(Step(*self.counts, batch + 1, self.batches))

    def over(self, record: dict[str, Any]) -> None:
        self.progress(Step(*self.counts, self.batches, self.batches, record))


class _From(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A schedule taken up `done` steps after its beginning."""

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, done: int) -> None:
        self.schedule, self.done = schedule, done

    def __call__(self, step: Any) -> Any:
        return self.schedule(step + self.done)

    def get_config(self) -> dict[str, Any]:
        return {"schedule": self.schedule.get_config(), "done": self.done}


def compile_model(model: keras.Model, recipe: Recipe, stage: Stage, steps: int, *, done: int = 0) -> None:
    """Set optimiser and loss for a stage of `steps` batches an epoch, of which `done` are over."""
    schedule = keras.optimizers.schedules.CosineDecay(
        stage.learning_rate / 20,
        decay_steps=max(1, stage.epochs * steps - steps // 4),
        warmup_target=stage.learning_rate,
        warmup_steps=max(1, steps // 4),
    )
    two = len(recipe.classes) == 2
    loss = keras.losses.BinaryCrossentropy if two else keras.losses.CategoricalCrossentropy
    accuracy = keras.metrics.BinaryAccuracy if two else keras.metrics.CategoricalAccuracy
    model.compile(
        keras.optimizers.AdamW(_From(schedule, done), weight_decay=recipe.weight_decay, global_clipnorm=1.0),
        loss(label_smoothing=recipe.label_smoothing),
        metrics=[accuracy(name="accuracy")],
        # XLA's convolutions are slower than oneDNN's on a CPU; JAX has nothing else.
        jit_compile="auto" if keras.config.backend() == "jax" else False,
    )


def judge(
    model: keras.Model, recipe: Recipe, inputs: NDArray[Any], labels: NDArray[np.int64]
) -> dict[str, float | None]:
    """Cross-entropy, accuracy and AUC on images as they are; the AUC is of every class but the first against it."""
    scores = class_scores(model.predict(inputs, batch_size=64, verbose=0))
    right = scores[np.arange(len(labels)), labels]
    area = metrics.auc(labels > 0, 1 - scores[:, 0]).value if 0 < (labels > 0).sum() < len(labels) else None
    return {
        "val_loss": float(-np.log(np.clip(right, 1e-7, 1)).mean()),
        "val_accuracy": float((scores.argmax(axis=1) == labels).mean()),
        "val_auc": area,
    }


def class_scores(outputs: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 1) or (N, C) as a network gives them -> (N, C)."""
    scores = outputs.astype(np.float64)
    return np.concatenate([1 - scores, scores], axis=1) if scores.shape[1] == 1 else scores
