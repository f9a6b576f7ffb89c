"""A model whose score is a function of the prepared pixels alone, so that an oracle knows every score beforehand.

It stands in for `workers.scoring.Scorer` in a drill's workers; the product itself has no stub."""

import hashlib
import json
import os
import signal
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from db.store.models import Registration
from workers.preprocessing import DEFAULT_BORDER, VERSION
from workers.trained_models import File, Gate, IntendedUse, Preprocessing, TrainedModel

INPUT_SIZE = 64
CLASSES = ("normal", "covid")
THRESHOLD = 0.9
WEIGHTS = "0" * 64
# JSON in the run's folder, read anew for each call: {"pace": seconds an image, "marks": {digest of pixels: how}}
SCRIPT = "NIGHTREAD_DRILL_SCRIPT"

REGISTRATION = Registration(
    name="stub",
    version="1",
    folder="",
    architecture="resnet50",
    classes=list(CLASSES),
    flag_classes=["covid"],
    input_size=INPUT_SIZE,
    preprocessing_version=VERSION,
    weights_sha256=WEIGHTS,
    minimum_age=18.0,
    report={},
    threshold=THRESHOLD,
    threshold_why="a drill",
)
MODEL = TrainedModel(
    name="stub",
    version="1",
    architecture="resnet50",
    head="paper",
    classes=CLASSES,
    flag_classes=("covid",),
    input_size=INPUT_SIZE,
    preprocessing=Preprocessing(VERSION, "exact", DEFAULT_BORDER),
    weights=File("weights.safetensors", WEIGHTS),
    encoding="float32",
    map_layer="none",
    gate=Gate(File("gate.safetensors", WEIGHTS), ("none",), 1.0),
    intended_use=IntendedUse(18, "a drill"),
    temperature=1.0,
)


def digest(pixels: NDArray[np.uint8]) -> bytes:
    """What the stub knows a picture by."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).digest()


def score(pixels: NDArray[np.uint8]) -> float:
    """The score of prepared pixels, 0 to 1, uniform over pictures."""
    return int.from_bytes(digest(pixels)[:6], "big") / 2**48


@dataclass(frozen=True)
class StubScorer:
    """The same names as `workers.scoring.Scorer`."""

    model: TrainedModel
    batch_size: int

    @classmethod
    def load(
        cls, folder: Path, *, batch_size: int = 32, threads: int | None = None, device: str = "cpu", **chosen: str
    ) -> Self:
        """Nothing to load."""
        return cls(MODEL, batch_size)

    @property
    def gate_limit(self) -> float:
        """Every picture is a chest to the stub."""
        return self.model.gate.limit

    def describe(self) -> dict[str, str]:
        """Name engine, precision and device."""
        return {"engine": "stub", "precision": "exact", "device": "none"}

    def predict(self, pixels: NDArray[np.uint8]) -> list[Any]:
        """Score N x S x S uint8 at the script's pace; a marked picture kills or hangs this process."""
        script = _script()
        marks = script.get("marks", {})
        for one in pixels:
            _misbehave(marks.get(digest(one).hex()))
            time.sleep(script.get("pace", 0.0))
        return [_prediction(one) for one in pixels]


def _script() -> dict[str, Any]:
    """What the drill wrote for its workers; nothing outside a drill."""
    file = os.environ.get(SCRIPT)
    return dict(json.loads(Path(file).read_bytes())) if file else {}


def _misbehave(how: str | None) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while how == "hang":
        time.sleep(1.0)


def _prediction(pixels: NDArray[np.uint8]) -> Any:
    """A workers.scoring.Prediction: named here, not imported, because deploy imports nothing that leads to an engine;
    where this runs the engine was replaced."""
    prediction = import_module("workers.scoring").Prediction
    value = score(pixels)
    last_map = (pixels[::9, ::9, None] / 255).astype(np.float32)
    return prediction(
        score=value,
        class_scores={"normal": 1.0 - value, "covid": value},
        distance=0.0,
        is_chest=True,
        last_map=last_map,
        gradient=np.ones((1, 1, 1), np.float32),
    )
