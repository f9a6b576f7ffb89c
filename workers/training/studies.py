"""`nightread study`: the paper's Tables 4, 5 and 7 and Figures 14 to 16 on any labelled folder, and a learning curve.

    nightread study table4 --data DATA --weights vgg19=FILE.h5 --cache DIR --out DIR

The frameworks load when a study runs, not when this is imported. Tables go to stdout as Markdown (`--json`: the
results); `--out` gets both, and the plots.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from db.errors import NightreadError
from workers.training.study_protocol import Protocol

if TYPE_CHECKING:
    from workers.training.bases import Base
    from workers.training.study_draws import Pool

ARCHITECTURES = ("vgg19", "resnet50", "inception_v3")  # the paper's, in its order
COPIES = 4
Command = TypeVar("Command", bound=Callable[..., Any])


def _options(command: Command) -> Command:
    """The options that every study takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option("--data", "folders", multiple=True, required=True, type=click.Path(exists=True, path_type=Path),
                 help="A folder of class folders, or a CSV (path,label); may be given again."),
    click.option("--classes", default=None, help="Classes in order, separated by commas; others are left out."),
    click.option("--architecture", "architectures", multiple=True, help="May be given again."),
    click.option("--weights", "sources", multiple=True, metavar="ARCH=SOURCE",
                 help="A Keras weights file without top, a file of `nightread pretrain`, imagenet, shipped or none."),
    click.option("--describe", multiple=True, metavar="ARCH=TEXT", help="What those weights are, for the tables."),
    click.option("--head", type=click.Choice(["flatten256", "pooled256"]), default="flatten256", show_default=True),
    click.option("--repeats", type=click.IntRange(1), default=5, show_default=True),
    click.option("--epochs", type=click.IntRange(1), default=30, show_default=True),
    click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=0.0005, show_default=True),
    click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True),
    click.option("--seed", type=int, default=1, show_default=True),
    click.option("--precision", type=click.Choice(["float32", "mixed_bfloat16"]), default="float32", show_default=True,
                 help="Of the base; mixed_bfloat16 is twice as fast on CPUs that have it."),
    click.option("--collection", default="", help="The name of the public collection, for the tables."),
    click.option("--note", "notes", multiple=True, help="A sentence for under the table; may be given again."),
    click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for tables, plots, results."),
    click.option("--cache", type=click.Path(file_okay=False, path_type=Path),
                 help="Folder that keeps features: a second run skips the base."),
    click.option("--json", "is_json", is_flag=True, help="Results on stdout as JSON."),
)  # fmt: skip
_IMAGES = click.option("--images", type=click.IntRange(10), default=200, show_default=True, help="Of each class.")


def _copies(default: int) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        which = click.option("--augment", "augmentation", default="paper", show_default=True, help="As in `train`.")
        many = click.option(
            "--copies", type=click.IntRange(0), default=default, show_default=True, help="Augmented copies an image."
        )
        return many(which(command))

    return decorate


@click.group()
def study() -> None:
    """Regenerate the paper's tables and figures on your own images, frozen base, with intervals."""


@study.command()
@_options
@_IMAGES
def table4(**given: Any) -> None:
    """Table 4: 80/20 splits, no augmentation; VGG-19, ResNet-50 and Inception-v3."""
    _table(4, Asked.of(given))


@study.command()
@_options
@_IMAGES
@_copies(COPIES)
def table5(**given: Any) -> None:
    """Table 5: the same images and splits with augmented training images."""
    _table(5, Asked.of(given))


@study.command("small-sample")
@_options
@_copies(COPIES)
def small_sample(**given: Any) -> None:
    """Table 7 and Figures 14 to 16: ResNet-50 trained on 100, 80 and 60 images."""
    asked = Asked.of(given, architectures=("resnet50",))
    from workers.training import study_small

    base = asked.base(asked.architectures[0])
    with _stoppable():
        pool = asked.pool()
        result = study_small.run(pool, base, asked.protocol, say)
    asked.finish(pool, result, study_small.page, study_small.plots)


@study.command("learning-curve")
@_options
@_copies(0)
@click.option("--sizes", default="20,40,60,80,100,200,400", show_default=True, help="Training images in all.")
def learning_curve(sizes: str, **given: Any) -> None:
    """Test accuracy and AUC against the number of training images."""
    asked = Asked.of(given, architectures=("resnet50",))
    counts = _counts(sizes)
    from workers.training import study_curve

    bases = [asked.base(architecture) for architecture in asked.architectures]
    with _stoppable():
        pool = asked.pool()
        result = study_curve.run(pool, bases, asked.protocol, say, counts)
    asked.finish(pool, result, study_curve.page, study_curve.plots)


