"""Do 8 bits a channel score like float32? Compare on real images; exit 4 where any score moves by over 0.01.

python -m workers.training.parity MODEL FLOAT32.safetensors DATA -n 200
"""

import json
import sys
from pathlib import Path

import click
import numpy as np
from safetensors.numpy import load_file

from db.words import Exit
from workers import weights
from workers.trained_models import load_folder
from workers.training import data, ship

ALLOWED = 0.01


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("reference", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-n", "count", default=200, show_default=True, help="images, drawn with a fixed seed")
def main(folder: Path, reference: Path, folders: tuple[Path, ...], count: int) -> None:
    """Score images of FOLDERS/CLASS/* with FOLDER's 8-bit weights and with the float32 REFERENCE."""
    model = load_folder(folder)
    every = list(data.load(folders, model.classes, model.input_size))
    chosen = np.random.default_rng(1).choice(len(every), min(count, len(every)), replace=False)
    examples = data.gather([every[index] for index in sorted(chosen)])
    served = ship.flag_scores(model, ship.run(model, weights.read(folder, model), examples))
    exact = ship.flag_scores(model, ship.run(model, load_file(reference), examples))
    moved = np.abs(served - exact)
    figures = {"images": len(examples), "largest": float(moved.max()), "mean": float(moved.mean()), "allowed": ALLOWED}
    click.echo(json.dumps(figures))
    sys.exit(Exit.DONE if moved.max() <= ALLOWED else Exit.REFUSED)


if __name__ == "__main__":
    main()
