"""`nightread worker --prepare`: fills the prepared cache for chunks that wait, on cores alone, so that few GPUs are not
kept waiting. It claims nothing: whatever becomes of it, no scan is lost or late. Loads no engine.

It works in the order in which chunks will be claimed, but leaves the first ones to the workers that score: they are
just about to take these. Several machines share the work by files in the cache's folder that only one can make.
"""

import fcntl
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from db.errors import DatabaseUnreachable, DecodersUnavailable, ModelRefused, Refused, RootUnavailable
from db.settings import Settings
from db.store import heartbeats, models, reading
from db.store.connection import Database
from db.store.heartbeats import PREPARES
from db.store.scoring import WaitingScan
from db.store.upcoming import Upcoming, scans_of, upcoming
from db.words import Exit
from workers import background, model_folders, parity
from workers.decoding import DecoderPool, Prepared
from workers.prepared_cache import Eyes, PreparedCache
from workers.preparing import MOST_AT_ONCE, ORDERS, decoded, parts, source_of
from workers.provisions import decoder_pool, limits
from workers.read_ahead import ReadAhead
from workers.shift import AVOID_SECONDS, BEAT_SECONDS, WAITING

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0  # between two looks at what waits
TAKEN_SECONDS = 60.0  # a chunk whose preparer shows no progress for that long is another's
END_SECONDS = 2.0  # told to stop, what is half done by then is dropped: files of the cache are whole or not there
_TAKEN = "taken"


@dataclass(frozen=True)
class Task:
    """A chunk to be prepared, and the file that says who does."""

    chunk: Upcoming
    scans: tuple[WaitingScan, ...]
    eyes: Eyes
    mark: Path


@dataclass
class Preparer:
    """Prepares what waits, some chunks at a time."""

    db: Database
    cache: PreparedCache
    decoders: DecoderPool
    ahead: ReadAhead
    doing: str = WAITING
    scans: int = 0  # prepared here
    stopping: threading.Event = field(default_factory=threading.Event)
    _done: set[int] = field(default_factory=set)  # chunks
    _avoided: dict[int, float] = field(default_factory=dict)  # batches, until when: their root did not answer
    _eyes: dict[int, Eyes | None] = field(default_factory=dict)  # by trained model; None: its folder is of no use

    def round(self) -> int:
        """Look at what waits, and prepare the first chunks of it that nobody prepares; how many scans were decoded.
        Raises DatabaseUnreachable, DecodersUnavailable."""
        if self.cache.is_short_of_room():
            self.doing = f"{WAITING}: the cache's disk is full"
            return 0
        waiting = upcoming(self.db, skip=self._scorers(), not_batches=self._avoided_now())
        self._done &= {chunk.chunk_id for chunk in waiting}
        before = self.scans
        tasks = self._take(waiting)
        try:
            self._prepare(tasks)
        finally:
            for task in tasks:
                task.mark.unlink(missing_ok=True)
            self.doing = WAITING
        return self.scans - before

    def _scorers(self) -> int:
        return sum(worker.alive and worker.scores for worker in reading.workers(self.db))

    def _avoided_now(self) -> set[int]:
        return {batch_id for batch_id, until in self._avoided.items() if until > time.monotonic()}

    def _take(self, waiting: list[Upcoming]) -> list[Task]:
        """Mark chunks as taken, until every decoder has enough to do."""
        tasks: list[Task] = []
        enough = ORDERS * MOST_AT_ONCE * self.decoders.count
        for chunk in waiting:
            if sum(len(task.scans) for task in tasks) >= enough or self.stopping.is_set():
                break
            eyes = None if chunk.chunk_id in self._done else self._eyes_of(chunk.trained_model_id)
            if eyes is None:
                continue
            scans = tuple(one for one in scans_of(self.db, chunk.chunk_id) if not self.cache.has(eyes, one.sha256))
            mark = self.cache.folder / _TAKEN / (scans[0].key if scans else "")
            if scans and is_taken_by_us(mark):
                tasks.append(Task(chunk, scans, eyes, mark))
            elif not scans:
                self._done.add(chunk.chunk_id)
        return tasks

    def _prepare(self, tasks: list[Task]) -> None:
        self.ahead.want(source_of(scan) for task in tasks for scan in task.scans)
        threads = ThreadPoolExecutor(self.decoders.count, "prepare")
        working: list[tuple[Task, Future[None]]] = [
            (task, threads.submit(self._prepare_part, task, part))
            for task in tasks
            for part in parts(task.scans, self.decoders.count)
        ]
        try:
            for task, future in working:
                self.doing = f"preparing batch {task.chunk.batch_id}, chunk {task.chunk.chunk_id}"
                try:
                    future.result()
                except RootUnavailable as error:
                    log.error("batch %d waits: %s", task.chunk.batch_id, error)
                    self._avoided[task.chunk.batch_id] = time.monotonic() + AVOID_SECONDS
            self._done |= {task.chunk.chunk_id for task in tasks if task.chunk.batch_id not in self._avoided_now()}
        finally:
            threads.shutdown(cancel_futures=True)

    def _prepare_part(self, task: Task, scans: Sequence[WaitingScan]) -> None:
        """What cannot be read is left to the worker that scores: it says why."""
        missing = [] if self.stopping.is_set() else [one for one in scans if not self.cache.has(task.eyes, one.sha256)]
        for answer in decoded(self.decoders, self.cache, task.eyes, missing, ahead=self.ahead):
            self.scans += isinstance(answer, Prepared)
            with suppress(FileNotFoundError):
                os.utime(task.mark)
            if self.stopping.is_set():
                return

    def _eyes_of(self, model_id: int) -> Eyes | None:
        if model_id not in self._eyes:
            view = models.get(self.db, model_id)
            try:
                self._eyes[model_id] = eyes_of_model(view, self.db.config.decode)
            except ModelRefused as error:
                log.error("model %d: its scans are not prepared: %s", model_id, error)
                self._eyes[model_id] = None
        return self._eyes[model_id]


