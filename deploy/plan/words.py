"""A plan as an admin reads it: one screen, the machine first, then the deadline, then tonight's queue."""

from collections.abc import Iterator
from typing import Any

from db.store.tonight import Queue
from deploy.plan.capacity import MARGIN, Answer, Binds, Measured, Spread, most
from deploy.plan.deadline import Deadline, length
from deploy.plan.machine import Machine
from deploy.plan.sampling import SHIPPED

Line = tuple[str, str]
BUSY = 0.1  # of the cores: others that take more falsify the figures
UNSTEADY = 0.25  # of the median, between the lowest and the highest round
FULL = 0.8  # of the memory
MANY = 0.05  # of the scans


def machine_lines(machine: Machine) -> Iterator[Line]:
    """What it has."""
    gpus = f"{len(machine.gpus)} × {machine.gpus[0]}" if machine.gpus else "no GPU"
    free = f"{machine.memory / 1e9:.1f} GB memory ({machine.memory_free / 1e9:.1f} GB free)"
    yield "This machine", f"{_count(machine.cores, 'core')} of {machine.processor}, {free}, {gpus}"


def measured_lines(said: dict[str, Any], measured: Measured) -> Iterator[Line]:
    """What was seen, on what."""
    yield "Measured on", f"{said['files']:,} {said['sample']}, {measured.mean_bytes / 1e6:,.2f} MB each on average"
    for one in said["passed_over"]:
        yield "", f"(not on {one['sample']}: {one['why']})"
    rounds = len(said["engine"])
    yield "", f"median of {rounds} rounds (lowest to highest)"
    yield "Model", f"{said['model']} on {said['engine_name']} at {_precision(said)}"
    device = "GPU-ms" if measured.is_gpu else "core-ms"
    engine = f"{1000 * measured.inference_seconds:,.1f} {device} each"
    yield "  inference", f"{_spread(measured.engine)} images/s alone, {engine}"
    prepared = f"{1000 * measured.preparation_seconds:,.1f} core-ms each"
    yield "  preparation", f"{_spread(measured.preparation)} scans/s alone, {prepared}"
    share = said["flagged"] / said["flagged_of"]
    efficiency = f"{measured.efficiency:.0%} of the {_rate(measured.ideal)} that the two allow"
    yield "  one worker", f"{_spread(measured.together)} scans/s, {efficiency}"
    yield "", f"(it also writes pictures of what is flagged: {share:.0%} of these)"
    if measured.mean_bytes:
        yield "  storage", f"read at {measured.reading.median / 1e6:,.0f} MB/s, {_rate(measured.storage)} scans/s"
    yield "  memory", f"{said['memory_bytes'] / 1e9:.1f} GB for one worker"


def cautions(said: dict[str, Any], measured: Measured, machine: Machine, *, is_scoring: bool) -> Iterator[Line]:
    """What these figures are not to be trusted for."""
    if said["sample"] == SHIPPED:
        yield (
            "Caution",
            "these samples stand in for your files, and most are flagged, which costs more: name a --folder",
        )
    if machine.busy is not None and machine.busy > BUSY * machine.cores:
        who = "tonight's scoring and others" if is_scoring else "others"
        yield "Caution", f"{who} kept {machine.busy:.1f} cores busy here: the figures are too low"
    if (measured.together.high - measured.together.low) > UNSTEADY * measured.together.median:
        yield "Caution", "the rounds differ by much: measure again on a quiet machine, or longer (--seconds)"
    rejected = sum(said["rejected"].values()) / max(said["looked"], 1)
    if rejected > MANY:
        yield "Caution", f"{rejected:.0%} of the scans looked at were rejected, which costs less than to score"
    if machine.memory and said["memory_bytes"] > FULL * machine.memory:
        yield "Caution", "the worker took nearly all the memory of this machine: fewer decoders (NIGHTREAD_DECODERS)"
    if said["cache_left_out"]:
        yield "Caution", "measured without the prepared cache: what lies in it costs no preparation"
    if measured.devices > 1:
        yield "Caution", f"one of {measured.devices} GPUs was measured; together they share the cores as computed"


def ability_lines(measured: Measured, *, seconds: float) -> Iterator[Line]:
    """What this machine does where no number of scans was named."""
    count, spare = most(measured, seconds=seconds), f"{MARGIN:.0%} to spare"
    yield "In a night", f"this machine does {count:,} scans in {length(seconds)} with {spare}; name yours with --scans"
    yield "  binds", _binds(measured)


