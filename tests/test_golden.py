"""The golden image, and what each trained model gives for it."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from click.testing import CliRunner
from ledger import folder, submitted

from db.errors import NothingScores
from db.store import audit, golden, heartbeats, models, reading
from db.store.connection import database
from db.store.golden import Golden
from deploy.standstill import Standstill
from producer.cli import group
from workers.devices import REFUSES
from workers.golden import picture

HERE = {"engine": "tensorflow", "precision": "float32"}


@pytest.mark.parametrize(
    ("size", "digest"),
    [(32, "7fdc14e352b4f089"), (224, "840959e5e5b5cc03"), (299, "9589e66b5e8c56a4")],
)
def test_the_golden_image_never_changes(size, digest):
    drawn = picture(size)

    assert drawn.shape == (size, size)
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == digest


def test_the_first_worker_says_what_a_model_gives_and_the_others_are_held_to_it(db):
    model = models.active(db).id
    assert golden.remembered(db, model, **HERE) is None

    first = golden.remember(db, model, **HERE, seen=Golden(0.9, 2.0), worker="first")
    second = golden.remember(db, model, **HERE, seen=Golden(0.1, 7.0), worker="second")

    assert first == second == golden.remembered(db, model, **HERE) == Golden(0.9, 2.0)
    assert golden.remembered(db, model, engine="tensorflow", precision="bfloat16") is None


def test_of_workers_that_are_first_at_once_one_is_first(db):
    model, start = models.active(db).id, Barrier(6)

    def say(number):
        start.wait()
        return golden.remember(db, model, **HERE, seen=Golden(number / 10, 1.0), worker=str(number))

    with ThreadPoolExecutor(6) as workers:
        said = set(workers.map(say, range(6)))

    assert said == {golden.remembered(db, model, **HERE)}


def test_what_a_broken_device_said_first_is_forgotten_on_record(db):
    model = models.active(db).id
    golden.remember(db, model, **HERE, seen=Golden(0.0, 0.0), worker="broken")

    assert golden.forget(db, model, by="admin") == 1

    assert golden.remembered(db, model, **HERE) is None
    last = list(audit.events(db))[-1]
    assert (last["actor"], last["action"], last["object"]) == ("admin", "golden_forgotten", f"model {model}")


def test_waiting_ends_where_every_workers_device_is_unsound(home):
    db = database()
    heartbeats.beat(db, name="a:cpu", host="a", device="cpu", pid=1, doing=f"{REFUSES}stub 1: device unsound", scans=0)

    with pytest.raises(NothingScores, match="every worker refuses model stub 1"):
        Standstill(db, stage=0).look(reading.totals(db, submitted(db, folder(3))), None)


def test_the_command_that_forgets_works_twice(home):
    said = [CliRunner().invoke(group, ["models", "reprove", "stub", "--json"], standalone_mode=False) for _ in range(2)]

    assert [json.loads(one.stdout) for one in said] == [{"model": "stub 1", "forgotten": 0}] * 2
