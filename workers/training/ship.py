"""Make a trained model's folder from fitted float32 weights: calibrated, in 8 bits, with gate, threshold and report.

Everything fitted here is fitted on training and validation images; the held-back ones are then judged, once.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from workers import networks, weights
from workers.engines import Outputs
from workers.engines import tensorflow as engine
from workers.gate import Fit, distances
from workers.networks import Weights
from workers.preprocessing import DEFAULT_BORDER, VERSION
from workers.trained_models import File, Gate, IntendedUse, Preprocessing, TrainedModel
from workers.training import calibration, data, gate, metrics
from workers.training.data import Examples, Split

BATCH = 32
GATE_IMAGES = 1200
ROUNDING = 0.01  # how far 8 bits may move a score; where they move one further, 16 bits are kept


@dataclass(frozen=True)
class Draft:
    """What is decided before anything is fitted; `flag_classes` are some of `classes`."""

    name: str
    version: str
    architecture: str
    head: str
    classes: tuple[str, ...]
    flag_classes: tuple[str, ...]
    intended_use: IntendedUse


@dataclass(frozen=True)
class Judged:
    """What the model says of one side: scores (N,) of the flag classes, truth (N,), class scores (N, C) after and
    `warm` ones before the temperature, distances (N,) from chest X-rays."""

    truth: metrics.Truth
    scores: metrics.Scores
    class_scores: NDArray[np.float32]
    warm: NDArray[np.float32]
    distances: NDArray[np.float64]


@dataclass(frozen=True)
class Assembled:
    """A folder with weights and gate in it, and what was found on the way. `score` runs the model as it will serve:
    (N, S, S) uint8 to (N,)."""

    model: TrainedModel
    threshold: float
    why: str
    validation: Judged
    held_back: Judged
    rounding: dict[str, Any]
    score: Callable[[NDArray[np.uint8]], metrics.Scores]


def assemble(folder: Path, draft: Draft, fitted: Weights, sides: dict[Split, Examples]) -> Assembled:
    """Write weights and gate into `folder`; the caller writes model.json and the report beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    training, validation = sides[Split.TRAINING], sides[Split.VALIDATION]
    model = _model(draft)
    warm = run(model, fitted, validation)
    temperature = calibration.fit_temperature(warm.class_scores, validation.labels)
    exact = calibration.cool(fitted, temperature)
    model, packed, rounding = _rounded(replace(model, temperature=temperature), exact, validation)
    served = engine.load(model, weights.unpack(packed), batch_size=BATCH)
    parameters, limit = _gate(served, training, validation)
    model = replace(
        model,
        weights=_write(folder, "weights.safetensors", packed),
        gate=Gate(_write(folder, "gate.safetensors", vars(parameters)), model.gate.layers, limit),
    )
    judged, held_back = (_judge(model, served, parameters, sides[side]) for side in (Split.VALIDATION, Split.HELD_BACK))
    threshold, why = recommended_threshold(judged)
    return Assembled(
        model, threshold, why, judged, held_back, rounding, lambda pixels: flag_scores(model, run_on(served, pixels))
    )


def recommended_threshold(judged: Judged, sensitivity: float = 0.95) -> tuple[float, str]:
    """The operating point for a judged side, and why."""
    positives = int(judged.truth.sum())
    try:
        value = metrics.sensitive_threshold(judged.truth, judged.scores, sensitivity)
    except ValueError:
        value = _best_guess(judged, sensitivity)
        return value, (
            f"the highest that flags at least {sensitivity:.0%} of {positives} validation positives; these are too few "
            f"to be sure of {sensitivity:.0%}: judge it on more images before relying on it"
        )
    low = metrics.lower_bound(int((judged.scores[judged.truth] >= value).sum()), positives)
    return value, (
        f"the highest at which the lower 95 % bound (exact, one-sided) of sensitivity on {positives} validation "
        f"positives is at least {sensitivity} (it is {low:.4f})"
    )


def _best_guess(judged: Judged, sensitivity: float) -> float:
    positive = np.sort(judged.scores[judged.truth])
    kept = positive[int(len(positive) * (1 - sensitivity))]
    lower = judged.scores[judged.scores < kept]
    return float((kept + (lower.max() if len(lower) else 0.0)) / 2)


