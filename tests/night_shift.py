"""A shift at work on one folder, on the real ledger, with real decoders; the device is a stub that answers at once."""

import dataclasses
from types import SimpleNamespace

import builders
import numpy as np
from ready_home import STUB

from db.store import models, reading
from db.store.connection import connect
from producer import submission
from workers import gate, tasks, trained_models
from workers.preprocessing import DEFAULT_BORDER, VERSION
from workers.shift import Loaded, Shift

SIZE, DEPTH = 64, 4
NOTHING = trained_models.File("", "")
MODEL = trained_models.TrainedModel(
    name="stub",
    version="1",
    architecture="resnet50",
    head="pooled256",
    classes=("normal", "covid"),
    flag_classes=("covid",),
    input_size=SIZE,
    preprocessing=trained_models.Preprocessing(VERSION, "exact", DEFAULT_BORDER),
    weights=trained_models.File("", STUB.weights_sha256),
    encoding="",
    map_layer="",
    gate=trained_models.Gate(NOTHING, (), 2.0),
    intended_use=trained_models.IntendedUse(18, ""),
    temperature=1.0,
)


class Night:
    """A shift at work on one folder; `device` answers for the engine: (B, S, S, 1) uint8 -> probabilities (B,)."""

    def __init__(self, home, decoders, folder):
        self.db, self.folder = connect(home), folder
        folder.mkdir()
        self.model = models.active(self.db)
        self.device = lambda batch: batch.mean(axis=(1, 2, 3)) / 255
        self.hand = Shift(home, self.db, "cpu", decoders)
        self.load(batch_size=self.hand.full_batch)

    def load(self, *, batch_size, threshold=0.5):
        view = dataclasses.replace(self.model, threshold=threshold)
        self.hand._loaded[self.model.id] = Loaded(view, stub_scorer(self, batch_size), batch_size)

    def scan(self, name, *, seed=0, content=None):
        picture = builders.encoded(".png", builders.chest(seed=seed))
        (self.folder / name).write_bytes(picture if content is None else content)

    def submit(self, **options):
        self.batch = submission.submit(self.db, self.folder, site_name="local", **options).batch_id
        return self.batch

    def work(self):
        tasks.work(self.hand)

    def lines(self):
        return {line.path: line for line in reading.report_lines(self.db, self.batch)}

    def outcomes(self):
        return {path: line.outcome for path, line in self.lines().items()}


def stub_scorer(night, batch_size, precision="float32"):
    """A Scorer of the real class whose engine asks `night.device`."""
    from workers.engines.tensorflow import Engine
    from workers.scoring import Scorer

    def run(batch):
        pixels = batch.numpy()
        scores = np.asarray(night.device(pixels), np.float32)
        count = len(pixels)
        outputs = np.stack([1 - scores, scores], axis=1), np.ones((count, 2, 2, DEPTH)), np.zeros((count, 2))
        return [SimpleNamespace(numpy=lambda value=value: value.astype(np.float32)) for value in outputs]

    head = {
        "hidden/kernel": np.ones((DEPTH, 3), np.float32),
        "hidden/bias": np.zeros(3, np.float32),
        "scores/kernel": np.ones((3, 1), np.float32),
        "scores/bias": np.zeros(1, np.float32),
    }
    plain = gate.Fit(np.zeros(2), np.ones(2), np.eye(2), np.ones(2), np.float32(1))
    return Scorer(MODEL, Engine(run, batch_size, SIZE, precision, "cpu"), head, plain)
