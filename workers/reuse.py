"""Not computed twice: what a worker of the same recipe once computed of the same pixels, or of the same content, is
taken as it is where it stands and nobody is going to look at it. Whatever needs pictures is computed as ever."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from db.errors import UnreadableImage
from db.store import reuse
from db.store.reuse import Standing
from db.store.scoring import Made, Rejected, Result, Scored, WaitingScan
from db.words import Kind, Reason
from workers.decoding import Prepared as Decoded
from workers.decoding import Source
from workers.preprocessing import versions
from workers.shift import Loaded, Shift
from workers.trained_models import TrainedModel
from workers.two_stage import Margin, TwoStage

if TYPE_CHECKING:
    from workers.scoring import Prediction

Ready = tuple[WaitingScan, Decoded]
SAID_FIRST = "int8_score"  # in the evidence of what the second of two stages decided: what the first had said


@lru_cache(64)
def recipe(model: TrainedModel, engine: str, precision: str, margin: Margin | None = None) -> str:
    """SHA-256 over all that a result depends on beside the pixels: weights, design, classes, gate, preprocessing, the
    engine, its precision and our release, but not the model's name; for int8 also its ranges, and of the first of two
    stages (`margin`) how much it was let decide."""
    said: list[Any] = [
        version("nightread"),
        [engine, precision],
        [model.architecture, model.head, model.encoding, model.map_layer, model.input_size],
        [model.classes, model.flag_classes],
        model.weights.sha256,
        model.int8.sha256 if precision == "int8" and model.int8 is not None else None,
        None if margin is None else asdict(margin),
        [model.gate.parameters.sha256, model.gate.layers, model.gate.limit],
        asdict(model.preprocessing),
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def made(loaded: Loaded, decoded: Decoded, prediction: "Prediction") -> Made:
    """What a prediction came of."""
    by, is_first = prediction.made_by or loaded.scorer.describe(), prediction.holds_from is not None
    return Made(decoded.pixels_sha256, decoded.evidence.preprocessing, _recipe(loaded, by, is_first=is_first))


def by_content(hand: Shift, loaded: Loaded, scans: Sequence[WaitingScan]) -> dict[int, Standing]:
    """By scan, what stands of files of the same content: these need not even be decoded. One question a chunk."""
    youngest = loaded.view.minimum_age or 0.0
    plain = (scan for scan in scans if scan.drawn is None and not scan.is_younger_than(youngest))
    asked = {scan.id: scan.sha256 for scan in plain if scan.sha256}
    if not asked:
        return {}
    found = reuse.of_content(
        hand.db, loaded.view.id, set(asked.values()), recipes=_recipes(loaded), versions=versions(loaded.reduce)
    )
    return {scan_id: found[sha256] for scan_id, sha256 in asked.items() if sha256 in found}


def confirmed(hand: Shift, scan: WaitingScan, standing: Standing) -> Scored | Rejected:
    """What stands, for this scan, once its file has been read and hashes to what was submitted. Raises
    RootUnavailable."""
    started = time.perf_counter()
    try:
        hand.decoders.verify(Source(scan.root, scan.path, scan.sha256 or ""))
    except UnreadableImage as error:
        return Rejected(scan.id, error.code, error.detail)
    return _taken(scan, standing, standing.evidence, time.perf_counter() - started)


def split(hand: Shift, loaded: Loaded, ready: Sequence[Ready]) -> tuple[list[Result], list[Ready]]:
    """A chunk's decoded scans: results for those of whose pixels something stands, and the others. One question."""
    started = time.perf_counter()
    digests = {decoded.pixels_sha256 for scan, decoded in ready if scan.drawn is None}
    found = reuse.of_pixels(hand.db, loaded.view.id, digests, recipes=_recipes(loaded)) if digests else {}
    share = (time.perf_counter() - started) / max(len(ready), 1)
    known: list[Result] = []
    others: list[Ready] = []
    for scan, decoded in ready:
        standing = found.get((decoded.pixels_sha256, decoded.evidence.preprocessing)) if scan.drawn is None else None
        if standing is None:
            others.append((scan, decoded))
        else:
            said = {name: value for name, value in standing.evidence.items() if name == SAID_FIRST}
            known.append(_taken(scan, standing, asdict(decoded.evidence) | said, share + decoded.seconds))
    return known, others


def _taken(scan: WaitingScan, standing: Standing, evidence: dict[str, Any], seconds: float) -> Scored | Rejected:
    if standing.kind != Kind.SCORED:
        return Rejected(scan.id, Reason.NOT_CHEST, standing.detail, standing.made, standing.outcome_id)
    return Scored(
        scan_id=scan.id,
        score=standing.score,
        class_scores=standing.class_scores,
        evidence=evidence,
        engine=standing.engine,
        precision=standing.precision,
        device=standing.device,
        seconds=seconds,
        holds_from=standing.holds_from,
        made=standing.made,
        reused_from=standing.outcome_id,
    )


def _recipes(loaded: Loaded) -> set[str]:
    """Whose results this worker may take for its own: of two stages, either's."""
    if isinstance(loaded.scorer, TwoStage):
        first, second = loaded.scorer.first.describe(), loaded.scorer.second.describe()
        return {_recipe(loaded, first, is_first=True), _recipe(loaded, second, is_first=False)}
    return {_recipe(loaded, loaded.scorer.describe(), is_first=False)}


def _recipe(loaded: Loaded, by: dict[str, str], *, is_first: bool) -> str:
    scorer = loaded.scorer
    margin = scorer.margin if is_first and isinstance(scorer, TwoStage) else None
    return recipe(scorer.model, by["engine"], by["precision"], margin)
