"""Make a trained model's int8 form and measure every faster form beside float32 (needs OpenVINO and NNCF).

NNCF's post-training quantisation sees training images alone, as many of each class, prepared as scoring prepares
them; the parity report is about validation images; the held-back tenth is not looked at.
"""

import hashlib
import json
import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from db.errors import DataRefused, Refused
from workers import engines, gate, golden, parity, trained_models, weights
from workers.images import CODECS
from workers.networks import Weights, quantised
from workers.networks.openvino_graph import GREY, serving_graph
from workers.openvino_runtime import openvino
from workers.parity import BFLOAT16, FLOAT16, FLOAT32, INT8, TWO_STAGE, Agreement, Looked
from workers.reduced import MOST
from workers.trained_models import File, TrainedModel
from workers.training import data, reduced_forms
from workers.training.data import Examples, Split
from workers.two_stage import needs_second

BATCH = 16
IMAGES = 300  # to calibrate with: NNCF's own default
# Not rounded: the head, which decides and costs nothing, and the first convolution, whose kernel was most of int8's
# error (covid-resnet50 1.2: p99 0.077 with it, 0.051 without) for nothing in time that could be measured.
HEAD = ("hidden/kernel*", "scores/kernel*", "pooled", "flat")
INT8_FILE, PARITY_FILE = "int8.safetensors", "parity.json"


@dataclass(frozen=True)
class Optimised:
    """What was made of a trained model: the int8 form's file and the parity report, which names its hash."""

    int8: bytes
    parity: dict[str, Any]

    @property
    def allowed(self) -> list[str]:
        """The forms that the report allows."""
        return [mode for mode, form in self.parity["forms"].items() if form["refused"] is None]


@dataclass(frozen=True)
class Bench:
    """A trained model on the bench: everything that one of its forms is looked at with."""

    model: TrainedModel
    weights: Weights
    fit: gate.Fit
    threshold: float
    threads: int

    @classmethod
    def of(cls, folder: Path, *, threads: int) -> "Bench":
        """Raises ModelRefused."""
        model = trained_models.load_folder(folder)
        fit = gate.Fit(**weights.unpack(weights.read_arrays(folder, model.gate.parameters)))
        threshold = trained_models.recommended_threshold(folder).value
        return cls(model, weights.read(folder, model), fit, threshold, threads)

    def look(self, pixels: NDArray[np.uint8], name: str, precision: str, values: Weights) -> Looked:
        """What the model says of (N, S, S) uint8 on an engine at a precision."""
        module = engines.module(name)
        running = module.load(self.model, values, batch_size=BATCH, precision=precision, threads=self.threads)
        flagged = [one in self.model.flag_classes for one in self.model.classes]
        passes = [module.predict(running, pixels[at : at + BATCH]) for at in range(0, len(pixels), BATCH)]
        scores = np.concatenate([one.class_scores[:, flagged].sum(axis=1) for one in passes])
        features = np.concatenate([one.features for one in passes])
        return Looked(np.minimum(scores.astype(np.float64), 1.0), gate.distances(self.fit, features))

    def truth(self, examples: Examples) -> NDArray[np.bool_]:
        """Whether each image's label is one that flags."""
        return np.isin(examples.labels, [self.model.classes.index(name) for name in self.model.flag_classes])


