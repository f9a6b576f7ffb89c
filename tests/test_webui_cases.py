"""The pages of cases: lists by where cases stand, laboratory results by hand and from a file, closing and reopening."""

import io
import re

import pytest
from reading_room import Browser, Found, ReadingRoom
from sqlalchemy import select

from db.schema import CaseStep, Scan
from db.store import entries, people
from db.store.sites import set_site
from db.words import Role, Stage, Verdict


@pytest.fixture
def desk(room) -> Browser:
    """Somebody of the centre, and readers to read with."""
    room.user("dr-a")
    room.user("dr-z", role=Role.ARBITER)
    room.user("desk", role=Role.CENTRE)
    return room.inside("desk")


def scan_id(room: ReadingRoom, key: str) -> int:
    with room.db.reading() as session:
        return session.scalars(select(Scan.id).where(Scan.key == key)).one()


def read(room, key, verdict=Verdict.CONFIRM, *, by="dr-a", stage=Stage.VERDICT):
    me = people.user_named(room.db, by)
    entries.add_review(room.db, scan_id(room, key), me=me, stage=stage, verdict=verdict)


def steps(room) -> list[tuple[str, str | None, str]]:
    with room.db.reading() as session:
        return [(row.step, row.result, row.note) for row in session.scalars(select(CaseStep).order_by(CaseStep.id))]


def adds(browser, key, **form):
    return browser.post(f"/cases/{key}", page="/cases", **form)


def shown(page) -> list[str]:
    """The steps on a case's page."""
    return re.findall(r"<li><strong>(\w[\w ]*)</strong>", page.text)


def uploads(browser, content: bytes, *, site="1", name="lab.csv"):
    data = {"csrf_token": browser.token("/cases"), "site": site, "file": (io.BytesIO(content), name)}
    return browser.client.post("/cases/import", data=data, content_type="multipart/form-data")


# One case


def test_a_case_shows_how_it_went_and_a_result_by_hand_is_put_on_record(room, desk):
    key = room.one(patient="P-17")
    read(room, key)

    saved = adds(desk, key, step="laboratory", result="positive", at="2026-11-20T08:30", note="PCR\r\ncycle 21")
    page = desk.get(f"/cases/{key}")

    assert saved.location == f"/cases/{key}"
    assert shown(page) == ["Screened", "Flagged", "Read", "Laboratory"]
    assert "2026-11-20 08:30 UTC" in page.text
    assert "PCR\ncycle 21" in page.text
    assert steps(room) == [("laboratory", "positive", "PCR\ncycle 21")]
    assert [(event.actor, event.object) for event in room.events("case_step")] == [("desk", "scan 1")]
    assert [(event.actor, event.object) for event in room.events("viewed_case")] == [("desk", "scan 1")]


def test_times_are_the_sites(room, desk):
    set_site(room.db, "local", {"time_zone": "America/Bogota"}, by="test")
    key = room.one()

    adds(desk, key, step="laboratory", result="negative", at="2026-11-20T08:30", note="")

    assert room.events("case_step")
    with room.db.reading() as session:
        assert session.scalars(select(CaseStep.at)).one().isoformat() == "2026-11-20T13:30:00+00:00"
    assert "2026-11-20 08:30 -05" in desk.get(f"/cases/{key}").text


def test_a_case_is_closed_and_reopened_with_a_reason(room, desk):
    key = room.one()

    adds(desk, key, step="closed", result="released", note="negative twice")
    assert "Reopen the case" in desk.get(f"/cases/{key}").text
    adds(desk, key, step="reopened", note="she came back")

    assert [step for step, *_ in steps(room)] == ["closed", "reopened"]
    assert "Close the case" in desk.get(f"/cases/{key}").text


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"step": "laboratory", "result": "maybe"}, "Choose one of: positive, negative, indeterminate."),
        ({"step": "laboratory"}, "Choose one of"),
        ({"step": "laboratory", "result": "positive", "at": "soon"}, "That is no date and time."),
        ({"step": "laboratory", "result": "positive", "at": "2126-01-01T00:00"}, "has not come yet"),
        ({"step": "laboratory", "result": "positive", "note": "x" * 2001}, "may have 2,000"),
        ({"step": "closed", "result": "released"}, "Say in the note why."),
        ({"step": "reopened", "note": "n"}, "This case is open."),
    ],
)
def test_what_cannot_be_put_down_is_answered_with_a_sentence_and_what_was_typed(room, desk, form, sentence):
    key = room.one()

    answer = adds(desk, key, **form)

    assert answer.status_code == 400
    assert re.search(sentence, answer.text)
    assert f">{form.get('note', '')}</textarea>" in answer.text
    assert steps(room) == []


