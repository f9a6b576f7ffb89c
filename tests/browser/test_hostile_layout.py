"""Names, notes and folders of thousands of characters, of markup and of right-to-left writing: they run nothing (the
fixture `window` fails on any dialog, script error or complaint of the content policy) and push nothing off the page."""

import full_house
import pytest
from driving import LAPTOP, fits, opens
from full_house import Words, addresses, named
from test_for_everyone import is_page
from test_hostile_text import hostile

from db.settings import Settings

NARROW = {"width": 320, "height": 640}


@pytest.fixture(params=["markup", "long"])
def hostile_room(request, room, monkeypatch):
    words = Words().but(hostile(request.param))
    monkeypatch.setenv("NIGHTREAD_FINDINGS", f"{words.finding},other")
    room.close()
    filled = full_house.house(Settings(home=room.config.home, findings=(words.finding, "other")), words)
    yield filled
    filled.close()


@pytest.mark.parametrize("who", ["dr-a", "centre", "boss"])
def test_hostile_words_run_nothing_and_push_nothing_off_the_page(hostile_room, window, who):
    page, wide = window(who), []
    for size in (NARROW, LAPTOP):
        page.set_viewport_size(size)
        for address in filter(is_page, addresses(hostile_room)):
            page.goto(address)
            if not fits(page):
                wide.append(f"{size['width']}: {address}")

    assert wide == []


def test_a_hostile_scan_is_read_by_keyboard_like_any_other(hostile_room, window):
    key = named(hostile_room)["flagged-3"]
    page = window("dr-a")
    page.goto(f"/scan/{key}")
    opens(page, "flagged-3")
    picture = page.locator("[data-part=stage]").bounding_box()

    page.keyboard.press("c")
    page.keyboard.press("c")
    page.wait_for_function(f"() => document.getElementById('scan')?.dataset.key !== '{key}'")

    assert hostile_room.entry(key).my_reviews[0].verdict == "confirm"
    assert picture["height"] > 300  # the words leave the picture its room
    assert picture["width"] > 600
