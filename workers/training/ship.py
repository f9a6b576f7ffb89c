"""Make a trained model's folder from fine-tuned float32 weights: calibrated, in 8 bits, with its gate and threshold.

    python -m workers.training.ship weights.safetensors DATA --out FOLDER --reference float32.safetensors

Everything fitted here is fitted on training and validation images; `examine` then measures the rest, once.
"""

import hashlib
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save, save_file

from workers import weights
from workers.engines import Outputs
from workers.engines import tensorflow as engine
from workers.gate import Fit, distances
from workers.networks import ARCHITECTURES, Weights
from workers.preprocessing import DEFAULT_BORDER, VERSION
from workers.trained_models import File, Gate, IntendedUse, Preprocessing, TrainedModel, write_folder
from workers.training import calibration, data, gate, metrics
from workers.training.data import Examples, Split

BATCH = 32
# Early and middle stages: the last one knows only what the classes need, and cannot tell a CT slice from a chest.
GATE_LAYERS = ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out")
GATE_COMPONENTS = 64
GATE_IMAGES = 1200
GATE_REFUSES = 0.005
GATE_MARGIN = 1.1
USE = IntendedUse(
    minimum_age=18,
    summary="Frontal (PA or AP) chest X-rays of adults: which show signs like those of COVID-19 pneumonia and should "
    "be read first. Research, not diagnosis. Trained on one public collection; not for children, CT or lateral views.",
)


@click.command()
@click.argument("trained", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--reference", required=True, type=click.Path(path_type=Path), help="where the float32 weights go")
@click.option("--name", default="covid-resnet50", show_default=True)
@click.option("--version", "version", default="1", show_default=True)
@click.option("--made-by", default="", help="the command that trained the weights, for the report")
def main(
    trained: Path, folders: tuple[Path, ...], out: Path, reference: Path, name: str, version: str, made_by: str
) -> None:
    """Calibrate, quantise, fit gate and threshold; write OUT (a trained model) and REFERENCE (float32 weights)."""
    model = _draft(name, version)
    sides = data.split(data.load(folders, model.classes, model.input_size))
    training, validation = sides[Split.TRAINING], sides[Split.VALIDATION]
    warm = load_file(trained)
    temperature = _temperature(model, run(model, weights.unpack(weights.pack(warm)), validation), validation)
    exact = calibration.cool(warm, temperature)
    packed = weights.pack(exact)
    served = weights.unpack(packed)
    judged = run(model, served, validation)
    fitted = gate.fit(run(model, served, data.draw(training, GATE_IMAGES)).features, GATE_COMPONENTS)
    limit = gate.limit(fitted, judged.features, GATE_REFUSES, GATE_MARGIN)
    out.mkdir(parents=True, exist_ok=True)
    save_file(exact, reference)
    model = replace(
        model,
        temperature=temperature,
        weights=_write(out, "weights.safetensors", packed),
        gate=Gate(_write(out, "gate.safetensors", vars(fitted)), GATE_LAYERS, limit),
    )
    report = _report(model, sides, judged, fitted, made_by)
    write_folder(out, model, report)
    click.echo(f"{out}: threshold {report['threshold']['value']:.4f}, gate limit {limit:.3f}", file=sys.stderr)


def run(model: TrainedModel, values: Weights, examples: Examples) -> Outputs:
    """Run all examples through the TensorFlow engine; the last maps are not kept."""
    loaded = engine.load(model, values, batch_size=BATCH)
    scores, features = [], []
    for start in range(0, len(examples), BATCH):
        outputs = engine.predict(loaded, examples.pixels[start : start + BATCH])
        scores.append(outputs.class_scores)
        features.append(outputs.features)
    return Outputs(np.concatenate(scores), np.empty((0, 0, 0, 0), np.float32), np.concatenate(features))


def flag_scores(model: TrainedModel, outputs: Outputs) -> NDArray[np.float64]:
    """Scores (N,) over the flag classes."""
    flagged = [name in model.flag_classes for name in model.classes]
    scores: NDArray[np.float64] = outputs.class_scores[:, flagged].sum(axis=1).astype(np.float64)
    return scores


def truth(model: TrainedModel, examples: Examples) -> metrics.Truth:
    """Whether each image's label is one that flags (N,)."""
    return np.isin(examples.labels, [model.classes.index(name) for name in model.flag_classes])


def _draft(name: str, version: str) -> TrainedModel:
    nothing = File("", "")
    return TrainedModel(
        name=name,
        version=version,
        architecture="resnet50",
        head="pooled256",
        classes=("normal", "covid"),
        flag_classes=("covid",),
        input_size=ARCHITECTURES["resnet50"].input_size,
        preprocessing=Preprocessing(VERSION, "exact", DEFAULT_BORDER),
        weights=nothing,
        encoding=weights.ENCODING,
        map_layer="conv5_block3_out",
        gate=Gate(nothing, GATE_LAYERS, float("inf")),
        intended_use=USE,
        temperature=1.0,
    )


def _temperature(model: TrainedModel, judged: Outputs, validation: Examples) -> float:
    scores = calibration.log_odds(flag_scores(model, judged))
    return calibration.fit_temperature(np.where(truth(model, validation), scores, -scores))


def _write(folder: Path, name: str, arrays: dict[str, NDArray[Any]]) -> File:
    content = save({key: np.ascontiguousarray(values) for key, values in arrays.items()})
    (folder / name).write_bytes(content)
    return File(name, hashlib.sha256(content).hexdigest())


def _report(
    model: TrainedModel, sides: dict[Split, Examples], judged: Outputs, fitted: Fit, made_by: str
) -> dict[str, Any]:
    validation = sides[Split.VALIDATION]
    wanted, scores = truth(model, validation), flag_scores(model, judged)
    threshold = metrics.sensitive_threshold(wanted, scores)
    figures = metrics.evaluate(wanted, scores, threshold)
    return {
        "made_by": made_by,
        "images": {
            side: {name: int(np.sum(examples.labels == i)) for i, name in enumerate(model.classes)}
            for side, examples in sides.items()
        },
        "threshold": {
            "value": threshold,
            "why": f"the highest at which the lower 95 % bound of sensitivity on {int(wanted.sum())} validation "
            f"positives is at least 0.95 (it is {figures['sensitivity'].low:.4f})",
        },
        "validation": {name: asdict(figure) for name, figure in figures.items()},
        "gate": {
            "limit": model.gate.limit,
            "why": f"{GATE_MARGIN} times the distance that {GATE_REFUSES:.1%} of validation chest X-rays pass",
            "validation_refused": float(np.mean(distances(fitted, judged.features) > model.gate.limit)),
        },
    }


if __name__ == "__main__":
    main()
