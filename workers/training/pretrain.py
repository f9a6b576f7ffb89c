"""`nightread pretrain`: a backbone from chest X-rays instead of ImageNet (R24, the paper's own outlook).

Where DATA has class folders (or is a CSV) the task is to name the findings, of any number of classes. Unlabelled
images are turned by 0, 90, 180 or 270 degrees and the task is to say by how much (Gidaris, Singh and Komodakis 2018):
the simplest known task without labels that needs no large batches and so runs on a CPU. To know which way up a chest
is, a network must find heart, diaphragm and shoulders; it learns less of disease than findings teach, so give labels
if there are any. The held-back tenth of DATA takes no part.

The file (safetensors) holds the folded base without a head; its metadata say what made it.
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from safetensors import SafetensorError, safe_open

from db.errors import ModelRefused
from db.words import Exit

if TYPE_CHECKING:
    from workers.networks import Weights

KIND = "nightread backbone 1"
STAGES = ("96:12:5e-4", "160:3:2e-4")
TASKS = ("auto", "labels", "rotation")


def load_backbone(path: Path) -> "tuple[str, Weights]":
    """Read a file that `pretrain` wrote: its architecture, and the folded base's weights without a head.

    Raises ModelRefused where it is something else.
    """
    made = provenance(path)
    with safe_open(path, framework="numpy") as file:
        return made["architecture"], {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def provenance(path: Path) -> dict[str, Any]:
    """What made a backbone: architecture, task, classes, counts, command, seed, hashes. Raises ModelRefused."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelRefused(f"{path} is not a safetensors file: {error}") from error
    if metadata.get("kind") != KIND:
        raise ModelRefused(f"{path} is not a backbone that `nightread pretrain` wrote")
    made: dict[str, Any] = json.loads(metadata["made"])
    return made


@click.command()
@click.argument("folders", metavar="DATA...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The backbone's file.")
@click.option("--architecture", default="resnet50", show_default=True)
@click.option("--weights", "source", default="none", show_default=True, help="Start from none, imagenet or a file.")
@click.option(
    "--task",
    type=click.Choice(TASKS),
    default="auto",
    show_default=True,
    help="auto: labels where every DATA has class folders, else rotation.",
)
@click.option("--stage", "stages", multiple=True, default=STAGES, show_default=True, help="SIZE:EPOCHS:RATE")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option("--augment", "augmentation", default=None, help="As in `train`; flips would spoil the rotation task.")
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder from which the same command goes on when it was stopped.",
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--json", "is_json", is_flag=True, help="Data on stdout as JSON.")
def pretrain(out: Path, is_json: bool, **asked: Any) -> int:
    """Make a backbone from DATA, folders of chest X-rays with or without labels, for `train --weights FILE`.

    Ctrl-C keeps the best epoch so far."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from workers.training import bars, pretrain_tasks

    with bars.epochs() as progress:
        weights, made = pretrain_tasks.run(progress=progress, say=_say, **asked)
    made |= {
        "command": shlex.join(["nightread", *sys.argv[1:]]),
        "versions": {name: version(name) for name in ("nightread", "keras", "numpy")},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    pretrain_tasks.write(out, weights, {"kind": KIND, "made": json.dumps(made)})
    if is_json:
        click.echo(json.dumps({"file": str(out), **made}, indent=1))
    else:
        best = made["best"]
        click.echo(
            f"{out}: {made['architecture']} from {made['images']['training']:,} images, task {made['task']} "
            f"({', '.join(made['classes'])}), validation accuracy {best['val_accuracy']:.3f}; use it with "
            f"train --weights {out}"
        )
    return Exit.PARTIAL if made["stopped"] else Exit.DONE


def _say(text: str) -> None:
    click.echo(text, err=True)
