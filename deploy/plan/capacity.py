"""How much a night needs, and how much workers give: the arithmetic of `nightread plan`, from measured figures alone.

A worker on a CPU shares its cores between inference and preparation, so at best it does cores / (inference +
preparation) scans a second, both in core-seconds a scan; one on a GPU does what the slower of the two allows. What it
does in truth was measured with both at once; the quotient of the two is its efficiency. Reading the files may allow
less. A plan keeps MARGIN of what is needed to spare."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

MARGIN = 0.20


class Binds(StrEnum):
    """What allows no more scans a second."""

    ENGINE = "engine"
    PREPARATION = "preparation"
    STORAGE = "storage"


@dataclass(frozen=True)
class Spread:
    """A figure measured several times."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(statistics.median(values), min(values), max(values))

    def as_json(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Measured:
    """One worker of this machine. `engine`, `preparation`, `together` in scans a second, `reading` in bytes a second;
    `threads` are the engine's on a CPU, `decoders` the processes that prepare; `devices` how many such workers the
    machine has room for (one a GPU, or one on the CPU)."""

    is_gpu: bool
    cores: int
    threads: int
    decoders: int
    devices: int
    engine: Spread
    preparation: Spread
    together: Spread
    reading: Spread
    mean_bytes: float

    @property
    def inference_seconds(self) -> float:
        """Of one core for an image, or of the GPU."""
        return (1 if self.is_gpu else min(self.threads, self.cores)) / self.engine.median

    @property
    def preparation_seconds(self) -> float:
        """Of one core for a scan."""
        return min(self.decoders, self.cores) / self.preparation.median

    @property
    def ideal(self) -> float:
        """Scans a second of one worker if nothing but inference and preparation took time."""
        either = min(self.engine.median, self.preparation.median)
        if self.is_gpu:
            return either
        return min(either, self.cores / (self.inference_seconds + self.preparation_seconds))

    @property
    def efficiency(self) -> float:
        """Of one worker: measured over ideal."""
        return self.together.median / self.ideal

    @property
    def inference_share(self) -> float:
        """Of the core-seconds that a scan takes, 0 to 1; on a GPU inference takes none."""
        if self.is_gpu:
            return 0.0
        return self.inference_seconds / (self.inference_seconds + self.preparation_seconds)

    @property
    def storage(self) -> float:
        """Scans a second that reading allows; infinite where nothing could be read to tell."""
        return self.reading.median / self.mean_bytes if self.mean_bytes else math.inf

    @property
    def workers(self) -> float:
        """Scans a second of all workers of this machine, were reading free. More GPUs than the measured one share its
        cores."""
        if self.devices == 1:
            return self.together.median
        decoding = self.cores / self.preparation_seconds
        return self.efficiency * min(self.devices * self.engine.median, decoding)

    @property
    def machine(self) -> float:
        """Scans a second of this machine."""
        return min(self.workers, self.storage)

    @property
    def binds(self) -> Binds:
        """What would have to grow first."""
        if self.storage < self.workers:
            return Binds.STORAGE
        if self.is_gpu:
            fed = self.cores / self.preparation_seconds
            return Binds.ENGINE if self.devices * self.engine.median <= fed else Binds.PREPARATION
        return Binds.ENGINE if self.inference_share >= 0.5 else Binds.PREPARATION


@dataclass(frozen=True)
class Answer:
    """What so many scans in so many seconds need. `wanted` is `needed` with MARGIN, in scans a second; `machines` like
    this one; `cores` like these in all (beside GPUs: for preparation); `gpus` like this one, 0 where none is here."""

    scans: int
    seconds: float
    needed: float
    wanted: float
    meets: bool
    alone_seconds: float
    machines: int
    cores: int
    gpus: int
    bytes_per_second: float

    def as_json(self) -> dict[str, Any]:
        told = {name: round(value, 3) if isinstance(value, float) else value for name, value in vars(self).items()}
        return {**told, "margin": MARGIN}


def answer(measured: Measured, *, scans: int, seconds: float) -> Answer:
    """What it takes to do `scans` in `seconds`."""
    needed = scans / seconds
    wanted = needed * (1 + MARGIN)
    core_seconds = measured.preparation_seconds + (0 if measured.is_gpu else measured.inference_seconds)
    return Answer(
        scans=scans,
        seconds=seconds,
        needed=needed,
        wanted=wanted,
        meets=measured.machine >= wanted,
        alone_seconds=scans / measured.machine,
        machines=math.ceil(wanted / measured.workers),
        cores=math.ceil(wanted * core_seconds / measured.efficiency),
        gpus=math.ceil(wanted / (measured.efficiency * measured.engine.median)) if measured.is_gpu else 0,
        bytes_per_second=wanted * measured.mean_bytes,
    )


def most(measured: Measured, *, seconds: float) -> int:
    """How many scans this machine does in so many seconds with MARGIN to spare."""
    return int(measured.machine * seconds / (1 + MARGIN))
