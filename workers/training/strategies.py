"""Which layers train (R14), how many parameters that makes (Table 6), and which choice suits whom (R15)."""

from dataclasses import dataclass
from enum import StrEnum

import keras
import numpy as np
from numpy.typing import NDArray

from workers import networks


class Strategy(StrEnum):
    """How much of the convolutional base trains; the new classifier always does."""

    ALL = "all"
    PART = "part"  # the second half of the base's convolutions
    FROZEN = "frozen"


class Similarity(StrEnum):
    """Whether the images look like those that the base learned from."""

    SIMILAR = "similar"
    DIFFERENT = "different"


class Compute(StrEnum):
    """What there is to train with."""

    LITTLE = "little"
    ENOUGH = "enough"


# The paper calls 400 images small and gives no limit. Ours: thousands of images are large.
LARGE = 2_000
# With more parameters to an image than that, a large collection is still too small for them: freeze more.
MANY = 10_000
# As many of the images must pass the gate of a model for its domain to be called similar to theirs.
ALIKE = 0.95
SAID = {
    Strategy.ALL: "train everything",
    Strategy.PART: "freeze the first half of the base",
    Strategy.FROZEN: "freeze the base, train the classifier",
}


def last_frozen(model: keras.Model, architecture: str, strategy: Strategy) -> str | None:
    """Name the last layer of a network (as built, or folded) that stays as it is; None where all train.

    `part` halves the base by its convolutions, counted in the order of the network's layers (53 in a ResNet-50, 16 in a
    VGG-19): the first half, rounded down, is frozen with every layer before the first convolution that trains.
    """
    if strategy == Strategy.ALL:
        return None
    names: list[str] = [layer.name for layer in model.layers]
    last = names.index(networks.ARCHITECTURES[architecture].map_layer)
    if strategy == Strategy.FROZEN:
        return names[last]
    convolutions = [
        position
        for position, layer in enumerate(model.layers[: last + 1])
        if hasattr(layer, "kernel_size") and layer.weights
    ]
    return names[convolutions[len(convolutions) // 2] - 1]


def freeze(model: keras.Model, through: str | None, *, norms: bool = True) -> None:
    """Freeze all layers up to and with the one named; with `norms` also every BatchNormalization after it."""
    frozen = [layer.name for layer in model.layers].index(through) if through else -1
    for position, layer in enumerate(model.layers):
        layer.trainable = position > frozen and not (norms and isinstance(layer, keras.layers.BatchNormalization))


def count(
    architecture: str,
    head: str,
    classes: int,
    strategy: Strategy,
    *,
    size: int | None = None,
    through: str | None = None,
) -> dict[str, int]:
    """Parameters "total", "trainable" and "frozen" of the network as the paper counts them: before it is folded.

    `through` names the last frozen layer where it is not the strategy's. A trained BatchNormalization's scale and
    offset count as trainable (fine-tuning trains them inside the convolution), its statistics as frozen.
    """
    model = networks.build(architecture, head, classes, input_size=size)
    freeze(model, through or last_frozen(model, architecture, strategy), norms=False)
    total, trainable = (
        sum(int(np.prod(weight.shape)) for weight in weights) for weights in (model.weights, model.trainable_weights)
    )
    return {"total": total, "trainable": trainable, "frozen": total - trainable}


@dataclass(frozen=True)
class Advice:
    """A strategy, the quadrant of size and similarity that it comes from, and the reasons in full sentences."""

    strategy: Strategy
    quadrant: str
    reasons: tuple[str, ...]


def advise(images: int, classes: int, parameters: int, similarity: Similarity, compute: Compute) -> Advice:
    """Recommend a strategy by the paper's decision aid (R15, 4.2); it is advice, and the user may override it.

    `images` are those that train, `parameters` those of the whole network. Large and different: train all; large and
    similar: train most; small and different: freeze most; small and similar: freeze all. "Most" is `part` both times.
    With very many parameters to an image one step more is frozen; with little compute, everything.
    """
    large = images >= LARGE
    quadrant = f"{'large' if large else 'small'} and {similarity}"
    strategy, why = {
        (True, Similarity.DIFFERENT): (Strategy.ALL, "train all"),
        (True, Similarity.SIMILAR): (Strategy.PART, "train most"),
        (False, Similarity.DIFFERENT): (Strategy.PART, "freeze most"),
        (False, Similarity.SIMILAR): (Strategy.FROZEN, "freeze all"),
    }[large, similarity]
    reasons = [
        f"{images:,} images in {classes} classes train: {'large' if large else 'small'} "
        f"({LARGE:,} and more count as large)",
        f"{quadrant}: {why} ({SAID[strategy]})",
    ]
    if large and parameters > MANY * images:
        strategy = Strategy.PART if strategy == Strategy.ALL else Strategy.FROZEN
        reasons.append(f"{parameters // images:,} parameters to an image are many: freeze more ({SAID[strategy]})")
    if compute == Compute.LITTLE and strategy != Strategy.FROZEN:
        strategy = Strategy.FROZEN
        reasons.append(f"little compute: freeze all ({SAID[strategy]}), which trains in minutes")
    if not large and similarity == Similarity.DIFFERENT:
        reasons.append("the paper itself froze the whole base on small data unlike ImageNet: try `frozen` as well")
    return Advice(strategy, quadrant, tuple(reasons))


def similarity_of(distances: NDArray[np.floating], limit: float) -> Similarity:
    """Estimate similarity from gate distances (N,) of the images to what a trained model learned from.

    Similar where 95 % of them lie within the gate's limit. It speaks of a base that comes from that model; to a base
    trained on photographs (ImageNet) every chest X-ray is different.
    """
    return Similarity.SIMILAR if float(np.mean(distances <= limit)) >= ALIKE else Similarity.DIFFERENT
