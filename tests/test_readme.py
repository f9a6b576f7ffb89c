"""The README is held against the code: what a reader is told exists, and what exists is told."""

import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import webui
from db.settings import Settings
from db.words import Cause, Reason
from producer.cli import COMMANDS
from workers import engines, images
from workers.trained_models import SHIPPED

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_a_newcomer_finishes_it_in_five_minutes():
    assert len(README.splitlines()) <= 250


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_named_and_loads(command):
    assert re.search(rf"\bnightread {command}\b|\bmake {command}\b", README)
    module, _, name = COMMANDS[command].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_every_entry_of_every_table_is_named():
    from workers.networks import ARCHITECTURES, HEADS

    running = {module.name for module in pkgutil.iter_modules(engines.__path__)}
    readers = {reader.name for reader in images.READERS}
    settings = {name.upper() for name in Settings.model_fields}
    names = {*ARCHITECTURES, *HEADS, *readers, *webui.PAGES, *running, *Reason, *Cause, *settings}

    assert {name for name in names if f"`{name}`" not in README} == set()


def test_every_command_line_it_shows_is_one():
    shown = set(re.findall(r"nightread ([a-z]+)(?: ([a-z]+(?:\|[a-z]+)*))?", README))

    for command, below in shown:
        if command not in COMMANDS:
            continue
        for name in filter(None, below.split("|")) if command in {"site", "user", "audit", "models"} else ():
            module, _, function = COMMANDS[command].partition(":")
            assert name in getattr(importlib.import_module(module), function).commands


def test_every_file_it_points_at_is_there():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_models_figures_are_those_of_its_report():
    report = json.loads((SHIPPED / "report.json").read_text("utf-8"))

    for figures in (report["held_back"], report["sources"]["covid against normal"]):
        for name in ("auc", "sensitivity", "specificity"):
            figure = figures[name]
            assert f"{figure['value']:.3f} ({figure['low']:.3f}–{figure['high']:.3f})" in README


def test_the_group_lists_every_command():
    said = subprocess.run([sys.executable, "-m", "producer", "--help"], capture_output=True, text=True, check=True)

    assert all(f"  {command} " in said.stdout for command in COMMANDS)


def test_the_table_of_requirements_names_tests_and_commands_that_exist():
    table = (ROOT / "tests" / "REQUIREMENTS.md").read_text("utf-8")
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))

    tests = set(re.findall(r"`(test_\w+)`", table))
    assert {name for name in tests if f"def {name}(" not in sources} == set()
    assert set(re.findall(r"`nightread (\w+)`", table)) <= COMMANDS.keys()
    assert {f"R{number}" for number in range(1, 25)} == set(re.findall(r"R\d+(?=[ ,])", table))