def optimise(
    folder: Path,
    paths: list[Path],
    *,
    images: int = IMAGES,
    spare: tuple[str, ...] = (),
    threads: int,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Optimised:
    """Quantise a folder's model and measure its forms; writes nothing. `spare` are patterns of layers that keep float32
    in the int8 form.

    Raises ModelRefused, DataRefused where there are too few images to tell, Refused where NNCF is not installed.
    """
    nncf = _nncf()
    bench = Bench.of(folder, threads=threads)
    collection = data.read(paths, bench.model.input_size, classes=bench.model.classes, progress=progress)
    sides, _ = data.training_sides(collection)
    training, validation = sides[Split.TRAINING], sides[Split.VALIDATION]
    if len(validation) < parity.LEAST_IMAGES:
        raise DataRefused(
            f"{len(validation)} validation images tell nothing of one score in a hundred: give at least "
            f"{parity.LEAST_IMAGES} (a seventh of all images validates)"
        )
    shown = balanced(training, images)
    say(f"calibrating int8 on {len(shown)} training images")
    ranges = quantise(nncf, bench, shown.pixels, spare)
    stored = save({name: np.ascontiguousarray(values) for name, values in ranges.items()})
    say(f"measuring every form on {len(validation)} validation images")
    report = {
        "model": f"{bench.model.name} {bench.model.version}",
        "weights_sha256": bench.model.weights.sha256,
        "int8_sha256": hashlib.sha256(stored).hexdigest(),
        "calibration": {"images": len(shown), "side": "training", "float32_layers": list(spare)},
        "versions": {name: metadata.version(name) for name in ("openvino", "nncf", "tensorflow") if _has(name)},
        **measure(bench, validation, ranges),
    }
    return Optimised(stored, report)


def balanced(examples: Examples, count: int) -> Examples:
    """Up to `count` images, as many of each class as there are; the same ones every time."""
    rng = np.random.default_rng(1)
    labels = np.unique(examples.labels)
    each = max(1, count // len(labels))
    chosen = [rng.permutation(np.flatnonzero(examples.labels == label))[:each] for label in labels]
    return data.take(examples, np.concatenate(chosen))


def quantise(nncf: ModuleType, bench: Bench, pixels: NDArray[np.uint8], spare: tuple[str, ...]) -> quantised.Ranges:
    """The ranges of the int8 form by NNCF, seeing (N, S, S) uint8. The accurate bias correction halves what scores
    move (measured on covid-resnet50 1.2: p99 0.072 instead of 0.158)."""
    from nncf.openvino.quantization.backend_parameters import BackendParameters

    nncf.set_log_level(logging.ERROR)
    graph = serving_graph(bench.model, bench.weights)
    with redirect_stdout(sys.stderr):  # NNCF draws its bars on stdout, where the command's data goes
        done = nncf.quantize(
            graph,
            nncf.Dataset([one[None, ..., None] for one in pixels]),
            subset_size=len(pixels),
            fast_bias_correction=False,
            ignored_scope=nncf.IgnoredScope(patterns=[*map(_exactly, (*HEAD, _first(graph))), *spare], validate=False),
            # Stored are ranges; OpenVINO rounds the weights itself when it compiles.
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                backend_params={BackendParameters.COMPRESS_WEIGHTS: False}
            ),
        )
    return quantised.found_in(done, serving_graph(bench.model, bench.weights))


def measure(bench: Bench, validation: Examples, ranges: quantised.Ranges) -> dict[str, Any]:
    """The part of the parity report that is figures: each form beside float32 of TensorFlow, or of OpenVINO where
    TensorFlow is not installed."""
    reference = "tensorflow" if engines.is_installed("tensorflow") else "openvino"
    at_int8 = weights.at_int8(bench.weights, ranges)
    pixels = np.concatenate([validation.pixels, golden.picture(bench.model.input_size)[None]])
    wanted = bench.look(pixels, reference, FLOAT32, bench.weights)
    forms = {
        FLOAT32: bench.look(pixels, "openvino", FLOAT32, bench.weights),
        **({BFLOAT16: bench.look(pixels, "openvino", BFLOAT16, bench.weights)} if _can(BFLOAT16) else {}),
        # What a GPU runs, compiled for this CPU: convolutions add up in float32 on either, and give float16.
        **({FLOAT16: bench.look(pixels, "tensorflow", FLOAT16, bench.weights)} if reference == "tensorflow" else {}),
        INT8: bench.look(pixels, "openvino", INT8, at_int8),
    }
    golden_scores = {name: float(form.scores[-1]) for name, form in forms.items()}
    wanted, forms = _without_last(wanted), {name: _without_last(form) for name, form in forms.items()}
    limit, truth = bench.model.gate.limit, bench.truth(validation)
    margin = parity.tail(wanted, forms[INT8], limit)
    again = needs_second(forms[INT8].scores, forms[INT8].distances, bench.threshold, limit, margin)
    forms[TWO_STAGE] = Looked(*(np.where(again, exact, fast) for exact, fast in _pairs(forms[FLOAT32], forms[INT8])))
    compared = {
        name: parity.compare(wanted, form, truth, threshold=bench.threshold, limit=limit)
        for name, form in forms.items()
    }
    small, told = _reduced(bench, validation)
    return {
        "reduced": told,
        "reference": {"engine": reference, "precision": FLOAT32},
        "threshold": bench.threshold,
        "validation": {"images": len(validation), "positives": int(truth.sum())},
        "limits": {"p99": parity.LIMIT_P99, "band": parity.BAND, "gate_band": parity.GATE_BAND},
        "margin": asdict(margin),
        "second_looks": {"all": float(again.mean()), "without_finding": float(again[~truth].mean())},
        "forms": {
            name: {**parity.told(found), "golden_score": golden_scores.get(name)}
            for name, found in (compared | small).items()
        },
    }


def _reduced(bench: Bench, validation: Examples) -> tuple[dict[str, Agreement], dict[str, Any]]:
    """How what is seen of files decoded at a reduced size compares with the same files decoded whole, at float32 of
    OpenVINO; and on what that was measured. A codec of too few such files is left out, and so not used."""
    shown = balanced(validation, reduced_forms.IMAGES)
    found, told = dict[str, Agreement](), dict[str, Any]()
    for codec in CODECS:
        whole, small, numbers = reduced_forms.pairs(shown.pixels, codec)
        told[codec] = {"images": len(shown), "reduced": len(numbers)}
        if len(numbers) >= parity.LEAST_IMAGES:
            wanted, seen = (bench.look(pixels, "openvino", FLOAT32, bench.weights) for pixels in (whole, small))
            truth, limit = bench.truth(data.take(shown, numbers)), bench.model.gate.limit
            agreement = parity.compare(wanted, seen, truth, threshold=bench.threshold, limit=limit)
            found[parity.reduced_form(codec)] = agreement
    return found, {**told, "grain": reduced_forms.GRAIN, "sides": reduced_forms.SIDES, "factor": MOST}


def _pairs(exact: Looked, fast: Looked) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]:
    return (exact.scores, fast.scores), (exact.distances, fast.distances)


