"""Fine-tune an architecture on folders of labelled images; writes the float32 weights.

    python -m workers.training.finetune DATA --base WEIGHTS.h5 --out weights.safetensors

DATA/CLASS/* are the images of a class. The held-back tenth is never looked at.
"""

import sys
from pathlib import Path

import click
from safetensors.numpy import load_file, save_file

from workers import networks
from workers.networks import ARCHITECTURES, HEADS
from workers.training import data, loop

STAGES = ("128:4:2e-4", "224:3:1e-4")


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="safetensors, float32")
@click.option("--base", type=click.Path(exists=True, path_type=Path), help="Keras weights file of the base")
@click.option("--start", type=click.Path(exists=True, path_type=Path), help="go on from a file that --out wrote")
@click.option("--architecture", type=click.Choice(list(ARCHITECTURES)), default="resnet50", show_default=True)
@click.option("--head", type=click.Choice(list(HEADS)), default="pooled256", show_default=True)
@click.option("--classes", default="normal,covid", show_default=True)
@click.option("--stage", "stages", multiple=True, default=STAGES, show_default=True, help="SIZE:EPOCHS:RATE")
@click.option("--freeze-through", default="conv2_block3_out", show_default=True, help="last frozen layer, or 'none'")
@click.option("--batch-size", default=16, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(
    folders: tuple[Path, ...], out: Path, base: Path | None, start: Path | None, architecture: str, head: str,
    classes: str, stages: tuple[str, ...], freeze_through: str, batch_size: int, seed: int,
) -> None:  # fmt: skip
    """Fine-tune on FOLDERS/CLASS/*; print each epoch's validation figures; keep the best of the last stage."""
    recipe = loop.Recipe(
        architecture, head, tuple(classes.split(",")), loop.parse_stages(stages),
        None if freeze_through == "none" else freeze_through, batch_size=batch_size, seed=seed,
    )  # fmt: skip
    size = ARCHITECTURES[architecture].input_size
    sides = data.split(data.load(folders, recipe.classes, size))
    click.echo(", ".join(f"{len(examples)} {side}" for side, examples in sides.items()), file=sys.stderr)
    first = load_file(start) if start else _first_weights(recipe, base)
    fitted = loop.train(recipe, first, sides[data.Split.TRAINING], sides[data.Split.VALIDATION], progress=_tell)
    save_file(fitted.weights, out)


def _tell(step: loop.Step) -> None:
    if step.record:
        click.echo(step.record, file=sys.stderr)


def _first_weights(recipe: loop.Recipe, base: Path | None) -> networks.Weights:
    full = networks.build(recipe.architecture, recipe.head, len(recipe.classes), base_weights=base)
    return networks.named_weights(networks.fold(full))


if __name__ == "__main__":
    main()
