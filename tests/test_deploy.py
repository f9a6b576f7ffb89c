"""What deploy/ hands to admins matches the code: commands that exist, every setting, packaged files."""

import fnmatch
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from db.settings import Settings
from producer.cli import COMMANDS

REPOSITORY = Path(__file__).parent.parent
DEPLOY = REPOSITORY / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
TEXTS = [*UNITS, DEPLOY / "compose.yaml", DEPLOY / "Dockerfile", DEPLOY / "README.md", DEPLOY / "nightread.env.example"]
SETTINGS = {f"NIGHTREAD_{name.upper()}": name for name in Settings.model_fields}
EXAMPLE = dict(re.findall(r"^#?(NIGHTREAD_\w+)=(.*)$", (DEPLOY / "nightread.env.example").read_text(), re.MULTILINE))
DEPENDS_ON_THE_PLACE = {"home", "database_url", "queue_url", "roots"}


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: file.name)
def test_no_file_names_a_setting_that_does_not_exist(file):
    named = set(re.findall(r"NIGHTREAD_[A-Z_]*[A-Z]", file.read_text()))

    assert named <= SETTINGS.keys()


def test_the_example_lists_every_setting():
    assert EXAMPLE.keys() == SETTINGS.keys()


def test_the_example_shows_the_defaults():
    fields = {shown: name for shown, name in SETTINGS.items() if name not in DEPENDS_ON_THE_PLACE}
    shown = Settings(home="/nowhere", **{name: EXAMPLE[shown] for shown, name in fields.items()})
    default = Settings(home="/nowhere")

    assert shown.model_dump() == default.model_dump()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_that_exists(unit):
    (started,) = re.findall(r"^ExecStart=\S+/nightread (\w+)", unit.read_text(), re.MULTILINE)

    assert started in COMMANDS


def test_compose_and_the_images_start_commands_that_exist():
    text = (DEPLOY / "compose.yaml").read_text() + (DEPLOY / "Dockerfile").read_text()

    started = re.findall(r'(?:command:|CMD) \["(\w[\w-]*)"', text)

    assert set(started) - {"valkey-server", "postgres"} <= COMMANDS.keys()
    assert {"init", "web", "sweep", "worker"} <= set(started)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_gives_workers_time_to_give_back_what_they_hold(unit):
    text = unit.read_text()

    assert int(re.search(r"^TimeoutStopSec=(\d+)", text, re.MULTILINE)[1]) > 30
    assert "KillMode=mixed" in text


def test_the_front_image_holds_no_engine_and_the_worker_image_does():
    front, worker, gpu = ((DEPLOY / "locks" / f"{name}.txt").read_text() for name in ("front", "worker", "gpu"))

    assert not re.search(r"^(tensorflow|keras|openvino)==", front, re.MULTILINE)
    assert re.search(r"^openvino==", worker, re.MULTILINE)
    assert not re.search(r"^tensorflow==", worker, re.MULTILINE)
    assert re.search(r"^nvidia-cudnn", gpu, re.MULTILINE)


@pytest.mark.parametrize("lock", [REPOSITORY / "requirements.lock", *sorted((DEPLOY / "locks").iterdir())])
def test_every_locked_package_is_pinned_with_hashes_and_no_address(lock):
    text = lock.read_text()
    pinned = re.findall(r"^[a-z0-9][\w.\-\[\]]*==\S+.*\\\n\s+--hash=sha256:", text, re.MULTILINE)

    assert len(pinned) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE)) > 50
    assert not re.search(r"://|--find-links|--index|localhost", text)


def test_the_images_take_the_versions_that_are_tested():
    pins = re.compile(r"^([a-z0-9][\w.\-]*(?:\[[\w,]+\])?)==(\S+)", re.MULTILINE)
    tested = set(pins.findall((REPOSITORY / "requirements.lock").read_text()))

    for name in ("front", "worker"):
        assert set(pins.findall((DEPLOY / "locks" / f"{name}.txt").read_text())) <= tested


def test_the_lock_covers_what_pyproject_asks_for():
    asked = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wanted = [
        *asked["project"]["dependencies"],
        *asked["project"]["optional-dependencies"]["worker"],
        *asked["dependency-groups"]["dev"],
    ]
    names = {re.match(r"[\w-]+", one)[0].lower() for one in wanted}
    locked = set(re.findall(r"^([a-z0-9][\w-]*)", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE))

    assert names <= locked


def test_every_file_that_the_packages_need_is_packaged():
    patterns = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    kept = subprocess.run(
        ["git", "ls-files", "db", "producer", "workers", "webui", "deploy/samples"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()

    data = [file for file in kept if not file.endswith((".py", ".gitignore", ".md"))]

    assert [file for file in data if not any(fnmatch.fnmatch(Path(file).name, one) for one in patterns)] == []
