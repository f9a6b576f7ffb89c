"""What decides the outcome of training, and what comes out."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from db.errors import Refused
from workers import networks
from workers.networks import Weights
from workers.training import strategies
from workers.training.augmentation import SCREENING, Augmentation
from workers.training.strategies import Strategy


@dataclass(frozen=True)
class Stage:
    """So many epochs at one input size (pixels), the learning rate falling to nothing along a cosine."""

    size: int
    epochs: int
    learning_rate: float


class ClassWeights(StrEnum):
    """What a mistake costs: the same for every image, or the same for every class."""

    NONE = "none"
    BALANCED = "balanced"


class Precision(StrEnum):
    """What training computes in. bfloat16 is 1.8 times faster on a CPU that has it; the head stays float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "mixed_bfloat16"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of training besides the images and the first weights.

    `freeze_through` names the last layer that stays as it is where it is not the strategy's. `patience`: a stage ends
    when that many epochs in a row bring no lower validation loss (None: it never does). `normalise` puts the
    BatchNormalization back for training that folding took out: it allows higher learning rates (4e-4), where a folded
    network diverges above 1.5e-4 if all of it trains; it is folded again at the end.
    """

    architecture: str
    head: str
    classes: tuple[str, ...]
    stages: tuple[Stage, ...]
    freeze_through: str | None = None
    strategy: Strategy = Strategy.ALL
    augmentation: Augmentation = SCREENING
    batch_size: int = 16
    dropout: float = 0.3
    label_smoothing: float = 0.05
    weight_decay: float = 0.02
    patience: int | None = None
    class_weights: ClassWeights = ClassWeights.NONE
    precision: Precision = Precision.FLOAT32
    normalise: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        if self.head == "flatten256" and len({stage.size for stage in self.stages}) > 1:
            raise Refused("the head flatten256 belongs to one input size: train it in stages of one size")
        if self.batch_size < 1 or any(stage.epochs < 1 or stage.learning_rate <= 0 for stage in self.stages):
            raise Refused("a batch holds at least one image, and a stage at least one epoch at a rate above 0")

    def digest(self) -> str:
        """Give a hash (hex) that differs where any part does."""
        document = {**asdict(self), "augmentation": str(self.augmentation)}
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def parameters(self) -> dict[str, int]:
        """Count "total", "trainable" and "frozen", as Table 6 does, at the size of the last stage."""
        return strategies.count(
            self.architecture,
            self.head,
            len(self.classes),
            self.strategy,
            size=self.stages[-1].size if self.stages else None,
            through=self.freeze_through,
        )


@dataclass(frozen=True)
class History:
    """One record for each epoch: stage and epoch (from 1), size, loss, accuracy, val_loss, val_accuracy, val_auc.

    `loss` and `accuracy` are means over the augmented training images while the weights move, with dropout and smoothed
    labels; the others are of the validation images as they are, after the epoch.
    """

    stages: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Fitted:
    """Weights of the whole folded network (float32), how they came about, and how many there are of each kind.

    `stopped` says that Ctrl-C ended it: the weights are then the best so far.
    """

    weights: Weights
    history: History
    parameters: dict[str, int]
    stopped: bool = False


@dataclass(frozen=True)
class Step:
    """Where training is: counts from 1. `record` is the epoch's entry in the history, on its last step alone."""

    stage: int
    stages: int
    epoch: int
    epochs: int
    batch: int
    batches: int
    record: dict[str, Any] = field(default_factory=dict)


Progress = Callable[[Step], None]


def silent(step: Step) -> None:
    """Say nothing."""


def parse_stages(texts: Sequence[str]) -> tuple[Stage, ...]:
    """Read stages from "SIZE:EPOCHS:LEARNING_RATE" texts. Raises ValueError on anything else."""
    return tuple(
        Stage(int(size), int(epochs), float(rate)) for size, epochs, rate in (text.split(":") for text in texts)
    )


def default_stages(architecture: str, head: str, strategy: Strategy) -> tuple[Stage, ...]:
    """Give the usual stages: with a frozen base the paper's 0.0005 (R20); else small pictures first, below 1.5e-4."""
    size = networks.ARCHITECTURES[architecture].input_size
    if strategy == Strategy.FROZEN:
        return (Stage(size, 30, 5e-4),)
    if head == "flatten256":
        return (Stage(size, 8, 1e-4),)
    return Stage(size * 4 // 7, 4, 1e-4), Stage(size, 4, 7e-5)
