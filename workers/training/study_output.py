"""What a study leaves: a Markdown table, a results file that can be checked, and sentences on how to read them."""

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from workers import preprocessing
from workers.training.metrics import Figure
from workers.training.study_draws import Pool
from workers.training.study_protocol import Protocol

LIBRARIES = ("nightread", "keras", "tensorflow", "jax", "numpy", "opencv-python-headless")
INTERVALS = (
    "Intervals are of 95 %. Over the repeats: t-interval of the mean, its variance enlarged for overlapping training "
    "sets (Nadeau and Bengio 2003). Over the images: bootstrap that draws test images, each with all its scores."
)


def made_by(protocol: Protocol, seconds: float) -> dict[str, Any]:
    """The exact command, versions and choices of a run."""
    return {
        "command": shlex.join(["nightread", *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
        "preprocessing": preprocessing.VERSION,
        "protocol": {name: value for name, value in asdict(protocol).items() if name != "cache"},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None  # another framework than TensorFlow, say


def about(pool: Pool, collection: str) -> dict[str, Any]:
    """The data of a run, without a name of any file."""
    counts = [int((pool.examples.labels == label).sum()) for label in range(len(pool.classes))]
    return {
        "collection": collection or "not named (--collection)",
        "classes": list(pool.classes),
        "usable": dict(zip(pool.classes, counts, strict=True)),
        "held_back_and_untouched": pool.held_back,
        "left_out": pool.left_out,
    }


def plain(figure: Figure) -> dict[str, float]:
    """A figure for JSON: four digits are more than any of them carries."""
    return {name: round(value, 4) for name, value in asdict(figure).items()}


def percent(figure: Mapping[str, float]) -> str:
    """`91.2 (88.0 to 94.1)`."""
    return f"{100 * figure['value']:.1f} ({100 * figure['low']:.1f} to {100 * figure['high']:.1f})"


def fraction(figure: Mapping[str, float]) -> str:
    """`0.912 (0.880 to 0.941)`."""
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of texts."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))


def document(title: str, result: Mapping[str, Any], tables: Sequence[str], notes: Sequence[str]) -> str:
    """The whole Markdown page: what was run on what, the tables, how to read them."""
    data = result["data"]
    usable = ", ".join(f"{count:,} {name}" for name, count in data["usable"].items())
    return "\n\n".join(
        [
            f"# {title}",
            f"Images: {data['collection']} ({usable} usable; the held-back tenth, {data['held_back_and_untouched']:,} "
            f"images, was not touched; {data['left_out']:,} copies or unreadable files left out). "
            f"Seconds: {result['made_by']['seconds']:,.0f}.",
            _protocol(result["made_by"]["protocol"]),
            f"    {result['made_by']['command']}",
            *tables,
            "\n".join(f"- {note}" for note in notes),
        ]
    )


def _protocol(chosen: Mapping[str, Any]) -> str:
    copies = (
        f"{chosen['copies']} augmented copies ({chosen['augmentation']})" if chosen["copies"] else "no augmentation"
    )
    return (
        f"Base frozen, at {chosen['precision']}; head {chosen['head']}; {chosen['epochs']} epochs of Adam at "
        f"{chosen['learning_rate']:g}, {chosen['batch_size']} images a step; {copies}; {chosen['repeats']} repeats; "
        f"seed {chosen['seed']}."
    )


def write(folder: Path, page: str, result: Mapping[str, Any]) -> None:
    """Write STUDY.md and STUDY.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{result['study']}.md").write_text(page + "\n", "utf-8")
    (folder / f"{result['study']}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
