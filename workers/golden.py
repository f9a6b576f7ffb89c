"""The golden image: a worker that was near a crash must score it as ever before it may blame a scan.

It is drawn here, so that no file can be lost with it, and is the model's input itself: what is proved is the device,
the engine and the weights in its memory. It fills a whole batch, which costs no more than one image (the batch is fixed
and padded), so that every place of the batch is proved."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from db.errors import DeviceUnsound
from db.store import golden
from db.store.connection import Database
from db.store.golden import Golden
from db.store.models import ModelView
from workers.parity import BFLOAT16, FLOAT16, INT8

if TYPE_CHECKING:
    from workers.scoring import Scorer

# The same engine at the same precision adds up in another order on another processor: float32 differs in the fifth
# decimal of a score (measured: 0.000005 between batches of 1 and 4), with TF32 in the third. A wrong kernel, other
# weights or a device that answers nonsense move it further, or make it no number. A score close to 0 or 1 hardly moves,
# so the distance in feature space must fit, too. What moves both less is below what this can tell.
SCORE_TOLERANCE = 0.01
DISTANCE_TOLERANCE = 0.02  # of the distance


def picture(size: int) -> NDArray[np.uint8]:
    """A drawn chest, size x size, from whole numbers alone: the same everywhere and for ever."""
    rows, columns = np.mgrid[0:size, 0:size] * 256 // size
    drawn = 60 + rows // 4
    for centre in (84, 172):  # lungs
        inside = ((columns - centre) * 2) ** 2 + (rows - 124) ** 2 < 88**2
        ribs = np.where((rows + abs(columns - centre) // 3) % 28 < 7, 40, 0)
        drawn = np.where(inside, 18 + ribs + rows // 8, drawn)
    heart = (columns - 146) ** 2 + (rows - 160) ** 2 < 44**2
    spine = abs(columns - 128) < 12
    shadow = (columns - 84) ** 2 + (rows - 170) ** 2 < 24**2
    drawn = drawn + 70 * heart + 50 * spine + 60 * shadow
    grey: NDArray[np.uint8] = np.clip(drawn, 0, 255).astype(np.uint8)
    return grey


def check(db: Database, view: ModelView, scorer: "Scorer", *, count: int, worker: str) -> None:
    """Score `count` golden images at once. Raises DeviceUnsound where one of them is not scored as this model, engine
    and precision always scored it, MemoryError where the device has no room. The first worker that runs the model
    there says what it gives, within what the model's report says of it (`golden_score`), if anything."""
    seen = _scored(view, scorer, count)
    about = {name: scorer.describe()[name] for name in ("engine", "precision")}
    wanted = golden.remembered(db, view.id, **about)
    for one in seen:
        _require(view, one, wanted or Golden(_told(view, scorer, seen[0]), seen[0].distance))
    if wanted is None:
        golden.remember(db, view.id, **about, seen=seen[0], worker=worker)


def _told(view: ModelView, scorer: "Scorer", seen: Golden) -> float:
    """The score that the model's own report tells of, if it does: then not even the first worker may be wrong. Below
    float32 it is the parity report that tells."""
    if scorer.describe()["precision"] in (BFLOAT16, FLOAT16, INT8):
        return seen.score if scorer.golden_score is None else scorer.golden_score
    return float(view.report.get("golden_score", seen.score))


def _require(view: ModelView, one: Golden, wanted: Golden) -> None:
    if not _fits(one, wanted):
        raise DeviceUnsound(
            f"{view.label}: the golden image scores {one.score:.3f} (distance {one.distance:.2f}) here, "
            f"and {wanted.score:.3f} ({wanted.distance:.2f}) where it ran first: check this device; if it was the "
            f"first that was broken, `nightread models reprove {view.name}:{view.version}`"
        )


def _scored(view: ModelView, scorer: "Scorer", count: int) -> list[Golden]:
    try:
        predictions = scorer.predict(np.stack([picture(view.input_size)] * count))
    except (ValueError, RuntimeError, FloatingPointError) as error:
        raise DeviceUnsound(f"{view.label}: the golden image cannot be scored: {error}") from error
    return [Golden(one.score, one.distance) for one in predictions]


def _fits(one: Golden, wanted: Golden) -> bool:
    near = abs(one.score - wanted.score) <= SCORE_TOLERANCE
    return near and abs(one.distance - wanted.distance) <= DISTANCE_TOLERANCE * max(wanted.distance, 1.0)
