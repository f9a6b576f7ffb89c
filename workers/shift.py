"""What one worker process holds through the night: its decoders, its trained models, its heartbeat."""

import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from db.errors import DatabaseUnreachable, DeviceUnsound, ModelRefused
from db.settings import Settings, settings
from db.store import heartbeats, models, scoring
from db.store.connection import Database, database
from workers import engines, golden, parity, prepared_cache
from workers.decoding import DecoderPool
from workers.devices import REFUSES, worker_name
from workers.prepared_cache import PreparedCache
from workers.provisions import decoder_pool, limits, stopping_note, threads
from workers.read_ahead import ReadAhead
from workers.two_stage import TwoStage, stages

if TYPE_CHECKING:
    from workers.scoring import Prediction, Scorer

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
AVOID_SECONDS = 30.0  # how long a batch is left alone whose root did not answer
REFUSE_SECONDS = 60.0  # how long a trained model is that this worker cannot run: folders come back, and so do devices
WAITING = "waiting"
LOAD_FOR = 8  # images scored one by one, beyond which it pays to load the model for single ones
MODELS_KEPT = 2  # the active one, and the one that an older batch finishes with


@dataclass(frozen=True)
class Loaded:
    """A trained model in this process, ready to score."""

    view: models.ModelView
    scorer: "Scorer | TwoStage[Scorer]"
    batch_size: int
    reduce: tuple[str, ...] = ()  # codecs that are read at a reduced size, where the parity report allows it

    def predict(self, pixels: NDArray[np.uint8]) -> "list[Prediction]":
        """Score N x S x S uint8; of two stages, the threshold that rules says what the second looks at."""
        if isinstance(self.scorer, TwoStage):
            return self.scorer.predict(pixels, threshold=self.view.threshold)
        return self.scorer.predict(pixels)


