"""What the children of a staged night do. Imported in them alone: it plants a module in the place of the engine."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

ENGINE = "workers.engines.tensorflow"
if ENGINE in sys.modules:
    raise RuntimeError("a child of a staged night never loads the engine")
sys.modules[ENGINE] = ModuleType(ENGINE)
vars(sys.modules[ENGINE])["Engine"] = object

from db.errors import UnreadableImage  # noqa: E402
from db.settings import settings  # noqa: E402
from db.store import recovery  # noqa: E402
from db.store.connection import database  # noqa: E402
from deploy.drill import failpoints  # noqa: E402
from deploy.drill.stub import StubScorer  # noqa: E402
from producer import submission  # noqa: E402
from workers import decoder, line, scoring, sweep, tasks  # noqa: E402
from workers.decoding import Prepared, evidence_of  # noqa: E402
from workers.provisions import limits  # noqa: E402
from workers.shift import Shift  # noqa: E402

scoring.Scorer = StubScorer
line.AT_A_TIME = 1  # the hours that pass while a staged device works are added up, as if one slice came after the other


class Decoders:
    """The decoders' own code, in this process: what their pool adds has its own tests."""

    count = 1

    def prepare_many(self, sources, size, *, border, mode, reduce):
        about = {"do": "prepare", "size": size, "border": asdict(border), "mode": mode, "reduce": reduce}
        for source in sources:
            yield self._prepared(about | asdict(source))

    def _prepared(self, order):
        try:
            head, body = self._ask(order)
        except UnreadableImage as error:
            return error
        pixels = np.frombuffer(body, np.uint8).reshape(order["size"], order["size"])
        return Prepared(pixels, evidence_of(json.loads(json.dumps(head["evidence"]))), head["seconds"])

    def verify(self, source):
        self._ask({"do": "verify"} | asdict(source))

    def review_copy(self, source):
        return self._ask({"do": "review_copy"} | asdict(source))[1]

    def _ask(self, order):
        allowed = limits(settings())
        return decoder._decode(order, decoder._fetch(order, allowed)[0], allowed)


class LongAgo(dict):
    """When leases were renewed: never, so that all progress is told to the ledger, also in a night of seconds."""

    def get(self, token, default=None):
        return -1e9


def shift(name="worker:cpu"):
    cv2.setNumThreads(1)
    return Shift(settings(), database(), "cpu", Decoders(), name=name, _renewed=LongAgo())


def submit(told):
    _arm(told)
    submission.submit(database(), Path(told["folder"]), site_name="local")


def work(told):
    """One ring's work, with a heartbeat."""
    _fail_over(told.get("broken", []))
    _arm(told)
    hand = shift(told.get("name", "worker:cpu"))
    hand.start_beating()
    tasks.work(hand)
    _let_the_heart_beat(told)


def sweeping(told):
    _arm(told)
    sweep.sweep(database())


def retry(told):
    _arm(told)
    recovery.retry_failed(database(), 1, by="operator")


def whole_night(told):
    """A night in which everything happens once, and how often each failpoint was come by, in `told["report"]`."""
    _fail_over(told["broken"])
    reached = failpoints.watch()
    submit({"folder": told["folder"]})
    work({})
    StubScorer.predict = _PREDICT
    retry({})
    sweeping({})
    work({})
    Path(told["report"]).write_text(json.dumps(reached))


_PREDICT = StubScorer.predict


def _fail_over(digests):
    """Let the engine fail over these pictures."""
    from deploy.drill.stub import digest

    def predict(self, pixels):
        if any(digest(one).hex() in digests for one in pixels):
            raise RuntimeError("the device failed")
        return _PREDICT(self, pixels)

    if digests:
        StubScorer.predict = predict


def _arm(told):
    failpoints.arm(told.get("fault", ""), marks=Path(told["marks"]) if "marks" in told else None)


def _let_the_heart_beat(told):
    """Its first beat comes by in another thread: a fault there must have had its moment."""
    if told.get("fault", "").startswith("beat"):
        end = time.monotonic() + 60
        while not any(Path(told["marks"]).iterdir()) and time.monotonic() < end:
            time.sleep(0.01)
