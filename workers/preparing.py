"""From a claimed chunk to pixels: its scans are decoded and prepared while the chunk before it is scored."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from db.errors import UnreadableImage
from db.store.reuse import Standing
from db.store.scoring import Claim, Rejected, Result, Scored, WaitingScan
from db.words import Reason
from workers import reuse
from workers.decoding import DecoderPool, Source
from workers.decoding import Prepared as Decoded
from workers.prepared_cache import Eyes, PreparedCache
from workers.read_ahead import ReadAhead
from workers.shift import Loaded, Shift

# Files in one order to a decoder: asking for each costs a fifth of what a small picture costs (measured). The orders of
# a chunk are still several for each decoder, so that none waits long for the last one.
MOST_AT_ONCE, ORDERS = 8, 4

Settled = Decoded | Scored | Rejected


@dataclass(frozen=True)
class Prepared:
    """A claimed chunk: the scans that are ready for the engine, and those that were rejected on the way. Of a chunk
    that a worker was lost with, neither: there each scan is named before it is looked at."""

    claim: Claim
    loaded: Loaded
    ready: list[tuple[WaitingScan, Decoded]]
    rejected: list[Result]  # and what need not be computed again


def prepare(hand: Shift, loaded: Loaded, claim: Claim) -> Prepared:
    """Decode and preprocess a chunk's scans in the decoder processes, but for those of whose content a score stands, or
    that lie in the prepared cache. Raises RootUnavailable."""
    known = reuse.by_content(hand, loaded, claim.scans)
    settled: dict[int, Future[Settled]] = {scan.id: Future() for scan in claim.scans}
    ready: list[tuple[WaitingScan, Decoded]] = []
    rejected: list[Result] = []
    _read_ahead(hand, loaded, claim)
    with ThreadPoolExecutor(hand.decoders.count, "decode") as threads:
        for part in parts(claim.scans, hand.decoders.count):
            threads.submit(_settle, settled, part, _settling(hand, loaded, part, known))
        try:
            for scan in claim.scans:
                result = settled[scan.id].result()
                if isinstance(result, Decoded):
                    ready.append((scan, result))
                else:
                    rejected.append(result)
                hand.renew(claim)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return Prepared(claim, loaded, ready, rejected)


def prepare_scan(hand: Shift, loaded: Loaded, scan: WaitingScan) -> Decoded | Rejected:
    """One scan's pixels as the model wants them, or why there are none. Raises RootUnavailable."""
    ((_, result),) = _settling(hand, loaded, [scan], {})
    assert not isinstance(result, Scored)  # noqa: S101 (for the type checker: nothing was known)
    return result


def source_of(scan: WaitingScan) -> Source:
    """Where a scan's bytes are, and what they hashed to."""
    return Source(scan.root, scan.path, scan.sha256 or "")


def eyes_of(loaded: Loaded) -> Eyes:
    """How a trained model wants to see."""
    return Eyes(loaded.view.input_size, loaded.scorer.model.preprocessing, loaded.reduce)


def parts(scans: Sequence[WaitingScan], decoders: int) -> Iterator[Sequence[WaitingScan]]:
    """Scans in the portions that decoders get."""
    size = max(1, min(MOST_AT_ONCE, len(scans) // (ORDERS * decoders)))
    return (scans[start : start + size] for start in range(0, len(scans), size))


def decoded(
    decoders: DecoderPool,
    cache: PreparedCache | None,
    eyes: Eyes,
    scans: Sequence[WaitingScan],
    *,
    ahead: ReadAhead | None = None,
) -> Iterator[Decoded | UnreadableImage]:
    """Scans as a decoder gives them, in turn; each is kept in the cache, if there is one. Raises RootUnavailable."""
    seen = eyes.preprocessing
    sources = [source_of(scan) for scan in scans]
    answers = decoders.prepare_many(sources, eyes.size, border=seen.border, mode=seen.mode, reduce=eyes.reduce)
    for scan, source, answer in zip(scans, sources, answers, strict=False):
        if ahead is not None:
            ahead.read(source, answer.waited if isinstance(answer, Decoded) else 0.0)
        if cache is not None and isinstance(answer, Decoded):
            cache.keep(eyes, scan.sha256, answer)
        yield answer


def _read_ahead(hand: Shift, loaded: Loaded, claim: Claim) -> None:
    """Say which files decoders will read."""
    eyes, cache = eyes_of(loaded), hand.cache
    if hand.ahead is not None:
        hand.ahead.want(source_of(scan) for scan in claim.scans if not (cache and cache.has(eyes, scan.sha256)))


def _settle(
    settled: dict[int, Future[Settled]], part: Sequence[WaitingScan], results: Iterable[tuple[WaitingScan, Settled]]
) -> None:
    """Hand over each result as it comes, and what ends them to whoever waits for the others."""
    try:
        for scan, result in results:
            settled[scan.id].set_result(result)
    except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
        for scan in part:
            if not settled[scan.id].done():
                settled[scan.id].set_exception(error)


def _settling(
    hand: Shift, loaded: Loaded, scans: Sequence[WaitingScan], known: Mapping[int, Standing]
) -> Iterator[tuple[WaitingScan, Settled]]:
    """What is known already, what the model is not for, what lies in the cache; then, in one order, all others (while
    their answers are awaited a decoder is held, and nothing may ask for another)."""
    eyes, others = eyes_of(loaded), []
    for scan in scans:
        if scan.id in known:
            yield scan, reuse.confirmed(hand, scan, known[scan.id])
        elif (young := _too_young(loaded, scan)) is not None:
            yield scan, young
        elif (found := hand.cache.find(eyes, scan.sha256) if hand.cache else None) is not None:
            yield scan, found
        else:
            others.append(scan)
    answers = decoded(hand.decoders, hand.cache, eyes, others, ahead=hand.ahead)
    for scan, answer in zip(others, answers, strict=False):
        yield scan, answered(scan, answer)


def answered(scan: WaitingScan, answer: Decoded | UnreadableImage) -> Decoded | Rejected:
    """What a decoder's answer means for a scan."""
    return answer if isinstance(answer, Decoded) else Rejected(scan.id, answer.code, answer.detail)


def _too_young(loaded: Loaded, scan: WaitingScan) -> Rejected | None:
    youngest = loaded.view.minimum_age
    if youngest is None or not scan.is_younger_than(youngest):
        return None
    return Rejected(scan.id, Reason.OUTSIDE_INTENDED_USE, f"the model is for ages from {youngest:g} years")
