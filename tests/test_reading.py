"""Reading: impressions and verdicts, findings, undo, two readers and the arbiter, who has what open, filters, search,
what the page's script is answered. All of it by plain forms, too."""

import html
import json
import re
from datetime import timedelta

import pytest
from reading_room import NOBODYS_KEY, Found, ReadingRoom

from db.schema import Review
from db.store import models, people
from db.store.connection import now
from db.words import Role, Stage, State
from webui import create_app

AHEAD = "X-Nightread-Ahead"


def keys_listed(page) -> list[str]:
    return re.findall(r'<a class="row" href="/scan/([0-9a-f]{32})', page.text)


def reviews(room: ReadingRoom, key: str, by: str = "dr-a") -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Stage, verdict, note and findings of what somebody said of a scan, oldest first."""
    mine = room.entry(key, by).my_reviews
    return [(one.stage, one.verdict, one.note, one.findings) for one in reversed(mine)]


def problem(page) -> str:
    found = re.search(r'id="problem"( hidden)?>([^<]*)<', page.text)
    return html.unescape(found[2])


def legend(page) -> str:
    found = re.search(r"<legend>([^<]*)</legend>", page.text)
    return found[1] if found else ""


def checked(page) -> list[str]:
    return re.findall(r'value="([^"]+)" checked', page.text)


def asks(browser, path: str, **fields):
    """What the page's script sends."""
    form = {"csrf_token": browser.token("/account"), **fields}
    return browser.client.post(path, data=form, headers={"Accept": "application/json"})


@pytest.fixture
def three(room) -> list[str]:
    """The keys of three flagged scans, worst first."""
    room.users("dr-a", "dr-b")
    files = [Found(f"{n}.png", score=0.9 - n / 10) for n in range(3)]
    keys = room.keys(room.night(*files))
    return [keys[file.path] for file in files]


# Verdicts


@pytest.mark.parametrize("verdict", ["confirm", "dismiss", "unsure", "repeat"])
def test_a_verdict_with_findings_and_a_note_is_kept(room, verdict):
    room.user()
    key = room.one()

    room.inside().post(f"/scan/{key}", verdict=verdict, findings=["cavity", "opacity"], note="left apex")

    assert reviews(room, key) == [("verdict", verdict, "left apex", ("opacity", "cavity"))]


def test_a_finding_that_is_not_on_the_list_is_not_kept(room):
    room.user()
    key = room.one()

    room.inside().post(f"/scan/{key}", verdict="confirm", findings=["<b>", "scar"])

    assert reviews(room, key) == [("verdict", "confirm", "", ("scar",))]


def test_the_findings_are_those_of_the_setting(home, room):
    room.user()
    key = room.one()
    app = create_app(home.model_copy(update={"findings": ("miliary", "fibrosis")}))
    browser = room.inside()
    browser.client.application = app

    page = browser.get(f"/scan/{key}")

    assert re.findall(r'name="findings" value="([^"]+)"', page.text) == ["miliary", "fibrosis"]
    app.extensions["nightread"].engine.dispose()


def test_undo_leads_back_verdict_by_verdict_and_the_new_one_supersedes(room, three):
    browser = room.inside()
    browser.post(f"/scan/{three[0]}", verdict="confirm", note="too fast")
    browser.post(f"/scan/{three[1]}", verdict="dismiss")

    last = browser.get("/scan/last")
    page = browser.get(last.location)
    before = re.search(r'href="(/scan/last\?before=\d+)"', page.text)[1]
    first = browser.get(before)
    again = browser.get(first.location)
    browser.post(first.location, verdict="dismiss", note="a rib")

    assert last.location == f"/scan/{three[1]}?again=1"
    assert legend(page) == "Your verdict in place of the last one"
    assert checked(page) == ["dismiss"]
    assert first.location == f"/scan/{three[0]}?again=1"
    assert ">too fast</textarea>" in again.text
    said = [("verdict", "confirm", "too fast", ()), ("verdict", "dismiss", "a rib", ())]
    assert reviews(room, three[0]) == said
    assert room.entry(three[0]).verdict == "dismiss"