@pytest.mark.parametrize("step", ["", "suspected", "screened", "read", "confirm"])
def test_nothing_else_is_put_down_by_hand(room, desk, step):
    assert adds(desk, room.one(), step=step, result="positive", note="n").status_code == 400
    assert steps(room) == []


def test_a_form_beside_the_picture_leads_back_there_for_who_may_see_it(room, desk):
    key = room.one()
    form = {"step": "laboratory", "result": "negative", "back": "scan"}

    assert adds(room.inside("dr-a"), key, **form).location == f"/scan/{key}"
    assert adds(desk, key, **form).location == f"/cases/{key}"


def test_the_case_stands_beside_the_picture(room, desk):
    key = room.one()

    page = room.inside("dr-a").get(f"/scan/{key}").text

    assert f'action="/cases/{key}"' in page
    assert 'name="back" value="scan"' in page


def test_what_comes_from_outside_is_text(room, desk):
    nasty = "<b>\u202egnp.exe</b>\x07"
    key = room.one(path="n/<i>.png", patient=nasty)
    adds(desk, key, step="laboratory", result="negative", note=nasty)

    for page in (desk.get(f"/cases/{key}").text, desk.get("/cases?show=all").text):
        assert "<b>" not in page
        assert "<i>" not in page
        assert "\u202e" not in page
        assert "\x07" not in page


# What a blind entry hides


def test_a_blind_entry_hides_flag_laboratory_and_closing_until_the_first_impression(room, desk):
    set_site(room.db, "local", {"blind_first": True}, by="test")
    key = room.one()
    adds(desk, key, step="laboratory", result="positive", note="note-canary")
    reader = room.inside("dr-a")

    before = reader.get(f"/cases/{key}")
    lists = [reader.get(f"/cases?show={show}").text for show in ("all", "laboratory", "to_read", "discrepant")]
    of_centre = desk.get(f"/cases/{key}")

    assert shown(before) == ["Screened"]
    assert "note-canary" not in before.text
    assert "flagged" not in before.text.lower().split("<main")[1]
    assert all("positive</strong>" not in text for text in lists)
    assert [key in text for text in lists] == [True, False, True, False]
    assert shown(of_centre) == ["Screened", "Laboratory"]
    refused = adds(reader, key, step="laboratory", result="negative", note="")
    assert refused.status_code == 400
    assert "Give your impression of this scan first" in refused.text
    read(room, key, stage=Stage.IMPRESSION)
    assert shown(reader.get(f"/cases/{key}")) == ["Screened", "Flagged", "Laboratory"]


def test_a_cleared_scan_that_was_drawn_looks_as_a_flagged_one(room, desk):
    set_site(room.db, "local", {"sample_share": 1.0}, by="test")
    batch = room.night(Found("a.png", score=0.9), Found("b.png", score=0.1, share=1.0))
    keys = room.keys(batch)

    pages = [room.inside("dr-a").get(f"/cases/{keys[name]}").text for name in ("a.png", "b.png")]
    of_centre = [desk.get(f"/cases/{keys[name]}").text for name in ("a.png", "b.png")]

    for flagged, drawn in (pages, of_centre):
        assert _without(flagged, keys["a.png"], "a.png") == _without(drawn, keys["b.png"], "b.png")


def _without(page: str, *own: str) -> str:
    for text in own:
        page = page.replace(text, "")
    return re.sub(r'name="csrf_token" value="[^"]+"|datetime="[^"]+"', "", page)


# Lists


def test_cases_are_listed_by_where_they_stand_confirmed_first(room, desk):
    names = ("confirmed", "dismissed", "unread", "cleared")
    scores = {"cleared": 0.1}
    keys = {name: room.one(path=f"{name}.png", score=scores.get(name, 0.9)) for name in names}
    read(room, keys["confirmed"])
    read(room, keys["dismissed"], Verdict.DISMISS)

    listed = {show: desk.get(f"/cases?show={show}").text for show in ("dismissed", "to_read", "cleared", "closed")}

    assert [keys[name] in desk.get("/cases").text for name in names] == [True, False, False, False]
    assert [keys[name] in listed["dismissed"] for name in names] == [False, True, False, False]
    assert [keys[name] in listed["to_read"] for name in names] == [False, False, True, False]
    assert [keys[name] in listed["cleared"] for name in names] == [False, False, False, True]
    assert not any(key in listed["closed"] for key in keys.values())
    assert all(key in desk.get("/cases?show=all").text for key in keys.values())


