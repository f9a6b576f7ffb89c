"""The work of one ring, as named steps: claim, prepare, predict, complete. While one chunk is on the device the next is
prepared and the one before completed. Nothing here decides what counts: the ledger does."""

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from db.errors import (
    DatabaseUnreachable,
    DecodersUnavailable,
    DeviceUnsound,
    Refused,
    RootUnavailable,
    UnreadableImage,
)
from db.settings import settings
from db.store import scoring
from db.store.scoring import NOBODY, Claim, Failed, Rejected, Result, Scored, WaitingScan
from db.words import Cause, Reason
from workers import derived, reuse
from workers.decoding import Prepared as Decoded
from workers.line import Line
from workers.preparing import Prepared, prepare, prepare_scan, source_of
from workers.queue import SCORE, app
from workers.shift import Loaded, Shift, shift

if TYPE_CHECKING:
    from workers.scoring import Prediction

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Begun:
    """A chunk under way: what is known of it (None: the claim was lost), and what the device was offered."""

    results: list[Result] | None
    slices: list[Future[list[Future[Result]]]]


@app(settings()).task(name=SCORE)  # type: ignore[untyped-decorator]
def score() -> None:
    """One ring: work until nothing waits, the worker is told to stop, or a third of the hard limit has passed."""
    try:
        work(shift())
    except MemoryError:  # where nobody could halve a batch; leaving a task, it would end the whole worker (Celery)
        log.exception("out of memory: what this ring held is left to the end of its lease")


def work(hand: Shift) -> None:
    """Claim and score chunk after chunk, preparing one ahead and completing one behind."""
    until = time.monotonic() + hand.config.task_seconds / 3
    with ThreadPoolExecutor(1, "ahead") as ahead, Line(hand.decoders.count) as line:
        upcoming = ahead.submit(next_chunk, hand, until)
        try:
            while (prepared := upcoming.result()) is not None:
                upcoming = ahead.submit(next_chunk, hand, until)
                attend(hand, prepared, line)
            line.settle()
        finally:
            _release(hand, upcoming)
            hand.doing = hand.idle


def next_chunk(hand: Shift, until: float) -> Prepared | None:
    """Claim the most urgent chunk whose root answers and prepare it; None when this ring's work is over."""
    while not hand.is_stopping() and time.monotonic() < until:
        model_id = scoring.most_urgent_model(hand.db, not_batches=hand.avoided(), not_models=hand.refused())
        if model_id is None:
            return None
        try:
            loaded = hand.model(model_id)
        except (Refused, DeviceUnsound) as error:
            hand.refuse(model_id, error)
            continue
        claim = hand.claim(model_id)
        if claim is None:
            return None
        if claim.attempts > 1:
            return Prepared(claim, loaded, [], [])
        try:
            return prepare(hand, loaded, claim)
        except RootUnavailable as error:
            _avoid(hand, claim, error)
            hand.give_back(claim)
        except BaseException as error:
            _drop(hand, claim, error)
            raise
    return None


def attend(hand: Shift, prepared: Prepared, line: Line) -> None:
    """Offer a chunk to the device, and leave its end to the line."""
    claim = prepared.claim
    with _minding(hand, claim):
        if claim.trained_model_id in hand.refused():  # found out over the chunk before, while this one was prepared
            hand.give_back(claim)
            return
        if claim.attempts > 1:  # a breadcrumb names one scan, and nothing else may be under way then
            line.settle()
        hand.doing = f"batch {claim.batch_id}, chunk {claim.chunk_id}"
        begun = begin(hand, prepared, line)
        line.settle()
        line.end_with(finish, hand, claim, begun)


@contextmanager
def _minding(hand: Shift, claim: Claim) -> Iterator[None]:
    """On a device that proves unsound a chunk is given back at no cost, and its model left to others."""
    try:
        yield
    except DeviceUnsound as error:
        hand.give_back(claim)
        hand.refuse(claim.trained_model_id, error)
    except BaseException as error:
        _drop(hand, claim, error)
        raise