def test_without_a_verdict_there_is_nothing_to_undo(room):
    room.user()
    browser = room.inside()

    answer = browser.get("/scan/last")

    assert answer.location == "/"
    assert "You have given no verdict that could be changed." in browser.get("/").text
    assert browser.get("/scan/last?before=x").status_code == 400


def test_what_was_read_by_others_takes_another_verdict_only_after_asking(room, three):
    room.says("dr-b", three[0], "dismiss")

    page = room.inside().get(f"/scan/{three[0]}")

    assert "<summary>Read. Give a verdict all the same</summary>" in page.text
    assert page.text.index("<details") < page.text.index('id="verdict"')


def test_a_second_look_at_what_the_machine_cleared_counts(room):
    room.user()
    key = room.one(score=0.1)
    browser = room.inside()

    page = browser.get(f"/scan/{key}")
    browser.post(f"/scan/{key}", verdict="confirm")

    assert "On no worklist. Give a verdict all the same" in page.text
    assert "not flagged" in page.text
    assert room.entry(key).state == State.DONE
    assert reviews(room, key) == [("verdict", "confirm", "", ())]


# What the script of the page is answered


def test_a_saved_verdict_names_the_next_scan_and_what_is_left(room, three):
    browser = room.inside()

    answer = asks(browser, f"/scan/{three[0]}", stage="verdict", verdict="confirm")

    said = {"next": three[1], "address": f"/scan/{three[1]}", "left": "2 left to read", "said": "Saved: confirm."}
    assert answer.json == said


def test_the_scan_that_was_fetched_ahead_is_the_next_one_while_it_is_to_be_read(room, three):
    browser = room.inside()

    kept = asks(browser, f"/scan/{three[0]}", stage="verdict", verdict="confirm", ahead=three[2])
    room.says("dr-b", three[2], "dismiss")
    lost = asks(browser, f"/scan/{three[0]}", stage="verdict", verdict="dismiss", ahead=three[2])
    foreign = asks(browser, f"/scan/{three[0]}", stage="verdict", verdict="dismiss", ahead=NOBODYS_KEY)

    assert [answer.json["next"] for answer in (kept, lost, foreign)] == [three[2], three[1], three[1]]


def test_a_refused_verdict_says_why_and_is_not_kept(room, three):
    browser = room.inside()

    nothing = asks(browser, f"/scan/{three[0]}", stage="verdict")
    too_long = asks(browser, f"/scan/{three[0]}", stage="verdict", verdict="confirm", note="x" * 10_001)
    stale = asks(browser, f"/scan/{three[0]}", stage="arbitration", verdict="confirm")

    assert [answer.status_code for answer in (nothing, too_long, stale)] == [400, 400, 409]
    assert nothing.json == {"problem": "Choose confirm, dismiss, unsure or repeat first."}
    assert too_long.json == {"problem": "A note may have 10,000 characters."}
    assert stale.json == {"problem": "This scan has moved on since you opened it: look again."}
    assert reviews(room, three[0]) == []


def test_a_page_fetched_ahead_is_on_record_as_such_and_as_viewed_once_it_is_seen(room, three):
    room.picture(three[1], Found())
    browser = room.inside()

    browser.client.get(f"/scan/{three[1]}", headers={AHEAD: three[0]})
    browser.client.get(f"/scan/{three[1]}/image.png", headers={AHEAD: "1"})
    fetched = [len(room.events(action)) for action in ("prefetched", "prefetched_image", "viewed", "viewed_image")]
    asks(browser, f"/scan/{three[1]}/seen")
    seen = [len(room.events(action)) for action in ("prefetched", "prefetched_image", "viewed", "viewed_image")]

    assert (fetched, seen) == ([1, 1, 0, 0], [1, 1, 1, 1])


def test_a_page_fetched_ahead_does_not_lead_back_to_the_scan_that_is_being_read(room, three):
    browser = room.inside()

    page = browser.client.get(f"/scan/{three[1]}", headers={AHEAD: three[0]})

    assert re.search(r'data-next-key="([0-9a-f]{32})"', page.text)[1] == three[2]


