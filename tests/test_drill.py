"""The drill itself: it replays, knows every outcome beforehand, tells a broken protocol, and leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from db.errors import DatabaseUnreachable
from db.settings import Settings
from db.store.connection import connect
from db.words import Kind, Reason
from deploy.drill import command, mutants, scans, stub, table
from deploy.drill import postgres as clusters
from deploy.drill.faults import FAULTS
from deploy.drill.nemesis import Met, Result
from deploy.drill.proxy import Proxy
from deploy.drill.runs import Violation
from deploy.drill.schedule import ALWAYS, draw

PATIENCE = 280  # seconds for runs of half a minute; the machine may be busy


def drill(*arguments, **environment):
    """`nightread drill` as its users run it; its exit code and what it gave as JSON."""
    words = [sys.executable, "-m", "producer", "drill", "--json", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environment}, timeout=PATIENCE)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def without_postgres(monkeypatch):
    def refuse(folder):
        raise clusters.NoPostgres("no PostgreSQL server found: install it")

    monkeypatch.setattr(clusters, "programs", refuse)


@pytest.fixture
def link(tmp_path):
    """A proxy before an echo server on a Unix socket, and a way to connect."""
    place = tmp_path / "echo"
    program = (
        "import asyncio, sys\n"
        "async def echo(reader, writer):\n"
        "    while block := await reader.read(99):\n"
        "        writer.write(block)\n"
        "async def main():\n"
        "    await (await asyncio.start_unix_server(echo, sys.argv[1])).serve_forever()\n"
        "asyncio.run(main())\n"
    )
    server = subprocess.Popen([sys.executable, "-c", program, str(place)])
    proxy = Proxy(place)
    try:
        until(place.exists)
        proxy.start()
        yield proxy
    finally:
        proxy.stop()
        server.kill()
        server.wait()


def connected(proxy):
    made = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    assert answer(made, b"hello") == b"hello"
    return made


def answer(connection, said):
    connection.sendall(said)
    return connection.recv(99)


def until(holds, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


@pytest.mark.timeout(PATIENCE + 20)
def test_two_nights_one_on_each_database_break_no_promise(tmp_path):
    code, told, said = drill(
        "--seeds", "1-2", "--scans", 400, "--count", 6, "--jobs", 2, "--table", tmp_path / "drill.md"
    )

    assert [run["violations"] for run in told["runs"]] == [[], []], said
    assert code == 0
    assert [run["database"] for run in told["runs"]] == ["sqlite", "postgresql"]
    assert told["scans"] == 800
    assert told["faults"] + told["missed"] == 12
    assert told["faults"] >= 9
    assert "2 runs, 800 scans" in (tmp_path / "drill.md").read_text()


@pytest.mark.timeout(PATIENCE + 20)
def test_a_broken_protocol_is_told_with_the_way_to_replay_it():
    code, told, said = drill(
        "--seed", 3, "--scans", 120, "--count", 1, "--database", "sqlite", **{mutants.MUTANT: "scores_shifted"}
    )

    assert code == 1
    assert {one["check"] for run in told["runs"] for one in run["violations"]} == {"B"}
    assert "nightread drill --seed 3 --database sqlite --scans 120" in said


@pytest.mark.timeout(PATIENCE + 20)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_drill_that_is_killed_or_interrupted_leaves_no_process_and_no_folder(how, tmp_path):
    words = [sys.executable, "-m", "producer", "drill", "--seed", "5", "--scans", "100", "--database", "sqlite"]
    process = subprocess.Popen(
        words,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
        # A suite that runs in the background has SIGINT ignored, and what it starts inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until(lambda: running_below(tmp_path, "deploy.drill.part"), PATIENCE / 2)

    process.send_signal(how)
    process.wait(PATIENCE / 2)

    until(lambda: not running_below(tmp_path), PATIENCE / 2)
    until(lambda: not list(tmp_path.glob("nr-drill-*")))


def running_below(folder, command=""):
    """Processes whose environment or command names a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes()
            about = words + (place / "environ").read_bytes().split(b"TMPDIR=")[0]
        except OSError:
            continue
        if os.fsencode(folder / "nr-drill-") in about and command.encode() in words:
            found.append(int(place.name))
    return found


