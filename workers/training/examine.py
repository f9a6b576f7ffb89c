"""Measure the model that ships on other sources than its own, and write what comes out into its report.

    python -m workers.training.examine FOLDER DATA

DATA holds `manifest.csv` (path, label, source) and its images: originals of `incoming`, children's chests, CT slices
and photographs, looked at once, after everything has been fitted. `nightread train` wrote the rest of the report.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from db.errors import UnreadableImage
from workers import gate, golden, trained_models, weights
from workers.preprocessing import Pixels
from workers.trained_models import TrainedModel
from workers.training import data, metrics, reports, ship
from workers.training.data import Examples

LIMITS = [
    "Trained on one public collection whose COVID-19 and normal images come from different hospitals: part of what "
    "tells them apart here will not at another site. Measure on your own images before relying on a threshold.",
    "Adults only; of children the figures under `children` are all there is, and they are out of range.",
    "Other pneumonias were not in training: many will be flagged.",
    "Images of one patient may be on both sides of a split: the collection does not say whose they are.",
    "The layers of the gate were chosen while looking at some of the CT slices and photographs that measure it; "
    "its parameters and limit come from chest X-rays alone, though a margin on the limit was given up after a look.",
    "The held-back tenth was looked at for version 1.0, twice while 1.1 was made, and once for 1.2; nothing was fitted "
    "to it.",
]


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--photographs", type=click.Path(exists=True, file_okay=False, path_type=Path), help="a folder of them")
def main(folder: Path, root: Path, photographs: Path | None) -> None:
    """Measure FOLDER's trained model on the unseen images of ROOT; write them into its report.json."""
    examiner = Examiner(folder, root)
    report = trained_models.read_report(folder) | {
        "sources": examiner.incoming(),
        "children": examiner.children(),
        "limits": LIMITS,
        "golden_score": examiner.golden_score(),
    }
    report["gate"]["refused"] |= examiner.refused(photographs)
    report = _below(report, root)
    reports.write(folder / "report.html", report, model=examiner.model)
    trained_models.write_folder(folder, examiner.model, report)
    click.echo(json.dumps(report, indent=1))


class Examiner:
    """One trained model, its 8-bit weights, and the pictures to measure it on."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.root = root
        self.model: TrainedModel = trained_models.load_folder(folder)
        self.values = weights.read(folder, self.model)
        self.fit = gate.Fit(**weights.unpack(weights.read_arrays(folder, self.model.gate.parameters)))
        self.threshold = trained_models.recommended_threshold(folder).value
        with (root / "manifest.csv").open(newline="") as lines:
            self.manifest = list(csv.DictReader(lines))

    def incoming(self) -> dict[str, Any]:
        """Originals of other sources: COVID-19 against the rest, then each source's rate of flags."""
        rows = self._rows("incoming/")
        scores, _ = self.run(self._pixels(rows))
        labels = np.array([row["label"] for row in rows])
        sources = np.array([f"{row['source']}: {row['label']}" for row in rows])
        covid = labels == "covid"
        apart = labels != "pneumonia"
        return {
            "covid against normal": self._figures(covid[apart], scores[apart]),
            "covid against normal and other pneumonia": self._figures(covid, scores),
            "flagged": {str(source): self._flagged(scores[sources == source]) for source in np.unique(sources)},
        }

    def children(self) -> dict[str, Any]:
        """Children's chests, which the intended use excludes: rates of flags and of refusals by the gate."""
        result = {}
        for label in ("normal", "bacterial_pneumonia", "viral_pneumonia"):
            scores, distances = self.run(self._pixels(self._rows(f"pneumonia/{label}/")[:150]))
            refused = asdict(self._refused(distances))
            result[label] = {"flagged": self._flagged(scores), "refused_by_gate": refused}
        return result

    def refused(self, photographs: Path | None) -> dict[str, Any]:
        """Shares that the gate refuses."""
        folders = {name: self._rows(f"{name}/") for name in ("incoming", "ct")}
        found = {name: self._pixels(rows) for name, rows in folders.items()}
        if photographs is not None:
            found["photographs"] = _stacked(self._read(path) for path in sorted(photographs.iterdir()))
        return {
            name: {"images": len(pixels), **asdict(self._refused(self.run(pixels)[1]))}
            for name, pixels in found.items()
        }

    def golden_score(self) -> float:
        """What a sound worker must give for the golden image; models made before `train` wrote it lack it."""
        return float(self.run(golden.picture(self.model.input_size)[None])[0][0])

    def run(self, pixels: NDArray[np.uint8]) -> tuple[metrics.Scores, NDArray[np.float64]]:
        """Scores (N,) and distances (N,) of (N, S, S)."""
        outputs = ship.run(self.model, self.values, Examples(pixels, np.zeros(len(pixels), np.int64), ()))
        return ship.flag_scores(self.model, outputs), gate.distances(self.fit, outputs.features)

    def _figures(self, truth: metrics.Truth, scores: metrics.Scores) -> dict[str, Any]:
        return {name: asdict(figure) for name, figure in metrics.evaluate(truth, scores, self.threshold).items()}

    def _flagged(self, scores: metrics.Scores) -> dict[str, Any]:
        return {"images": len(scores), **asdict(metrics.share(int((scores >= self.threshold).sum()), len(scores)))}

    def _refused(self, distances: NDArray[np.float64]) -> metrics.Figure:
        return metrics.share(int((distances > self.model.gate.limit).sum()), len(distances))

    def _rows(self, start: str) -> list[dict[str, str]]:
        rows = [row for row in self.manifest if row["path"].startswith(start)]
        return [row for row in rows if self._read(self.root / row["path"]) is not None]

    def _pixels(self, rows: list[dict[str, str]]) -> NDArray[np.uint8]:
        return _stacked(self._read(self.root / row["path"]) for row in rows)

    def _read(self, path: Path) -> Pixels | None:
        try:
            return data.prepared(path.read_bytes(), self.model.input_size)
        except UnreadableImage:
            return None


def _below(value: Any, root: Path) -> Any:
    """The same report with paths as they are below ROOT: where somebody kept the images is nobody's business."""
    if isinstance(value, dict):
        return {key: _below(inner, root) for key, inner in value.items()}
    if isinstance(value, list):
        return [_below(inner, root) for inner in value]
    return value.replace(f"{root.resolve()}/", "") if isinstance(value, str) else value


def _stacked(pictures: Iterable[Pixels | None]) -> NDArray[np.uint8]:
    return np.stack([picture for picture in pictures if picture is not None])


if __name__ == "__main__":
    main()
