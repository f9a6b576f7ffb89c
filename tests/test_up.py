"""`nightread up` and `screen` as processes: one at a home, nothing left behind, nothing started in vain."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import builders
import pytest

from db.store import people
from db.store.connection import connect
from deploy import local
from deploy.supervisor import Supervisor

PATIENCE = 240.0  # seconds; the machine may be busy


def start(home, *words):
    environment = {**os.environ, "NIGHTREAD_HOME": str(home.home), "NIGHTREAD_WEB_PORT": "0"}
    command = [sys.executable, "-m", "producer", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(process):
    """The JSON that a command that goes on running printed first."""
    text = ""
    while not text.rstrip().endswith("}"):
        line = process.stdout.readline()
        assert line, process.stderr.read()
        text += line
    return json.loads(text)


def processes_of(home):
    """Every living process that was given this home folder."""
    wanted = f"NIGHTREAD_HOME={home.home}".encode()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if wanted in environment and state != "Z":
            found.add(int(folder.name))
    return found


def until(question, what):
    deadline = time.monotonic() + PATIENCE
    while not question():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.2)


@pytest.fixture
def up(home):
    started = start(home, "up", "--json")
    yield started
    started.kill()
    for pid in processes_of(home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    until(lambda: not processes_of(home), "the end of all that was started")


def test_up_serves_its_pages_on_loopback_alone_and_ctrl_c_stops_everything(home, up):
    address = told(up)["address"]
    with urllib.request.urlopen(address, timeout=20) as page:
        assert page.status == 200
    assert address.startswith("http://127.0.0.1:")

    up.send_signal(signal.SIGINT)
    _, said = up.communicate(timeout=PATIENCE)

    assert up.returncode == 0, said
    assert processes_of(home) == set()


def test_a_killed_up_leaves_nothing_behind_and_the_next_one_starts(home, up):
    told(up)
    assert len(processes_of(home)) >= 4

    up.kill()
    up.wait()

    with local.only_one(home) as lock:
        assert lock is None
    until(lambda: not processes_of(home), "the end of all that was started")
    again = start(home, "up", "--json")
    told(again)
    again.terminate()
    assert again.wait(PATIENCE) == 0


def test_the_first_passwords_go_to_the_terminal_and_the_file_alone(home, up):
    shown = told(up)
    kept = dict(line.split() for line in Path(shown["passwords_file"]).read_text().splitlines())
    db = connect(home)

    assert {user.name for user in people.users(db)} == set(kept)
    for log in (home.home / "logs").iterdir():
        assert not any(password in log.read_text() for password in kept.values())
    db.engine.dispose()


def test_screen_starts_nothing_where_nothing_waits(home, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")

    for _ in range(2):
        ended = start(home, "screen", str(tmp_path), "--json")
        out, said = ended.communicate(timeout=PATIENCE)
        assert ended.returncode == 0, said
        assert json.loads(out)["reasons"] == {"not_an_image": 1}

    assert not (home.home / "logs").exists()


def test_screen_of_an_unknown_site_is_a_usage_error_with_the_nearest_name(home, tmp_path):
    ended = start(home, "screen", str(tmp_path), "--site", "locale")

    assert ended.wait(PATIENCE) == 2
    assert "local" in ended.communicate()[1]


def test_what_screen_lacks_is_started_by_it_and_only_while_nobody_else_does(home):
    db = connect(home)
    with local.only_one(home), local.Helper(db, say=print) as helper:
        helper.need(None)
        time.sleep(2)
        assert not (home.home / "logs").exists()

    with local.Helper(db, say=print) as helper:
        helper.need(None)
        until(lambda: (home.home / "logs" / "worker-cpu.log").exists(), "a worker of its own")
    assert processes_of(home) - {os.getpid()} == set()
    db.engine.dispose()


def test_screen_ends_where_every_worker_refuses_the_model(home, tmp_path):
    (tmp_path / "scan.png").write_bytes(builders.encoded(".png", builders.CHEST))

    ended = start(home, "screen", str(tmp_path), "--json")  # the stub model has no folder
    out, said = ended.communicate(timeout=PATIENCE)

    assert ended.returncode == 1, said
    assert json.loads(out)["waiting"] == 1
    assert "every worker refuses model stub 1; 1 of 1 scans of batch 1 still wait" in said
    assert str(home.home / "logs" / "worker-cpu.log") in said
    assert processes_of(home) == set()


def test_screen_ends_where_no_worker_stays_alive(home, tmp_path, monkeypatch):
    for name in ("scans", "spoilt"):
        (tmp_path / name).mkdir()
    (tmp_path / "scans" / "scan.png").write_bytes(builders.encoded(".png", builders.CHEST))
    (tmp_path / "scans" / "notes.txt").write_text("no picture")
    (tmp_path / "spoilt" / "sitecustomize.py").write_text(
        "import sys\nif 'worker' in sys.orig_argv: raise SystemExit('no space for a worker')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "spoilt"))

    ended = start(home, "screen", str(tmp_path / "scans"))
    out, said = ended.communicate(timeout=PATIENCE)

    assert ended.returncode == 1, said
    assert "workers ended 5 times with nothing done; 1 of 2 scans of batch 1 still wait" in said
    assert said.rstrip().endswith("worker-cpu.log: SystemExit: no space for a worker")
    assert "1 waiting" in out
    assert processes_of(home) == set()


def test_a_queue_server_that_dies_is_started_again(home):
    with local.only_one(home) as lock:
        watch = Supervisor(home.home / "logs", lock, print)
        watch.start(local.queue_parts(home))
        try:
            first = (home.home / "logs" / "queue.log").read_text().count("starts")
            os.kill(watch._kept[0].process.pid, signal.SIGKILL)
            until(lambda: (home.home / "logs" / "queue.log").read_text().count("starts") > first, "another start")
            until(lambda: local.queue_server.is_running(home), "its answer")
        finally:
            watch.stop()