def test_a_seed_gives_the_same_schedule_again_and_another_one_another():
    first = draw(7, "sqlite", faults=12, folders=5)

    assert draw(7, "sqlite", faults=12, folders=5) == first
    assert draw(8, "sqlite", faults=12, folders=5) != first
    assert len(first.faults) == 12
    assert ALWAYS in [one.name for one in first.faults]


def test_a_replay_of_some_faults_moves_none_of_them():
    every = draw(7, "postgresql", faults=12, folders=5)
    names = {every.faults[3].name, every.faults[8].name}

    some = draw(7, "postgresql", faults=12, folders=5, only=names)

    assert some.faults == tuple(one for one in every.faults if one.name in names)
    assert some.submissions == every.submissions


def test_no_schedule_holds_a_fault_of_the_other_database():
    for seed in range(50):
        on_sqlite = {one.name for one in draw(seed, "sqlite", faults=12, folders=5).faults}
        on_postgres = {one.name for one in draw(seed, "postgresql", faults=12, folders=5).faults}

        assert all(FAULTS[name].on != "postgresql" for name in on_sqlite)
        assert all(FAULTS[name].on != "sqlite" for name in on_postgres)


def test_sixty_seeds_meet_every_fault():
    met = {
        one.name
        for seed in range(1, 61)
        for one in draw(seed, command.database_of(seed, "both", has_postgres=True), faults=12, folders=5).faults
    }

    assert met == set(FAULTS)


