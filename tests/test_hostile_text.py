"""Whatever a centre, a file or a person writes shows as text: the same house is filled twice, once with plain words and
once with hostile ones, and every page that the application has (from its URL map) must have the same elements and
attributes in both, with the words in them as text; no control or direction character may reach a page, and no cell of a
CSV may be a formula."""

import csv
import io
import json
import re
import shutil
import tempfile
import unicodedata
from dataclasses import dataclass
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import full_house
import pytest
from full_house import GUESTS, Words, addresses, guest
from reading_room import ReadingRoom

from db.settings import Settings
from db.store.reading import printable
from webui.display import prose

MARKUP = "</td></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'><b>{{7*7}}${7*7}&lt;&amp;%s%n"
DIRECTIONS = "\u202egnp\u202c \u2066right\u2069 \u200f\u05d0\u05d1 \u061c\u0628"
CONTROL = "bell\x07 esc\x1b[31m del\x7f next\x85 line\u2028 para\u2029 bom\ufeff"
FORMULA = '=HYPERLINK("http://evil.example";"x")'
LONG = "10000" * 2000
BROKEN = b"caf\xe9 \xff\xfe line\nbreak\ttab".decode("utf-8", "surrogateescape")
EVERYTHING = f"{MARKUP} {DIRECTIONS} {FORMULA}"

# What a column holds at most, or a setting or a sign-in takes.
MOST = {
    "patient": 200,
    "study": 200,
    "site": 100,
    "reader": 100,
    "worker": 100,
    "doing": 100,
    "model": 40,
    "finding": 40,
}
IN_FILES = ("file", "folder")  # any bytes but NUL
IN_FORMS = ("note", "reason", "acknowledged", "laboratory", "closing")
ALLOWED = {"\n", "\r", "\t"}


def hostile(kind: str):
    """A change of full_house.Words: `kind` of attack in every place that can hold it."""

    def change(name: str, plain: str) -> str:
        if kind == "long":
            text = f"{plain} {LONG}"
        elif kind == "control":
            text = f"{plain} {CONTROL} {BROKEN}" if name in IN_FILES else f"{plain} {CONTROL}"
        elif kind == "formula":
            text = f"{FORMULA} {plain}"
        else:
            text = f"{plain} {EVERYTHING}"
        if name in ("reader", "finding"):
            text = "".join(c for c in text if c.isprintable() and c != ",")
        most = MOST.get(name, 3_000 if name in IN_FILES else 10_000)
        return text[:most].strip()

    return change


class Skeleton(HTMLParser):
    """A page's elements with the names of their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append(f"<{tag} {' '.join(name for name, _ in attrs if name != 'selected')}>")
        self.texts += [value for name, value in attrs if value and name in ("title", "value", "aria-label")]

    def handle_endtag(self, tag):
        self.elements.append(f"</{tag}>")

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


@dataclass(frozen=True)
class House:
    """A room, the words in it, and what each guest gets from every address that answers with a page."""

    room: ReadingRoom
    words: Words
    pages: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def houses(_template_home, short_folder):
    """One house for each kind of words, filled when first asked for."""
    filled = {}

    def of(kind: str) -> House:
        if kind not in filled:
            words = Words() if kind == "plain" else Words().but(hostile(kind))
            home = Path(tempfile.mkdtemp(dir=short_folder))
            shutil.copytree(_template_home, home, dirs_exist_ok=True)
            room = full_house.house(Settings(home=home, findings=(words.finding, "other")), words)
            filled[kind] = House(room, words, {who: pages(room, who) for who in GUESTS})
        return filled[kind]

    yield of
    for house in filled.values():
        house.room.close()


def pages(room: ReadingRoom, who: str) -> dict[str, str]:
    browser = guest(room, who)
    answers = {address: browser.get(address) for address in addresses(room)}
    return {address: answer.text for address, answer in answers.items() if answer.mimetype == "text/html"}


def by_name(house: House, who: str) -> dict[str, str]:
    """A guest's pages, by addresses in which scans go by what they were called here."""
    names = {key: name for name, key in full_house.named(house.room).items()}
    called = partial(re.sub, r"[0-9a-f]{32}", lambda key: names[key[0]])
    return {called(address): page for address, page in house.pages[who].items()}