def _drop(hand: Shift, claim: Claim, error: BaseException) -> None:
    """A chunk that this ring cannot finish. Where machinery is known to be at fault it is given back; anything else
    is left to the end of its lease, because a scan that brings it about must not come round for ever."""
    hand.leave(claim)
    if isinstance(error, DecodersUnavailable | DatabaseUnreachable):
        with suppress(DatabaseUnreachable):
            hand.give_back(claim)


def _avoid(hand: Shift, claim: Claim, error: RootUnavailable) -> None:
    """A root that does not answer is machinery: its batch waits, the others go on."""
    log.error("batch %d waits: %s", claim.batch_id, error)
    hand.avoid(claim.batch_id)


def begin(hand: Shift, prepared: Prepared, line: Line) -> Begun:
    """Start scoring a prepared chunk; told to stop, only what is under way already."""
    loaded = hand.at_todays_threshold(prepared.loaded)
    if prepared.claim.attempts > 1:
        return Begun(score_warily(hand, loaded, prepared.claim, line.keepers), [])
    known, unknown = reuse.split(hand, loaded, prepared.ready)
    begun = Begun([*prepared.rejected, *known], [])
    for ready in _slices(unknown, hand.at_once):
        if not hand.renew(prepared.claim):
            return Begun(None, [])
        begun.slices.append(line.offer(_advance, hand, prepared.claim, loaded, ready, line.keepers))
    return begun


def _advance(
    hand: Shift, claim: Claim, loaded: Loaded, ready: Sequence[tuple[WaitingScan, Decoded]], keepers: ThreadPoolExecutor
) -> list[Future[Result]]:
    """Score a slice, unless the worker is told to stop, and tell the ledger at once: that a claim was lost is noticed
    when its chunk is completed."""
    if hand.is_stopping():
        return []
    scored = score_slice(hand, loaded, ready, keepers)
    hand.renew(claim)
    return scored


def finish(hand: Shift, claim: Claim, begun: Begun) -> None:
    """Complete a chunk once all of it that was begun is scored, and its pictures are written; the rest waits again."""
    with _minding(hand, claim):
        scored = [one for part in begun.slices for one in part.result()]
        if begun.results is None:
            log.warning("chunk %d was taken over by another worker", claim.chunk_id)
            hand.leave(claim)
            return
        results = [*begun.results, *_finished(hand, claim, scored)]
        if hand.complete(claim, results):
            hand.scans += len(results)


def score_warily(hand: Shift, loaded: Loaded, claim: Claim, keepers: ThreadPoolExecutor) -> list[Result] | None:
    """Score a chunk that a worker was lost with, one scan at a time from its file to its pictures, each named by a
    breadcrumb first; None where the claim was lost. Who names a scan, and is lost with it, blames it: so the golden
    image comes before the first name. Raises DeviceUnsound."""
    loaded = hand.for_single_images(loaded, count=len(claim.scans))
    hand.prove(loaded)
    results: list[Result] = []
    for scan in claim.scans:
        if hand.is_stopping():
            break
        if not hand.renew(claim, breadcrumb=scan.id):
            return None
        try:
            results.append(score_alone(hand, loaded, scan, keepers))
        except RootUnavailable as error:
            _avoid(hand, claim, error)
            break
    return results if hand.renew(claim, breadcrumb=NOBODY) else None


def score_alone(hand: Shift, loaded: Loaded, scan: WaitingScan, keepers: ThreadPoolExecutor) -> Result:
    """Decode and score one scan, and write its pictures. Raises RootUnavailable."""
    decoded = prepare_scan(hand, loaded, scan)
    if isinstance(decoded, Rejected):
        return decoded
    (scored,) = score_slice(hand, loaded, [(scan, decoded)], keepers)
    return scored.result()


def _finished(hand: Shift, claim: Claim, scored: "Sequence[Future[Result]]") -> Iterator[Result]:
    """The results whose pictures are written; a scan whose root went away meanwhile waits again."""
    for future in scored:
        try:
            yield future.result()
        except RootUnavailable as error:
            _avoid(hand, claim, error)


