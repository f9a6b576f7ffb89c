"""WCAG 2.2 AA, on every page that the application has (from its URL map), for each role, in light and in dark, with
content and without: axe finds nothing. And what axe cannot see: reflow at 320 pixels, zoom, the order of the Tab key,
forced colours, dialogs."""

import full_house
import pytest
from axe_playwright_python.sync_playwright import Axe
from driving import LAPTOP, PORTRAIT, dialog_is_closed, fits, opens
from full_house import Words, addresses, named
from reading_room import Found, ReadingRoom

from db.words import Role

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
OPTIONS = {"runOnly": {"type": "tag", "values": RULES}, "rules": {"target-size": {"enabled": True}}}
CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
NOT_PAGES = (
    ".png",
    ".json",
    ".csv",
    "/health",
    "/static/nightread.css",
    "/next",
    "/scan/last",
    "/sign-in/sso",
    "/back",
)
ROLES = {"dr-a": Role.READER, "arbiter": Role.ARBITER, "centre": Role.CENTRE, "boss": Role.ADMIN}


@pytest.fixture
def full(room):
    room.close()
    filled = full_house.house(room.config, Words())
    yield filled
    filled.close()


def found(page, options=OPTIONS) -> list[str]:
    """What axe finds, each with the element that it stands on."""
    result = Axe().run(page, options=options).response
    return [
        f"{page.url} [{finding['id']}] {node['html'][:150]} {node['failureSummary'].splitlines()[1].strip()[:160]}"
        for finding in result["violations"]
        for node in finding["nodes"]
    ]


def test_axe_sees_a_flaw_where_there_is_one(room, window):
    page = window(bypass_csp=True)
    page.goto("/sign-in")

    page.evaluate("document.querySelector('label').remove(); document.querySelector('button').style.color = '#0a5599'")

    assert {"[label]", "[color-contrast]"} <= {part for finding in in_both_lights(page) for part in finding.split()}


def in_both_lights(page) -> list[str]:
    page.emulate_media(color_scheme="light")
    light = found(page)
    page.emulate_media(color_scheme="dark")
    return light + [f"dark: {finding}" for finding in found(page, CONTRAST)]


def is_page(address: str) -> bool:
    return not address.partition("?")[0].endswith(NOT_PAGES)


def walk(page, room: ReadingRoom) -> dict[str, list[str]]:
    """Every address that shows this guest a page of its own -> what axe finds there."""
    seen = {}
    for address in filter(is_page, addresses(room)):
        answer = page.goto(address)
        if answer.status == 200 and not answer.request.redirected_from:
            page.wait_for_function("() => document.getElementById('viewer')?.dataset.state !== 'loading'")
            seen[address] = in_both_lights(page)
        elif answer.status >= 400:
            seen[f"{answer.status}"] = seen.get(f"{answer.status}") or in_both_lights(page)
    return seen


@pytest.mark.parametrize("who", ROLES)
def test_axe_finds_nothing_on_any_page_with_content(full, window, who):
    page = window(who, bypass_csp=True)

    seen = walk(page, full)

    assert [finding for findings in seen.values() for finding in findings] == []
    assert len(seen) >= {"boss": 6}.get(who, 15), sorted(seen)


def test_axe_finds_nothing_on_the_scan_page_of_an_admin_who_opened_the_batch(full, window):
    page = window("opener", bypass_csp=True)
    page.goto("/batches/1")
    page.fill("#reason", "a test of what is seen")
    page.click("text=Open, on record")
    page.wait_for_load_state()

    page.goto(f"/scan/{named(full)['flagged-0']}")
    page.wait_for_selector("#viewer[data-state=ready]")

    assert in_both_lights(page) == []


@pytest.mark.parametrize("who", ROLES)
def test_axe_finds_nothing_where_there_is_nothing_yet(room, window, who):
    room.user(who, role=ROLES[who])
    page = window(who, bypass_csp=True)
    empty = [
        "/",
        "/arbitration",
        "/batches",
        "/unscreened",
        "/cases",
        "/quality",
        "/account",
        "/account/codes",
        "/none",
    ]

    findings = []
    for address in empty:
        page.goto(address)
        findings += in_both_lights(page)

    assert findings == []


def test_axe_finds_nothing_before_signing_in_and_when_that_fails(room, window):
    room.user()
    room.app_of("dr-a")
    page = window(bypass_csp=True)
    page.goto("/sign-in")
    findings = in_both_lights(page)
    for name, password in (("dr-a", "wrong"), ("dr-a", "three unrelated words")):
        page.fill("#name", name)
        page.fill("#password", password)
        page.press("#password", "Enter")
        page.wait_for_load_state()
        findings += in_both_lights(page)
    page.wait_for_selector("#code")
    page.fill("#code", "000000")
    page.press("#code", "Enter")
    page.wait_for_selector("#problem")

    assert findings + in_both_lights(page) == []


