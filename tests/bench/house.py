"""A whole nightread in a temporary home, as `nightread up` runs it, to be measured from outside."""

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from processes import Others
from ratio import say
from sets import THRESHOLD
from sqlalchemy import func, select

from db import settings as reading_settings
from db.schema import Chunk, Outcome, Scan
from db.settings import Settings
from db.store import models, reading, thresholds
from db.store.connection import Database, connect
from deploy import home, local
from deploy.supervisor import Part, Supervisor
from producer import submission
from workers import model_folders, parity, trained_models

LOOK_SECONDS = 0.02
PATIENCE = 7200.0  # for a night
FIRST_PATIENCE = 300.0  # for its first outcome, the load of the model included
MOST_OTHERS = 0.03  # of the machine, beyond which a night says that it was not alone


@dataclass(frozen=True)
class Night:
    """One submitted folder: seconds from its submission to its last outcome, to its first, to its first claim; how many
    were scored, flagged, and looked at twice."""

    seconds: float
    first_outcome: float
    first_claim: float
    scored: int
    flagged: int
    second_looks: int
    others: float  # the share of the machine that something else took meanwhile

    @property
    def rate(self) -> float:
        """Scans a second, all told."""
        return self.scored / self.seconds

    @property
    def scoring_rate(self) -> float:
        """Scans a second from the first claim on."""
        return self.scored / (self.seconds - self.first_claim)


@dataclass
class House:
    """A home folder with everything that scores running."""

    db: Database
    supervisor: Supervisor

    def night(self, folder: Path) -> Night:
        """Submit a folder and wait for its last outcome."""
        _live_under(self.db.config)
        count = sum(1 for file in folder.rglob("*") if file.is_file())
        started = time.perf_counter()
        others = Others()
        watch = _Watch(self.db, started, count)
        watch.start()
        batch = submission.submit(self.db, folder, site_name=home.SITE).batch_id
        seconds = watch.wait()
        taken = others.share()
        if taken > MOST_OTHERS:
            say(f"  NOT QUIET: others took {taken:.0%} of this machine during this night")
        totals = reading.totals(self.db, batch)
        if totals.scored != count:
            raise SystemExit(f"not every image was scored: {totals}")
        return Night(seconds, watch.outcome, watch.claim, count, totals.flagged, self._second_looks(batch), taken)

    def _second_looks(self, batch: int) -> int:
        with self.db.reading() as session:
            rows = session.execute(
                select(Outcome.precision, func.count())
                .join(Scan, Scan.id == Outcome.scan_id)
                .where(Scan.batch_id == batch)
                .group_by(Outcome.precision)
            )
            by_precision = dict(rows.tuples().all())
        return by_precision.get("float32", 0) if len(by_precision) > 1 else 0


class _Watch:
    """Looks at the ledger, in a thread of its own, until every scan of a night has its outcome."""

    def __init__(self, db: Database, started: float, count: int) -> None:
        self._db, self._started, self._count = db, started, count
        with db.reading() as session:
            self._before = session.scalar(select(func.max(Outcome.id))) or 0
        self.claim = self.outcome = self.last = 0.0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> float:
        """Seconds to the last outcome. Raises SystemExit where there is none: the workers' logs say why."""
        self._thread.join(FIRST_PATIENCE)
        if self.outcome:
            self._thread.join(PATIENCE)
        if not self.last:
            raise SystemExit("the night does not end" if self.outcome else "the night does not begin")
        return self.last

    def _look(self) -> None:
        while not self.outcome:
            time.sleep(LOOK_SECONDS)
            with self._db.reading() as session:
                now = time.perf_counter() - self._started
                if not self.claim and session.scalar(select(Chunk.id).where(Chunk.token.is_not(None)).limit(1)):
                    self.claim = now
                if (session.scalar(select(func.max(Outcome.id))) or 0) > self._before:
                    self.outcome = now
        while True:
            time.sleep(5 * LOOK_SECONDS)
            with self._db.reading() as session:
                if (session.scalar(select(func.max(Outcome.id))) or 0) - self._before >= self._count:
                    self.last = time.perf_counter() - self._started
                    return


def _live_under(config: Settings) -> None:
    """Rings are sent by this process, under its own settings: it may run several houses."""
    ours = {name: value for name, value in local.environment(config).items() if name.startswith("NIGHTREAD_")}
    _forget()
    os.environ.update(ours)
    reading_settings.settings.cache_clear()


def settings_of(folder: Path, **given: Any) -> Settings:
    """Settings of a house: those given, else the defaults, whatever an earlier house has left in the environment."""
    _forget()
    return Settings(home=folder, **given)


def _forget() -> None:
    for name in [name for name in os.environ if name.startswith("NIGHTREAD_")]:
        del os.environ[name]


@contextmanager
def house(folder: Path, *, precision: str, workers: list[Part] | None = None, **given: Any) -> Iterator[House]:
    """Everything but the web, with its queue server and a worker a device, until the block ends. `given` are settings;
    `precision` is one of NIGHTREAD_PRECISION (int8 alone with a model whose report was changed to allow it)."""
    # Who ends a bench ends what it started, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    config = settings_of(folder, precision=precision, **given)
    _live_under(config)
    db = connect(config)
    home.make_ready(db)
    if precision == parity.INT8:
        allow_int8(db, folder / "int8-alone")
    model = models.active(db)
    thresholds.set_threshold(db, model.id, THRESHOLD, why="a night's share of flagged scans", by="bench")
    with local.only_one(config) as lock:
        supervisor = Supervisor(config.home / "logs", lock or 0, lambda text: print(text, file=sys.stderr))
        parts = [*local.queue_parts(config), *(local.scoring_parts(config) if workers is None else workers)]
        supervisor.start(parts)
        try:
            yield House(db, supervisor)
        except BaseException:
            for log in sorted((config.home / "logs").glob("*.log")):
                say(f"{log.name}: {log.read_text('utf-8')[-1500:]}")
            raise
        finally:
            supervisor.stop()
            db.engine.dispose()


def allow_int8(db: Database, folder: Path) -> None:
    """Activate a copy of the shipped model that runs at int8 alone. The shipped report refuses that, rightly: this copy
    has a changed one, to measure what two stages cost, and lives as long as the bench."""
    shutil.copytree(trained_models.SHIPPED, folder)
    model = trained_models.load_folder(folder)
    report = json.loads((folder / "parity.json").read_text("utf-8"))
    report["forms"]["int8"] |= {"p99": 0.0, "flips_outside": 0, "gate_flips_outside": 0, "refused": None}
    text = json.dumps(report).encode()
    (folder / "parity.json").write_bytes(text)
    changed = trained_models.File("parity.json", sha256(text).hexdigest())
    trained_models.write_model(folder, replace(model, version=f"{model.version}-int8", parity=changed))
    view = model_folders.take_in(db, folder, by="bench")
    models.activate(db, view.id, why="bench", by="bench")
