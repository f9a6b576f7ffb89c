"""What one worker process holds through the night: its decoders, its trained models, its heartbeat."""

import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from db.errors import DatabaseUnreachable, ModelRefused
from db.settings import Settings, settings
from db.store import models, scoring
from db.store.connection import Database, database
from workers.decoding import DecoderPool
from workers.devices import REFUSES, worker_name
from workers.images import Limits

if TYPE_CHECKING:
    from workers.scoring import Scorer

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
AVOID_SECONDS = 30.0  # how long a batch is left alone whose root did not answer
MODELS_KEPT = 2  # the active one, and the one that an older batch finishes with


@dataclass(frozen=True)
class Loaded:
    """A trained model in this process, ready to score."""

    view: models.ModelView
    scorer: "Scorer"
    batch_size: int


@dataclass
class Shift:
    """One worker process at work; made once in the child."""

    config: Settings
    db: Database
    device: str
    decoders: DecoderPool
    name: str = ""
    doing: str = "starting"
    idle: str = "waiting"  # what the heartbeat says between rings
    scans: int = 0
    batch_size: int = 0  # images in one call of the engine; halved when the device ran out of memory
    _loaded: dict[int, Loaded] = field(default_factory=dict)
    _avoided: dict[int, float] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)  # trained models that this worker cannot run
    _held: dict[str, scoring.Claim] = field(default_factory=dict)
    _renewed: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = self.name or worker_name(self.device)
        self.batch_size = self.batch_size or self.config.engine_batch

    def model(self, model_id: int) -> Loaded:
        """A trained model, loaded at its first use. Raises ModelRefused."""
        # Only here, in the child: the parent imports this module and must not load TensorFlow.
        from workers.scoring import Scorer

        if model_id not in self._loaded:
            view = models.get(self.db, model_id)
            self.doing = f"loading {view.label}"
            scorer = Scorer.load(
                Path(view.folder), batch_size=self.batch_size, threads=threads(self.config), device=self.device
            )
            if scorer.model.weights.sha256 != view.weights_sha256:
                raise ModelRefused(f"{view.folder} holds other weights than {view.label}")
            while len(self._loaded) >= MODELS_KEPT:
                del self._loaded[next(iter(self._loaded))]
            self._loaded[model_id] = Loaded(view, scorer, self.batch_size)
        return self._loaded[model_id]

    def refuse(self, model_id: int) -> None:
        """Leave a trained model alone that this worker cannot run, and say so in the heartbeat."""
        self.refused.add(model_id)
        self.idle = f"{REFUSES}{models.get(self.db, model_id).label}"

    def smaller(self, loaded: Loaded) -> Loaded:
        """The same trained model with half the batch, after the device ran out of memory. Raises MemoryError when
        it ran out with a single image."""
        current = self.model(loaded.view.id)
        if current.batch_size < loaded.batch_size:
            return current  # made smaller already, for a chunk before this one
        if loaded.batch_size == 1:
            raise MemoryError("no room for a single image")
        self.batch_size = loaded.batch_size // 2
        log.warning("the device ran out of memory: %d images at once from now on", self.batch_size)
        del self._loaded[loaded.view.id]
        return self.model(loaded.view.id)

    def claim(self, model_id: int) -> scoring.Claim | None:
        """Take the most urgent chunk of a trained model, but for batches that are left alone just now."""
        claim = scoring.claim_chunk(
            self.db,
            self.name,
            trained_model_id=model_id,
            lease_seconds=self.config.lease_seconds,
            not_batches=self.avoided(),
        )
        if claim is not None:
            self._held[claim.token] = claim
            self._renewed[claim.token] = time.monotonic()
        return claim

    def renew(self, claim: scoring.Claim, *, breadcrumb: int | None = None) -> bool:
        """Tell the ledger of progress: every chunk in hand keeps its lease, the one that is prepared ahead too.
        False when this claim was lost."""
        for other in [held for held in self._held.values() if held.token != claim.token]:
            self._renew(other, None)
        return self._renew(claim, breadcrumb)

    def complete(self, claim: scoring.Claim, results: Sequence[scoring.Result]) -> bool:
        """Hand a chunk in; scans without a result go back to waiting. False when the claim was lost."""
        self._held.pop(claim.token, None)
        self._renewed.pop(claim.token, None)
        return scoring.complete_chunk(self.db, claim, results)

    def _renew(self, claim: scoring.Claim, breadcrumb: int | None) -> bool:
        """Ask the ledger at most three times a lease, unless there is a breadcrumb to write."""
        since = time.monotonic() - self._renewed.get(claim.token, 0.0)
        if breadcrumb is None and since < self.config.lease_seconds / 3:
            return True
        self._renewed[claim.token] = time.monotonic()
        return scoring.renew(self.db, claim, lease_seconds=self.config.lease_seconds, breadcrumb=breadcrumb)

    def avoid(self, batch_id: int) -> None:
        """Leave a batch alone for a while: its root does not answer."""
        self._avoided[batch_id] = time.monotonic() + AVOID_SECONDS

    def avoided(self) -> set[int]:
        """The batches that are left alone just now."""
        return {batch_id for batch_id, until in self._avoided.items() if until > time.monotonic()}

    def is_stopping(self) -> bool:
        """Whether the parent was told to stop (it leaves a note under its process id)."""
        return stopping_note(self.config, os.getppid()).exists()

    def start_beating(self) -> None:
        """Write the heartbeat now and every few seconds until the process ends, also while the device is busy."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _beat(self) -> None:
        host, pid = socket.gethostname(), os.getpid()
        while True:
            try:
                scoring.beat(
                    self.db, name=self.name, host=host, device=self.device, pid=pid, doing=self.doing, scans=self.scans
                )
            except DatabaseUnreachable as error:
                log.error("no heartbeat: %s", error)
            time.sleep(BEAT_SECONDS)


def threads(config: Settings) -> int:
    """Threads of an engine on a CPU."""
    return config.engine_threads or len(os.sched_getaffinity(0))


def stopping_note(config: Settings, parent: int) -> Path:
    """The file by which a worker's parent process tells its child to finish."""
    return config.home / "run" / f"{parent}.stopping"


def limits(config: Settings) -> Limits:
    """What a submitted file may cost, from the settings."""
    return Limits(
        max_bytes=config.max_file_mb * 1_000_000,
        max_pixels=config.max_megapixels * 1_000_000,
        min_side=config.min_side,
    )


@cache
def shift() -> Shift:
    """This process's shift."""
    config = settings()
    cv2.setNumThreads(1)  # the cores are the engine's
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "-1")
    device = "cpu" if visible in ("-1", "") else f"gpu:{visible}"
    return Shift(config, database(), device, decoder_pool(config))


def decoder_pool(config: Settings) -> DecoderPool:
    """Decoder processes as the settings have them: as many as cores, limited in memory and time."""
    return DecoderPool(
        config.decoders or len(os.sched_getaffinity(0)),
        limits(config),
        memory_bytes=config.decode_memory_mb * 1_000_000,
        seconds=config.decode_seconds,
    )
