"""How far a trained model's faster forms stray from float32, and what may run on that ground.

`parity.json` lies in the model's folder and tells, for each, how it scored the validation images beside the float32 of
the reference engine. What breaks a limit is not shipped, and does not run even where a setting asks for it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from db.errors import ModelRefused
from workers import trained_models
from workers.images import CODECS
from workers.trained_models import TrainedModel
from workers.two_stage import LEAST, MOST, Margin, log_odds

if TYPE_CHECKING:
    from workers.engines import Engine

AUTO, TWO_STAGE, INT8, FLOAT32 = "auto", "two_stage", "int8", "float32"
BFLOAT16, FLOAT16 = "bfloat16", "float16"  # OpenVINO's, on a CPU; XLA's, on a GPU: so a form names its engine, too
# What "auto" prefers. int8 alone runs only where it is asked for by name.
PREFERRED = (TWO_STAGE, BFLOAT16, FLOAT16, FLOAT32)
EXACT, REDUCED = "exact", "reduced"  # how files are decoded
LIMIT_P99 = 0.01  # of the difference of scores
BAND = 0.02  # around the threshold: decisions may differ within it, and nowhere else
GATE_BAND = 0.02  # likewise, as a share of the gate's limit
LEAST_IMAGES = 100  # fewer say nothing of one in a hundred
SAFETY = 1.5  # times the largest shortfall seen: the validation images are not all there are
NEAR = 0.5  # a distance of at least this share of the limit could matter to the gate


@dataclass(frozen=True)
class Looked:
    """What one form of a model says of N images: scores 0-1 over the flag classes, distances from chest X-rays."""

    scores: NDArray[np.float64]
    distances: NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """How one form's N scores compare with float32's: absolute differences, decisions that differ at the threshold
    (`flips_outside`: further from it than BAND), and the same of the gate's distances and limit."""

    p50: float
    p99: float
    largest: float
    auc_difference: float
    flips: int
    flips_outside: int
    gate_p99: float
    gate_largest: float
    gate_flips: int
    gate_flips_outside: int


def compare(wanted: Looked, found: Looked, truth: NDArray[np.bool_], *, threshold: float, limit: float) -> Agreement:
    """Compare a form with float32 on the same images; distances compare as shares of float32's."""
    apart = np.abs(found.scores - wanted.scores)
    differ = (found.scores >= threshold) != (wanted.scores >= threshold)
    gate_apart = np.abs(found.distances - wanted.distances) / wanted.distances
    gate_differ = (found.distances > limit) != (wanted.distances > limit)
    return Agreement(
        p50=float(np.quantile(apart, 0.5)),
        p99=float(np.quantile(apart, 0.99)),
        largest=float(apart.max()),
        auc_difference=_auc(truth, found.scores) - _auc(truth, wanted.scores),
        flips=int(differ.sum()),
        flips_outside=int((differ & (np.abs(wanted.scores - threshold) > BAND)).sum()),
        gate_p99=float(np.quantile(gate_apart, 0.99)),
        gate_largest=float(gate_apart.max()),
        gate_flips=int(gate_differ.sum()),
        gate_flips_outside=int((gate_differ & (np.abs(wanted.distances / limit - 1) > GATE_BAND)).sum()),
    )


def tail(wanted: Looked, found: Looked, limit: float) -> Margin:
    """The margin that covers every shortfall seen, with SAFETY: of scores where a threshold may lie, of distances
    where the gate's limit could."""
    mind = (wanted.scores >= LEAST) & (wanted.scores <= MOST)
    scores = log_odds(wanted.scores[mind]) - log_odds(found.scores[mind])
    near = wanted.distances >= NEAR * limit
    distances = 1 - found.distances[near] / wanted.distances[near]
    return Margin(*(SAFETY * float(max(short.max(initial=0.0), 0.0)) for short in (scores, distances)))


def refusal(agreement: Agreement) -> str | None:
    """Why a form with these figures may not run; None where it may."""
    return "; ".join(_broken(agreement)) or None


def _broken(agreement: Agreement) -> Iterator[str]:
    if not agreement.p99 <= LIMIT_P99:
        yield f"one score in a hundred differs by {agreement.p99:.4f} or more (at most {LIMIT_P99})"
    if agreement.flips_outside:
        yield f"{agreement.flips_outside} decisions differ further than {BAND} from the threshold"
    if agreement.gate_flips_outside:
        yield f"{agreement.gate_flips_outside} images are on the other side of the gate"


