"""`nightread cases import`: every line of a laboratory's file accounted for."""

import json

import pytest
from click.testing import CliRunner
from ledger import found, submitted
from sqlalchemy import func, select

from db.errors import Refused, Unknown
from db.schema import CaseStep
from db.store.connection import database
from db.words import Exit
from producer.cli import group


def run(*arguments):
    done = CliRunner().invoke(group, [str(word) for word in arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done


@pytest.fixture
def file(home, tmp_path):
    """A laboratory's file: two of its three lines are about scans of the site."""
    submitted(database(), [found("a.png", patient="P1"), found("night/b\udcff.png")])
    made = tmp_path / "lab.csv"
    made.write_bytes(
        b"\xef\xbb\xbfpatient,path,result,at,note\r\nP1,,positive,2026-11-20 08:00,\r\n"
        b",night/b\xff.png,negative,2026-11-20,\r\nP2,,negative,2026-11-20,\r\n"
    )
    return made


def count():
    with database().reading() as session:
        return session.scalar(select(func.count()).select_from(CaseStep))


def test_the_command_says_what_became_of_every_line(file):
    done = run("cases", "import", file, "--site", "local")

    assert "3 lines: 2 applied, 0 known, 1 unknown, 0 ambiguous, 0 wrong" in done.stdout
    assert "line 4: unknown: no scan of this site" in done.stdout
    assert "P2" not in done.stdout
    assert done.return_value == Exit.PARTIAL
    assert count() == 2


def test_the_command_has_json_and_the_same_file_again_changes_nothing(file):
    run("cases", "import", file, "--site", "local")

    done = run("cases", "import", file, "--site", "local", "--json")

    assert json.loads(done.stdout) == {
        "site": "local",
        "lines": 3,
        "applied": 0,
        "known": 2,
        "unknown": 1,
        "ambiguous": 0,
        "wrong": 0,
        "problems": [{"line": 4, "fate": "unknown", "why": "no scan of this site"}],
    }
    assert count() == 2


def test_a_file_of_which_every_line_is_on_record_ends_with_0(file):
    file.write_text("patient,result,at\nP1,positive,2026-11-20\n")

    assert [run("cases", "import", file, "--site", "local").return_value for _ in range(2)] == [Exit.DONE] * 2


def test_a_file_that_is_something_else_and_an_unknown_site_are_refused(file, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("path,patient\na.png,P1\n")

    with pytest.raises(Refused, match="first line"):
        run("cases", "import", other, "--site", "local")
    with pytest.raises(Unknown, match="local"):
        run("cases", "import", file, "--site", "locale")
    assert count() == 0