def test_what_was_skipped_comes_back_once_all_others_are_read(room, three):
    browser = room.inside()

    first = browser.get(f"/scan/{three[0]}/next").location
    then = browser.post(f"/scan/{three[1]}", verdict="confirm").location
    back = browser.post(f"/scan/{three[2]}", verdict="confirm").location

    assert [first, then, back] == [f"/scan/{key}" for key in (three[1], three[2], three[0])]


def test_skipping_from_the_script_tells_what_is_left(room, three):
    browser = room.inside()

    answer = browser.client.get(f"/scan/{three[0]}/next?ahead={three[2]}", headers={"Accept": "application/json"})

    assert answer.json == {"next": three[2], "address": f"/scan/{three[2]}", "left": "3 left to read"}


def test_the_words_of_the_script_are_those_of_the_page(room, three):
    page = room.inside().get(f"/scan/{three[0]}").text

    words = json.loads(html.unescape(re.search(r"id=\"scan\"[^>]*data-words='([^']*)'", page)[1]))

    assert set(words) == {"choose", "no_answer", "not_saved", "signed_out", "saving", "held"}


# Blind first


@pytest.fixture
def blind(room) -> str:
    """A flagged scan of a site that reads blind first, with its pictures."""
    room.users("dr-a", "dr-b")
    room.site(blind_first=True)
    return room.one(score=0.87)


def test_the_score_shows_once_the_first_impression_is_saved_and_both_are_kept(room, blind):
    browser = room.inside()
    hidden = browser.get(f"/scan/{blind}")
    heat_before = browser.get(f"/scan/{blind}/heat.png").status_code

    saved = browser.post(f"/scan/{blind}", stage="impression", verdict="confirm", findings="opacity", note="base")
    shown = browser.get(f"/scan/{blind}")
    heat_after = browser.get(f"/scan/{blind}/heat.png").status_code
    browser.post(f"/scan/{blind}", stage="verdict", verdict="dismiss", note="base")

    assert (legend(hidden), legend(shown)) == ("Your first impression", "Your verdict")
    assert "0.870" not in hidden.text
    assert "0.870" in shown.text
    assert (heat_before, heat_after) == (404, 200)
    assert saved.location == f"/scan/{blind}"
    assert reviews(room, blind) == [
        ("impression", "confirm", "base", ("opacity",)),
        ("verdict", "dismiss", "base", ()),
    ]
    assert [one.saw_score for one in room.entry(blind).my_reviews] == [True, False]


def test_whoever_does_not_change_their_mind_presses_one_key_more(room, blind):
    browser = room.inside()
    browser.post(f"/scan/{blind}", stage="impression", verdict="confirm", findings="opacity", note="base")

    page = browser.get(f"/scan/{blind}")

    assert checked(page) == ["confirm", "opacity"]
    assert 'data-armed="confirm"' in page.text
    assert ">base</textarea>" in page.text


def test_a_verdict_before_the_impression_is_refused(room, blind):
    browser = room.inside()

    answer = browser.post(f"/scan/{blind}", stage="verdict", verdict="confirm", note="kept")

    assert answer.status_code == 409
    assert problem(answer) == "This scan has moved on since you opened it: look again."
    assert ">kept</textarea>" in answer.text
    assert reviews(room, blind) == []


def test_an_impression_that_is_sent_twice_is_no_verdict(room, blind):
    browser = room.inside()
    browser.post(f"/scan/{blind}", stage="impression", verdict="confirm")

    answer = browser.post(f"/scan/{blind}", stage="impression", verdict="confirm")

    assert answer.status_code == 409
    assert [stage for stage, *_ in reviews(room, blind)] == ["impression"]


# Two readers


@pytest.fixture
def twice(room) -> str:
    """A flagged scan that two must read; four people who may."""
    room.users("dr-a", "dr-b", "dr-d")
    room.user("dr-c", role=Role.ARBITER)
    room.site(readers=2)
    return room.one()


def test_a_second_reader_is_asked_and_the_first_is_not_asked_again(room, twice):
    first, second = room.inside("dr-a"), room.inside("dr-b")

    first.post(f"/scan/{twice}", verdict="confirm")

    assert room.entry(twice).state == State.SECOND
    assert keys_listed(first.get("/")) == []
    assert keys_listed(second.get("/")) == [twice]
    second.post(f"/scan/{twice}", verdict="confirm")
    assert room.entry(twice).verdict == "confirm"


