"""Batches: last night at a glance, one batch with its verdicts, the export for the centre, and what blindness hides."""

import csv
import io
import re

import pytest
from reading_room import Found, ReadingRoom
from test_commands import run

from db.store import browsing, entries, exports, people
from db.words import Cause, Reason, Role, Stage, Verdict

NIGHT = [
    Found("a.png", score=0.9, patient="A"),
    Found("b.png", score=0.8, patient="B"),
    Found("c.png", score=0.1, patient="C"),
    Found("d.png", reason=Reason.NOT_FRONTAL, patient="D"),
    Found("e.png", reason=Reason.EMPTY),
    Found("f.png", cause=Cause.TIMED_OUT, patient="F"),
    Found("g.png", patient="G"),
]


@pytest.fixture
def house(room):
    room.user("dr-a")
    room.user("dr-b")
    room.user("arbiter", role=Role.ARBITER)
    room.user("clinic", role=Role.CENTRE)
    room.user("boss", role=Role.ADMIN)
    return room


def say(room, batch, path, verdict, name="dr-a", stage=Stage.VERDICT):
    scan_id, me = room.scan_id(room.keys(batch)[path]), people.user_named(room.db, name)
    entries.add_review(room.db, scan_id, me=me, stage=stage, verdict=verdict)


def table(text):
    return {row["path"]: row for row in csv.DictReader(io.StringIO(text))}


def exported(room, batch, name="dr-a"):
    answer = room.inside(name).get(f"/batches/{batch}/batch.csv")
    assert answer.status_code == 200, answer.status_code
    return table(answer.text)


def tiles(page):
    """What a page's tiles say: word -> number."""
    plain = re.sub(r"<span[^>]*>|</span>", "", page)
    return {
        word.strip(): number
        for number, word in re.findall(r'<strong class="number">([^<]*)</strong>([^<]*)</li>', plain)
    }


# Last night at a glance


def test_last_night_is_summed_over_its_batches(house):
    house.night(Found("x.png", score=0.7), Found("y.png", reason=Reason.EMPTY), root="/nights/second")
    first = house.night(*NIGHT)
    say(house, first, "a.png", Verdict.CONFIRM)

    page = house.inside().get("/batches").text

    found = tiles(page)
    numbers = {name: found[name] for name in ("found", "scored", "flagged", "rejected", "failed", "waiting")}
    assert numbers == {"found": "9", "scored": "4", "flagged": "3", "rejected": "3", "failed": "1", "waiting": "1"}
    assert found["read so far"] == "1 / 3"
    assert "2 empty" in page
    assert "1 not frontal" in page
    assert "Expected end:" in page


def test_the_glance_is_of_my_own_sites(house):
    house.night(Found("x.png", score=0.7), site="elsewhere")
    house.night(*NIGHT)

    assert tiles(house.inside().get("/batches").text)["found"] == "7"


def test_batches_are_paged_newest_first(house):
    for night in range(browsing_page() + 2):
        house.night(Found(f"{night}.png", score=0.1), root=f"/nights/{night}")
    browser = house.inside()

    first = browser.get("/batches").text
    second = browser.get(re.search(r'rel="next" href="([^"]+)"', first)[1]).text

    listed = [int(number) for number in re.findall(r'data-batch="(\d+)"', first + second)]
    assert listed == list(range(browsing_page() + 2, 0, -1))
    assert "Last night at a glance" not in second
    assert browser.get("/batches?before=1").status_code == 200
    assert browser.get("/batches?before=x").status_code == 400


def browsing_page():
    from webui import batches

    return batches.BATCHES


# One batch


def test_the_files_of_one_reason_are_listed_alone(house):
    batch = house.night(*NIGHT)
    browser = house.inside("clinic")

    page = browser.get(f"/batches/{batch}?reason=empty").text

    unscreened = page[page.index('id="unscreened"') :]
    assert "e.png" in unscreened
    assert "d.png" not in unscreened
    assert "No file for this reason" in browser.get(f"/batches/{batch}?reason=blank").text
    assert browser.get(f"/batches/{batch}?reason=<b>").status_code == 400


def test_a_batch_says_how_far_it_is_read_and_how_long_that_took(house):
    batch = house.night(*NIGHT)
    before = house.inside().get(f"/batches/{batch}").text
    say(house, batch, "a.png", Verdict.CONFIRM)

    page = house.inside().get(f"/batches/{batch}").text

    assert "From submission to verdict" not in before
    assert tiles(page)["read so far"] == "1 / 2"
    assert "half within 0.0 h" in page


