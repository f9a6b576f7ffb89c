"""What a study fixes before it sees an image, the paper's open choices among them (R22). No framework is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Say = Callable[[str], None]  # one line of progress
THRESHOLD = 0.5


@dataclass(frozen=True)
class Protocol:
    """How the heads of a study are trained.

    `images` of each class are drawn; `copies` augmented copies of each training image join it (0: none), changed as
    `augmentation` says. No epoch is picked: a head trains for `epochs` and is tested as it then is, because the paper
    sets nothing apart to pick with. Adam, cross-entropy, threshold 0.5. The base computes at `precision`, the heads in
    float32. `cache` keeps features on disk between runs.
    """

    head: str = "flatten256"
    images: int = 200
    repeats: int = 5
    copies: int = 0
    augmentation: str = "paper"
    epochs: int = 30
    learning_rate: float = 0.0005
    batch_size: int = 32
    seed: int = 1
    precision: str = "float32"
    cache: Path | None = None
