"""Load a trained model once; predict; explain. Its preprocessing happened before, in the decoder processes."""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from db.errors import ModelRefused
from workers import engines, gate, parity, trained_models, weights
from workers.preprocessing import Evidence
from workers.trained_models import TrainedModel
from workers.two_stage import TwoStage

Heat = NDArray[np.float32]  # h x w of the last map, 0-1: how much each place raised the score
Layers = Mapping[str, NDArray[np.float32]]

# A heat map has 7 x 7 places: more pixels than this on the longest side would only cost storage.
LONGEST_SIDE = 1024
OPACITY = 0.6
SHADES = 48  # more cannot be told apart; plain areas compress to less than half the bytes


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image: `score` 0-1 over the flag classes, `distance` from chest X-rays."""

    score: float
    class_scores: dict[str, float]
    distance: float
    is_chest: bool
    last_map: NDArray[np.float32]
    gradient: NDArray[np.float32]
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

    def describe(self) -> dict[str, str]:
        """Name engine, precision and device."""
        return engines.of(self.engine).describe(self.engine)

    def predict(self, pixels: NDArray[np.uint8]) -> list[Prediction]:
        """Score N images, (N, S, S) uint8, any N. Raises MemoryError, ValueError (another shape, or a score that
        is no probability: the engine is broken)."""
        size = self.engine.batch_size
        return [
            prediction
            for start in range(0, len(pixels), size)
            for prediction in self._predict_batch(pixels[start : start + size])
        ]

    def explain(self, pixels: NDArray[np.uint8]) -> Heat:
        """Heat map of one image, (S, S) uint8; `Prediction.heat` gives the same without running it again."""
        return self.predict(pixels[None])[0].heat()

    def _predict_batch(self, pixels: NDArray[np.uint8]) -> list[Prediction]:
        outputs = engines.of(self.engine).predict(self.engine, pixels)
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


def heatmap_png(heat: Heat, evidence: Evidence) -> bytes:
    """Draw a heat map as a PNG with transparency that lies exactly over the image as read (and its review copy).

    It has that image's shape, shrunk in proportion where the longest side would pass LONGEST_SIDE, so that a page
    that stretches both to one rectangle needs no arithmetic. Outside the square the model saw it is transparent.
    """
    shrink = min(1.0, LONGEST_SIDE / max(evidence.height, evidence.width))
    canvas = np.zeros((_scaled(evidence.height, shrink), _scaled(evidence.width, shrink)), np.float32)
    top, left, height, width = evidence.crop
    rows = slice(_scaled(top, shrink, least=0), min(_scaled(top + height, shrink), len(canvas)))
    columns = slice(_scaled(left, shrink, least=0), min(_scaled(left + width, shrink), canvas.shape[1]))
    target = canvas[rows, columns]
    target[:] = np.clip(cv2.resize(heat, target.shape[::-1], interpolation=cv2.INTER_CUBIC), 0, 1)
    return _encode(canvas)


def _scaled(length: int, shrink: float, *, least: int = 1) -> int:
    return max(least, round(length * shrink))


def _encode(canvas: NDArray[np.float32]) -> bytes:
    """One byte a pixel and a palette with transparency (PNG, sections 11.2 and 11.3): four times less to compress."""
    shades = np.rint(canvas * SHADES).astype(np.uint8)
    lines = np.zeros((len(shades), shades.shape[1] + 1), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = shades
    head = struct.pack(">IIBBBBB", shades.shape[1], len(shades), 8, 3, 0, 0, 0)
    parts = ((b"IHDR", head), *_PALETTE, (b"IDAT", zlib.compress(lines.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in parts)


def _palette() -> tuple[tuple[bytes, bytes], ...]:
    levels = np.arange(SHADES + 1) / SHADES * 255
    blue_green_red = cv2.applyColorMap(levels.astype(np.uint8)[:, None], cv2.COLORMAP_INFERNO)
    alpha = (levels * OPACITY).astype(np.uint8)
    return (b"PLTE", blue_green_red[:, 0, ::-1].tobytes()), (b"tRNS", alpha.tobytes())


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


_PALETTE = _palette()