def test_a_centre_sees_files_scores_and_final_verdicts_but_no_way_to_a_picture(house):
    batch = house.night(*NIGHT)
    say(house, batch, "a.png", Verdict.CONFIRM)

    page = house.inside("clinic").get(f"/batches/{batch}").text

    assert "✓ confirm" in page
    assert "0.900" in page
    assert "/scan/" not in page


# Blind


@pytest.fixture
def blind(house):
    """A site that samples: a flagged scan, a drawn one, one that is just cleared."""
    house.site(sample_share=0.5)
    return house, house.night(
        Found("flagged.png", score=0.87), Found("drawn.png", score=0.23, share=0.5), Found("cleared.png", score=0.11)
    )


@pytest.mark.parametrize("who", ["dr-a", "arbiter", "clinic"])
def test_nothing_tells_a_flagged_scan_from_a_drawn_one_before_it_is_read(blind, who):
    room, batch = blind
    browser = room.inside(who)

    pages = [
        browser.get(address) for address in (f"/batches/{batch}", "/batches", f"/batches/progress.json?batch={batch}")
    ]

    for page in pages:
        assert "0.87" not in page.text
        assert "0.23" not in page.text
        assert "hidden" in page.text
    rows = {
        path: re.sub(r"<[^>]*(href|/a)[^>]*>|flagged|drawn", "", row)
        for row in re.findall(r"<tr>.*?</tr>", pages[0].text, re.DOTALL)
        for path in re.findall(r"<bdi>(\w+\.png)</bdi>", row)
    }
    assert set(rows) == {"flagged.png", "drawn.png"}
    assert rows["flagged.png"] == rows["drawn.png"]
    assert tiles(pages[0].text)["flagged"] == tiles(pages[1].text)["flagged"] == "hidden"
    assert pages[2].json["batches"][0]["flagged"] == "hidden"


@pytest.mark.parametrize("who", ["dr-a", "arbiter", "clinic"])
def test_the_export_leaves_out_what_is_hidden_and_nothing_else(blind, who):
    room, batch = blind

    rows = exported(room, batch, who)

    shown = {name: value for name, value in rows["flagged.png"].items() if name not in ("path",)}
    assert shown == {name: value for name, value in rows["drawn.png"].items() if name != "path"}
    assert (shown["score"], shown["threshold"], shown["flagged"], shown["reading"]) == ("", "", "", "to read")
    assert (rows["cleared.png"]["score"], rows["cleared.png"]["flagged"], rows["cleared.png"]["reading"]) == (
        "0.11",
        "False",
        "",
    )


def test_what_is_read_is_shown_to_everybody_and_what_i_said_to_me(blind):
    room, batch = blind
    say(room, batch, "flagged.png", Verdict.CONFIRM, stage=Stage.IMPRESSION)

    assert exported(room, batch)["flagged.png"]["score"] == "0.87"
    assert exported(room, batch)["flagged.png"]["verdict"] == ""
    assert exported(room, batch, "dr-b")["flagged.png"]["score"] == ""
    assert exported(room, batch, "clinic")["flagged.png"]["score"] == ""

    say(room, batch, "flagged.png", Verdict.CONFIRM)
    say(room, batch, "drawn.png", Verdict.DISMISS)

    for who in ("dr-a", "dr-b", "clinic"):
        rows = exported(room, batch, who)
        assert (rows["flagged.png"]["flagged"], rows["flagged.png"]["verdict"]) == ("True", "confirm")
        assert (rows["drawn.png"]["flagged"], rows["drawn.png"]["verdict"]) == ("False", "dismiss")
        assert tiles(room.inside(who).get(f"/batches/{batch}").text)["flagged"] == "1"


def test_an_admin_sees_how_many_were_flagged_and_the_operator_sees_every_score(blind):
    room, batch = blind

    assert tiles(room.inside("boss").get(f"/batches/{batch}").text)["flagged"] == "1"
    assert {row["path"]: row["score"] for row in exports.rows(room.db, batch, me=None)} == {
        "flagged.png": 0.87,
        "drawn.png": 0.23,
        "cleared.png": 0.11,
    }


# The export


