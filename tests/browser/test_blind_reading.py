"""What a reader may not know yet is in nothing that the browser receives: not on a page, in an address, a header or a
picture. And how two readers and an arbiter work side by side."""

import json
import re

import pytest
from drawn_night import Film, chests, dicom_of, submit, twelve_bits
from driving import Heard, opens

from db.words import Role

# What a scan's own page, its pictures and its answers never say while the score is hidden.
TELLING = re.compile(rb"flagged|sampled|cleared by|drawn|heat\.png|share|threshold|saliency", re.IGNORECASE)
INNOCENT = b"score and heat map show once your first impression is saved"
STATIC = "/static/"


def tells(heard: Heard, *secrets: bytes) -> list[str]:
    """Where something telling, or one of the secrets, stands in what was received."""
    assert heard.unread == []
    found: list[str] = []
    for path, body in heard.bodies:
        if not path.startswith(STATIC):
            found += [f"{path}: {secret.decode()}" for secret in secrets if secret in body]
        if path.startswith("/scan/"):
            bare = body.replace(INNOCENT, b"")
            found += [f"{path}: {bare[max(0, at.start() - 40) : at.end() + 20]!r}" for at in TELLING.finditer(bare)]
    for path, headers in heard.headers:
        found += [f"header of {path}" for secret in secrets if secret.decode() in json.dumps(headers)]
    return found


def read(page, key: str) -> None:
    page.keyboard.press(key)
    page.keyboard.press(key)


def scores(films) -> list[bytes]:
    """Each score as any page would write it."""
    return [form.encode() for film in films for form in (f"{film.score:.3f}", f"{film.score}")]


@pytest.fixture
def two(room):
    """A site that reads twice."""
    room.site(readers=2)
    room.users("dr-a", "dr-b")
    return room


def test_nothing_of_the_first_verdict_reaches_the_second_reader(two, window):
    keys = submit(two, *chests(2))
    for key in keys:
        two.says("dr-a", key, "dismiss", note="FIRSTNOTE a shadow", findings=["effusion"])
    page = window("dr-b")
    heard = Heard(page)

    page.goto("/")
    page.keyboard.press("n")
    opens(page, "chest-00.dcm")
    page.wait_for_timeout(800)  # the one after it is fetched, too
    page.goto("/batches")
    page.goto("/batches/1")
    page.goto(f"/scan/{keys[1]}")
    opens(page, "chest-01.dcm")

    assert f"/scan/{keys[1]}" in heard.paths()
    assert heard.unread == []
    pages = [(path, body) for path, body in heard.bodies if not path.startswith(STATIC) and not path.endswith(".png")]
    for path, body in pages:
        assert b"dr-a" not in body, path
        assert b"FIRSTNOTE" not in body, path
        assert not re.search(rb'<article class="review">|by <bdi>', body), path
    assert len(pages) >= 5


def test_two_who_agree_are_done_and_two_who_differ_go_to_an_arbiter(two, window):
    two.user("boss-reader", role=Role.ARBITER)
    same, other = submit(two, *chests(2))
    for name, second in (("dr-a", "c"), ("dr-b", "d")):
        page = window(name)
        page.goto(f"/scan/{same}")
        opens(page, "chest-00.dcm")
        read(page, "c")
        opens(page, "chest-01.dcm")
        read(page, second)
        page.wait_for_selector("h2:has-text('All read')")

    arbiter = window("boss-reader")
    arbiter.goto("/")
    arbiter.click("a:has-text('Arbitration') >> nth=0")
    rows = arbiter.locator("a.row").all_inner_texts()
    arbiter.keyboard.press("n")
    opens(arbiter, "chest-01.dcm")
    names = arbiter.locator("article.review bdi:first-of-type").all_inner_texts()
    read(arbiter, "c")
    arbiter.wait_for_selector("h2:has-text('Nothing to decide')")

    assert two.entry(same).verdict == "confirm"
    assert rows == ["chest-01.dcm"]
    assert {"dr-a", "dr-b"} <= set(names)
    assert (two.entry(other).state, two.entry(other).verdict) == ("done", "confirm")


def test_a_scan_that_somebody_has_open_is_marked_and_passed_over(room, window):
    room.users("dr-a", "dr-b")
    keys = submit(room, *chests(4))
    first = window("dr-a")
    first.goto(f"/scan/{keys[0]}")
    opens(first, "chest-00.dcm")
    first.wait_for_timeout(800)  # it has fetched the one after it, and holds that, too

    second = window("dr-b")
    second.goto("/")
    lines = second.locator("tbody tr").all_inner_texts()
    second.keyboard.press("n")
    opens(second, "chest-02.dcm")
    second.goto(f"/scan/{keys[0]}")
    notice = second.locator("#held").inner_text()
    second.click("text=Open it anyway")
    opens(second, "chest-00.dcm")

    assert [("dr-a" in line) for line in lines] == [True, True, False, False]
    assert "dr-a" in notice
    assert "dr-a" in second.locator(".panel .problem").first.inner_text()


