"""A reader at work in a real browser: sign in, read by keyboard alone, look at the picture."""

import playwright.sync_api as playwright
import pyotp
from driving import fits, sign_in
from reading_room import PASSWORD, Found

from db.store import reading, scoring
from db.words import Role


def test_the_lines_of_the_list_are_walked_with_letters_and_arrows(room, page):
    room.user()
    room.night(*[Found(f"scan-{n}.png", score=0.9 - n / 100) for n in range(3)])
    sign_in(page)

    page.keyboard.press("ArrowDown")
    for key in ("j", "ArrowDown", "j", "k"):
        page.keyboard.press(key)

    assert page.evaluate("document.activeElement.textContent") == "scan-1.png"


def test_letter_keys_can_be_turned_off(room, page):
    room.user()
    room.night(Found("scan-0.png", score=0.9))
    sign_in(page)

    page.uncheck("[data-shortcuts]")
    page.locator("h1").click()
    page.keyboard.press("j")
    after_letter = page.evaluate("document.activeElement.className")
    page.keyboard.press("ArrowDown")

    assert after_letter != "row"
    assert page.evaluate("document.activeElement.className") == "row"


def test_progress_moves_without_a_reload(room, page):
    room.user()
    files = [Found(f"{n:03}.png") for n in range(100)]
    batch = room.night(*files)
    sign_in(page)
    page.goto("/batches")
    row = page.locator(f"[data-batch='{batch}'] [data-field=scored]")
    assert row.inner_text() == "0"

    score_one_chunk(room)

    playwright.expect(row).not_to_have_text("0", timeout=10_000)
    assert int(row.inner_text()) == reading.totals(room.db, batch).scored


def score_one_chunk(room) -> None:
    while claim := scoring.claim_chunk(room.db, "w", trained_model_id=1, lease_seconds=60):
        results = [
            scoring.Scored(scan.id, 0.1, {"normal": 0.9, "covid": 0.1}, {}, "tensorflow", "float32", "cpu", 0.1)
            for scan in claim.scans
        ]
        scoring.complete_chunk(room.db, claim, results)
        return


def test_hostile_names_and_notes_run_nothing(room, page):
    room.user()
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    key = room.one(path=f"{hostile}.png", patient=hostile)
    sign_in(page)
    page.goto(f"/scan/{key}")
    page.fill("#note", hostile)
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    page.keyboard.press("Enter")
    page.wait_for_selector("h2:has-text('All read')")

    page.goto(f"/scan/{key}")

    assert page.locator(".note").inner_text() == hostile
    assert page.locator("img[src=x]").count() == 0


def type_password(page, name: str) -> None:
    page.goto("/sign-in")
    page.fill("#name", name)
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")


def test_a_reader_enrols_an_app_and_signs_in_with_a_recovery_code(room, page):
    room.user()
    sign_in(page)
    page.goto("/account")
    assert fits(page)
    page.click("text=Enrol an app")
    assert fits(page)
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_selector("#secret")
    assert fits(page)
    app = pyotp.TOTP(page.inner_text("#secret").replace(" ", ""))
    page.keyboard.type(app.now())  # the field for it has the focus
    page.keyboard.press("Enter")
    recovery = page.inner_text(".codes li:first-child")
    page.click("text=Sign out")

    type_password(page, "dr-a")
    page.wait_for_selector("#code:focus")
    page.keyboard.type(recovery)
    page.keyboard.press("Enter")

    page.wait_for_selector("h1:has-text('Worklist')")


def test_an_admin_opens_a_batch_with_a_reason(room, page):
    room.user("boss", role=Role.ADMIN)
    key = room.one()
    type_password(page, "boss")
    page.wait_for_selector("h1:has-text('Batches')")
    page.goto("/batches/1")
    assert page.locator("a.row").count() == 0

    page.fill("#reason", "a reader asks about the left border")
    page.click("text=Open, on record")

    page.wait_for_selector("h2:has-text('Opened by admins')")
    assert page.get_attribute("a.row", "href") == f"/scan/{key}"
    page.click("a.row")
    page.wait_for_selector("#viewer[data-state=ready]")