def test_who_disagrees_is_decided_between_by_an_arbiter_who_sees_both(room, twice):
    room.says("dr-a", twice, "confirm", note="a nodule")
    room.says("dr-b", twice, "dismiss", note="a nipple")
    arbiter, other = room.inside("dr-c"), room.inside("dr-d")

    listed = arbiter.get("/arbitration")
    page = arbiter.get(f"/scan/{twice}?state=arbiter")
    refused = other.post(f"/scan/{twice}", page="/account", verdict="confirm")
    decided = arbiter.post(f"/scan/{twice}?state=arbiter", stage="arbitration", verdict="confirm")

    assert keys_listed(listed) == [twice]
    assert legend(page) == "Your arbitration: the last word"
    assert "a nodule" in page.text
    assert "a nipple" in page.text
    assert refused.status_code == 409
    assert decided.location == "/arbitration?model=1"
    assert room.entry(twice).verdict == "confirm"


def test_an_arbiter_whose_own_verdict_counts_does_not_decide(room, twice):
    room.says("dr-c", twice, "confirm")
    room.says("dr-b", twice, "dismiss")

    page = room.inside("dr-c").get(f"/scan/{twice}")

    assert keys_listed(room.inside("dr-c").get("/arbitration")) == []
    assert "last word" not in page.text


def test_a_reader_has_no_arbitration(room, twice):
    assert room.inside("dr-a").get("/arbitration").status_code == 403


# Who has what open


def test_a_scan_that_somebody_has_open_is_announced_before_it_is_shown(room, three):
    room.holds("dr-b", three[0])
    browser = room.inside()

    notice = browser.get(f"/scan/{three[0]}")
    viewed = len(room.events("viewed"))
    opened = browser.get(f"/scan/{three[0]}?anyway=1")

    assert "<bdi>dr-b</bdi> has had it open since" in notice.text
    assert 'id="verdict"' not in notice.text
    assert viewed == 0
    assert 'id="verdict"' in opened.text
    assert "<bdi>dr-b</bdi> has had it open since" in opened.text


def test_the_list_says_who_has_what_open_and_the_next_scan_is_another(room, three):
    room.holds("dr-b", three[1])
    browser = room.inside()

    page = browser.get("/")
    following = browser.post(f"/scan/{three[0]}", verdict="confirm")

    assert re.findall(r"with <bdi>([^<]+)</bdi>", page.text) == ["dr-b"]
    assert following.location == f"/scan/{three[2]}"


def test_opening_holds_a_scan_and_verdict_skipping_and_leaving_let_go(room, three):
    browser = room.inside()
    for key in three:
        browser.get(f"/scan/{key}")
    held = [room.entry(key, "dr-b").holder for key in three]

    browser.post(f"/scan/{three[0]}", verdict="confirm")
    room.holds("dr-a", three[1])
    browser.get(f"/scan/{three[1]}/next")
    room.holds("dr-a", three[2])
    asks(browser, f"/scan/{three[2]}/release")

    assert held == ["dr-a"] * 3
    assert [room.entry(key, "dr-b").holder for key in three] == [None] * 3


def test_an_open_page_learns_that_somebody_else_has_the_scan(room, three):
    room.holds("dr-b", three[0])
    browser = room.inside()

    taken = asks(browser, f"/scan/{three[0]}/hold")
    free = asks(browser, f"/scan/{three[1]}/hold")

    assert (taken.json, free.json) == ({"holder": "dr-b"}, {})
    assert room.entry(three[1], "dr-b").holder == "dr-a"


# Filters, search, pace


@pytest.fixture
def nights(room) -> dict[str, str]:
    """Path -> key of flagged scans of two sites and three batches."""
    room.user(sites=["north", "south"])
    keys = room.keys(room.night(Found("n1.png", score=0.9, patient="P1"), Found("n2.png", score=0.6), site="north"))
    keys |= room.keys(room.night(Found("n3.png", score=0.7, patient="P10"), site="north", root="/nights/2"))
    return keys | room.keys(room.night(Found("s1.png", score=0.8, patient="Q1"), site="south"))