def told(agreement: Agreement) -> dict[str, Any]:
    """An agreement as the report holds it."""
    return {**asdict(agreement), "refused": refusal(agreement)}


def read(folder: Path, model: TrainedModel) -> dict[str, Any] | None:
    """The parity report of a folder that has one. Raises ModelRefused where it is altered or about other files."""
    if model.parity is None:
        return None
    try:
        report: dict[str, Any] = json.loads(trained_models.read_checked(folder, model.parity))
        about = (report["weights_sha256"], report["int8_sha256"])
        for mode, form in report["forms"].items():
            Agreement(**{name: form[name] for name in Agreement.__dataclass_fields__})
            _require_true(folder, mode, form)
        margin(report)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelRefused(f"{folder}/{model.parity.file} is no parity report: {error!r}") from error
    if about != (model.weights.sha256, None if model.int8 is None else model.int8.sha256):
        raise ModelRefused(f"{folder}/{model.parity.file} is about other weights: run `nightread models optimize`")
    return report


def _require_true(folder: Path, mode: str, form: dict[str, Any]) -> None:
    """The figures decide, not what the report says of them."""
    figures = Agreement(**{name: form[name] for name in Agreement.__dataclass_fields__})
    if refusal(figures) and not form["refused"]:
        raise ModelRefused(f"{folder}: the parity report allows {mode} against its own figures: {refusal(figures)}")


def margin(report: dict[str, Any]) -> Margin:
    """The margin of the two stages, from a report."""
    found = Margin(**{name: float(value) for name, value in report["margin"].items()})
    if not (0 <= found.log_odds < np.inf and 0 <= found.distance <= 1):
        raise ValueError("the margin is no distance")
    return found


def golden_score(report: Mapping[str, Any] | None, precision: str) -> float | None:
    """What the golden image gives at a precision other than float32, where the report tells."""
    form = (report or {}).get("forms", {}).get(precision)
    return None if form is None or form.get("golden_score") is None else float(form["golden_score"])


def why_not(report: dict[str, Any] | None, mode: str) -> str | None:
    """Why a mode may not run on the ground of a report; None where it may. float32 always may."""
    if mode == FLOAT32:
        return None
    if report is None:
        return "it has no parity report: `nightread models optimize` makes one"
    form = report["forms"].get(mode)
    if form is None:
        return f"its parity report does not tell of {mode}"
    return None if form["refused"] is None else str(form["refused"])


def chosen(report: dict[str, Any] | None, setting: str, engine: "Engine") -> str:
    """The mode under the setting PRECISION: a precision, or TWO_STAGE. Raises ModelRefused for one that the report does
    not allow or the engine does not do here."""
    if setting == AUTO:
        return next(mode for mode in PREFERRED if why_not(report, mode) is None and _does(engine, mode))
    if why := why_not(report, setting):
        raise ModelRefused(f"NIGHTREAD_PRECISION={setting} is not for this model: {why}")
    if not _does(engine, setting):
        raise ModelRefused(f"NIGHTREAD_PRECISION={setting} cannot be had on this machine's engine: let it be auto")
    return setting


def reduced_form(codec: str) -> str:
    """The name in a report of what is seen of files that one codec decodes at a reduced size."""
    return f"{REDUCED}_{codec}"


def reductions(report: dict[str, Any] | None, setting: str) -> tuple[str, ...]:
    """The codecs that decode at a reduced size under the setting DECODE: those that the report allows. Raises
    ModelRefused where the setting asks for it and the report allows none."""
    if setting == EXACT:
        return ()
    why = {codec: why_not(report, reduced_form(codec)) for codec in CODECS}
    allowed = tuple(codec for codec in CODECS if why[codec] is None)
    if setting == REDUCED and not allowed:
        said = "; ".join(f"{codec}: {reason}" for codec, reason in why.items())
        raise ModelRefused(f"NIGHTREAD_DECODE=reduced is not for this model: {said}")
    return allowed


def _does(engine: "Engine", mode: str) -> bool:
    return engine.can(INT8 if mode == TWO_STAGE else mode)


def _auc(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties half."""
    positive, negative = np.sort(scores[truth]), np.sort(scores[~truth])
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(below.sum() / (2 * len(positive) * len(negative)))
