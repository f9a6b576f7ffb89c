import importlib.metadata
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
import redis

from db.errors import QueueUnreachable, Refused
from db.settings import Settings
from db.words import Exit
from deploy import queue_server as server


@pytest.fixture
def alone(short_folder):
    return Settings(home=short_folder / f"alone{os.urandom(3).hex()}")


def client(config):
    return redis.Redis(unix_socket_path=str(config.queue_socket), socket_timeout=10, decode_responses=True)


def program(folder: Path, name: str, says: str) -> Path:
    """A program on the PATH that says its version and nothing else."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_the_private_server_listens_on_its_socket_alone_and_keeps_what_it_is_told(alone):
    with server.serving(alone) as url:
        told = client(alone)
        info = told.info()

    assert url == f"redis+socket://{alone.queue_socket}"
    assert info["tcp_port"] == 0
    assert info["aof_enabled"] == 1
    assert info["maxmemory_policy"] == "noeviction"
    assert not server.is_running(alone)


def test_only_its_owner_reaches_the_server(alone):
    with server.serving(alone):
        folder, sock = alone.queue_socket.parent.stat(), alone.queue_socket.stat()

    assert stat.S_IMODE(folder.st_mode) == 0o700
    assert stat.S_IMODE(sock.st_mode) == 0o600


def test_messages_survive_a_restart_of_the_server(alone):
    with server.serving(alone):
        client(alone).rpush("rings", "one", "two")

    with server.serving(alone):
        assert client(alone).lrange("rings", 0, -1) == ["one", "two"]


@pytest.mark.parametrize("name", server.DISABLED)
def test_commands_that_nightread_never_sends_are_disabled(alone, name):
    with server.serving(alone), pytest.raises(redis.ResponseError, match="unknown command"):
        client(alone).execute_command(name, "GET")


def test_a_server_that_runs_already_is_used_and_left_alone(alone):
    with server.serving(alone):
        with server.serving(alone):
            pass

        assert server.is_running(alone)


def test_a_stale_socket_does_not_stop_the_server(alone):
    server.private_folder(alone.home)
    server.private_folder(alone.queue_socket.parent)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(alone.queue_socket))
    assert not server.is_running(alone)

    with server.serving(alone):
        assert server.is_running(alone)


def test_a_home_with_a_long_path_gets_its_socket_in_a_private_folder_elsewhere(short_folder):
    deep = Settings(home=short_folder / ('a long name, with spaces and "quotes" ' * 4))

    with server.serving(deep):
        assert client(deep).ping()
        assert len(os.fsencode(deep.queue_socket)) <= 107

    deep.queue_socket.parent.rmdir()


def test_a_locale_that_the_system_lacks_does_not_stop_the_server(alone, monkeypatch):
    monkeypatch.setenv("LC_ALL", "xx_XX.UTF-8")

    with server.serving(alone):
        assert server.is_running(alone)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_socket_folder_that_others_may_enter_is_refused(alone, mode):
    alone.queue_socket.parent.mkdir(parents=True)
    alone.home.chmod(0o700)
    alone.queue_socket.parent.chmod(mode)

    with pytest.raises(Refused, match="private"):
        server.prepare(alone)


def test_a_socket_folder_that_is_a_symbolic_link_is_refused(alone, tmp_path):
    tmp_path.chmod(0o700)
    server.private_folder(alone.home)
    alone.queue_socket.parent.symlink_to(tmp_path)

    with pytest.raises(Refused, match="private"):
        server.prepare(alone)


@pytest.mark.skipif(os.getuid() != 0, reason="giving a folder away needs root")
def test_a_socket_folder_of_somebody_else_is_refused(alone):
    server.private_folder(alone.home)
    server.private_folder(alone.queue_socket.parent)
    os.chown(alone.queue_socket.parent, 65534, 65534)

    with pytest.raises(Refused, match="private"):
        server.prepare(alone)


def test_the_ladder_prefers_a_server_on_the_path(tmp_path, monkeypatch):
    found = program(tmp_path, "redis-server", "Redis server v=7.2.11 sha=0")
    monkeypatch.setenv("PATH", str(tmp_path))

    assert server.find_server() == found


@pytest.mark.parametrize("says", ["Redis server v=6.0.16 sha=0", "Redis server v=5.0.7", "what?"])
def test_the_ladder_skips_a_server_that_is_too_old_or_does_not_say(tmp_path, monkeypatch, says):
    old = program(tmp_path, "redis-server", says)
    monkeypatch.setenv("PATH", str(tmp_path))

    found = server.find_server()

    assert found != old
    assert server.version(found).numbers >= server.OLDEST


def test_the_ladder_prefers_a_patched_server_and_takes_another_only_where_there_is_no_other(tmp_path, monkeypatch):
    unpatched = program(tmp_path, "redis-server", "Redis server v=7.0.15 sha=0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert server.find_server() != unpatched

    monkeypatch.setattr(server, "_wheel_server", lambda: None)

    assert server.find_server() == unpatched


def test_without_any_server_the_error_says_how_to_install_one(tmp_path, monkeypatch):
    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "files", not_installed)

    with pytest.raises(QueueUnreachable, match="apt install") as refused:
        server.find_server()

    assert "brew install" in str(refused.value)
    assert refused.value.exit_code == Exit.UNREACHABLE


def test_a_server_that_cannot_start_is_an_error_that_names_its_log(alone):
    with pytest.raises(QueueUnreachable, match="log"):
        server.wait(alone, subprocess.Popen(["false"]))
