"""Load a trained model once; predict; explain. Its preprocessing happened before, in the decoder processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from db.errors import ModelRefused
from workers import engines, gate, parity, trained_models, weights
from workers.heat import Grid, Heat
from workers.trained_models import TrainedModel
from workers.two_stage import TwoStage

Layers = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image: `score` 0-1 over the flag classes, `distance` from chest X-rays; `grid`: where
    the last map's places lie, None where they are spread evenly."""

    score: float
    class_scores: dict[str, float]
    distance: float
    is_chest: bool
    last_map: NDArray[np.float32]
    gradient: NDArray[np.float32]
    grid: Grid | None = None
    # Of two stages, which one this is (as `describe` gives it), and what the first one had said; else neither.
    made_by: dict[str, str] | None = None
    first_score: float | None = None
    holds_from: float | None = None  # of the first stage: the least threshold under which its score stands

    def heat(self) -> Heat:
        """Where the picture raised the score: last map times gradient, positive part, 1 at its highest place.

        For a pooled head this is Grad-CAM (Selvaraju et al. 2017), for a flattened one HiResCAM. All zero
        where nothing raised the score.
        """
        heat = np.maximum((self.last_map * self.gradient).sum(axis=-1), 0)
        scaled: Heat = (heat / max(float(heat.max()), 1e-12)).astype(np.float32)
        return scaled


@dataclass(frozen=True)
class Scorer:
    """A trained model in memory, on one device."""

    model: TrainedModel
    engine: engines.Running
    head: Layers
    gate: gate.Fit
    golden_score: float | None = None  # what the golden image gives at this precision, where the folder tells

    @overload
    @classmethod
    def load(
        cls, folder: Path, *, batch_size: int = 32, threads: int | None = None, device: str = "cpu"
    ) -> "Scorer": ...

    @overload
    @classmethod
    def load(
        cls, folder: Path, *, batch_size: int, threads: int | None, device: str, engine: str, precision: str
    ) -> "Scorer | TwoStage[Scorer]": ...

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        batch_size: int = 32,
        threads: int | None = None,
        device: str = "cpu",
        engine: str = engines.AUTO,
        precision: str = parity.FLOAT32,
    ) -> "Scorer | TwoStage[Scorer]":
        """Load a folder onto "cpu" or "gpu:N" under the settings ENGINE and PRECISION. What the trained model's parity
        report does not allow is refused, whatever the settings say. Raises ModelRefused, and Refused where there is no
        such device or engine."""
        name = engines.chosen(engine, device)
        module = engines.module(name)
        model = trained_models.load_folder(folder)
        report = parity.read(folder, model)
        mode = parity.chosen(report, precision, module)

        def at(precision: str) -> Scorer:
            return cls._at(folder, model, report, module, precision, (batch_size, threads, device))

        if report is None or mode != parity.TWO_STAGE:
            return at(mode)
        return TwoStage(at(parity.INT8), at(parity.FLOAT32), parity.margin(report))

    @classmethod
    def _at(
        cls,
        folder: Path,
        model: TrainedModel,
        report: Mapping[str, Any] | None,
        module: engines.Engine,
        precision: str,
        place: tuple[int, int | None, str],
    ) -> Self:
        """Load a folder at one precision; `place` is batch size, threads and device."""
        batch_size, threads, device = place
        plain = weights.read(folder, model)
        values = plain
        if precision == parity.INT8 and model.int8 is not None:
            values = weights.at_int8(plain, weights.unpack(weights.read_arrays(folder, model.int8)))
        running = module.load(model, values, batch_size=batch_size, precision=precision, threads=threads, device=device)
        fit = weights.unpack(weights.read_arrays(folder, model.gate.parameters))
        try:
            return cls(model, running, _head(plain), gate.Fit(**fit), parity.golden_score(report, precision))
        except TypeError as error:
            raise ModelRefused(f"{folder}: the gate's parameters are incomplete: {error}") from error

    @property
    def gate_limit(self) -> float:
        """The distance up to which a picture counts as a chest X-ray."""
        return self.model.gate.limit

    @property
    def grid(self) -> Grid | None:
        """Where the last map's places lie in the input."""
        from workers import networks  # loads Keras: only once the engine has said what Keras computes with

        design = networks.ARCHITECTURES.get(self.model.architecture)
        return Grid(*design.map_grid) if design and design.map_grid else None

    def describe(self) -> dict[str, str]:
        """Name engine, precision and device."""
        return engines.of(self.engine).describe(self.engine)

    def predict(self, pixels: NDArray[np.uint8]) -> list[Prediction]:
        """Score N images, (N, S, S) uint8, any N. Raises MemoryError, ValueError (another shape, or a score that
        is no probability: the engine is broken)."""
        return [one for outputs in engines.passes(self.engine, pixels) for one in self._predictions(outputs)]

    def explain(self, pixels: NDArray[np.uint8]) -> Heat:
        """Heat map of one image, (S, S) uint8; `Prediction.heat` gives the same without running it again."""
        return self.predict(pixels[None])[0].heat()

    def _predictions(self, outputs: engines.Outputs) -> list[Prediction]:
        _require_probabilities(outputs.class_scores)
        flagged = [name in self.model.flag_classes for name in self.model.classes]
        scores = outputs.class_scores[:, flagged].sum(axis=1)
        gradients = head_gradient(self.head, outputs.last_map, np.array(flagged))
        distances = gate.distances(self.gate, outputs.features)
        return [
            Prediction(
                score=min(float(score), 1.0),
                class_scores=dict(zip(self.model.classes, map(float, row), strict=True)),
                distance=float(distance),
                is_chest=bool(distance <= self.gate_limit),
                last_map=last_map,
                gradient=gradient,
                grid=self.grid,
            )
            for score, row, distance, last_map, gradient in zip(
                scores, outputs.class_scores, distances, outputs.last_map, gradients, strict=True
            )
        ]