def _table(number: int, asked: "Asked") -> None:
    from workers.training import study_tables

    loaders = {name: partial(asked.base, name) for name in asked.architectures}
    with _stoppable():
        pool = asked.pool()
        result = study_tables.run(number, pool, loaders, asked.protocol, say)
    asked.finish(pool, result, study_tables.page, study_tables.plots)


@contextmanager
def _stoppable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise NightreadError("stopped; with --cache the same command goes on from the features it has") from error


def say(text: str) -> None:
    """Progress goes to stderr."""
    click.echo(text, err=True)


@dataclass(frozen=True)
class Asked:
    """What the command line asked for."""

    folders: tuple[Path, ...]
    classes: tuple[str, ...] | None
    architectures: tuple[str, ...]
    sources: dict[str, str]
    descriptions: dict[str, str]
    protocol: Protocol
    collection: str
    notes: tuple[str, ...]
    out: Path | None
    is_json: bool
    started: float

    @classmethod
    def of(cls, given: dict[str, Any], architectures: tuple[str, ...] = ARCHITECTURES) -> "Asked":
        """Check the options. Raises click's errors."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        names = {field.name for field in fields(Protocol)}
        sources = _pairs(given["sources"], "--weights")
        # Weights name their architecture: asking for it a second time would be a chore.
        chosen = given["architectures"] or (tuple(sources) if len(architectures) == 1 and sources else architectures)
        _check_architectures((*chosen, *sources))
        _check_augmentation(given.get("augmentation", "none"))
        return cls(
            folders=given["folders"],
            classes=tuple(given["classes"].split(",")) if given["classes"] else None,
            architectures=tuple(chosen),
            sources=sources,
            descriptions=_pairs(given["describe"], "--describe"),
            protocol=Protocol(**{name: value for name, value in given.items() if name in names}),
            started=time.monotonic(),
            **{name: given[name] for name in ("collection", "notes", "out", "is_json")},
        )

    def pool(self) -> "Pool":
        """Read the images."""
        from workers.training import bars, study_draws

        with bars.counting("reading") as progress:
            return study_draws.read(self.folders, self.classes, progress)

    def base(self, architecture: str) -> "Base":
        """Load an architecture's weights. Raises WeightsUnavailable."""
        from workers.training import bases

        return bases.load(architecture, self.sources.get(architecture, "imagenet"), self.descriptions.get(architecture))

    def finish(
        self,
        pool: "Pool",
        result: dict[str, Any],
        page: Callable[[dict[str, Any]], str],
        plots: Callable[[Path, dict[str, Any]], None],
    ) -> None:
        """Print the results, and write them with their plots where `--out` says."""
        from workers.training import study_output

        made_by = study_output.made_by(self.protocol, time.monotonic() - self.started)
        result |= {"made_by": made_by, "data": study_output.about(pool, self.collection), "notes": list(self.notes)}
        text = page(result)
        if self.out is not None:
            study_output.write(self.out, text, result)
            plots(self.out, result)
            say(f"tables, plots and results are in {self.out}")
        click.echo(json.dumps(result, indent=1) if self.is_json else text)


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for architecture, equals, value in pairs:
        if not (architecture and equals and value):
            raise click.BadParameter("ARCHITECTURE=... is needed, as in vgg19=/path/file.h5", param_hint=option)
    return {architecture: value for architecture, _, value in pairs}


def _counts(sizes: str) -> list[int]:
    try:
        counts = sorted({int(size) for size in sizes.split(",")})
    except ValueError as error:
        raise click.BadParameter("whole numbers separated by commas are needed", param_hint="--sizes") from error
    if counts[0] < 1:
        raise click.BadParameter("sizes start at 1", param_hint="--sizes")
    return counts


def _check_architectures(names: Sequence[str]) -> None:
    from workers.networks import ARCHITECTURES as KNOWN

    for name in names:
        if name not in KNOWN:
            raise click.BadParameter(f"no architecture {name!r}: there are {', '.join(KNOWN)}")


def _check_augmentation(text: str) -> None:
    from workers.training import augmentation

    try:
        augmentation.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--augment") from error
