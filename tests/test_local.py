"""The home folder and the commands over the parts of one machine."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from plain_models import write_plain
from sqlalchemy import delete

from db.errors import Refused
from db.schema import User, UserSite
from db.settings import Settings
from db.store import models, people
from db.store.connection import connect
from db.store.sites import every_site, site_named
from db.words import Role
from deploy import home as homes
from deploy import local, queue_server
from webui import passwords
from workers import model_folders
from workers import trained_models as trained


def test_children_get_every_setting_that_was_given(tmp_path, monkeypatch):
    given = Settings(home=tmp_path, roots="/a:/b", audit_key="k", web_port=99, chunk_size=7, web_https=True)
    for name, value in local.environment(given).items():
        monkeypatch.setenv(name, value)

    assert Settings() == given


def test_the_private_queue_server_is_a_part_only_where_none_is_configured_or_running(home, short_folder):
    assert [one.name for one in local.queue_parts(home)] == ["queue"]
    assert local.queue_parts(Settings(home=home.home, queue_url="redis://elsewhere")) == []
    with queue_server.serving(home):
        assert local.queue_parts(home) == []


def test_a_second_one_on_the_same_home_is_refused(home):
    with local.only_one(home) as lock, local.only_one(home) as second:
        assert lock is not None
        assert second is None

    with local.only_one(home) as lock:
        assert lock is not None


def test_a_taken_port_is_refused_and_zero_means_a_free_one(home):
    free = local.with_free_port(Settings(home=home.home, web_port=0))
    assert free.web_port > 0

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Refused, match="NIGHTREAD_WEB_PORT"):
        local.with_free_port(Settings(home=home.home, web_port=taken.getsockname()[1]))


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A small trained model's folder in place of the one that ships, whose weights need no loading here."""
    folder = write_plain(tmp_path / "shipped", name="small", threshold=0.25)
    monkeypatch.setattr(trained, "SHIPPED", folder)
    return folder


@pytest.fixture
def fresh(short_folder, monkeypatch):
    """A database whose home folder does not exist yet."""
    config = Settings(home=short_folder / f"fresh{os.urandom(3).hex()}" / "home")
    opened = connect(config)
    yield opened
    opened.engine.dispose()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_home_is_made_from_nothing(fresh, shipped):
    ready = homes.make_ready(fresh)

    folder = fresh.config.home
    assert mode(folder) == 0o700
    assert mode(ready.passwords_file) == 0o600
    assert [site.name for site in every_site(fresh)] == ["local"]
    assert models.active(fresh).label == "small 1"
    assert models.active(fresh).threshold == 0.25
    assert {user.name: user.role for user in people.users(fresh)} == {"admin": Role.ADMIN, "reader": Role.READER}


def test_the_first_passwords_are_told_once_kept_on_file_and_work(fresh, shipped):
    ready = homes.make_ready(fresh)

    kept = dict(line.split() for line in ready.passwords_file.read_text().splitlines())
    assert kept == ready.passwords
    for name, password in kept.items():
        assert len(password) >= 20
        assert passwords.matches(people.user_named(fresh, name).password_hash, password)


def test_the_reader_of_a_new_home_may_open_its_site(fresh, shipped):
    homes.make_ready(fresh)

    assert people.user_named(fresh, "reader").site_ids == {site_named(fresh, "local").id}


def test_making_a_home_works_twice(fresh, shipped):
    first = homes.make_ready(fresh)
    kept = first.passwords_file.read_bytes()

    second = homes.make_ready(fresh)

    assert second.passwords == {}
    assert second.passwords_file.read_bytes() == kept
    assert len(people.users(fresh)) == 2


@pytest.mark.parametrize("missing", [["reader"], ["admin", "reader"]])
def test_an_interrupted_start_is_gone_on_with_and_nobody_is_locked_out(fresh, shipped, missing):
    homes.make_ready(fresh)
    with fresh.writing() as session:  # as if the start had ended before these were made
        session.execute(delete(UserSite))
        session.execute(delete(User).where(User.name.in_(missing)))

    ready = homes.make_ready(fresh)

    assert set(ready.passwords) == set(missing)

    kept = dict(line.split() for line in ready.passwords_file.read_text().splitlines())
    for name in ("admin", "reader"):
        assert passwords.matches(people.user_named(fresh, name).password_hash, kept[name])


def test_users_that_an_admin_made_are_left_as_they_are(fresh, shipped):
    ready = homes.make_ready(fresh)
    ready.passwords_file.unlink()

    assert homes.make_ready(fresh).passwords == {}
    assert not ready.passwords_file.exists()


def test_another_active_model_stays_active(home, shipped):
    db = connect(home)

    ready = homes.make_ready(db)

    assert ready.model == "stub 1"


def test_a_release_with_a_newer_model_lets_it_take_over_and_leaves_the_old_one_to_its_batches(fresh, shipped):
    homes.make_ready(fresh)
    old = models.active(fresh)
    write_plain(shipped, name="small", version="2", weights="b")

    assert homes.make_ready(fresh).model == "small 2"

    assert model_folders.checked(models.get(fresh, old.id)).version == "1"
    assert homes.make_ready(fresh).model == "small 2"


def test_a_release_with_a_newer_model_leaves_a_choice_as_it_is(fresh, shipped, tmp_path):
    homes.make_ready(fresh)
    chosen = model_folders.take_in(fresh, write_plain(tmp_path / "mine", name="mine"), by="admin")
    models.activate(fresh, chosen.id, why="ours is better", by="admin")
    write_plain(shipped, name="small", version="2", weights="b")

    assert homes.make_ready(fresh).model == "mine 1"
    assert [model.label for model in models.registered(fresh)] == ["small 1", "mine 1", "small 2"]


def test_a_shipped_model_that_was_retired_stays_retired(fresh, shipped, tmp_path):
    homes.make_ready(fresh)
    old = models.active(fresh)
    models.activate(fresh, model_folders.take_in(fresh, write_plain(tmp_path / "m"), by="a").id, why="x", by=homes.BY)
    models.retire(fresh, old.id, why="outdated", by="admin")

    assert homes.make_ready(fresh).model == "plain 1"


def test_a_home_that_others_may_enter_is_closed_to_them(fresh, shipped):
    fresh.config.home.mkdir(parents=True, mode=0o755)
    fresh.config.home.chmod(0o755)

    homes.make_ready(fresh)

    assert mode(fresh.config.home) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="giving a folder away needs root")
def test_a_home_of_somebody_else_is_refused(fresh, shipped):
    fresh.config.home.mkdir(parents=True)
    os.chown(fresh.config.home, 65534, 65534)

    with pytest.raises(Refused, match="private"):
        homes.make_ready(fresh)


def test_an_altered_model_is_refused(fresh, shipped):
    (shipped / "weights.safetensors").write_bytes(b"something else")

    with pytest.raises(Refused):
        homes.make_ready(fresh)


def nightread(config, *words, **more):
    command = [sys.executable, "-m", "producer", *words]
    cwd = Path(__file__).parent.parent
    environment = {**os.environ, **local.environment(config)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=cwd, timeout=120, **more)


def test_a_second_up_says_so_and_ends_with_refused(home):
    with local.only_one(home):
        ended = nightread(home, "up")

    assert ended.returncode == 4, ended.stderr
    assert "already" in ended.stderr


def test_init_prints_data_on_stdout_and_passwords_on_stderr_alone(home):
    ended = nightread(home, "init", "--json")

    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["home"] == str(home.home)
    for password in (line.split()[1] for line in Path(told["passwords_file"]).read_text().splitlines()):
        assert password not in ended.stdout
        assert password in ended.stderr