def test_a_positive_result_against_a_dismissal_stands_out_on_every_list(room, desk):
    key = room.one()
    read(room, key, Verdict.DISMISS)
    adds(desk, key, step="laboratory", result="positive", note="")

    assert "1 open case: the laboratory says positive" in desk.get("/cases").text
    assert key in desk.get("/cases?show=discrepant").text
    assert "laboratory disagrees" in desk.get("/cases?show=laboratory").text
    assert "the reading dismissed it" in desk.get(f"/cases/{key}").text


def test_a_long_list_goes_on_where_the_page_before_ended(room, desk):
    batch = room.night(*(Found(f"{n:03}.png", score=0.1, seed=n) for n in range(120)))
    keys, address, seen = set(room.keys(batch).values()), "/cases?show=cleared&site=1", []

    while address:
        page = desk.get(address).text
        seen += re.findall(r'href="/cases/([0-9a-f]{32})"', page)
        onward = re.search(r'rel="next" href="([^"]+)"', page)
        address = onward[1].replace("&amp;", "&") if onward else None

    assert len(seen) == 120
    assert set(seen) == keys
    assert "show=cleared" in page


@pytest.mark.parametrize(
    "query", ["show=x", "before=x", "before=-1", "before=9999999999999999999", "show=all&before=²"]
)
def test_an_address_that_is_no_list_is_a_bad_request(desk, query):
    assert desk.get(f"/cases?{query}").status_code == 400


@pytest.mark.parametrize("site", ["2", "x", "99999999999999999999", "-1"])
def test_a_site_that_is_not_mine_is_none(room, desk, site):
    room.site("elsewhere")

    assert desk.get(f"/cases?site={site}").status_code == 404
    assert uploads(desk, b"patient,result,at\nP,positive,2026-11-20\n", site=site).status_code == 404


def test_a_patient_is_found_and_stands_in_no_address(room, desk):
    key = room.one(patient="P-17")

    found = desk.post("/cases/search", page="/cases", text="P-1")

    assert found.status_code == 200
    assert key in found.text
    assert desk.post("/cases/search", page="/cases", text=" ").location == "/cases"
    assert key not in desk.post("/cases/search", page="/cases", text="P-2").text
    assert [event.detail for event in room.events("searched")] == [{}, {}]


# A laboratory's file


def test_a_file_is_put_on_record_and_every_line_is_accounted_for(room, desk):
    room.one(patient="P1")
    content = b"patient,result,at\r\nP1,positive,2026-11-20\r\nP9,negative,2026-11-20\r\n,x,\r\n"

    first, again = uploads(desk, content), uploads(desk, content)

    assert first.status_code == again.status_code == 200
    assert numbers(first) == {"applied": 1, "on record before": 0, "unknown": 1, "ambiguous": 0, "wrong": 1}
    assert numbers(again) == {"applied": 0, "on record before": 1, "unknown": 1, "ambiguous": 0, "wrong": 1}
    assert "no scan of this site" in first.text
    assert len(steps(room)) == 1
    assert [event.object for event in room.events("laboratory_imported")] == ["site 1"] * 2


def numbers(page) -> dict[str, int]:
    found = re.findall(r'<li><strong class="number">(\d+)</strong> ([\w ]+)</li>', page.text)
    return {word: int(count) for count, word in found}


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n", b"a,b\n1,2\n", b"\xff\xfe\x00", b"path,result,at\n" + b"x" * 200_000]
)
def test_a_file_that_is_something_else_is_answered_with_a_sentence(room, desk, content):
    answer = uploads(desk, content)

    assert answer.status_code == 400
    assert re.search(r"The first line must name|is no CSV", answer.text)
    assert steps(room) == []


def test_a_file_that_is_too_long_is_refused_as_such(desk):
    assert uploads(desk, b"path,result,at\n" + b"x" * 300_000).status_code == 413


def test_without_a_file_it_says_so(desk):
    answer = desk.post("/cases/import", page="/cases", site="1")

    assert answer.status_code == 400
    assert "Choose a file and a site first." in answer.text
