"""`nightread doctor`: what a night needs, each problem with its fix."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
from ledger import folder, submitted
from lists import night, person, say
from plain_models import write_plain
from pydicom.pixels.decoders import JPEGLSLosslessDecoder
from sqlalchemy import delete, update

from db import migrate
from db.schema import Entry, EntryCount
from db.settings import Settings
from db.store import heartbeats, models, worklist
from db.store.connection import connect
from db.words import Exit, Role, Verdict
from deploy import doctor, home, queue_server, queue_versions
from webui import create_app
from workers import model_folders
from workers.images.dicom_rules import TRANSFER_SYNTAXES


@pytest.fixture
def well(short_folder):
    """A database in a home folder as `nightread init` makes it."""
    opened = connect(Settings(home=short_folder / f"well{os.urandom(3).hex()}"))
    home.make_ready(opened)
    yield opened
    opened.engine.dispose()


def with_settings(db, **changed):
    return connect(Settings(home=db.config.home, **changed))


def assert_problem(check, *, unreachable=False):
    """It is a problem, it says so, and it says what to do."""
    assert not check.ok
    assert check.said
    assert check.fix
    assert check.unreachable is unreachable


def test_all_is_well_in_a_fresh_home(well):
    found = doctor.examine(well)

    assert [check.name for check in found if not check.ok] == []
    assert doctor.exit_code(found) == Exit.DONE


def test_it_changes_nothing_where_nothing_was_made_yet(short_folder):
    nowhere = short_folder / "nowhere"

    found = {check.name: check for check in doctor.examine(connect(Settings(home=nowhere)))}

    assert not nowhere.exists()
    assert_problem(found["home"])
    assert_problem(found["database"], unreachable=True)
    assert doctor.exit_code(list(found.values())) == Exit.UNREACHABLE


def test_a_secret_that_others_may_read_is_a_problem(well):
    create_app(well.config)  # the web makes its secret
    kept = [well.config.home / name for name in ("passwords.txt", "audit.key", "web.secret")]
    assert doctor.check_home(well).ok

    for path in kept:
        path.chmod(0o644)
        check = doctor.check_home(well)
        path.chmod(0o600)

        assert_problem(check)
        assert f"chmod go-rwx {path}" in check.fix


def test_an_old_structure_is_a_problem(well):
    migrate.downgrade(well, "base")

    assert_problem(doctor.check_database(well))


def test_a_database_that_does_not_answer_is_out_of_reach(well):
    away = with_settings(well, database_url="postgresql+psycopg://nobody:hunter2@127.0.0.1:9/none?connect_timeout=2")

    found = {check.name: check for check in doctor.examine(away)}

    assert_problem(found["database"], unreachable=True)
    assert "hunter2" not in str(found)


def test_a_private_queue_server_that_is_not_running_is_no_problem(well):
    assert doctor.check_queue(well).ok
    assert "nightread up" in doctor.check_queue(well).said


def test_the_running_private_queue_server_is_asked(well):
    with queue_server.serving(well.config):
        said = doctor.check_queue(well).said

    assert said.startswith(f"{well.config.queue_socket} answers (")


@pytest.mark.parametrize(
    "said",
    [
        "Redis server v=6.2.19 sha=0", "Redis server v=7.0.15 sha=0", "Redis server v=7.2.10", "Redis server v=7.4.5",
        "Redis server v=8.0.3", "Redis server v=8.2.1", "Redis server v=6.0.20", "Valkey server v=7.2.10 sha=0",
        "Valkey server v=8.0.5 sha=0", "Valkey server v=8.1.3 sha=0", "something else",
    ],
)  # fmt: skip
def test_a_version_without_the_fix_is_known(said):
    found = queue_versions.from_command(said)

    assert not found.is_fixed
    assert "CVE-2025-49844" in found.remedy


@pytest.mark.parametrize(
    "said",
    [
        "Redis server v=6.2.20 sha=0", "Redis server v=7.2.11", "Redis server v=7.4.6", "Redis server v=8.0.4",
        "Redis server v=8.2.2", "Redis server v=8.4.0", "Valkey server v=7.2.11", "Valkey server v=8.0.6",
        "Valkey server v=8.1.4", "Valkey server v=9.0.0", "Valkey server v=9.1.2",
    ],
)  # fmt: skip
def test_a_patched_version_is_known(said):
    assert queue_versions.from_command(said).is_fixed


def test_a_server_that_a_lua_script_can_take_over_is_a_problem(well, monkeypatch):
    assert doctor.check_queue(well).ok
    unpatched = queue_versions.from_command("Redis server v=7.2.10 sha=0")
    monkeypatch.setattr(queue_server, "version", lambda program: unpatched)

    check = doctor.check_queue(well)

    assert_problem(check)
    assert "Redis 7.2.10" in check.said
    assert "7.2.11" in check.fix


def test_a_running_server_is_judged_by_what_it_says_of_itself(well, monkeypatch):
    with queue_server.serving(well.config):
        really = queue_server.running_version(well.config)
        monkeypatch.setattr(queue_server, "from_info", lambda info: queue_versions.Version("Redis", (7, 2, 4)))
        check = doctor.check_queue(well)

    assert really == queue_server.version(queue_server.find_server())
    assert_problem(check)


def test_valkey_is_not_taken_for_the_redis_that_it_is_compatible_with():
    told = {"server_name": "valkey", "redis_version": "7.2.4", "valkey_version": "8.1.4"}

    assert queue_versions.from_info(told) == queue_versions.Version("Valkey", (8, 1, 4))
    assert queue_versions.from_info({"redis_version": "7.2.4"}) == queue_versions.Version("Redis", (7, 2, 4))


@pytest.mark.parametrize(("owner", "ok"), [(0, False), (10001, True)])
def test_a_worker_that_runs_as_root_is_a_problem(well, monkeypatch, owner, ok):
    heartbeats.beat(
        well, name="here:cpu", host=socket.gethostname(), device="cpu", pid=os.getpid(), doing="waiting", scans=0
    )
    monkeypatch.setattr(doctor, "_runs_as_root", lambda pid: owner == 0 and pid == os.getpid())

    check = doctor.check_user(well)

    assert check.ok is ok
    assert ok or "here:cpu runs as root" in check.said


def test_whose_a_process_is_is_seen():
    assert doctor._runs_as_root(os.getpid()) is (os.getuid() == 0)
    assert not doctor._runs_as_root(2**22 + 1)


def test_a_configured_queue_server_that_does_not_answer_is_out_of_reach(well):
    away = with_settings(well, queue_url="redis://:hunter2@127.0.0.1:9/0")

    check = next(check for check in doctor.examine(away) if check.name == "queue")

    assert_problem(check, unreachable=True)
    assert "hunter2" not in str(check)


def test_a_full_disk_is_a_problem(well, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", shutil.disk_usage(well.config.home).total + 1)

    assert_problem(doctor.check_disk(well))


@pytest.mark.parametrize("damage", ["altered", "gone"])
def test_a_damaged_model_is_a_problem(well, tmp_path, damage):
    copy = tmp_path / "model"
    shutil.copytree(models.active(well).folder, copy)
    models.register(well, model_folders.registration(copy), by="test")
    if damage == "gone":
        shutil.rmtree(copy)
    else:
        (copy / "report.json").write_text("{}")

    check = next(check for check in doctor.examine(well) if check.name == "model")

    assert_problem(check)


def test_a_damaged_model_that_unfinished_batches_run_with_is_a_problem(home, tmp_path):
    db = connect(home)
    old, new = (
        model_folders.take_in(db, write_plain(tmp_path / version, version=version, weights=version), by="test")
        for version in ("1", "2")
    )
    models.activate(db, old.id, why="test", by="test")
    submitted(db, folder(1))
    models.activate(db, new.id, why="test", by="test")
    assert doctor.check_model(db).said.endswith("unfinished batches run with plain 1")

    shutil.rmtree(old.folder)

    assert_problem(doctor.check_model(db))
    assert "unfinished batches run with plain 1" in doctor.check_model(db).said


def test_a_wrong_count_of_the_worklist_is_a_problem_that_init_puts_right(well):
    night(well, [0.9999, 0.9998])
    assert doctor.check_worklist(well).ok
    with well.writing() as session:
        session.execute(update(EntryCount).values(count=EntryCount.count + 1))

    assert_problem(doctor.check_worklist(well))

    home.make_ready(well)
    assert doctor.check_worklist(well).ok


def test_a_flagged_scan_on_no_list_is_a_problem_that_init_puts_right(well):
    night(well, [0.9999, 0.9998])
    with well.writing() as session:  # as a worker did that knew no lists
        session.execute(delete(Entry))
        session.execute(delete(EntryCount))

    assert_problem(doctor.check_worklist(well))
    assert "2 flagged scans" in doctor.check_worklist(well).said

    home.make_ready(well)
    assert doctor.check_worklist(well).ok
    assert len(worklist.unread_everywhere(well, models.active(well).id)) == 2


def test_scans_that_wait_for_an_arbiter_where_nobody_is_one_are_a_problem(well):
    (scan,) = night(well, [0.9999])
    say(well, scan, person(well), Verdict.UNSURE)

    assert_problem(doctor.check_worklist(well))
    assert "local" in doctor.check_worklist(well).said

    person(well, "away", role=Role.ARBITER, sites=("elsewhere",))
    assert_problem(doctor.check_worklist(well))
    person(well, "here", role=Role.ARBITER)
    assert doctor.check_worklist(well).ok


def test_every_transfer_syntax_that_intake_accepts_decodes_here():
    assert [uid for uid in TRANSFER_SYNTAXES if not doctor.decodes(uid)] == []


def test_a_missing_codec_is_a_problem(well, monkeypatch):
    monkeypatch.setattr(JPEGLSLosslessDecoder, "_available", {})  # as if no plugin for it were installed

    check = doctor.check_codecs(well)

    assert_problem(check)
    assert "not JPEG-LS lossless" in check.said


def test_the_clock_is_compared_with_that_of_the_database(db):
    assert doctor.check_clock(db).ok


@pytest.mark.parametrize(("damaged", "code"), [(False, 0), (True, 1)])
def test_the_command_ends_with_a_code_and_speaks_json(well, damaged, code):
    if damaged:
        (well.config.home / "audit.key").chmod(0o644)

    command = [sys.executable, "-m", "producer", "doctor", "--json"]
    environment = {**os.environ, "NIGHTREAD_HOME": str(well.config.home)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    assert ended.returncode == code, ended.stderr
    told = json.loads(ended.stdout)
    assert told["ok"] is not damaged
    assert {check["name"] for check in told["checks"]} == set(doctor.CHECKS)
    assert all(set(check) == {"name", "ok", "said", "fix"} for check in told["checks"])


def test_no_engine_is_loaded_to_look():
    program = (
        "import sys, deploy.commands, deploy.doctor\n"
        "loaded = {'tensorflow', 'keras', 'openvino'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert ended.returncode == 0, ended.stderr