def test_the_export_has_every_file_with_its_verdict_beside_its_score(house):
    batch = house.night(*NIGHT)
    say(house, batch, "a.png", Verdict.CONFIRM)

    rows = exported(house, batch, "clinic")

    assert list(rows) == [found.path for found in NIGHT]
    assert list(rows["a.png"]) == list(exports.COLUMNS)
    assert (rows["a.png"]["score"], rows["a.png"]["verdict"], rows["a.png"]["reading"]) == ("0.9", "confirm", "read")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\+00:00", rows["a.png"]["verdict_at"])
    assert float(rows["a.png"]["minutes_to_verdict"]) >= 0
    assert (rows["b.png"]["verdict"], rows["b.png"]["reading"]) == ("", "to read")
    assert (rows["d.png"]["outcome"], rows["d.png"]["reason"]) == ("rejected", "not_frontal")
    assert (rows["f.png"]["outcome"], rows["f.png"]["reason"]) == ("failed", "timed_out")
    assert rows["g.png"]["outcome"] == "waiting"


def test_a_verdict_that_is_not_final_is_not_exported(house):
    house.site(readers=2)
    batch = house.night(*NIGHT)
    say(house, batch, "a.png", Verdict.CONFIRM)

    assert exported(house, batch)["a.png"]["verdict"] == ""

    say(house, batch, "a.png", Verdict.CONFIRM, "dr-b")
    assert exported(house, batch)["a.png"]["verdict"] == "confirm"


def test_the_export_is_on_record_and_an_admin_gets_it_only_after_opening_the_batch(house):
    batch = house.night(*NIGHT)

    assert house.inside("boss").get(f"/batches/{batch}/batch.csv").status_code == 403
    assert not house.events("exported")
    answer = house.opened(batch).get(f"/batches/{batch}/batch.csv")

    assert len(table(answer.text)) == len(NIGHT)
    assert answer.mimetype == "text/csv"
    (event,) = house.events("exported")
    assert (event.actor, event.object) == ("boss", f"batch {batch}")
    assert 'download="batch-1.csv"' in house.inside().get(f"/batches/{batch}").text


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "＝1", "\u00a0=1"])
def test_no_cell_is_a_formula(house, start):
    hostile = f"{start}|cmd.png"
    batch = house.night(Found(hostile, reason=Reason.EMPTY, patient=hostile))

    (row,) = exported(house, batch).values()

    for cell in (row["path"], row["patient"]):
        assert not exports.defused(cell).startswith(exports.FORMULAS)
        assert cell.startswith("'") or not cell.strip(" \u00a0").startswith(exports.FORMULAS)


def test_quotes_line_breaks_and_names_that_are_no_text_stay_in_their_cell(house):
    names = ['a "quoted", name.png', "line\nbreak.png", "latin-\udce9.png", "right\u202eto left.png"]
    batch = house.night(*(Found(name, reason=Reason.EMPTY) for name in names))

    rows = exported(house, batch)

    assert len(rows) == len(names)
    assert 'a "quoted", name.png' in rows
    assert not any(character in path for path in rows for character in "\n\u202e")


def test_more_files_than_are_read_at_a_time_are_all_there_once(house, monkeypatch):
    monkeypatch.setattr(exports, "ROWS", 7)
    batch = house.night(*(Found(f"{n:03}.png", reason=Reason.EMPTY) for n in range(35)))

    answer = house.inside().get(f"/batches/{batch}/batch.csv")

    assert [line.split(",")[0] for line in answer.text.splitlines()[1:]] == [f"{n:03}.png" for n in range(35)]


def test_the_export_is_the_same_on_either_database(db):
    room = ReadingRoom(db.config)
    room.user("dr-a")
    batch = room.night(*NIGHT)
    say(room, batch, "b.png", Verdict.DISMISS)

    rows = table("".join(exports.as_csv(db, batch, me=people.user_named(db, "dr-a"))))

    assert [row["verdict"] for row in rows.values()] == ["", "dismiss", "", "", "", "", ""]
    assert [scan.path for scan in browsing.listed(db, batch, me=people.user_named(db, "dr-a"), limit=9)] == [
        "a.png",
        "b.png",
    ]
    room.close()


def test_the_command_line_writes_the_same_columns(house, tmp_path):
    batch = house.night(*NIGHT)
    say(house, batch, "a.png", Verdict.CONFIRM)

    run("report", batch, "--csv", tmp_path / "r.csv")

    written = table((tmp_path / "r.csv").read_text("utf-8"))
    assert written == exported(house, batch)
