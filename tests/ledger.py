"""Batches without files, and what workers would say of them, for tests of the store alone."""

import hashlib
from dataclasses import replace

from ready_home import STUB
from sqlalchemy import update

from db.schema import Chunk
from db.store import intake, models, recovery, scoring
from db.store.intake import FoundFile, Submission
from db.store.sites import site_named

LEASE = 30.0


def newer_model(db, version="2"):
    """Another trained model, active from now on; its id."""
    newer = models.register(db, models.Registration(**{**vars(STUB), "version": version}), by="test")
    models.activate(db, newer, why="better", by="test")
    return newer


def found(name, content=None, **more):
    """A file of a submitted folder; files of the same content are each other's duplicates."""
    digest = hashlib.sha256((content or name).encode("utf-8", "surrogateescape")).hexdigest()
    return FoundFile(path=name, size=100, sha256=digest, **more)


def folder(count, prefix="scan"):
    return [found(f"{prefix}{number:04}.png") for number in range(count)]


def submission(db, root="/night", **more):
    site = site_named(db, "local")
    return Submission(site.id, models.active(db).id, root, **{"chunk_size": 4, **more})


def submitted(db, files, root="/night", **more):
    """A sealed batch of these files; its id."""
    what = submission(db, root, **more)
    intake.add_page(db, what, files)
    return intake.seal(db, what)


def claim(db, worker="host:cpu", lease=LEASE, **more):
    return scoring.claim_chunk(db, worker, trained_model_id=models.active(db).id, lease_seconds=lease, **more)


def scored(scan, score=0.7, **more):
    return scoring.Scored(scan.id, score, {"covid": score}, {"top": 1}, "tensorflow", "float32", "cpu", 0.1, **more)


def int8(scan, score, holds_from, **more):
    """What the first of two stages cleared."""
    return replace(scored(scan, score, **more), precision="int8", holds_from=holds_from)


def complete(db, held, score=0.7):
    return scoring.complete_chunk(db, held, [scored(scan, score) for scan in held.scans])


def expire(db, held):
    """As if the worker had been silent for longer than its lease."""
    with db.writing() as session:
        session.execute(update(Chunk).where(Chunk.id == held.chunk_id).values(lease_until=1.0))


def lose(db, **more):
    """A worker claims a chunk and dies with it; the sweep notices. The lost claim and what the sweep did."""
    held = claim(db)
    if more:
        assert scoring.renew(db, held, lease_seconds=LEASE, **more)
    expire(db, held)
    return held, recovery.free_expired(db)


def lose_in_hand(db, *, pid=7, sweep=True):
    """A worker that proved sound claims a chunk, names its first scan and dies; the sweep notices."""
    held = claim(db, pid=pid)
    assert scoring.renew(db, held, lease_seconds=LEASE, breadcrumb=held.scans[0].id)
    expire(db, held)
    if sweep:
        recovery.free_expired(db)
