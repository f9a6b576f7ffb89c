"""Every step of the protocol, and a kill, an error and a standstill at each: by dawn every scan has its one outcome."""

import json
import signal

import pytest
from staged import Stage, expected_digest, pictures, write_folder

from db.store import recovery
from db.store.sites import add_site
from deploy.drill.failpoints import ACTIONS, POINTS

STARTS = {"producer": "submit", "worker": "work", "sweep": "sweeping", "operator": "retry"}
# Come by several times in a night, so that the fault may also happen in the middle.
MANY = ("claim", "prepare", "decode", "predict", "keep", "picture", "renew", "complete")
CASES = [(name, 1) for name in POINTS] + [(name, 2) for name in POINTS if name.split(".")[0] in MANY]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("night") / "scans"
    return root, write_folder(root)


@pytest.fixture
def stage(home, queue_server, folder, request):
    made = Stage(request.getfixturevalue("home"), *folder)
    yield made
    made.close()


def test_a_normal_night_comes_by_every_failpoint(stage):
    report = stage.config.home / "report.json"

    assert stage.run("whole_night", broken=[expected_digest(pictures(1)[0])], report=str(report)) == 0

    reached = json.loads(report.read_text())
    assert reached.keys() == POINTS.keys()
    assert all(reached[f"{name}.before"] > 1 for name in MANY)
    assert stage.audit() == []


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(("name", "nth"), CASES)
def test_whatever_happens_at_a_step_every_scan_has_its_one_outcome_by_dawn(stage, name, nth, action):
    prepare(stage, POINTS[name].process)
    child = stage.start(STARTS[POINTS[name].process], fault=f"{name}:{action}:{nth}")
    mark = stage.marks / f"{name}.{action}"
    stage.until(lambda: mark.exists() or child.exitcode is not None, "the fault")
    assert mark.exists(), f"{name} was not come by"
    if action == "hang" and POINTS[name].when == "commit":
        child.kill()  # the hard limit of a task, or the supervisor: it holds locks
    if action != "hang":
        child.join(60)
        assert child.exitcode == -signal.SIGKILL if action == "kill" else child.exitcode is not None

    finish(stage, POINTS[name].process)

    assert stage.audit() == []
    if action == "hang":
        mark.with_name(f"{mark.name}.wake").touch()  # a sleeper wakes when all is done, and must change nothing
        child.join(60)
        assert child.exitcode is not None
        assert stage.audit() == []


def prepare(stage, process):
    """What must have happened before that process meets its fault."""
    if process != "producer":
        stage.submit()
    if process == "sweep":
        stage.lose_a_claim()
    if process == "operator":
        stage.dawn(broken=[expected_digest(pictures(1)[0])])


def finish(stage, process):
    """What people and machines do by dawn, as on any other day."""
    if process == "producer":
        stage.submit()
    if process == "operator":
        recovery.retry_failed(stage.db, stage.batch, by="operator")
        add_site(stage.db, "next day", by="operator")  # notes the head anew
    stage.dawn()