@dataclass
class Shift:
    """One worker process at work; made once in the child."""

    config: Settings
    db: Database
    device: str
    decoders: DecoderPool
    name: str = ""
    doing: str = "starting"
    idle: str = WAITING  # what the heartbeat says between rings
    scans: int = 0
    batch_size: int = 0  # images in one call of the engine; halved when the device ran out of memory
    cache: PreparedCache | None = None  # of prepared scans, where the settings name one
    ahead: ReadAhead | None = None
    _loaded: dict[int, Loaded] = field(default_factory=dict)
    _single: dict[int, Loaded] = field(default_factory=dict)
    _avoided: dict[int, float] = field(default_factory=dict)  # batches, until when
    _refused: dict[int, float] = field(default_factory=dict)  # trained models that this worker cannot run, until when
    _held: dict[str, scoring.Claim] = field(default_factory=dict)
    _renewed: dict[str, float] = field(default_factory=dict)
    _mending: threading.RLock = field(default_factory=threading.RLock)  # several slices may fail at a time

    def __post_init__(self) -> None:
        self.name = self.name or worker_name(self.device)
        self.batch_size = self.batch_size or self.full_batch
        self.cache = self.cache or prepared_cache.opened(self.config, limits(self.config))
        self.ahead = self.ahead or ReadAhead(self.config.read_ahead_mb * 1_000_000)

    @property
    def full_batch(self) -> int:
        """Images in one call of the engine, as long as the device has room for them."""
        return engines.batch_size(self.config.engine_batch, self.device)

    @property
    def at_once(self) -> int:
        """How many images to offer at a time: several batches where the device computes one while another is fetched,
        because it stands still at the end of each offer."""
        return self.batch_size * (engines.OFFERED if engines.under_way(self.device) > 1 else 1)

    def model(self, model_id: int) -> Loaded:
        """A trained model; at its first use it is loaded and proved. Raises ModelRefused, DeviceUnsound."""
        if model_id not in self._loaded:
            try:
                self.prove(self._load(model_id))
            except BaseException:
                self._loaded.pop(model_id, None)  # what is not proved is not used
                raise
            self._refused.pop(model_id, None)
            self.idle = self.idle if self._refused else WAITING
        return self._loaded[model_id]

    def _load(self, model_id: int) -> Loaded:
        view = models.get(self.db, model_id)
        self.doing = f"loading {view.label}"
        loaded = self._ready(view, self.batch_size)
        while len(self._loaded) >= MODELS_KEPT:
            del self._loaded[next(iter(self._loaded))]
        self._loaded[model_id] = loaded
        return loaded

    def _ready(self, view: models.ModelView, batch_size: int) -> Loaded:
        # Only here, in the child: the parent imports this module and must not load TensorFlow.
        from workers.scoring import Scorer

        scorer = Scorer.load(
            Path(view.folder),
            batch_size=batch_size,
            threads=threads(self.config),
            device=self.device,
            engine=self.config.engine,
            precision=self.config.precision,
        )
        if scorer.model.weights.sha256 != view.weights_sha256:
            raise ModelRefused(f"{view.folder} holds other weights than {view.label}")
        report = parity.read(Path(view.folder), scorer.model)
        return Loaded(view, scorer, batch_size, parity.reductions(report, self.config.decode))

    def for_single_images(self, loaded: Loaded, *, count: int) -> Loaded:
        """The same trained model with a batch of one: a larger one costs the same however few images are in it. For
        few images it is not worth loading, and OpenVINO's requests are small anyway."""
        if count <= LOAD_FOR or loaded.scorer.describe()["engine"] == "openvino":
            return loaded
        if loaded.view.id not in self._single:
            self._single = {loaded.view.id: self._ready(loaded.view, 1)}
        return replace(self._single[loaded.view.id], view=loaded.view)

    def at_todays_threshold(self, loaded: Loaded) -> Loaded:
        """The model as it was loaded, with the threshold that rules now: it decides whose pictures are kept."""
        return replace(loaded, view=replace(loaded.view, threshold=models.threshold(self.db, loaded.view.id)))

    def prove(self, loaded: Loaded) -> None:
        """Show that this device is sound: the golden image is scored as ever. Raises DeviceUnsound; the model is
        loaded anew then, before it is used again."""
        with self._mending:
            self._prove(loaded)

    def _prove(self, loaded: Loaded) -> None:
        try:
            while True:
                try:
                    for scorer in stages(loaded.scorer):
                        golden.check(self.db, loaded.view, scorer, count=loaded.batch_size, worker=self.name)
                    return
                except MemoryError:
                    loaded = self.smaller(loaded)
        except (DeviceUnsound, MemoryError) as error:
            self._loaded.pop(loaded.view.id, None)
            self._single.pop(loaded.view.id, None)
            self.batch_size = self.full_batch
            raise DeviceUnsound(str(error)) from error

    def refuse(self, model_id: int, error: Exception) -> None:
        """Leave a trained model alone for a while that this worker cannot run, and say so in the heartbeat."""
        log.error("model %d: its batches wait: %s", model_id, error)
        self._refused[model_id] = time.monotonic() + REFUSE_SECONDS
        why = ": device unsound" if isinstance(error, DeviceUnsound) else ""
        self.idle = f"{REFUSES}{models.get(self.db, model_id).label}{why}"

    def refused(self) -> set[int]:
        """The trained models that are left alone just now."""
        return {model_id for model_id, until in self._refused.items() if until > time.monotonic()}

    def smaller(self, loaded: Loaded) -> Loaded:
        """The same trained model with half the batch, after the device ran out of memory. Raises MemoryError when
        it ran out with a single image."""
        with self._mending:
            return self._smaller(loaded)

    def _smaller(self, loaded: Loaded) -> Loaded:
        current = self._loaded.get(loaded.view.id) or self._load(loaded.view.id)
        if current.batch_size < loaded.batch_size:
            return current  # made smaller already, for a chunk before this one
        if loaded.batch_size == 1:
            raise MemoryError("no room for a single image")
        self.batch_size = loaded.batch_size // 2
        log.warning("the device ran out of memory: %d images at once from now on", self.batch_size)
        self._loaded.pop(loaded.view.id, None)
        return self._load(loaded.view.id)

    def claim(self, model_id: int) -> scoring.Claim | None:
        """Take the most urgent chunk of a trained model, but for batches that are left alone just now."""
        claim = scoring.claim_chunk(
            self.db,
            self.name,
            trained_model_id=model_id,
            lease_seconds=self.config.lease_seconds,
            not_batches=self.avoided(),
            pid=os.getpid(),
        )
        if claim is not None:
            self._held[claim.token] = claim
            self._renewed[claim.token] = time.monotonic()
        return claim

    def renew(self, claim: scoring.Claim, *, breadcrumb: int | None = None) -> bool:
        """Tell the ledger of progress: every chunk in hand keeps its lease, the one that is prepared ahead too.
        False when this claim was lost."""
        for other in [held for held in list(self._held.values()) if held.token != claim.token]:
            self._renew(other, None)
        return self._renew(claim, breadcrumb)

    def complete(self, claim: scoring.Claim, results: Sequence[scoring.Result]) -> bool:
        """Hand a chunk in; scans without a result go back to waiting. False when the claim was lost."""
        self.leave(claim)
        return scoring.complete_chunk(self.db, claim, results)

    def give_back(self, claim: scoring.Claim) -> None:
        """Let a chunk wait again at no cost: no scan of it is to blame."""
        self.complete(claim, [])

    def leave(self, claim: scoring.Claim) -> None:
        """Renew this claim no more; what it holds is left to the end of its lease."""
        self._held.pop(claim.token, None)
        self._renewed.pop(claim.token, None)

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
                heartbeats.beat(
                    self.db, name=self.name, host=host, device=self.device, pid=pid, doing=self.doing, scans=self.scans
                )
            except DatabaseUnreachable as error:
                log.error("no heartbeat: %s", error)
            time.sleep(BEAT_SECONDS)


@cache
def shift() -> Shift:
    """This process's shift."""
    config = settings()
    cv2.setNumThreads(1)  # the cores are the engine's
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "-1")
    device = "cpu" if visible in ("-1", "") else f"gpu:{visible}"
    return Shift(config, database(), device, decoder_pool(config))
