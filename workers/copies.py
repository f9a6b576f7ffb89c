"""Review copies of scans that a later threshold flagged: scoring kept none of them. Needs no engine; heat maps do,
and are drawn only while scoring."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from db.errors import RootUnavailable, UnreadableImage
from db.files import derived_path
from db.settings import Settings
from db.store import worklist
from db.store.connection import Database
from db.store.worklist import UnreadScan
from workers import derived
from workers.decoding import DecoderPool, Source
from workers.shift import decoder_pool


@dataclass(frozen=True)
class Copies:
    """How many copies were made, and why others could not be."""

    made: int
    lacking: dict[str, int]


def make_copies(db: Database, model_id: int, *, progress: Callable[[int, int], None] = lambda done, of: None) -> Copies:
    """Copy, from the originals, the pictures that a model's flagged and unread scans lack; works twice."""
    config = db.config
    scans = [
        scan
        for scan in worklist.unread_everywhere(db, model_id)
        if not derived_path(config.derived, scan.key, "image").is_file()
    ]
    said: Counter[str] = Counter()
    if scans:
        with decoder_pool(config) as decoders, ThreadPoolExecutor(decoders.count) as threads:
            for done, why in enumerate(threads.map(lambda scan: _copy(config, decoders, scan), scans), 1):
                said[why] += 1
                progress(done, len(scans))
    return Copies(said.pop("", 0), dict(said))


def _copy(config: Settings, decoders: DecoderPool, scan: UnreadScan) -> str:
    """Why there is no copy; empty when there is one."""
    try:
        derived.keep_copy(config.derived, decoders, Source(scan.root, scan.path, scan.sha256 or ""), scan.key)
    except UnreadableImage as error:
        return str(error.code)
    except RootUnavailable as error:
        return str(error)
    return ""