def _require_probabilities(class_scores: NDArray[np.float32]) -> None:
    if not (np.isfinite(class_scores).all() and (np.abs(class_scores.sum(axis=1) - 1) < 1e-3).all()):
        raise ValueError("the engine gave a score that is not a probability")


def _head(values: Layers) -> Layers:
    return {name: values[name] for name in ("hidden/kernel", "hidden/bias", "scores/kernel", "scores/bias")}


def head_gradient(head: Layers, last_map: NDArray[np.float32], flagged: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Gradient of the flag classes' log-odds by the last map, through either head.

    Takes maps (N, h, w, c) and which of the C classes flag; gives (N, h, w, c), or (N, 1, 1, c) for a pooled
    head, where it is the same everywhere (up to the factor 1 / (h w)).
    """
    count, height, width, depth = last_map.shape
    pooled = len(head["hidden/kernel"]) == depth
    inputs = last_map.mean(axis=(1, 2)) if pooled else last_map.reshape(count, -1)
    hidden = inputs @ head["hidden/kernel"] + head["hidden/bias"]
    logits = np.maximum(hidden, 0) @ head["scores/kernel"] + head["scores/bias"]
    by_hidden = _log_odds_gradient(logits, flagged) @ head["scores/kernel"].T * (hidden > 0)
    by_input: NDArray[np.float32] = by_hidden @ head["hidden/kernel"].T
    return by_input.reshape((count, 1, 1, depth) if pooled else (count, height, width, depth))


def _log_odds_gradient(logits: NDArray[np.float32], flagged: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Of log(S / (1 - S)) by the logits, S the sum over the flag classes: shares inside S, minus shares outside."""
    if logits.shape[1] == 1:  # one sigmoid: the second class
        return np.full_like(logits, 1.0 if flagged[1] else -1.0)
    inside = _softmax(np.where(flagged, logits, -np.inf))
    outside = _softmax(np.where(flagged, -np.inf, logits))
    return (inside - outside).astype(np.float32)


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.floating] = powers / powers.sum(axis=1, keepdims=True)
    return shares
