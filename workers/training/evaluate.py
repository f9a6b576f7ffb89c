"""`nightread evaluate MODEL|active DATA...`: how good a trained model is on any labelled images.

Keras and what stands on it load when the command runs, not when the command line is read.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from db.errors import Unknown
from db.settings import settings
from db.store import models
from db.store.connection import database
from db.store.reading import printable
from db.words import Exit
from workers import devices, model_folders, trained_models

if TYPE_CHECKING:
    from workers.training.evaluation import Evaluation

NAMED = 10  # left-out files that stderr names; --json has them all


@dataclass(frozen=True)
class Served:
    """A trained model's folder with the threshold to judge it at, and whose threshold that is."""

    folder: Path
    label: str
    threshold: float
    why: str


@click.command()
@click.argument("model", metavar="MODEL|active")
@click.argument("paths", metavar="DATA...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--as", "renamed", multiple=True, metavar="FOLDER=CLASS", help="Which class a class folder counts as.")
@click.option("--held-back", is_flag=True, help="Only the tenth of DATA that never trains, by its content.")
@click.option("--html", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write a report with plots.")
@click.option("--thumbnails/--no-thumbnails", default=True, help="Show the worst mistakes' pictures in the report.")
@click.option("--device", default=None, help="cpu or gpu:N.  [default: the first there is]")
@click.option("--json", "is_json", is_flag=True, default=False, help="Data on stdout as JSON.")
def evaluate(
    model: str,
    paths: tuple[Path, ...],
    renamed: tuple[str, ...],
    held_back: bool,
    file: Path | None,
    thumbnails: bool,
    device: str | None,
    is_json: bool,
) -> int:
    """Judge MODEL on DATA: folders of class folders, or CSVs with the columns path,label[,patient][,split].

    MODEL is "active", a registered model's name ("NAME VERSION" or "NAME:VERSION"), or a trained model's folder.
    Images go through the readers, the preprocessing and the engine of screening. Figures come with 95 % intervals."""
    served = find(model)
    words = dict(_pair(text) for text in renamed)
    chosen = device or devices.devices()[0]
    try:
        devices.pin(chosen)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--device") from error
    done = _evaluate(served, paths, words, chosen, held_back=held_back)
    _warn(done, held_back=held_back)
    if file is not None:
        done.write_page(file, thumbnails=thumbnails)
        _say(f"report: {file}")
    if is_json:
        click.echo(json.dumps(done.as_json(), indent=2))
    else:
        _print(done, served.why)
    return Exit.DONE


def find(wanted: str) -> Served:
    """The trained model that "active", a name or a folder means. Raises Unknown and ModelRefused."""
    folder = Path(wanted)
    if wanted != "active" and (folder / "model.json").is_file():
        return _recommended(folder)
    if _has_database():
        view = models.named(database(), wanted)
        model_folders.checked(view)
        return Served(Path(view.folder), view.label, view.threshold, "the one that rules")
    if wanted != "active":
        raise Unknown(
            f"no trained model {wanted!r}: it is no trained model's folder, and there is no database yet that could "
            "know the name (`nightread init` makes one); `active` is the model that ships"
        )
    _say(f"there is no database at {settings().home} yet: this is the model that ships, at its recommended threshold")
    return _recommended(trained_models.SHIPPED)


def _recommended(folder: Path) -> Served:
    model = trained_models.load_folder(folder)
    threshold = trained_models.recommended_threshold(folder)
    return Served(folder, f"{model.name} {model.version}", threshold.value, "the one its report recommends")


def _has_database() -> bool:
    """Whether there is one to ask; SQLite would make an empty one."""
    config = settings()
    return bool(config.database_url) or (config.home / "nightread.db").is_file()


def _pair(text: str) -> tuple[str, str]:
    name, equals, label = text.rpartition("=")
    if not (name and equals and label):
        raise click.BadParameter(f"{text!r} is not FOLDER=CLASS", param_hint="--as")
    return name, label


def _evaluate(
    served: Served, paths: Sequence[Path], renamed: dict[str, str], device: str, *, held_back: bool
) -> "Evaluation":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if device == "cpu" else "2")  # that it saw no GPU is no news
    from workers.training import evaluation
    from workers.training.bars import counting

    model = trained_models.load_folder(served.folder)
    with counting("reading") as progress:
        labelled = evaluation.read(paths, model, renamed, held_back=held_back, progress=progress)
    with counting("scoring") as progress:
        return evaluation.evaluate(served.folder, served.threshold, labelled, device=device, progress=progress)


def _warn(done: "Evaluation", *, held_back: bool) -> None:
    for one in done.excluded[:NAMED]:
        _say(f"left out: {printable(str(one.path))}: {printable(one.why)}")
    if len(done.excluded) > NAMED:
        _say(f"left out: {len(done.excluded) - NAMED:,} more (--json lists them)")
    if done.seen:
        _say(
            f"WARNING: {done.seen:,} of these images trained {done.label} or chose its threshold: the figures flatter "
            "it; --held-back judges the others of its own collection"
        )
    elif done.seen is None and not held_back:
        _say(f"note: {done.label} does not say which images it was trained on; if these, the figures flatter it")


def _print(done: "Evaluation", why: str) -> None:
    told = done.as_json()
    counts = ", ".join(f"{images:,} {printable(name)}" for name, images in told["images"].items())
    click.echo(f"{done.label} at threshold {done.threshold:.4f} ({why}): {told['n']:,} images scored ({counts})")
    refused = ", ".join(f"{count:,} {printable(name)}" for name, count in told["rejected"].items() if count)
    if refused:
        click.echo(f"without a score, and in no figure: {refused} (not_chest: the gate took them for something else)")
    for name in ("auc", "sensitivity", "specificity", "accuracy", "precision", "f1"):
        click.echo(f"  {name:<12} {_figure(told[name])}")


def _figure(figure: dict[str, Any] | None) -> str:
    return "{value:.3f} ({low:.3f} to {high:.3f})".format(**figure) if figure else "not to be told from these images"


def _say(line: str) -> None:
    click.echo(line, err=True)
