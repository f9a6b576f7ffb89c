"""Every step of the protocol, and a kill, an error and a standstill at each: by dawn every scan has its one outcome."""

import json
import signal
import sys
from types import ModuleType

import pytest
from pydantic import SecretStr
from staged import Stage, expected_digest, pictures, write_folder

from db.store import recovery
from db.store.sites import add_site
from deploy.drill.failpoints import ACTIONS, POINTS, arm
from deploy.drill.patches import replace

STARTS = {"producer": "submit", "worker": "work", "sweep": "sweeping", "operator": "retry"}
# Come by several times in a night, so that the fault may also happen in the middle.
MANY = ("claim", "prepare", "decode", "predict", "keep", "picture", "renew", "complete")
CASES = [(name, 1) for name in POINTS]
CASES += [(name, 2) for name, point in POINTS.items() if name.split(".")[0] in MANY and point.when != "after"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("night") / "scans"
    return root, write_folder(root)


@pytest.fixture
def stage(home, queue_server, folder, request):
    made = Stage(request.getfixturevalue("home"), *folder)
    yield made
    made.close()


@pytest.fixture
def postgresql_stage(_postgres_config, queue_server, folder):
    config = _postgres_config.model_copy(update={"queue_url": SecretStr(queue_server)})
    made = Stage(config, *folder)
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
    meet(stage, name, nth, action)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", [name for name, point in POINTS.items() if point.when == "commit"])
def test_postgresql_forgets_a_transaction_whose_process_met_a_fault(postgresql_stage, name, action):
    meet(postgresql_stage, name, 1, action)


def meet(stage, name, nth, action):
    """One fault in one process, then an ordinary day."""
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


@pytest.mark.parametrize("spec", ["claim:kill", "claim.before:vanish", "nowhere.before:kill"])
def test_a_failpoint_or_an_action_that_does_not_exist_is_refused(spec):
    with pytest.raises(ValueError, match="no such failpoint or action"):
        arm(spec)


def test_a_step_that_the_product_lost_is_said_at_once():
    with pytest.raises(LookupError, match="say where that step is now"):
        replace("workers.tasks:a_step_of_yesterday", lambda original: original)


def test_a_patch_holds_in_every_module_that_imported_the_function_by_name(monkeypatch):
    one, other = ModuleType("db.one"), ModuleType("producer.other")
    vars(one)["step"] = vars(other)["imported"] = lambda: "as it was"
    vars(one)["number"] = vars(other)["same_number"] = 32
    for module in (one, other):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    replace("db.one:step", lambda original: lambda: f"changed, {original()}")
    replace("db.one:number", lambda original: original + 1)

    assert one.step() == other.imported() == "changed, as it was"
    assert (one.number, other.same_number) == (33, 32)
