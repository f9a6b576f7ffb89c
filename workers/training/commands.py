"""`nightread train` and `nightread advise`: from labelled images to a trained model, with its report.

Keras and what stands on it load when a command runs, not when the command line is read.
"""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from db.errors import Refused
from db.settings import settings
from db.words import Exit

if TYPE_CHECKING:
    from workers.training.data import Collection
    from workers.training.making import Made, Material
    from workers.training.recipes import Recipe
    from workers.training.strategies import Advice

ARCHITECTURES = ("resnet50", "vgg19", "inception_v3", "xception")  # test_commands holds it against the table
HEADS = ("pooled256", "flatten256")
STRATEGIES = ("all", "part", "frozen")
DATA = click.argument("paths", metavar="DATA...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
JSON = click.option("--json", "is_json", is_flag=True, default=False, help="Data on stdout as JSON.")
ARCHITECTURE = click.option(
    "--architecture", type=click.Choice(ARCHITECTURES), default="resnet50", show_default=True, help="Untrained design."
)
WEIGHTS = click.option(
    "--weights",
    default=None,
    metavar="imagenet|shipped|none|PATH",
    help="Where the base begins: ImageNet (fetched by Keras), the base of the model that ships, nothing, a Keras "
    "weights file, a backbone from `nightread pretrain`, or a trained model's folder to go on from.  "
    "[default: shipped for resnet50, else imagenet]",
)
HEAD = click.option("--head", type=click.Choice(HEADS), default="pooled256", show_default=True)
SIMILARITY = click.option(
    "--similarity",
    type=click.Choice(("similar", "different")),
    default=None,
    help="Of the images to what the base learned from.  [default: similar for X-ray bases, different for ImageNet]",
)
COMPUTE = click.option("--compute", type=click.Choice(("little", "enough")), default="enough", show_default=True)


@click.command()
@DATA
@ARCHITECTURE
@WEIGHTS
@HEAD
@SIMILARITY
@COMPUTE
@JSON
def advise(
    paths: tuple[Path, ...],
    architecture: str,
    weights: str | None,
    head: str,
    similarity: str | None,
    compute: str,
    is_json: bool,
) -> int:
    """Which layers to train on DATA, by its size and its likeness to what the base knows (paper 4.2).

    DATA is a folder of class folders, or a CSV with the columns path,label[,patient][,split]."""
    collection = _read(paths, architecture)
    material = _material(collection)
    advice = _advice(collection, material, architecture, head, _source(architecture, weights), similarity, compute)
    if is_json:
        _print_json({"strategy": advice.strategy, "quadrant": advice.quadrant, "reasons": list(advice.reasons)})
    else:
        click.echo(f"{advice.strategy}: {advice.quadrant}")
        for reason in advice.reasons:
            click.echo(f"  - {reason}")
    return Exit.DONE


@click.command()
@DATA
@click.option("--name", default=None, help="Of the trained model.  [default: DATA's name and the architecture's]")
@click.option("--version", "version", default="1", show_default=True, help="Of the trained model.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder.  [default: NAME-VERSION, here]")
@ARCHITECTURE
@WEIGHTS
@HEAD
@click.option("--strategy", type=click.Choice(STRATEGIES), default=None, help="Of the base.  [default: as advised]")
@SIMILARITY
@COMPUTE
@click.option(
    "--flag", "flags", multiple=True, metavar="CLASS", help="Classes that flag.  [default: all but the first]"
)
@click.option("--augment", default="screening", show_default=True, metavar="PRESET|CHANGES")
@click.option(
    "--preview", type=click.Path(dir_okay=False, path_type=Path), help="Write a contact sheet, train nothing."
)
@click.option("--copies", default=0, show_default=True, help="Augmented copies an image, where the base is frozen.")
@click.option("--stage", "stages", multiple=True, metavar="SIZE:EPOCHS:RATE", help="Instead of the usual stages.")
@click.option("--epochs", type=click.IntRange(1), default=None, help="Of one stage at the architecture's own size.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=None, help="Of that stage.")
@click.option("--patience", type=click.IntRange(1), default=None, help="Epochs without gain that end a stage.")
@click.option("--freeze-through", default=None, metavar="LAYER", help="Last frozen layer, whatever the strategy.")
@click.option("--class-weights", type=click.Choice(("none", "balanced")), default="none", show_default=True)
@click.option("--precision", type=click.Choice(("float32", "mixed_bfloat16")), default="float32", show_default=True)
@click.option("--normalise/--no-normalise", default=False, help="Train with BatchNormalization put back.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True)
@click.option("--label-smoothing", type=click.FloatRange(0, 0.5), default=0.05, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--minimum-age", type=click.IntRange(0, 150), default=18, show_default=True, help="Of patients, in years."
)
@click.option("--intended-use", default=None, help="Whom and what the model is for, in a sentence or two.")
@click.option(
    "--prevalence", type=click.FloatRange(0, 1), default=0.02, show_default=True, help="For the threshold table."
)
@click.option("--thumbnails/--no-thumbnails", default=True, help="Show the worst mistakes' pictures in the report.")
@JSON
def train(paths: tuple[Path, ...], is_json: bool, **options: Any) -> int:
    """Train on DATA: a folder of class folders, or a CSV with the columns path,label[,patient][,split].

    A tenth of the images, chosen by content, is held back and judges the result. Ctrl-C keeps the best epoch; the
    same command again goes on where a killed run was. What comes out is a folder: `nightread models import` it."""
    from workers.training import augmentation

    collection = _read(paths, options["architecture"])
    try:
        changes = augmentation.parse(options["augment"])
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--augment") from error
    material = _material(collection)
    if options["preview"] is not None:
        return _preview(options["preview"], material, changes, options["seed"])
    made = _train(paths, collection, material, changes, options)
    _print_made(made, is_json=is_json)
    return Exit.DONE


def _train(
    paths: tuple[Path, ...], collection: "Collection", material: "Material", changes: Any, options: dict[str, Any]
) -> "Made":
    from workers.training import bases, making
    from workers.training.bars import epochs

    source = _source(options["architecture"], options["weights"])
    base = bases.load(options["architecture"], source)
    recipe = _recipe(collection, material, changes, source, options)
    name = options["name"] or f"{_plain(paths[0].stem)}-{options['architecture']}"
    folder = (options["out"] or Path(f"{name}-{options['version']}")).absolute()
    plan = making.Plan(
        folder=folder,
        name=name,
        version=options["version"],
        recipe=recipe,
        flag_classes=_flags(collection.classes, options["flags"]),
        intended_use=making.intended_use(collection.classes, options["minimum_age"], options["intended_use"]),
        command=shlex.join(["nightread", *sys.argv[1:]]),
        copies=options["copies"],
        cache=settings().home / "features",
        prevalence=options["prevalence"],
        thumbnails=options["thumbnails"],
    )
    with epochs() as progress:
        return making.make(plan, material, base, progress=progress, say=_say)


def _recipe(
    collection: "Collection", material: "Material", changes: Any, source: str, options: dict[str, Any]
) -> "Recipe":
    from workers.training import recipes
    from workers.training.strategies import Strategy

    architecture, head = options["architecture"], options["head"]
    strategy = options["strategy"]
    if strategy is None and options["freeze_through"] is None:
        advice = _advice(collection, material, architecture, head, source, options["similarity"], options["compute"])
        strategy = advice.strategy
        _say(f"strategy {strategy} (--strategy overrides it): {'; '.join(advice.reasons)}")
    strategy = Strategy(strategy or "part")
    try:
        return recipes.Recipe(
            architecture=architecture,
            head=head,
            classes=collection.classes,
            stages=_stages(architecture, head, strategy, options),
            freeze_through=options["freeze_through"],
            strategy=strategy,
            augmentation=changes,
            batch_size=options["batch_size"],
            label_smoothing=options["label_smoothing"],
            patience=options["patience"],
            class_weights=recipes.ClassWeights(options["class_weights"]),
            precision=recipes.Precision(options["precision"]),
            normalise=options["normalise"],
            seed=options["seed"],
        )
    except Refused as error:
        raise click.UsageError(str(error)) from error


def _stages(architecture: str, head: str, strategy: Any, options: dict[str, Any]) -> tuple[Any, ...]:
    from workers.training import recipes

    if options["stages"]:
        try:
            return recipes.parse_stages(options["stages"])
        except ValueError as error:
            raise click.BadParameter("SIZE:EPOCHS:RATE, as in 224:4:1e-4", param_hint="--stage") from error
    usual = recipes.default_stages(architecture, head, strategy)
    if options["epochs"] is None and options["learning_rate"] is None:
        return usual
    last = usual[-1]
    return (recipes.Stage(last.size, options["epochs"] or last.epochs, options["learning_rate"] or last.learning_rate),)


def _advice(
    collection: "Collection",
    material: "Material",
    architecture: str,
    head: str,
    source: str,
    similarity: str | None,
    compute: str,
) -> "Advice":
    from workers.training import strategies
    from workers.training.data import Split

    alike = similarity or ("different" if source == "imagenet" else "similar")
    classes = len(collection.classes)
    total = strategies.count(architecture, head, classes, strategies.Strategy.ALL)["total"]
    images = len(material.sides[Split.TRAINING])
    return strategies.advise(images, classes, total, strategies.Similarity(alike), strategies.Compute(compute))


def _read(paths: tuple[Path, ...], architecture: str) -> "Collection":
    from workers.networks import ARCHITECTURES as DESIGNS
    from workers.training import data
    from workers.training.bars import counting

    with counting("reading") as progress:
        return data.read(paths, DESIGNS[architecture].input_size, progress=progress)


def _material(collection: "Collection") -> "Material":
    from workers.training.making import Material

    material = Material.of(collection)
    for one in material.excluded[:10]:
        _say(f"left out: {_plain_path(one.path)}: {one.why}")
    if len(material.excluded) > 10:
        _say(f"left out: {len(material.excluded) - 10:,} more; the report lists them")
    counts = ", ".join(f"{len(examples):,} {side.replace('_', ' ')}" for side, examples in material.sides.items())
    _say(f"{counts}; classes {', '.join(collection.classes)}")
    return material


def _preview(file: Path, material: "Material", changes: Any, seed: int) -> int:
    import numpy as np

    from workers.training import augmentation
    from workers.training.data import Split

    sheet = augmentation.contact_sheet(material.sides[Split.TRAINING], changes, np.random.default_rng(seed))
    file.write_bytes(sheet)
    for remark in changes.remarks():
        _say(remark)
    click.echo(f"{file}: augmentation {changes}")
    return Exit.DONE


def _source(architecture: str, weights: str | None) -> str:
    return weights or ("shipped" if architecture == "resnet50" else "imagenet")


def _flags(classes: tuple[str, ...], named: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in named if name not in classes]
    if unknown or (named and set(named) == set(classes)):
        raise click.BadParameter(f"some, and not all, of the classes {', '.join(classes)}", param_hint="--flag")
    return tuple(name for name in classes if name in named) if named else classes[1:]


def _print_made(made: "Made", *, is_json: bool) -> None:
    from workers.training.making import summary

    told = summary(made)
    if is_json:
        _print_json(told)
        return
    if made.stopped:
        click.echo("stopped early: this is the best epoch so far")
    click.echo(f"{made.folder}\n  threshold {told['threshold']:.4f}: {made.report['threshold']['why']}")
    click.echo(f"  on {told['n']:,} {made.report['judged_on']}:")
    for name in ("auc", "sensitivity", "specificity", "accuracy", "precision", "f1"):
        if name in told:
            click.echo("    {0:<12} {value:.3f} ({low:.3f} to {high:.3f})".format(name, **told[name]))
    click.echo(f"  shortcuts: {made.report['audit'].get('verdict', 'not judged')}")
    click.echo(f"  report: {made.folder / 'report.html'}")
    click.echo(f"next: nightread models import {shlex.quote(str(made.folder))}")


def _plain(text: str) -> str:
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower()).strip("-")
    return kept or "local"


def _plain_path(path: Path) -> str:
    from db.store.reading import printable

    return printable(str(path))


def _say(line: str) -> None:
    click.echo(line, err=True)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
