"""Shortcut audit: could the model have found the answer where no illness shows?

Probes learn the classes from what must not tell them apart: the outer frame alone, an 8 x 8 thumbnail, the file's
bytes, width, height and format. They train on the images that trained the model and are judged on those that judge
it. The model itself is judged once more with the frame blanked, and with the lungs blanked. A frame or file probe
nearly as good as the model means that what the model learned cannot be told from a shortcut (after Zech et al. 2018
and DeGrave et al. 2021). The thumbnail and the blanked pictures are to be read, not to be passed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from workers import images
from workers.activation import MARGIN
from workers.training import metrics
from workers.training.examples import Examples, draw

Pictures = NDArray[np.uint8]  # (N, S, S)
Score = Callable[[Pictures], NDArray[np.floating]]  # (N, S, S) -> (N,): over the flag classes, 0-1
Features = NDArray[np.float64]  # (N, F)

FRAME = 0.12  # of each side: what counts as the outer frame of a picture
GRID = 50  # the frame is seen in cells of a fiftieth of the side: six of them are the frame
THUMBNAIL = 8
# Where the lungs lie in a frontal chest X-ray that fills the picture: centre and half axes, in shares of the side.
LUNGS = (((0.30, 0.48), (0.17, 0.34)), ((0.70, 0.48), (0.17, 0.34)))
FEWEST = 10  # images of a kind, below which nothing can be judged
MOST = 4000  # training images that a probe learns from
FORMATS = tuple(reader.name for reader in images.READERS)
TREES = 300
SEED = 1
SUSPECTS = {"frame": "the outer frame alone", "file": "the file alone (bytes, width, height, format)"}


@dataclass(frozen=True)
class Probe:
    """What a probe sees of images: a name, and features (N, F)."""

    name: str
    see: Callable[[Examples], Features]


def audit(training: Examples, judged: Examples, flags: Sequence[int], score: Score) -> dict[str, Any]:
    """Give the report's `audit`: AUC of the model, of the probes, and of the model with parts blanked.

    `flags` are the labels that count as positive; `score` runs the model. With fewer than ten images of either
    kind to learn from or to judge by there is only a verdict that says so. A file probe needs `facts` of the images.
    """
    learned, truth = np.isin(training.labels, flags), np.isin(judged.labels, flags)
    fewest = min(int((kind == side).sum()) for kind in (learned, truth) for side in (True, False))
    if fewest < FEWEST:
        verdict = f"Not enough images to judge: {fewest} of one kind, {FEWEST} are needed on each side."
        return {"images": len(judged), "verdict": verdict}
    seen = draw(training, MOST)
    found = {"model": metrics.auc(truth, _scores(score, judged.pixels))}
    for probe in PROBES:
        if probe.name != "file" or _has_facts(seen, judged):
            found[probe.name] = metrics.auc(truth, _probe(probe, seen, np.isin(seen.labels, flags), judged))
    size = judged.pixels.shape[1]
    for name, part in (("frame_blanked", frame(size)), ("lungs_blanked", lungs(size))):
        found[name] = metrics.auc(truth, _scores(score, blanked(judged.pixels, part)))
    return {**metrics.as_json(found), "images": len(judged), "verdict": verdict_on(found)}


def verdict_on(found: dict[str, metrics.Figure]) -> str:
    """Say in words whether a probe comes near the model."""
    model = found["model"].value
    near = [name for name in SUSPECTS if name in found and round(model - found[name].value, 9) < MARGIN]
    if near:
        said = " and ".join(f"{SUSPECTS[name]} (AUC {found[name].value:.3f})" for name in near)
        return (
            f"Suspicious: {said} {'tell' if len(near) > 1 else 'tells'} the images apart about as well as the model "
            f"does (AUC {model:.3f}), so good figures here may come from a shortcut."
        )
    seen = " and ".join(f"{SUSPECTS[name]} {found[name].value:.3f}" for name in SUSPECTS if name in found)
    unseen = "" if "file" in found else " The files themselves were not audited."
    return f"No probe comes within {MARGIN} of the model's AUC {model:.3f}: {seen}.{unseen}"


def frame(size: int) -> NDArray[np.bool_]:
    """The outer 12 % of a picture (S, S)."""
    width = round(size * FRAME)
    part = np.ones((size, size), bool)
    part[width:-width, width:-width] = False
    return part


def lungs(size: int) -> NDArray[np.bool_]:
    """Two fixed ellipses over the lungs of a picture (S, S)."""
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size
    inside = [((columns - x) / across) ** 2 + ((rows - y) / up) ** 2 <= 1 for (x, y), (across, up) in LUNGS]
    part: NDArray[np.bool_] = np.logical_or(*inside)
    return part


def blanked(pixels: Pictures, part: NDArray[np.bool_]) -> Pictures:
    """Fill `part` (S, S) of every picture with the mean grey of its rest: nothing of the part is left, and no edge
    is stranger than it must be."""
    means = pixels[:, ~part].mean(axis=1).round().astype(np.uint8)
    return np.where(part, means[:, None, None], pixels)


def _frame_features(examples: Examples) -> Features:
    """Cells of the frame, and of each of its four strips mean, spread, share of black and of white, and detail."""
    size = examples.pixels.shape[1]
    width, grid = round(size * FRAME), min(GRID, size)
    outside = np.where(frame(size), examples.pixels, np.uint8(0))
    cells = np.stack([_shrunk(picture, grid)[frame(grid)] for picture in outside])
    strips = [np.s_[:, :width], np.s_[:, -width:], np.s_[:, :, :width], np.s_[:, :, -width:]]
    said = [_strip_features(examples.pixels[strip]) for strip in strips]
    return np.concatenate([cells, *said], axis=1)


def _strip_features(strip: Pictures) -> Features:
    grey = strip.reshape(len(strip), -1).astype(np.float64)
    steps = np.abs(np.diff(strip.astype(np.int16), axis=2)).reshape(len(strip), -1)
    columns = [
        grey.mean(1),
        grey.std(1),
        (grey <= 5).mean(1),
        (grey >= 250).mean(1),
        steps.mean(1),
        (steps > 40).mean(1),
    ]
    return np.stack(columns, axis=1)


def _thumbnail_features(examples: Examples) -> Features:
    return np.stack([_shrunk(picture, THUMBNAIL).ravel() for picture in examples.pixels])


def _file_features(examples: Examples) -> Features:
    """Bytes, width, height, their ratios, and the format as a number for each name there may be."""
    rows = []
    for facts in examples.facts:
        if facts is None:
            rows.append([-1.0] * (6 + len(FORMATS)))
            continue
        area = max(facts.width * facts.height, 1)
        shape = [facts.bytes, facts.width, facts.height, area, facts.width / max(facts.height, 1), facts.bytes / area]
        rows.append([*map(float, shape), *(float(facts.format == name) for name in FORMATS)])
    return np.array(rows)


PROBES = (Probe("frame", _frame_features), Probe("thumbnail", _thumbnail_features), Probe("file", _file_features))


def _shrunk(picture: NDArray[np.uint8], size: int) -> NDArray[np.float64]:
    return cv2.resize(picture.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA).astype(np.float64)


def _has_facts(*sides: Examples) -> bool:
    """Whether most files on every side are known."""
    return all(2 * sum(facts is not None for facts in side.facts) > len(side) for side in sides)


def _probe(probe: Probe, training: Examples, learned: metrics.Truth, judged: Examples) -> metrics.Scores:
    """Scores (N,) of a probe: trees see "exactly 1024 wide", the linear half what is spread over many cells."""
    trees = ExtraTreesClassifier(TREES, min_samples_leaf=2, random_state=SEED, class_weight="balanced")
    line = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500, class_weight="balanced"))
    both = VotingClassifier([("trees", trees), ("line", line)], voting="soft")
    with threadpool_limits(1):  # threads add up in another order each time, and these matrices are small
        both.fit(probe.see(training), learned)
        scores: metrics.Scores = both.predict_proba(probe.see(judged))[:, 1].astype(np.float64)
    return scores


def _scores(score: Score, pixels: Pictures) -> metrics.Scores:
    return np.asarray(score(pixels), np.float64)
