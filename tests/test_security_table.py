"""deploy/SECURITY.md says what is true: its tests exist, its requirements are the standard's, and none is left out."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PAGE = (REPOSITORY / "deploy" / "SECURITY.md").read_text()
TESTS = re.findall(r"`((?:browser/)?test_\w+\.py)::(\w+)`", PAGE)

# OWASP ASVS 5.0.0: the level of each requirement of a section, in order; from its CSV (OWASP/ASVS, commit 5cf9b032).
LEVELS = {
    "1.1": "22", "1.2": "1111122223", "1.3": "112222222223", "1.4": "222", "1.5": "123",
    "2.1": "122", "2.2": "112", "2.3": "12223", "2.4": "23",
    "3.1": "3", "3.2": "113", "3.3": "12223", "3.4": "11222233", "3.5": "11122333", "3.6": "3", "3.7": "22333",
    "4.1": "12233", "4.2": "23333", "4.3": "22", "4.4": "1222",
    "5.1": "2", "5.2": "112333", "5.3": "113", "5.4": "222",
    "6.1": "122", "6.2": "111111112222", "6.3": "11223333", "6.4": "112233", "6.5": "22222333", "6.6": "2223",
    "6.7": "33", "6.8": "2222",
    "7.1": "222", "7.2": "1111", "7.3": "22", "7.4": "11222", "7.5": "223", "7.6": "22",
    "8.1": "1233", "8.2": "1123", "8.3": "133", "8.4": "23",
    "9.1": "111", "9.2": "1222",
    "10.1": "22", "10.2": "223", "10.3": "22223", "10.4": "1111122222233333", "10.5": "22222", "10.6": "22",
    "10.7": "222",
    "11.1": "2233", "11.2": "22233", "11.3": "11233", "11.4": "1222", "11.5": "23", "11.6": "23", "11.7": "33",
    "12.1": "12233", "12.2": "11", "12.3": "22223",
    "13.1": "2333", "13.2": "222223", "13.3": "2233", "13.4": "1222233",
    "14.1": "22", "14.2": "12223333", "14.3": "122",
    "15.1": "12233", "15.2": "12233", "15.3": "1222222", "15.4": "3333",
    "16.1": "2", "16.2": "22222", "16.3": "2222", "16.4": "222", "16.5": "2223",
    "17.1": "23", "17.2": "22223333", "17.3": "22",
}  # fmt: skip
STANDARD = {
    f"V{section}.{number}": int(level) for section, levels in LEVELS.items() for number, level in enumerate(levels, 1)
}
WANTED = {name for name, level in STANDARD.items() if level <= 2} | {"V5.2.4", "V5.2.5", "V5.2.6"}
COLUMNS = {"Met": 4, "In part, or the operator's": 3, "Does not apply": 2}


def rows(heading: str) -> list[list[str]]:
    """The rows of the table below a heading, without its head."""
    body = PAGE.split(f"### {heading}\n", 1)[1].split("\n#", 1)[0]
    lines = [line for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def ids(heading: str) -> list[str]:
    return [name for row in rows(heading) for name in row[0].split()]


@cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((REPOSITORY / "tests" / file).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_the_list_of_requirements_is_as_long_as_the_standard():
    """345 in all: 70 of level 1, 183 of level 2, 92 of level 3 (the notes counted them too)."""
    levels = list(STANDARD.values())

    assert [levels.count(level) for level in (1, 2, 3)] == [70, 183, 92]


@pytest.mark.parametrize(("file", "name"), sorted(set(TESTS)))
def test_every_test_that_the_page_names_exists(file, name):
    assert name in functions(file)


def test_the_page_names_many_tests():
    assert len(set(TESTS)) > 100


@pytest.mark.parametrize("heading", COLUMNS)
def test_every_row_is_whole(heading):
    for row in rows(heading):
        assert len(row) == COLUMNS[heading], row
        assert all(row), row


@pytest.mark.parametrize("heading", COLUMNS)
def test_every_id_is_one_of_the_standard(heading):
    assert [name for name in ids(heading) if name not in STANDARD] == []


def test_no_requirement_stands_twice():
    listed = [name for heading in COLUMNS for name in ids(heading)]

    assert sorted({name for name in listed if listed.count(name) > 1}) == []


def test_every_requirement_of_levels_1_and_2_is_accounted_for():
    listed = {name for heading in COLUMNS for name in ids(heading)}

    assert sorted(WANTED - listed) == []
    assert sorted(listed - WANTED) == []


def test_each_requirement_that_is_met_names_its_test():
    assert [row[0] for row in rows("Met") if not re.search(r"`test_\w+\.py::\w+`", row[3])] == []


def test_each_control_names_its_test():
    body = PAGE.split("## Controls of the notes, each with its test\n")[1].split("\n#", 1)[0]
    controls = [line for line in body.splitlines() if line.startswith("| ")][1:]

    assert len(controls) >= 45  # the rows of the notes' table, some of them parted
    assert [line for line in controls if not re.search(r"`test_\w+\.py::\w+`", line)] == []


def test_every_file_that_the_page_points_at_is_there():
    named = re.findall(r"`((?:deploy|webui|db|workers|producer)/[\w./]+)`", PAGE)

    assert len(named) > 5
    assert [name for name in named if name not in {"deploy/.env"} and not (REPOSITORY / name).exists()] == []


def test_the_page_has_its_parts():
    parts = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)

    assert parts[:4] == [
        "Who may attack, and what they get",
        "Data, secrets, keys",
        "Where it talks to",
        "Components",
    ]
    assert "within 7 days" in PAGE