def answer_lines(found: Answer, measured: Measured, by: Deadline) -> Iterator[Line]:
    """What the deadline needs."""
    spare = f"{_rate(found.wanted)} with {MARGIN:.0%} to spare"
    what = f"{_count(found.scans, 'scan')} in {length(found.seconds)}"
    yield "The deadline", f"{what}: {_rate(found.needed)} scans/s, {spare}"
    ends = f"alone it is done in {length(found.alone_seconds)} ({by.clock(found.alone_seconds)})"
    yield "  this machine", f"{_rate(measured.machine)} scans/s: {'meets it' if found.meets else _short(found)}; {ends}"
    yield "  needed", _needed(found, measured)
    yield "  binds", _binds(measured)
    if measured.mean_bytes:
        yield "  storage", _storage(found, measured)


def queue_lines(waits: Queue, workers: int, measured: Measured, by: Deadline) -> Iterator[Line]:
    """What waits, who is at it, and when it will be done."""
    if not waits.waiting:
        yield "Tonight", "nothing waits" + (" yet: a submission goes on" if waits.still_submitting else "")
        return
    more = ", and more to come: a submission goes on" if waits.still_submitting else ""
    yield "Tonight", f"{_count(waits.waiting, 'scan')} wait in {_count(waits.batches, 'batch', 'batches')}{more}"
    here = waits.waiting / measured.machine
    if not workers:
        yield "", "no worker is alive, so nothing gets done: `nightread up` starts those of this machine;"
        yield "", f"started now, it takes {length(here)}: done {_verdict(here, by)}"
        return
    yield "", f"{_count(workers, 'worker')} alive, {_pace(waits)}"
    left = _left(waits)
    ends = "nothing to tell the end by yet" if left is None else f"done {_verdict(left, by)}"
    yield "", f"at that rate {ends}; by what was measured here, this machine alone needs {length(here)}"


def expected_seconds(waits: Queue) -> float | None:
    """How long the queue takes at its own rate: of the last minutes, else as the pages of the web say it."""
    return _left(waits)


def _left(waits: Queue) -> float | None:
    return waits.waiting / waits.rate if waits.rate else waits.seconds_left


def _pace(waits: Queue) -> str:
    if waits.rate:
        return f"{_rate(waits.rate)} scans/s in the last minutes"
    return "too little done in the last minutes to tell a rate" + (
        ", so since submission" if waits.seconds_left else ""
    )


def _verdict(left: float, by: Deadline) -> str:
    when = "before" if left <= by.seconds else f"{length(left - by.seconds)} AFTER"
    return f"at {by.clock(left)}, {when} the deadline ({by.clock(by.seconds)})"


def _short(found: Answer) -> str:
    return "too slow" if found.alone_seconds > found.seconds else f"in time, but without {MARGIN:.0%} to spare"


def _needed(found: Answer, measured: Measured) -> str:
    if measured.is_gpu:
        return f"{_count(found.gpus, 'GPU')} like this one, with {_count(found.cores, 'core')} like these to feed them"
    one = "one worker on one machine" if found.machines == 1 else f"one worker on each of {found.machines:,} machines"
    return f"{one} like this one; {_count(found.cores, 'core')} like these in all"


def _binds(measured: Measured) -> str:
    if measured.binds == Binds.STORAGE:
        return "storage: files cannot be read faster here, and more cores would not help"
    if measured.is_gpu:
        by = {Binds.ENGINE: "the GPU: more cores would not help", Binds.PREPARATION: "decoding: more cores feed it"}
        return by[measured.binds]
    share = measured.inference_share
    return f"the cores: {share:.0%} of their time goes into inference, {1 - share:.0%} into preparation"


def _storage(found: Answer, measured: Measured) -> str:
    enough = found.bytes_per_second <= measured.reading.median
    held = "this machine read" if enough else "NOT met here; this machine read"
    return f"{found.bytes_per_second / 1e6:,.1f} MB/s needed in all; {held} {measured.reading.median / 1e6:,.0f} MB/s"


def _precision(said: dict[str, Any]) -> str:
    return "int8, and float32 for what may be flagged" if said["precision"] == "two_stage" else str(said["precision"])


def _spread(figure: Spread) -> str:
    return f"{_rate(figure.median)} ({_rate(figure.low)} to {_rate(figure.high)})"


def _rate(value: float) -> str:
    """A rate with as many places as tell something."""
    if value < 0.01:
        return "under 0.01"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