def test_axe_finds_nothing_in_what_opens_on_a_page(full, window):
    page = window("dr-a", bypass_csp=True)
    keys = named(full)
    page.goto(f"/scan/{keys['flagged-3']}")
    opens(page, "flagged-3")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    findings = in_both_lights(page)
    page.keyboard.press("Escape")
    dialog_is_closed(page)
    page.keyboard.press("Enter")  # without a verdict
    page.wait_for_selector("#problem:visible")
    page.keyboard.press("c")
    for tool in "gtxm":
        page.keyboard.press(tool)
    findings += in_both_lights(page)
    full.holds("dr-b", keys["newest"])
    for address, ready in (
        (f"/scan/{keys['newest']}", "#held"),
        ("/?lowest=2", "h1"),
        (f"/scan/{keys['flagged-0']}", "details"),
    ):
        page.goto(address)
        page.wait_for_selector(ready)
        page.evaluate("document.querySelectorAll('details').forEach((more) => { more.open = true; })")
        findings += in_both_lights(page)
    page.goto("/")
    page.fill("[name=text]", "pat")
    page.press("[name=text]", "Enter")
    page.wait_for_selector("text=Back to the list")

    assert findings + in_both_lights(page) == []


# What axe cannot see


@pytest.mark.parametrize("who", [*ROLES, "opener"])
def test_every_page_fits_a_narrow_window_a_laptop_and_a_portrait_monitor(full, window, who):
    page = window(who)
    wide = []
    for size in ({"width": 320, "height": 640}, LAPTOP, PORTRAIT):
        page.set_viewport_size(size)
        for address in filter(is_page, addresses(full)):
            page.goto(address)
            if not fits(page):
                wide.append(f"{size['width']}: {address}")

    assert wide == []


def test_at_twice_the_size_all_that_a_reader_needs_is_there(full, window):
    page = window("dr-a", viewport={"width": 683, "height": 384}, device_scale_factor=2)
    page.goto(f"/scan/{named(full)['flagged-3']}")
    opens(page, "flagged-3")

    for needed in (
        "[name=verdict] >> nth=0",
        "#note",
        "button.primary:visible",
        "[data-tool=invert]",
        "[data-part=stage]",
    ):
        page.locator(needed).scroll_into_view_if_needed()
        box = page.locator(needed).bounding_box()
        assert box["x"] >= 0, needed
        assert box["x"] + box["width"] <= 683, needed


@pytest.mark.parametrize("at", ["/", "/batches", "/account", "scan"])
def test_the_tab_key_walks_the_page_as_it_is_read_and_shows_where_it_is(full, window, at):
    page = window("dr-a")
    page.goto(at if at != "scan" else f"/scan/{named(full)['flagged-3']}")
    page.wait_for_function("() => document.getElementById('viewer')?.dataset.state !== 'loading'")
    places, hidden = [], []
    for _ in range(80):
        page.keyboard.press("Tab")
        place = page.evaluate(PLACE)
        if place is None or place["index"] in [before["index"] for before in places]:
            break
        places.append(place)
        if not place["shown"]:
            hidden.append(place["what"])

    assert hidden == []  # each has an outline or a ring while it has the focus
    assert len(places) >= 5
    assert [place["index"] for place in places] == sorted(place["index"] for place in places)


PLACE = """() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const all = [...document.querySelectorAll("*")];
  const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(at);
  const shown = (outlineStyle !== "none" && parseFloat(outlineWidth) >= 2) || boxShadow !== "none";
  return { index: all.indexOf(at), shown, what: at.outerHTML.slice(0, 100) };
}"""


def test_in_forced_colours_states_and_focus_still_show(full, window):
    page = window("dr-a", forced_colors="active")
    page.goto(f"/scan/{named(full)['flagged-3']}")
    opens(page, "flagged-3")

    assert page.evaluate("matchMedia('(forced-colors: active)').matches")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("c")
    look = "choice => getComputedStyle(choice).border + getComputedStyle(choice).backgroundColor"
    chosen, other = (page.locator(f".choice:has([value={said}])").evaluate(look) for said in ("confirm", "dismiss"))
    assert chosen != other
    assert page.locator("[name=verdict][value=confirm]").is_checked()


def test_the_sheet_of_keys_takes_the_focus_and_gives_it_back(full, window):
    page = window("dr-a")
    page.goto(f"/scan/{named(full)['flagged-3']}")
    opens(page, "flagged-3")
    page.locator("[data-open=keys]").focus()

    page.keyboard.press("Enter")
    inside = page.evaluate("document.activeElement.closest('dialog')?.id")
    page.keyboard.press("c")  # no verdict through an open dialog
    page.keyboard.press("Escape")
    dialog_is_closed(page)

    assert inside == "keys"
    assert page.evaluate("document.activeElement.dataset.open") == "keys"
    assert page.locator("[name=verdict]:checked").count() == 0


def test_letter_keys_that_are_off_stay_off_on_the_scan_page(room, window):
    room.user()
    room.night(Found("a.png", score=0.9), pictures=True)
    page = window("dr-a")
    page.goto("/")
    page.uncheck("[data-shortcuts]")
    page.click("a.row")
    opens(page, "a.png")

    page.keyboard.press("c")
    page.keyboard.press("c")

    assert page.locator("[name=verdict]:checked").count() == 0
    assert room.entry(room.keys(1)["a.png"]).my_reviews == []