def _without_last(looked: Looked) -> Looked:
    return Looked(looked.scores[:-1], looked.distances[:-1])


def shipped(model: TrainedModel, made: Optimised) -> tuple[TrainedModel, Mapping[str, bytes]]:
    """The model as `model.json` names it with its new files, and these."""
    report = (json.dumps(made.parity, indent=1, ensure_ascii=False) + "\n").encode()
    files = {INT8_FILE: made.int8, PARITY_FILE: report}
    named = {name: File(name, hashlib.sha256(content).hexdigest()) for name, content in files.items()}
    return replace(model, int8=named[INT8_FILE], parity=named[PARITY_FILE]), files


def _can(precision: str) -> bool:
    return engines.module("openvino").can(precision)


def _first(graph: openvino.Model) -> str:
    """The first convolution."""
    (grey,) = [node for node in graph.get_ops() if node.get_friendly_name() == GREY]
    return str(next(iter(grey.output(0).get_target_inputs())).get_node().get_friendly_name())


def _exactly(name: str) -> str:
    return name.replace("*", r"\*")


def _has(name: str) -> bool:
    return engines.is_installed(name)


def _nncf() -> ModuleType:
    if not _can(INT8):
        raise Refused("this processor does not compute at int8: optimise the model on one with VNNI or AMX")
    try:
        import nncf
    except ImportError as error:
        raise Refused("NNCF is not installed here: pip install 'nightread[optimize]'") from error
    return nncf  # type: ignore[no-any-return]