def test_leaving_a_scan_gives_it_back_at_once(room, window):
    room.users("dr-a", "dr-b")
    keys = submit(room, *chests(2))
    first = window("dr-a")
    first.goto(f"/scan/{keys[0]}")
    opens(first, "chest-00.dcm")
    first.wait_for_timeout(500)
    assert room.entry(keys[0], "dr-b").holder == "dr-a"

    first.keyboard.press("w")
    first.wait_for_selector("h1:has-text('Worklist')")
    first.wait_for_timeout(500)

    assert room.entry(keys[0], "dr-b").holder is None
    assert room.entry(keys[1], "dr-b").holder is None


def test_before_the_first_impression_nothing_tells_score_flag_or_heat(room, window):
    room.site(blind_first=True)
    room.user()
    films = [
        Film(f"chest-{n}.dcm", dicom_of(twelve_bits(n, 256)), score)
        for n, score in enumerate((0.83217, 0.71939, 0.64113))
    ]
    keys = submit(room, *films)
    page = window("dr-a")
    heard = Heard(page)
    page.goto("/")
    page.goto("/batches")
    page.goto("/batches/1")
    page.goto(f"/scan/{keys[0]}")
    opens(page, "chest-0.dcm")
    page.wait_for_timeout(800)
    refused = page.evaluate(f"fetch('/scan/{keys[0]}/heat.png').then((answer) => answer.status)")
    nobodys = page.evaluate(f"fetch('/scan/{'0' * 32}/heat.png').then((answer) => answer.status)")
    before = tells(heard, *scores(films))
    heard.clear()

    read(page, "d")
    page.wait_for_selector("legend:has-text('Your verdict')")
    opens(page, "chest-0.dcm")
    shown = page.locator(".result").inner_text()
    page.keyboard.press("c")
    page.keyboard.press("c")
    opens(page, "chest-1.dcm")

    assert (refused, nobodys) == (404, 404)
    assert before == []
    assert "0.832" in shown
    reviews = [(review.stage, review.verdict, review.saw_score) for review in room.entry(keys[0]).my_reviews]
    assert sorted(reviews) == [("impression", "dismiss", False), ("verdict", "confirm", True)]
    assert room.entry(keys[0]).verdict == "confirm"


def test_while_a_site_samples_nothing_tells_a_drawn_scan_from_a_flagged_one(room, window):
    room.site(sample_share=0.5)
    room.user()
    flagged = [Film(f"f-{n}.dcm", dicom_of(twelve_bits(n, 256)), 0.81237 + n / 100) for n in range(3)]
    drawn = [
        Film(
            f"d-{n}.dcm",
            dicom_of(
                twelve_bits(n + 9, 256),
            ),
            0.12347 + n / 1000,
            share=0.5,
        )
        for n in range(3)
    ]
    keys = dict(zip([film.path for film in flagged + drawn], submit(room, *flagged, *drawn), strict=True))
    page = window("dr-a")
    heard = Heard(page)
    page.goto("/")
    lines = page.locator("a.row").all_inner_texts()
    page.goto("/batches")
    page.goto("/batches/1")
    for path in (flagged[0].path, drawn[0].path):
        page.goto(f"/scan/{keys[path]}")
        opens(page, path)
        page.wait_for_timeout(600)

    rows = {skeleton(row)[0] for row in re.findall(r"<tr>.*?</tr>", flat(body_of(heard, "/")))[1:]}
    assert sorted(lines) == sorted(keys)
    assert len(rows) == 1  # all lines of the list alike
    assert tells(heard, *scores(flagged + drawn)) == []
    assert same_shape(heard, keys, flagged[0], drawn[0]) == []


def same_shape(heard: Heard, keys: dict[str, str], *films: Film) -> list[str]:
    """What differs between the pages of two scans, and in what is asked for them, but for what names them."""
    one, other = (skeleton(body_of(heard, f"/scan/{keys[film.path]}")) for film in films)
    asked = [{path.removeprefix(f"/scan/{keys[film.path]}") for path in heard.paths()} for film in films]
    theirs = [{rest for rest in paths if not rest.startswith(("/scan", "/static"))} for paths in asked]
    lines = [f"{ours} / {theirs}" for ours, theirs in zip(one, other, strict=True) if ours != theirs]
    return lines + [f"asked: {theirs}"] * (theirs[0] != theirs[1])


def flat(body: str) -> str:
    return re.sub(r"\s+", " ", body)


def body_of(heard: Heard, wanted: str) -> str:
    return next(body.decode() for path, body in heard.bodies if path == wanted)


def skeleton(body: str) -> list[str]:
    """A page line by line, without what must differ: keys, tokens, names of files, numbers."""
    bare = re.sub(r"[0-9a-f]{32}|value=\"[^\"]{40,}\"|[fd]-\d\.dcm", "", body)
    return re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "#", bare).splitlines()
