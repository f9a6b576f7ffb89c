"""From a claimed chunk to pixels: its scans are decoded and prepared while the chunk before it is scored."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from db.errors import UnreadableImage
from db.store.scoring import Claim, Rejected, Result, Scored, WaitingScan
from db.words import Reason
from workers import reuse
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
    rejected: list[Result]  # and what need not be computed again


def prepare(hand: Shift, loaded: Loaded, claim: Claim) -> Prepared:
    """Decode and preprocess a chunk's scans in the decoder processes, but for those of whose content a score stands.
    Raises RootUnavailable."""
    ready: list[tuple[WaitingScan, Decoded]] = []
    rejected: list[Result] = []
    known = reuse.by_content(hand, loaded, claim.scans)
    with ThreadPoolExecutor(hand.decoders.count, "decode") as threads:
        decoding: list[Future[Decoded | Scored | Rejected]] = [
            threads.submit(reuse.confirmed, hand, scan, known[scan.id])
            if scan.id in known
            else threads.submit(prepare_scan, hand, loaded, scan)
            for scan in claim.scans
        ]
        for scan, future in zip(claim.scans, decoding, strict=True):
            result = future.result()
            if isinstance(result, Decoded):
                ready.append((scan, result))
            else:
                rejected.append(result)
            hand.renew(claim)
    return Prepared(claim, loaded, ready, rejected)


def prepare_scan(hand: Shift, loaded: Loaded, scan: WaitingScan) -> Decoded | Rejected:
    """One scan's pixels as the model wants them, or why there are none."""
    youngest = loaded.view.minimum_age
    if youngest is not None and scan.is_younger_than(youngest):
        return Rejected(scan.id, Reason.OUTSIDE_INTENDED_USE, f"the model is for ages from {youngest:g} years")
    try:
        eyes = loaded.scorer.model.preprocessing
        return hand.decoders.prepare(source_of(scan), loaded.view.input_size, border=eyes.border, mode=eyes.mode)
    except UnreadableImage as error:
        return Rejected(scan.id, error.code, error.detail)


def source_of(scan: WaitingScan) -> Source:
    """Where a scan's bytes are, and what they hashed to."""
    return Source(scan.root, scan.path, scan.sha256 or "")
