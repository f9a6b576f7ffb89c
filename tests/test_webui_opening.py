"""Break-glass: an admin sees no scan of a batch before opening it, with a reason, on record, in this session alone."""

import pytest
from reading_room import Found

from db.store import audit
from db.words import Reason, Role

REASON = "the reader asks why a scan looks cut off"


@pytest.fixture
def night(room):
    """An admin, and a batch with a flagged scan and a rejected file; the batch and the key of the scan."""
    room.user("boss", role=Role.ADMIN)
    file = Found("ward/scan-1.png", score=0.9, patient="P-17")
    batch = room.night(file, Found("ward/notes.txt", reason=Reason.NOT_AN_IMAGE), pictures=True)
    return batch, room.keys(batch)[file.path]


def pictures_of(key):
    return [f"/scan/{key}", f"/scan/{key}/image.png", f"/scan/{key}/heat.png"]


def test_before_a_reason_an_admin_sees_numbers_and_neither_scans_nor_names(room, night):
    batch, key = night
    browser = room.inside("boss")

    page = browser.get(f"/batches/{batch}")
    refused = browser.get(f"/scan/{key}")

    assert "1</strong> flagged" in page.text
    assert "1</strong> not an image" in page.text
    for hidden in ("scan-1.png", "notes.txt", "P-17", key):
        assert hidden not in page.text
    assert [browser.get(address).status_code for address in pictures_of(key)] == [403] * 3
    assert f"opening its batch with a reason: batch {batch}" in refused.text
    assert not room.events("viewed")
    assert not room.events("viewed_image")


def test_a_reason_opens_the_batch_and_is_on_the_audit_record(room, night):
    batch, key = night
    browser = room.inside("boss")

    answer = browser.post(f"/batches/{batch}", reason=f"  {REASON} ")

    assert answer.location == f"/batches/{batch}"
    assert [browser.get(address).status_code for address in pictures_of(key)] == [200] * 3
    page = browser.get(f"/batches/{batch}").text
    assert "scan-1.png" in page
    assert "notes.txt" in page
    (event,) = room.events("opened")
    assert (event.actor, event.object, event.detail["reason"]) == ("boss", f"batch {batch}", REASON)
    assert [event.actor for event in room.events("viewed_image")] == ["boss"]
    assert audit.verify(room.db)


@pytest.mark.parametrize("reason", ["", "   ", "curious", "x" * 501, "\0" * 20])
def test_a_reason_that_says_nothing_opens_nothing(room, night, reason):
    batch, key = night
    browser = room.inside("boss")

    answer = browser.post(f"/batches/{batch}", reason=reason)

    assert answer.status_code == 400
    assert "A reason has 10 to 500 characters." in answer.text
    assert browser.get(f"/scan/{key}/image.png").status_code == 403
    assert not room.events("opened")


def test_an_opening_is_for_its_batch_alone(room, night):
    batch, _ = night
    other = room.keys(room.night(Found(score=0.8), root="/nights/tuesday", pictures=True))["night/one.png"]

    browser = room.opened(batch)

    assert [browser.get(address).status_code for address in pictures_of(other)] == [403] * 3


def test_an_opening_ends_with_its_session(room, night):
    batch, key = night
    first = room.opened(batch)
    first.post("/sign-out", page="/account")

    again = room.signed_in("boss")

    assert first.get(f"/scan/{key}").status_code == 303
    assert again.get(f"/scan/{key}").status_code == 403


def test_an_opening_is_nobody_elses(room, night):
    batch, key = night
    room.user("chief", role=Role.ADMIN)

    room.opened(batch)

    assert room.inside("chief").get(f"/scan/{key}/image.png").status_code == 403
    assert room.inside("boss").get(f"/scan/{key}/image.png").status_code == 403  # another session of the same admin


def test_the_readers_of_a_batch_see_who_opened_it_and_why(room, night):
    batch, _ = night
    room.user()

    room.opened(batch).post(f"/batches/{batch}", page="/account", reason="<b>a second reason</b>")

    page = room.inside("dr-a").get(f"/batches/{batch}").text
    assert "Opened by admins" in page
    assert page.index("&lt;b&gt;a second reason&lt;/b&gt;") < page.index("a test of what is seen")


def test_readers_need_no_reason_and_cannot_give_one(room, night):
    batch, key = night
    room.user()
    browser = room.inside("dr-a")

    assert browser.get(f"/scan/{key}/image.png").status_code == 200
    assert browser.post(f"/batches/{batch}", page="/account", reason=REASON).status_code == 403
    assert not room.events("opened")


def test_a_batch_that_does_not_exist_cannot_be_opened(room, night):
    browser = room.inside("boss")

    for batch in ("999", str(2**63), "9" * 40):
        assert browser.post(f"/batches/{batch}", page="/account", reason=REASON).status_code == 404
    assert not room.events("opened")


def test_an_admins_first_page_and_menu_are_the_batches(room, night):
    browser = room.inside("boss")

    assert browser.get("/").location == "/batches"
    assert "Worklist" not in browser.get("/batches").text
