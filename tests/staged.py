"""Staged nights: the ledger, the tasks and the sweep as they are, in processes that may be killed; the device is a stub
whose score is a function of the pixels, so that an oracle knows every score. Loads no engine.

A stage is a folder of small pictures, a home folder, and what every file must come to."""

import contextlib
import json
import logging
import multiprocessing
import os
import threading
import time
from dataclasses import replace
from functools import cache
from multiprocessing import forkserver
from pathlib import Path

import builders
import numpy as np
from sqlalchemy import text

from db.settings import settings
from db.store import scoring
from db.store.audit import audit_key
from db.store.connection import connect, database
from deploy.drill import auditor, stub
from deploy.drill.runs import Expected, ExpectedOutcome, Run
from deploy.drill.scans import expected_score
from producer import submission
from workers import sweep
from workers.images import Limits, read, to_grey8
from workers.preprocessing import prepare

PATIENCE = 120  # seconds; the machine may be busy
CANARY = "Zz-planted-PATIENT-name"  # in every file's name
CHUNK, ENGINE = 4, 2  # scans a chunk, images in one call of the engine
PLACES = (Path(__file__).parent, Path(__file__).parents[1])
# What children run, imported once before they are forked. They plant an engine, so this process never imports the first
# two; the last is its main module.
CHILDREN = ["staged_child", "staged_nights", "pytest"]


def pictures(count):
    """`count` small pictures, all different, as PNG."""
    drawn = np.random.default_rng(7)
    return [builders.encoded(".png", drawn.integers(30, 220, (70, 70), dtype=np.uint8)) for _ in range(count)]


def write_folder(folder, *, good=8):
    """Good pictures, a second copy, and three sorts of bad ones; what each must come to, by name."""
    folder.mkdir()
    found = {f"{CANARY}-{number:02}.png": content for number, content in enumerate(pictures(good))}
    files = {
        **found,
        f"{CANARY}-again.png": found[f"{CANARY}-00.png"],
        f"{CANARY}-cut.png": pictures(1)[0][:-300],
        f"{CANARY}-empty.png": b"",
        f"{CANARY}-page.png": b"<html>not found</html>",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    rejected = {"again": "duplicate", "cut": "truncated", "empty": "empty", "page": "not_an_image"}
    bad = {f"{CANARY}-{name}.png": ExpectedOutcome("rejected", reason=why) for name, why in rejected.items()}
    return {os.fsencode(name): bad.get(name) or oracle(content) for name, content in files.items()}


def oracle(content):
    """How a good picture must end."""
    return ExpectedOutcome("scored", score=expected_score(content))


def expected_digest(content):
    """What the stub knows a picture by, in hex."""
    pixels, _ = prepare(to_grey8(read(content, Limits())), stub.INPUT_SIZE)
    return stub.digest(pixels).hex()


class Stage:
    """One night's folder and home, and the processes that come and go in it."""

    def __init__(self, config, folder, files):
        self.config = config.model_copy(
            update={"chunk_size": CHUNK, "engine_batch": ENGINE, "decoders": 1, "lease_seconds": 30.0}
        )
        self.folder, self.files = folder, dict(files)
        self.db = connect(self.config)
        self.logs = config.home / "logs"
        self.marks = config.home / "marks"
        for made in (self.logs, self.marks):
            made.mkdir()
        self._children = []

    def start(self, do, **order):
        """A child that does `do` (a function of staged_child, or module.function); its process."""
        context = forking()
        said = {**self.config.model_dump(mode="json"), "queue_url": self.config.queue}
        order |= {
            "do": do if "." in do else f"{CHILDREN[0]}.{do}",
            "settings": said,
            "folder": str(self.folder),
            "marks": str(self.marks),
            "tester": os.getpid(),
        }
        child = context.Process(target=run_child, args=(json.dumps(order), str(self.logs / "child.log")))
        child.start()
        self._children.append(child)
        return child

    def run(self, do, **order):
        """The same, and wait for its end; the exit code."""
        child = self.start(do, **order)
        child.join(PATIENCE)
        assert child.exitcode is not None, f"{do} did not end"
        return child.exitcode

    def submit(self):
        self.batch = submission.submit(self.db, self.folder, site_name="local").batch_id
        return self.batch

    def sql(self, statement):
        with self.db.engine.execution_options(writes=True).begin() as connection:
            return connection.execute(text(statement))

    def lose_leases(self):
        """As if every holder had been silent for longer than its lease."""
        self.sql("UPDATE chunks SET lease_until = 1 WHERE token IS NOT NULL")

    def lose_a_claim(self, model_id=1):
        """A worker that died with a chunk in hand, whose lease is over."""
        scoring.claim_chunk(self.db, "gone:cpu", trained_model_id=model_id, lease_seconds=-5.0)

    def waits(self):
        return self.sql("SELECT count(*) FROM chunks WHERE completed_at IS NULL").scalar_one()

    def dawn(self, *, rounds=6, **order):
        """Sweeps and healthy workers until nothing waits, within so many rounds."""
        for _ in range(rounds):
            self.lose_leases()
            sweep.sweep(self.db)
            assert self.run("work", **order) == 0
            if not self.waits():
                return

    def audit(self, **changed):
        """What the auditor finds, as sentences."""
        run = Run(
            home=self.config.home,
            database_url=self.config.database,
            queue_socket=Path(self.config.queue.removeprefix("redis+socket://")),
            audit_key=audit_key(self.config),
            batches=(Expected("local", self.folder.resolve(), self.files),),
            logs=self.logs,
            canaries=(CANARY,),
        )
        return [f"{one.check}: {one.said}" for one in auditor.audit(replace(run, **changed))]

    def until(self, condition, why):
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited {PATIENCE} s in vain: {why}"
            time.sleep(0.005)

    def close(self):
        for child in self._children:
            with contextlib.suppress(ValueError):
                child.kill()
                child.join(PATIENCE)
        self.db.engine.dispose()


@cache
def forking():
    """Where children are forked from. Python 3.11 lets a fork server import beforehand only what PYTHONPATH finds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(CHILDREN)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, PLACES), *filter(None, [before])])
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return context


def end_with(tester):
    """A child that hangs on purpose must not outlive its test, however that ends."""
    while Path(f"/proc/{tester}").exists():
        time.sleep(1)
    os._exit(1)


def run_child(order, log):
    """What a child does, in its own process."""
    import importlib

    told = json.loads(order)
    threading.Thread(target=end_with, args=(told["tester"],), daemon=True).start()
    logging.basicConfig(filename=log, level=logging.INFO)
    for name in [name for name in os.environ if name.startswith("NIGHTREAD_")]:
        del os.environ[name]
    for name, value in told["settings"].items():
        if value not in (None, "", []):
            os.environ[f"NIGHTREAD_{name.upper()}"] = str(value)
    settings.cache_clear()  # what was imported before the fork has read other ones
    database.cache_clear()
    module, _, name = told["do"].rpartition(".")
    getattr(importlib.import_module(module), name)(told)