def eyes_of_model(view: models.ModelView, decode: str) -> Eyes:
    """How a trained model wants to see, from its folder, under the setting DECODE. Raises ModelRefused."""
    model = model_folders.checked(view)
    return Eyes(view.input_size, model.preprocessing, parity.reductions(parity.read(Path(view.folder), model), decode))


def run(db: Database) -> int:
    """Prepare until SIGTERM or SIGINT. Raises Refused where there is no cache, or one runs here already."""
    config = db.config
    if config.prepared is None:
        raise Refused("nothing to prepare for: NIGHTREAD_PREPARED_CACHE names the folder of the prepared cache")
    cache = PreparedCache(config.prepared, limits(config))
    (cache.folder / _TAKEN).mkdir(mode=0o700, exist_ok=True)
    background.give_way()
    with only_one(config):
        preparer = Preparer(db, cache, decoder_pool(config), ReadAhead(config.read_ahead_mb * 1_000_000))
        _until_stopped(preparer)
        with suppress(DatabaseUnreachable):
            heartbeats.worker_stopped(db, name())
        logging.shutdown()
        # Decoders end with their input, files of the cache are whole: nothing is waited for, least of all storage.
        os._exit(Exit.DONE)


def _until_stopped(preparer: Preparer) -> None:
    """Work in a thread and write the heartbeat in this one. Raises what ends the thread."""
    ended: list[BaseException] = []

    def work() -> None:
        try:
            _work(preparer)
        except BaseException as error:  # noqa: BLE001 (raised by the main thread)
            ended.append(error)
            preparer.stopping.set()

    def stop(number: int, frame: FrameType | None) -> None:
        preparer.stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    worker = threading.Thread(target=work, name="prepare", daemon=True)
    worker.start()
    while True:
        _beat(preparer)
        if preparer.stopping.wait(BEAT_SECONDS):
            break
    worker.join(END_SECONDS)
    if ended:
        raise ended[0]


def _work(preparer: Preparer) -> None:
    while not preparer.stopping.is_set():
        try:
            if preparer.round():
                continue
        except (DatabaseUnreachable, DecodersUnavailable, OSError) as error:
            log.error("%s", error)
        preparer.stopping.wait(LOOK_SECONDS)


def _beat(preparer: Preparer) -> None:
    host = socket.gethostname()
    try:
        heartbeats.beat(
            preparer.db,
            name=name(),
            host=host,
            device=PREPARES,
            pid=os.getpid(),
            doing=preparer.doing,
            scans=preparer.scans,
        )
    except DatabaseUnreachable as error:
        log.error("no heartbeat: %s", error)


def name() -> str:
    """The name under which this machine's prepare worker writes its heartbeat."""
    return f"{socket.gethostname()}:prepare"


def is_taken_by_us(mark: Path) -> bool:
    """Make the file that says that a chunk is being prepared; False where another one did, and still is at it."""
    with suppress(OSError):
        if time.time() - mark.stat().st_mtime > TAKEN_SECONDS:
            mark.unlink(missing_ok=True)
    try:
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError:
        return False
    return True


@contextmanager
def only_one(config: Settings) -> Iterator[None]:
    """One uses all the cores that it may have; a second one of this machine is Refused."""
    folder = config.home / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / f"prepare-{socket.gethostname()}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise Refused("a prepare worker runs on this machine already: it uses every core that it may have") from error
    finally:
        os.close(lock)
