"""Pictures of scans that a later threshold flagged, for which scoring kept none: the review copy, and what the model
saw (decoded and prepared again, as its folder says). Needs no engine; heat maps do, and are drawn while scoring only.
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from db.errors import ModelRefused, RootUnavailable, UnreadableImage
from db.files import derived_path
from db.settings import Settings
from db.store import models, worklist
from db.store.connection import Database
from db.store.worklist import UnreadScan
from workers import derived, model_folders
from workers.decoding import DecoderPool, Source
from workers.provisions import decoder_pool
from workers.trained_models import TrainedModel


@dataclass(frozen=True)
class Copies:
    """How many scans got pictures, and why others could not; `blind`: why none of what the model saw, "" where all."""

    made: int
    lacking: dict[str, int]
    blind: str = ""


def make_copies(db: Database, model_id: int, *, progress: Callable[[int, int], None] = lambda done, of: None) -> Copies:
    """Make, from the originals, the pictures that a model's flagged and unread scans lack; works twice. Where the
    model's folder is of no use, review copies alone."""
    config = db.config
    eyes, blind = _eyes(db, model_id)
    kinds = ("image", "input") if eyes else ("image",)
    scans = [
        scan
        for scan in worklist.unread_everywhere(db, model_id)
        if not all(derived_path(config.derived, scan.key, kind).is_file() for kind in kinds)
    ]
    said: Counter[str] = Counter()
    if scans:
        with decoder_pool(config) as decoders, ThreadPoolExecutor(decoders.count) as threads:
            for done, why in enumerate(threads.map(lambda scan: _copy(config, decoders, scan, eyes), scans), 1):
                said[why] += 1
                progress(done, len(scans))
    return Copies(said.pop("", 0), dict(said), blind if scans else "")


def _eyes(db: Database, model_id: int) -> tuple[TrainedModel | None, str]:
    """How the model sees, or why that cannot be told."""
    try:
        return model_folders.checked(models.get(db, model_id)), ""
    except ModelRefused as error:
        return None, str(error)


def _copy(config: Settings, decoders: DecoderPool, scan: UnreadScan, eyes: TrainedModel | None) -> str:
    """Why there are no pictures; empty when there are."""
    source = Source(scan.root, scan.path, scan.sha256 or "")
    try:
        derived.keep_copy(config.derived, decoders, source, scan.key)
        if eyes:
            seen = eyes.preprocessing
            prepared = decoders.prepare(source, eyes.input_size, border=seen.border, mode=seen.mode)
            derived.keep_input(config.derived, scan.key, prepared.pixels)
    except UnreadableImage as error:
        return str(error.code)
    except RootUnavailable as error:
        return str(error)
    return ""