def test_the_same_seed_writes_the_same_folders_and_expects_the_same(tmp_path):
    first = scans.write(tmp_path / "a", seed=3, scans=150, poison=1, hangs=1)
    again = scans.write(tmp_path / "b", seed=3, scans=150, poison=1, hangs=1)

    assert first.canaries == again.canaries
    assert first.marks == again.marks
    assert [one.files for one in first.expected] == [one.files for one in again.expected]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def contents(folder):
    return {os.fsencode(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_is_written_is_what_is_expected_every_file_and_every_way_to_end(tmp_path):
    folders = scans.write(tmp_path, seed=1, scans=1200, poison=1, hangs=1)

    for one in folders.expected:
        assert set(contents(one.root)) == set(one.files)
    outcomes = [outcome for one in folders.expected for outcome in one.files.values()]
    assert len(outcomes) == 1202
    assert {outcome.reason for outcome in outcomes if outcome.kind == Kind.REJECTED} == {
        Reason.TRUNCATED,
        Reason.NOT_AN_IMAGE,
        Reason.EMPTY,
        Reason.BLANK,
        Reason.TOO_LARGE,
        Reason.DUPLICATE,
        Reason.MISSING,
        Reason.CHANGED_SINCE_SUBMISSION,
    }
    assert sum(outcome.kind == Kind.FAILED for outcome in outcomes) == len(folders.marks) == 2
    scores = [outcome.score for outcome in outcomes if outcome.kind == Kind.SCORED]
    assert len(set(scores)) == len(scores)
    assert 0.05 < sum(score >= stub.THRESHOLD for score in scores) / len(scores) < 0.15


def test_what_leaves_and_changes_is_gone_and_changed(tmp_path):
    folders = scans.write(tmp_path, seed=1, scans=200, poison=0, hangs=0)
    before = [file.read_bytes() for file in folders.changing]

    scans.change(folders)

    assert folders.leaving
    assert not any(file.exists() for file in folders.leaving)
    assert [file.read_bytes() for file in folders.changing] != before


def test_a_reset_ends_every_connection_and_new_ones_work(link):
    with connected(link) as connection:
        assert link.reset() == 1

        with pytest.raises(ConnectionResetError):
            answer(connection, b"are you there?")
    connected(link).close()


def test_a_half_open_connection_swallows_all_until_it_is_mended_while_new_ones_work(link):
    with connected(link) as dead:
        link.deafen()
        dead.settimeout(0.5)

        with pytest.raises(TimeoutError):
            answer(dead, b"are you there?")
        connected(link).close()
        assert link.mend() == 1
        with pytest.raises(ConnectionResetError):
            answer(dead, b"and now?")


def test_a_parted_network_swallows_new_connections_too(link):
    link.part()
    with socket.create_connection(("127.0.0.1", link.port), timeout=0.5) as new, pytest.raises(TimeoutError):
        answer(new, b"hello")

    link.mend()

    connected(link).close()


def test_a_slow_link_answers_late(link):
    with connected(link) as connection:
        link.delay(0.4)
        since = time.monotonic()

        assert answer(connection, b"hello") == b"hello"
        assert time.monotonic() - since >= 0.4


def test_postgresql_that_is_not_there_is_refused_in_one_sentence(monkeypatch):
    without_postgres(monkeypatch)

    done = CliRunner().invoke(command.drill, ["--seeds", "1", "--database", "postgresql"])

    assert isinstance(done.exception, clusters.NoPostgres)
    assert str(done.exception) == "no PostgreSQL server found: install it"


def test_both_goes_on_with_sqlite_where_there_is_no_postgresql_but_not_in_ci(monkeypatch, tmp_path, capsys):
    without_postgres(monkeypatch)

    monkeypatch.delenv("CI", raising=False)
    assert command._programs("both", tmp_path) is None
    assert "every run is on SQLite" in capsys.readouterr().err
    assert command.database_of(2, "both", has_postgres=False) == "sqlite"

    monkeypatch.setenv("CI", "true")
    with pytest.raises(clusters.NoPostgres):
        command._programs("both", tmp_path)


@pytest.mark.parametrize(("text", "seeds"), [("4", [4]), ("1-3", [1, 2, 3]), ("1-2, 9", [1, 2, 9])])
def test_seeds_are_numbers_and_ranges(text, seeds):
    assert command.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-", "1;2"])
def test_what_is_no_seed_is_refused(text):
    done = CliRunner().invoke(command.drill, ["--seeds", text])

    assert done.exit_code == 2
    assert "no seed" in done.output


def test_a_fault_that_does_not_exist_is_refused_with_those_that_do():
    done = CliRunner().invoke(command.drill, ["--seed", "1", "--database", "sqlite", "--faults", "earthquake"])

    assert done.exit_code == 2
    assert "kill worker" in done.output


def test_the_table_tells_recovery_by_kind_what_was_missed_and_what_was_broken():
    met = [Met("kill worker", recovery=float(seconds)) for seconds in range(1, 101)]
    met += [Met("wipe queue", recovery=2.5), Met("full disk", missed="no file system may be mounted here")]
    result = Result(4, "sqlite", 2000, 61.0, met, [Violation("A", "scan 7 has two outcomes")])

    told, figures = table.markdown([result]), table.figures([result])

    assert figures["recovery"] == {"p50": 50.0, "p99": 99.0, "max": 100.0}
    assert figures["recovery_wiped"] == {"p50": 2.5, "p99": 2.5, "max": 2.5}
    assert (figures["faults"], figures["missed"], figures["violations"]) == (101, 1, 1)
    assert "| kill worker | 100 | 100 | 50.5 | 99.0 | 100.0 |" in told
    assert "- full disk: no file system may be mounted here (1)" in told
    assert "- seed 4, A: scan 7 has two outcomes" in told


def test_a_recovery_later_than_promised_is_told():
    slow = Result(4, "sqlite", 2000, 61.0, [Met("wipe queue", recovery=61.0), Met("kill web", recovery=89.0)])
    slower = Result(5, "sqlite", 2000, 61.0, [Met("kill web", recovery=91.0)])

    assert table.late([slow]) == ["recovery, wiped: p99 61 s, promised are 60 s"]
    assert table.late([slower]) == ["recovery: p99 91 s, promised are 90 s"]
    assert table.late([Result(6, "sqlite", 2000, 61.0, [Met("kill web", recovery=3.0)])]) == []


def test_a_database_server_that_never_answers_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://nobody@127.0.0.1:{silent.getsockname()[1]}/nothing?connect_timeout=2"
        db = connect(Settings(home=tmp_path, database_url=url))

        with pytest.raises(DatabaseUnreachable), db.reading() as session:
            session.connection()


def test_a_link_to_postgresql_that_died_silently_is_noticed(postgres, tmp_path):
    db = connect(Settings(home=tmp_path, database_url=postgres))

    with db.reading() as session:
        known = session.connection().connection.driver_connection.info.get_parameters()

    db.engine.dispose()
    assert (known["keepalives_idle"], known["tcp_user_timeout"], known["connect_timeout"]) == ("30", "30000", "10")
