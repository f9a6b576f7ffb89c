"""The supervisor keeps parts running; here they are small real processes."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy import supervisor
from deploy.supervisor import Part, Supervisor

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(99)"
)
SLOW = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(2), sys.exit()));"
    "print('ready', flush=True); time.sleep(99)"
)
WITH_CHILD = (
    "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)']);"
    "print(child.pid, flush=True); time.sleep(1000)"
)


@pytest.fixture
def watch(tmp_path):
    """A supervisor whose parts are given as Python programs; stopped at the end."""
    said = []
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    made = Supervisor(tmp_path / "logs", lock, said.append)
    vars(made)["said"] = said
    yield made
    made.stop(patience=1)
    os.close(lock)


def part(name, program, **more):
    return Part(name, lambda: [sys.executable, "-c", program], dict(os.environ), **more)


def eventually(question, seconds=15.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if answer := question():
                return answer
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def written(watch, name):
    return watch.log_of(name).read_text().splitlines()


def pid_of(watch, name):
    return next(kept.process.pid for kept in watch._kept if kept.part.name == name and kept.process)


def test_what_a_part_prints_is_kept_in_its_log(watch):
    watch.start([part("talker", "import sys; print('out'); print('err', file=sys.stderr); sys.stdin.read()")])

    eventually(lambda: "err" in written(watch, "talker"))


def test_a_part_that_dies_is_started_again_and_its_last_words_are_told(watch):
    watch.start([part("worker", "print('no memory', flush=True); raise SystemExit(3)")])

    eventually(lambda: written(watch, "worker").count("no memory") >= 2)

    assert "worker ended (status 3); starting it again in 0.5 s" in watch.said[0]
    assert "no memory" in watch.said[0]


def test_each_death_in_a_row_makes_the_next_wait_longer(watch):
    watch.start([part("worker", "raise SystemExit(1)")])

    eventually(lambda: len(watch.said) >= 3)

    waits = [float(line.split("again in ")[1].split(" s")[0]) for line in watch.said[:3]]
    assert waits == [0.5, 1.0, 2.0]


def test_a_supervisor_knows_how_often_a_stage_ended_unasked_and_its_last_words(watch):
    watch.start([part("worker", "raise SystemExit('no room')", stage=2), part("queue", "import time; time.sleep(99)")])

    eventually(lambda: watch.deaths(stage=2) >= 2)

    assert (watch.count(stage=2), watch.deaths(stage=1)) == (1, 0)
    assert watch.last_lines(stage=2).endswith("worker.log: no room")


def test_a_part_that_was_healthy_for_a_while_starts_again_at_once(watch, monkeypatch):
    monkeypatch.setattr(supervisor, "HEALTHY_SECONDS", 0.0)
    watch.start([part("worker", "raise SystemExit(1)")])

    eventually(lambda: len(watch.said) >= 3)

    assert all("again in 0.5 s" in line for line in watch.said)


def test_a_killed_part_takes_what_it_started_with_it(watch):
    watch.start([part("worker", WITH_CHILD)])
    child = int(eventually(lambda: written(watch, "worker")[1:])[0])

    os.kill(pid_of(watch, "worker"), signal.SIGKILL)

    eventually(lambda: not lives(child))
    eventually(lambda: len(written(watch, "worker")) == 4)
    assert "SIGKILL" in watch.said[0]


def test_stopping_asks_first_the_highest_stage_and_kills_what_does_not_listen(watch, tmp_path):
    note = tmp_path / "order"
    program = (
        "import signal, sys, time\n"
        f"def end(*_): open({str(note)!r}, 'a').write('NAME '); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('ready', flush=True); time.sleep(99)"
    )
    watch.start([part(name, program.replace("NAME", name), stage=stage) for stage, name in enumerate("abc")])
    watch.start([part("stubborn", STUBBORN, stage=3)])
    for name in ("a", "b", "c", "stubborn"):
        eventually(lambda name=name: "ready" in written(watch, name))
    pid = pid_of(watch, "stubborn")

    watch.stop(patience=0.5)

    assert note.read_text() == "c b a "
    assert not lives(pid)
    assert any("stubborn did not stop" in line for line in watch.said)


def test_lower_stages_may_run_on_and_who_had_to_be_killed_is_told(watch):
    watch.start([part("server", "import time; time.sleep(99)", stage=0), part("stubborn", STUBBORN, stage=1)])
    eventually(lambda: "ready" in written(watch, "stubborn"))
    server = watch.pid("server")

    killed = watch.stop(patience=0.5, down_to=1)

    assert killed == ["stubborn"]
    assert lives(server)
    assert watch.stop(patience=5) == []
    assert not lives(server)


def test_an_errand_is_started_again_until_it_succeeds_and_then_no_more(watch, tmp_path):
    program = (
        f"from pathlib import Path; turns = Path({str(tmp_path / 'turns')!r}); "
        "turns.open('a').write('x'); raise SystemExit(len(turns.read_text()) < 2)"
    )
    watch.start([part("errand", program, is_errand=True)])

    eventually(lambda: not watch.has("errand"))

    assert (tmp_path / "turns").read_text() == "xx"
    assert watch.pid("errand") is None


def test_a_part_that_is_dismissed_ends_for_good(watch):
    watch.start([part("guest", "import time; time.sleep(99)"), part("host", "import time; time.sleep(99)")])
    pid = watch.pid("guest")

    watch.dismiss("guest", patience=5)

    assert not lives(pid)
    assert not watch.has("guest")
    assert lives(watch.pid("host"))


def test_nothing_starts_before_what_it_needs_is_ready(watch, tmp_path):
    flag = tmp_path / "flag"
    slow = part("queue", f"import time; time.sleep(0.5); open({str(flag)!r}, 'w'); time.sleep(99)", ready=flag.exists)
    eager = part("worker", f"import os, time; print(os.path.exists({str(flag)!r}), flush=True); time.sleep(99)")

    watch.start([slow, eager])

    assert eventually(lambda: written(watch, "worker")[1:]) == ["True"]


def test_a_killed_supervisor_leaves_nothing_behind_and_its_lock_is_held_until_then(tmp_path):
    program = (
        "import fcntl, os, sys, time; from pathlib import Path\n"
        "from deploy.supervisor import Part, Supervisor\n"
        f"folder = Path({str(tmp_path)!r}); lock = os.open(folder / 'lock', os.O_CREAT | os.O_RDWR)\n"
        "fcntl.flock(lock, fcntl.LOCK_EX); watch = Supervisor(folder, lock, print)\n"
        f"programs = dict(tree={WITH_CHILD!r}, slow={SLOW!r})\n"
        "watch.start([Part(name, lambda code=code: [sys.executable, '-c', code], dict(os.environ))"
        " for name, code in programs.items()])\n"
        "print(*(kept.process.pid for kept in watch._kept), flush=True); time.sleep(99)"
    )
    running = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in running.stdout.readline().split()]
    pids.append(int(eventually(lambda: (tmp_path / "tree.log").read_text().splitlines()[1:])[0]))
    eventually(lambda: (tmp_path / "slow.log").read_text().endswith("ready\n"))
    assert all(map(lives, pids))

    running.kill()
    running.wait()

    with (tmp_path / "lock").open("r+") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_EX)
    assert not any(map(lives, pids))


def test_a_log_that_grew_is_moved_aside_while_its_writer_goes_on(tmp_path):
    log = tmp_path / "part.log"
    for turn in range(1, 6):
        with log.open("ab") as out:
            out.write(b"%d" % turn * 100)
            out.flush()
            supervisor.rotate(log, limit=100)
            out.write(b"x")

    assert log.read_bytes() == b"x"
    assert [(tmp_path / f"part.log.{number}").read_bytes()[-1:] for number in (1, 2, 3)] == [b"5", b"4", b"3"]
    assert not (tmp_path / "part.log.4").exists()