def paths_listed(page) -> list[str]:
    return re.findall(r'<a class="row" href="[^"]*"><bdi>([^<]*)', page.text)


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        ("", ["n1.png", "s1.png", "n3.png", "n2.png"]),
        ("site_id=2", ["n1.png", "n3.png", "n2.png"]),
        ("batch_id=2", ["n3.png"]),
        ("lowest=0.65&highest=0.85", ["s1.png", "n3.png"]),
        ("since=2100-01-01", []),
        ("until=2100-01-01&since=2000-01-01", ["n1.png", "s1.png", "n3.png", "n2.png"]),
        ("state=done", []),
        ("reader=dr-a", []),
        ("order=oldest", ["n1.png", "n2.png", "n3.png", "s1.png"]),
        ("order=newest", ["s1.png", "n3.png", "n2.png", "n1.png"]),
        ("site_id=&batch_id=&lowest=", ["n1.png", "s1.png", "n3.png", "n2.png"]),
    ],
)
def test_a_list_is_cut_down_and_ordered_as_asked(room, nights, asked, listed):
    assert paths_listed(room.inside().get(f"/?{asked}")) == listed


@pytest.mark.parametrize(
    "asked",
    [
        *("site_id=x", "batch_id=-1", "lowest=nan", "highest=1.5", "since=yesterday", "until=9999-12-31", "state=odd"),
        *("order=best", "verdict=covid", "reader=%07", "reader=" + "x" * 101, "batch_id=" + "9" * 30),
    ],
)
def test_a_malformed_filter_is_refused(room, asked):
    room.user()

    assert room.inside().get(f"/?{asked}").status_code == 400


def test_reading_goes_on_within_what_was_asked_for(room, nights):
    browser = room.inside()
    page = browser.get("/?site_id=2&order=oldest")
    first = html.unescape(re.search(r'<a class="row" href="([^"]+)"', page.text)[1])

    saved = browser.post(first, verdict="confirm")
    skipped = browser.get(f"/scan/{nights['n2.png']}/next?site_id=2&order=oldest")
    last = browser.post(skipped.location, verdict="confirm")

    assert first == f"/scan/{nights['n1.png']}?site_id=2&order=oldest"
    assert saved.location == f"/scan/{nights['n2.png']}?site_id=2&order=oldest"
    assert skipped.location == f"/scan/{nights['n3.png']}?site_id=2&order=oldest"
    assert last.location == f"/scan/{nights['n2.png']}?site_id=2&order=oldest"


def test_a_list_of_what_was_read_is_walked_line_by_line(room, nights):
    for path in ("n1.png", "n2.png", "n3.png"):
        room.says("dr-a", nights[path], "confirm")
    browser = room.inside()

    listed = keys_listed(browser.get("/?state=done"))
    following = [browser.get(f"/scan/{key}/next?state=done").location for key in listed]

    assert listed == [nights[path] for path in ("n1.png", "n3.png", "n2.png")]
    assert following == [*(f"/scan/{key}?state=done" for key in listed[1:]), "/?model=1&state=done"]


@pytest.mark.parametrize(
    ("text", "listed"), [("P1", ["n3.png", "n1.png"]), ("P10", ["n3.png"]), ("q1", []), ("n1.png", []), ("zz", [])]
)
def test_a_patient_is_found_by_how_the_identifier_begins(room, nights, text, listed):
    page = room.inside().post("/search", page="/", text=text)

    assert paths_listed(page) == listed


def test_a_scan_is_found_by_its_key_whether_it_was_read_or_not(room, nights):
    room.says("dr-a", nights["s1.png"], "confirm")

    page = room.inside().post("/search", page="/", text=nights["s1.png"])

    assert paths_listed(page) == ["s1.png"]


def test_what_is_looked_for_is_in_no_address(room, nights):
    page = room.inside().post("/search", page="/", text="P1")

    addresses = re.findall(r'(?:href|action)="([^"]*)"', page.text)
    assert addresses
    assert not [address for address in addresses if "P1" in address or "text" in address]
    assert room.inside().get("/search?text=P1").status_code == 405


@pytest.mark.parametrize("text", ["", "x", "x" * 201, "a\x07b"])
def test_a_search_for_what_is_no_identifier_is_refused(room, text):
    room.user()

    assert room.inside().post("/search", page="/", text=text).status_code == 400


