"""Fixtures that every test file shares. Real servers: a private Valkey, SQLite, PostgreSQL; nothing of ours is mocked.

- `home`: the process's Settings on a fresh home folder: migrated SQLite, site `local`, the stub model active.
- `queue_server`: the URL of a real queue server, emptied before each test; `home` uses it when a test asks for both.
- `db`: a Database ready for store tests, once on SQLite and once on PostgreSQL.
- `postgres`: the URL of a fresh, migrated PostgreSQL database.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import redis
from argon2 import PasswordHasher
from flask import Flask
from jinja2 import FileSystemBytecodeCache
from ready_home import fill
from sqlalchemy import create_engine, text

from db.settings import Settings, settings
from db.store.connection import connect, database
from deploy import queue_server as server
from deploy.drill import postgres as cluster
from webui import passwords

_HASHER = passwords._HASHER

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # one process of the tests runs both engines


# A minute and more each: begun last, they would keep one process of `make test` at work while the others have ended.
LONGEST = ("test_overnight.py", "test_train.py", "test_drill.py", "test_plan.py", "test_poison.py", "test_up.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    """No test reads the settings of whoever runs it."""
    for name in list(os.environ):
        if name.startswith("NIGHTREAD_") and name != "NIGHTREAD_TEST_DATA":
            monkeypatch.delenv(name)
    monkeypatch.setenv("NIGHTREAD_HOME", "/nonexistent/ask-for-the-fixture-home")
    _forget()
    yield
    _forget()


@pytest.fixture(scope="session", autouse=True)
def _quick_web(short_folder):
    """A third of what tests of the web cost: passwords are hashed at little cost, and a template is compiled once."""
    (templates := short_folder / "templates").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_HASHER", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
        patch.setattr(Flask, "jinja_options", {"bytecode_cache": FileSystemBytecodeCache(str(templates))})
        yield


@pytest.fixture
def full_cost(monkeypatch):
    """Passwords are hashed as in the product."""
    monkeypatch.setattr(passwords, "_HASHER", _HASHER)


@pytest.fixture(scope="session")
def short_folder():
    """A temporary folder with a short path (a Unix socket's may hold 107 bytes), for the whole session."""
    with tempfile.TemporaryDirectory(prefix="nr-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def _template_home(short_folder):
    """A home as `home` gives it, made once: copying it is quicker than migrating for each test."""
    config = Settings(home=short_folder / "template")
    config.home.mkdir(mode=0o700)
    fill(config)
    return config.home


@pytest.fixture
def home(request, _template_home, short_folder, monkeypatch):
    if "queue_server" in request.fixturenames:
        request.getfixturevalue("queue_server")
    folder = Path(tempfile.mkdtemp(dir=short_folder))
    shutil.copytree(_template_home, folder, dirs_exist_ok=True)
    folder.chmod(0o700)
    monkeypatch.setenv("NIGHTREAD_HOME", str(folder))
    _forget()
    yield settings()
    _forget()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _queue_server(short_folder):
    config = Settings(home=short_folder / "q")
    with server.serving(config) as url:
        yield url, redis.Redis(unix_socket_path=str(config.queue_socket), socket_timeout=10)


@pytest.fixture
def queue_server(_queue_server, monkeypatch):
    url, client = _queue_server
    client.flushall()
    monkeypatch.setenv("NIGHTREAD_QUEUE_URL", url)
    _forget()
    return url


@pytest.fixture(scope="session")
def _postgres_server(short_folder):
    folder = Path(tempfile.mkdtemp(prefix="nr-pg-"))
    try:
        with cluster.serving(folder) as running:
            url = running.url("{}")
            _sql(url, "CREATE DATABASE template")
            config = Settings(home=short_folder / "pg", database_url=url.format("template"))
            config.home.mkdir(mode=0o700)
            fill(config)
            yield url, config.home
    except cluster.NoPostgres as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def _postgres_config(_postgres_server, short_folder):
    url, template_home = _postgres_server
    folder = Path(tempfile.mkdtemp(dir=short_folder))
    name = f"t_{folder.name}".lower()
    _sql(url, f'CREATE DATABASE "{name}" TEMPLATE template STRATEGY file_copy')
    shutil.copytree(template_home, folder, dirs_exist_ok=True)
    folder.chmod(0o700)
    yield Settings(home=folder, database_url=url.format(name))
    _sql(url, f'DROP DATABASE "{name}" WITH (FORCE)')
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(_postgres_config):
    return _postgres_config.database_url


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request):
    config = request.getfixturevalue("home" if request.param == "sqlite" else "_postgres_config")
    opened = connect(config)
    yield opened
    opened.engine.dispose()


def _sql(url, statement):
    engine = create_engine(url.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _forget():
    if database.cache_info().currsize:
        database().engine.dispose()
    database.cache_clear()
    settings.cache_clear()


@pytest.fixture
def room(home):
    """A reading room for the tests of the web, on a fresh home folder (reading_room.py)."""
    from reading_room import ReadingRoom

    opened = ReadingRoom(home)
    yield opened
    opened.close()