def figures(judged: Judged, threshold: float) -> dict[str, Any]:
    """The six figures of a judged side with their intervals, JSON-able, and how many images they are of."""
    found = metrics.evaluate(judged.truth, judged.scores, threshold)
    return {"images": len(judged.scores), **{name: asdict(figure) for name, figure in found.items()}}


def run(model: TrainedModel, values: Weights, examples: Examples) -> Outputs:
    """Run all examples through the TensorFlow engine; the last maps are not kept."""
    return run_on(engine.load(model, values, batch_size=BATCH), examples.pixels)


def run_on(loaded: engine.Engine, pixels: NDArray[np.uint8]) -> Outputs:
    """Run (N, S, S) uint8 through a loaded model; the last maps are not kept."""
    passes = [engine.predict(loaded, pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    return Outputs(
        np.concatenate([one.class_scores for one in passes]),
        np.empty((0, 0, 0, 0), np.float32),
        np.concatenate([one.features for one in passes]),
    )


def flag_scores(model: TrainedModel, outputs: Outputs) -> metrics.Scores:
    """Scores (N,) over the flag classes."""
    flagged = [name in model.flag_classes for name in model.classes]
    scores: metrics.Scores = outputs.class_scores[:, flagged].sum(axis=1).astype(np.float64)
    return scores


def truth(model: TrainedModel, examples: Examples) -> metrics.Truth:
    """Whether each image's label is one that flags (N,)."""
    return np.isin(examples.labels, [model.classes.index(name) for name in model.flag_classes])


def _model(draft: Draft) -> TrainedModel:
    nothing, design = File("", ""), networks.ARCHITECTURES[draft.architecture]
    return TrainedModel(
        **vars(draft),
        input_size=design.input_size,
        preprocessing=Preprocessing(VERSION, "exact", DEFAULT_BORDER),
        weights=nothing,
        encoding="",
        map_layer=design.map_layer,
        gate=Gate(nothing, design.gate_layers, float("inf")),
        temperature=1.0,
    )


def _rounded(
    model: TrainedModel, exact: Weights, validation: Examples
) -> tuple[TrainedModel, dict[str, NDArray[Any]], dict[str, Any]]:
    """Pack the weights in 8 bits, or in 16 where 8 would move a validation score by more than ROUNDING."""
    wanted = flag_scores(model, run(model, exact, validation))
    encoding, packed = weights.ENCODING, weights.pack(exact)
    moved = np.abs(flag_scores(model, run(model, weights.unpack(packed), validation)) - wanted)
    if moved.max() > ROUNDING:
        encoding, packed = weights.HALVES, weights.pack_halves(exact)
        moved = np.abs(flag_scores(model, run(model, weights.unpack(packed), validation)) - wanted)
    rounding = {"images": len(validation), "largest": float(moved.max()), "mean": float(moved.mean())}
    return replace(model, encoding=encoding), packed, {**rounding, "encoding": encoding}


def _gate(loaded: engine.Engine, training: Examples, validation: Examples) -> tuple[Fit, float]:
    """Fit the gate to training images; its limit comes from validation images."""
    seen = run_on(loaded, data.draw(training, GATE_IMAGES).pixels).features
    parameters = gate.fit(seen, gate.components(len(seen)))
    return parameters, gate.limit(parameters, run_on(loaded, validation.pixels).features)


def _judge(model: TrainedModel, loaded: engine.Engine, parameters: Fit, examples: Examples) -> Judged:
    outputs = run_on(loaded, examples.pixels) if len(examples) else _nothing(model, parameters)
    warm = np.clip(outputs.class_scores, 1e-7, 1) ** model.temperature
    return Judged(
        truth(model, examples),
        flag_scores(model, outputs),
        outputs.class_scores,
        warm / warm.sum(axis=1, keepdims=True),
        distances(parameters, outputs.features),
    )


def _nothing(model: TrainedModel, parameters: Fit) -> Outputs:
    def empty(*shape: int) -> NDArray[np.float32]:
        return np.empty((0, *shape), np.float32)

    return Outputs(empty(len(model.classes)), empty(0, 0, 0), empty(len(parameters.mean)))


def _write(folder: Path, name: str, arrays: dict[str, NDArray[Any]]) -> File:
    content = save({key: np.ascontiguousarray(values) for key, values in arrays.items()})
    (folder / name).write_bytes(content)
    return File(name, hashlib.sha256(content).hexdigest())
