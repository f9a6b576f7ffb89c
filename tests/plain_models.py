"""Trained models' folders whose weights need no loading, for tests in which nothing is scored. Loads no framework."""

import hashlib
import json

from workers import trained_models as trained
from workers.preprocessing import VERSION, Border

FIGURE = {"value": 0.97, "low": 0.95, "high": 0.99}


def auc(value):
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def audit(model=0.95, frame=0.6, file=0.7):
    return {"model": auc(model), "frame": auc(frame), "file": auc(file), "thumbnail": auc(0.94)}


def table(*rows):
    """A report's table of thresholds from (threshold, sensitivity, specificity)."""
    return [
        {"threshold": t, "sensitivity": auc(se), "specificity": auc(sp), "flagged_per_1000": 1000 * (1 - sp)}
        for t, se, sp in rows
    ]


def safetensors(seed=""):
    """A file of that format without arrays."""
    header = json.dumps({"__metadata__": {"seed": seed}}).encode()
    return len(header).to_bytes(8, "little") + header


def write_plain(folder, *, threshold=0.4, report=None, weights="a", **fields):
    """Write a whole folder; `weights` makes two of them differ, `fields` replace some of model.json's."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"weights.safetensors": safetensors(weights), "gate.safetensors": safetensors()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    weights_file, gate_file = (
        trained.File(name, hashlib.sha256(content).hexdigest()) for name, content in files.items()
    )
    given = {
        "name": "plain",
        "version": "1",
        "architecture": "resnet50",
        "head": "pooled256",
        "classes": ("normal", "covid"),
        "flag_classes": ("covid",),
        "input_size": 64,
        "preprocessing": trained.Preprocessing(VERSION, "exact", Border()),
        "weights": weights_file,
        "encoding": "float32",
        "map_layer": "last",
        "gate": trained.Gate(gate_file, ("a",), 1.0),
        "intended_use": trained.IntendedUse(18, "tests"),
        "temperature": 1.0,
    }
    told = {"threshold": {"value": threshold, "why": "a test"}, "audit": audit(), **(report or {})}
    model = trained.TrainedModel(**{**given, **fields})
    trained.write_folder(folder, model, {key: value for key, value in told.items() if value is not None})
    return folder
