"""From a claimed chunk to pixels: its scans are decoded and prepared while the chunk before it is scored."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from db.errors import UnreadableImage
from db.store.scoring import Claim, Rejected, WaitingScan
from db.words import Reason
from workers.decoding import Prepared as Decoded
from workers.decoding import Source
from workers.shift import Loaded, Shift


@dataclass(frozen=True)
class Prepared:
    """A claimed chunk: the scans that are ready for the engine, and those that were rejected on the way. Of a chunk
    that a worker was lost with, neither: there each scan is named before it is looked at."""

    claim: Claim
    loaded: Loaded
    ready: list[tuple[WaitingScan, Decoded]]
    rejected: list[Rejected]


def prepare(hand: Shift, loaded: Loaded, claim: Claim) -> Prepared:
    """Decode and preprocess a chunk's scans in the decoder processes. Raises RootUnavailable."""
    ready: list[tuple[WaitingScan, Decoded]] = []
    rejected: list[Rejected] = []
    with ThreadPoolExecutor(hand.decoders.count, "decode") as threads:
        decoding = [threads.submit(prepare_scan, hand, loaded, scan) for scan in claim.scans]
        for scan, future in zip(claim.scans, decoding, strict=True):
            result = future.result()
            if isinstance(result, Rejected):
                rejected.append(result)
            else:
                ready.append((scan, result))
            hand.renew(claim)
    return Prepared(claim, loaded, ready, rejected)


def prepare_scan(hand: Shift, loaded: Loaded, scan: WaitingScan) -> Decoded | Rejected:
    """One scan's pixels as the model wants them, or why there are none."""
    youngest = loaded.view.minimum_age
    if scan.age is not None and youngest is not None and scan.age < youngest:
        return Rejected(scan.id, Reason.OUTSIDE_INTENDED_USE, f"the model is for ages from {youngest:g} years")
    try:
        eyes = loaded.scorer.model.preprocessing
        return hand.decoders.prepare(source_of(scan), loaded.view.input_size, border=eyes.border, mode=eyes.mode)
    except UnreadableImage as error:
        return Rejected(scan.id, error.code, error.detail)


def source_of(scan: WaitingScan) -> Source:
    """Where a scan's bytes are, and what they hashed to."""
    return Source(scan.root, scan.path, scan.sha256 or "")