def test_a_search_goes_through_the_lists_of_every_model_and_no_other_site(room):
    room.user(sites=["north"])
    room.night(Found("old.png", score=0.9, patient="P7"), site="north")
    room.newer_model()
    room.night(Found("new.png", score=0.9, patient="P7"), site="north", root="/nights/2")
    room.night(Found("theirs.png", score=0.9, patient="P7"), site="south")

    page = room.inside().post("/search", page="/", text="P7")

    assert sorted(paths_listed(page)) == ["new.png", "old.png"]


def test_what_is_left_is_estimated_from_the_readers_own_pace(room):
    room.user()
    key = next(iter(room.keys(room.night(*[Found(f"{n:02}.png", score=0.9) for n in range(20)])).values()))
    me, browser = people.user_named(room.db, "dr-a"), room.inside()
    before = browser.get("/").text
    with room.db.writing() as session:
        for n in range(8):
            at = now() - timedelta(seconds=30 * n)
            session.add(Review(scan_id=1, reader_id=me.id, verdict="confirm", note="", at=at, id=8 - n))

    listed, page = browser.get("/").text, browser.get(f"/scan/{key}").text

    assert "at your pace" not in before
    assert "about 10 min at your pace" in listed
    assert "20 left to read · about 10 min at your pace" in page


def test_a_scan_read_by_somebody_who_left_still_names_them(room, three):
    room.says("dr-b", three[0], "confirm")
    people.disable_user(room.db, people.user_named(room.db, "dr-b").id, by="test")

    assert "<bdi>dr-b</bdi>" in room.inside().get(f"/scan/{three[0]}").text


def test_stages_are_told_apart_on_the_page(room, blind):
    room.says("dr-a", blind, "confirm", stage=Stage.IMPRESSION)
    room.says("dr-a", blind, "dismiss")

    page = room.inside().get(f"/scan/{blind}").text

    assert page.index("<strong>Dismiss</strong>") < page.index("<strong>Confirm</strong>")
    assert page.count("first impression</span>") == 1


# What the score means, and what lies beside the scan


REPORT = {"data": {"counts": {"validation": {"normal": 500, "covid": 500}}}, "calibration": {"ece_after": 0.02}}


def calibrated_model(room) -> None:
    """The active model from now on has a report that says what its scores were calibrated on."""
    known = vars(models.active(room.db)) | {"version": "calibrated", "threshold_why": "a test", "report": REPORT}
    fields = models.Registration.__dataclass_fields__
    newer = models.register(room.db, models.Registration(**{name: known[name] for name in fields}), by="test")
    models.activate(room.db, newer, why="a test", by="test")


def words(page) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page.text)).split())


def test_a_score_is_a_probability_where_model_and_site_say_enough(room):
    calibrated_model(room)
    room.user()
    key = room.one(score=0.9)
    browser = room.inside()

    unstated = words(browser.get(f"/scan/{key}"))
    room.site(prevalence=0.02)
    stated = words(browser.get(f"/scan/{key}"))

    # 0.9 * 0.02 / 0.5 against 0.1 * 0.98 / 0.5
    assert "Probability of a suspicious scan 16 %, where 2.0 % of all are" in stated
    assert "uncalibrated: no probability of disease. The site's prevalence is not stated." in unstated


def test_a_model_whose_report_says_nothing_is_called_uncalibrated(room):
    room.user()
    room.site(prevalence=0.02)

    page = words(room.inside().get(f"/scan/{room.one()}"))

    assert "uncalibrated: no probability of disease. The model's report does not allow it." in page


def test_earlier_scans_of_the_patient_lie_beside_the_scan(room):
    room.user()
    first = room.one(path="january.png", patient="P1")
    room.one(path="somebody-else.png", patient="P2")
    second = room.one(path="june.png", patient="P1")
    room.says("dr-a", first, "confirm")

    page = room.inside().get(f"/scan/{second}").text
    beside = page[page.index("Earlier scans of this patient") :]

    assert f'href="/scan/{first}"' in beside
    assert beside.index("january.png") < beside.index("✓ Confirm")
    assert "somebody-else.png" not in page