def score_slice(
    hand: Shift, loaded: Loaded, ready: Sequence[tuple[WaitingScan, Decoded]], keepers: ThreadPoolExecutor
) -> "list[Future[Result]]":
    """Predict some scans at once; `keepers` write the pictures of what will be read while the device goes on. An engine
    that fails over several is asked one by one, so that one scan cannot spoil its neighbours. Raises DeviceUnsound
    where the golden image fails, too: then the engine is broken, and no scan is to blame."""
    started = time.perf_counter()
    pixels = np.stack([decoded.pixels for _, decoded in ready])
    try:
        predictions = predict(hand, loaded, pixels)
    except (MemoryError, ValueError, RuntimeError, FloatingPointError) as error:
        hand.prove(loaded)
        if len(ready) > hand.batch_size:
            return [one for part in _slices(ready, hand.batch_size) for one in score_slice(hand, loaded, part, keepers)]
        if len(ready) == 1:
            return [keepers.submit(_failed, ready[0][0], error)]
        return [result for one in ready for result in score_slice(hand, loaded, [one], keepers)]
    share = (time.perf_counter() - started) / len(ready)
    return [
        keepers.submit(_result, hand, loaded, scan, decoded, prediction, share)
        for (scan, decoded), prediction in zip(ready, predictions, strict=True)
    ]


def predict(hand: Shift, loaded: Loaded, pixels: NDArray[np.uint8]) -> "list[Prediction]":
    """Score N x S x S uint8; where the device has no room for a batch, with a batch half as large, and so on.
    Raises MemoryError when there is no room for one image."""
    while True:
        try:
            return loaded.predict(pixels)
        except MemoryError:
            loaded = replace(hand.smaller(loaded), view=loaded.view)


def _result(
    hand: Shift, loaded: Loaded, scan: WaitingScan, decoded: Decoded, prediction: "Prediction", share: float
) -> Result:
    if not prediction.is_chest:
        detail = f"distance {prediction.distance:.3f} from chest X-rays; the limit is {loaded.scorer.gate_limit:.3f}"
        return Rejected(scan.id, Reason.NOT_CHEST, detail, made=reuse.made(loaded, decoded, prediction))
    drawn = scan.drawn
    if drawn is not None or prediction.score >= loaded.view.threshold:
        try:
            derived.keep(hand.config.derived, hand.decoders, source_of(scan), scan.key, decoded, prediction)
        except UnreadableImage as error:  # gone or changed since it was decoded
            return Rejected(scan.id, error.code, error.detail)
    return Scored(
        scan_id=scan.id,
        score=prediction.score,
        class_scores=prediction.class_scores,
        evidence=asdict(decoded.evidence) | _first_stage(prediction),
        seconds=share + decoded.seconds,
        share=drawn,
        holds_from=prediction.holds_from,
        made=reuse.made(loaded, decoded, prediction),
        reused_from=None,
        **(prediction.made_by or loaded.scorer.describe()),
    )


def _first_stage(prediction: "Prediction") -> dict[str, float]:
    """For the record of an outcome that the second stage decided: what the first one had said."""
    return {} if prediction.first_score is None else {reuse.SAID_FIRST: prediction.first_score}


def _failed(scan: WaitingScan, error: Exception) -> Failed:
    cause = Cause.OUT_OF_MEMORY if isinstance(error, MemoryError) else Cause.ENGINE_ERROR
    return Failed(scan.id, cause, f"{type(error).__name__}: {error}"[:500])


def _slices(ready: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (ready[start : start + size] for start in range(0, len(ready), size))


def _release(hand: Shift, upcoming: "Future[Prepared | None]") -> None:
    """Give back a chunk that was prepared and will not be scored here."""
    if upcoming.cancel() or upcoming.exception() is not None:
        return
    prepared = upcoming.result()
    if prepared is not None:
        hand.give_back(prepared.claim)