def unseen(page: str) -> list[str]:
    """Characters that a page must not hold: control, format and direction characters, lone surrogates."""
    return sorted(
        {f"U+{ord(c):04X}" for c in page if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in ALLOWED}
    )


@pytest.mark.parametrize("who", GUESTS)
@pytest.mark.parametrize("kind", ["markup", "control", "long", "formula"])
def test_every_page_has_the_same_elements_whatever_others_wrote(houses, kind, who):
    wanted, got = by_name(houses("plain"), who), by_name(houses(kind), who)

    assert got.keys() == wanted.keys()
    for address, page in got.items():
        assert Skeleton(page).elements == Skeleton(wanted[address]).elements, address
        assert unseen(page) == [], address


@pytest.mark.parametrize("kind", ["plain", "markup", "control", "long", "formula"])
def test_all_that_was_written_shows_as_text_on_some_page(houses, kind):
    house = houses(kind)

    shown = squeezed("\n".join(Skeleton(page).text for every in house.pages.values() for page in every.values()))

    # Of the tags that intake keeps, pages show none.
    missing = [name for name, text in vars(house.words).items() if name != "tag" and not shows(shown, name, text)]
    assert missing == []


def shows(shown: str, name: str, text: str) -> bool:
    shown_as = prose if name in IN_FORMS else printable
    expected = shown_as(text[: full_house.MOST.get(name)])
    return squeezed(expected) in shown


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


@pytest.mark.parametrize("who", ["dr-a", "centre", "opener"])
@pytest.mark.parametrize("kind", ["markup", "control", "long", "formula"])
def test_no_cell_of_a_csv_is_a_formula_and_no_line_of_it_is_torn(houses, kind, who):
    room = houses(kind).room
    browser = guest(room, who)
    files = 0

    for address in addresses(room):
        answer = browser.get(address)
        if answer.mimetype == "text/csv":
            files += 1
            rows = list(csv.reader(io.StringIO(answer.text, newline="")))
            assert len(rows) == 9  # a head, and every file of the first batch
            assert {len(row) for row in rows} == {len(rows[0])}
            assert [cell for row in rows for cell in row if is_formula(cell)] == []
            assert unseen(answer.text) == []
    assert files == 1


def is_formula(cell: str) -> bool:
    return re.match(r"[=+\-@\t\r]", cell) is not None and not re.fullmatch(r"-?\d+(\.\d+)?", cell)


@pytest.mark.parametrize("kind", ["markup", "control", "long", "formula"])
def test_what_scripts_ask_for_stays_json(houses, kind):
    room = houses(kind).room
    browser = guest(room, "dr-a")

    answers = [browser.get(address) for address in [*addresses(room), "/batches/progress.json?batch=1"]]
    told = [answer for answer in answers if answer.mimetype == "application/json"]

    assert told
    for answer in told:
        assert json.loads(answer.text)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("kind", ["markup", "control", "long"])
def test_what_is_typed_into_a_form_comes_back_as_text(houses, kind):
    room, words = houses(kind).room, houses(kind).words
    browser = guest(room, "dr-a")
    keys = full_house.named(room)

    for address, page, fields in (
        (f"/scan/{keys['flagged-3']}", None, {"note": words.note}),  # without a verdict: refused, and shown again
        ("/search", "/", {"text": words.patient}),
        ("/cases/search", "/cases", {"text": words.study}),
        ("/sign-in", "/account", {"name": words.patient, "password": words.patient}),
        (
            f"/unscreened/{full_house.named(room)['failed']}/acknowledge",
            "/unscreened",
            {"note": words.acknowledged * 3},
        ),
    ):
        answer = browser.post(address, page, **fields)
        shown = Skeleton(answer.text)
        assert answer.status_code in (200, 303, 400, 401), address
        assert "<b>" not in shown.elements, address
        assert not any("onerror" in element for element in shown.elements), address
