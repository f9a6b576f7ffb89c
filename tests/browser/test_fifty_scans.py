"""A night's reading from the keyboard alone: fifty flagged scans, no mouse, nothing lost, the next one always there."""

import pytest
from drawn_night import chests, names, submit
from driving import Gate, ahead_is_ready, opens, sign_in
from reading_room import Found
from sqlalchemy import select

from db.schema import Review, Scan
from db.store import entries

FIFTY = 50
KEYS = "cdup"  # pressed in turn; each twice, which saves
SAID = {"c": "confirm", "d": "dismiss", "u": "unsure", "p": "repeat"}


def verdicts(room) -> dict[str, list[str]]:
    """Path -> verdicts given."""
    with room.db.reading() as session:
        rows = session.execute(select(Scan.path, Review.verdict).join(Review, Review.scan_id == Scan.id))
        said: dict[str, list[str]] = {}
        for path, verdict in rows:
            said.setdefault(path, []).append(verdict)
        return said


def test_fifty_flagged_scans_are_read_from_the_keyboard_alone(room, page):
    room.user()
    paths = [f"scan-{n:02}.png" for n in range(FIFTY)]
    room.night(*[Found(path, score=0.95 - n / 1000, seed=n) for n, path in enumerate(paths)], pictures=True)
    sign_in(page)
    assert page.locator("#left").inner_text().startswith("50 scans to read")

    page.keyboard.press("n")
    left = []
    for n, path in enumerate(paths):
        opens(page, path)
        page.wait_for_function(f"() => document.getElementById('left')?.textContent.startsWith('{FIFTY - n} left')")
        left.append(FIFTY - n)
        key = KEYS[n % len(KEYS)]
        page.keyboard.press(key)
        page.keyboard.press(key)
    page.wait_for_selector("h2:has-text('All read')")

    assert left == list(range(FIFTY, 0, -1))
    assert verdicts(room) == {path: [SAID[KEYS[n % 4]]] for n, path in enumerate(paths)}
    assert entries.recount(room.db) == []


def test_the_next_scan_is_painted_while_the_server_answers_nothing_but_the_verdict(room, window):
    room.user()
    films = chests(4)
    keys = submit(room, *films)
    page = window("dr-a")
    page.goto(f"/scan/{keys[0]}")
    waits = []
    for n, path in enumerate(names(films)[:-1]):
        opens(page, path)
        ahead_is_ready(page)
        gate = Gate(page, lambda request, own=f"/scan/{keys[n]}": is_post_to(own, request))
        page.evaluate(RECORD_PAINT)
        page.keyboard.press("c")
        page.keyboard.press("c")
        painted = page.evaluate("window.painted")
        gate.open()

        assert len(gate.passed) == 1
        assert painted["file"] == names(films)[n + 1]
        assert painted["brightest"] > 100  # the canvas holds the picture, not black
        waits.append(painted["waited"])
    print(f"from the key to the painted picture: {', '.join(f'{wait:.0f}' for wait in waits)} ms")


def is_post_to(path: str, request) -> bool:
    return request.method == "POST" and request.url.endswith(path)


# Notes the moment at which the viewer of another scan says that its picture is drawn.
RECORD_PAINT = """() => {
  const old = document.getElementById("viewer");
  let pressed = 0;
  document.addEventListener("keydown", () => { pressed = performance.now(); }, { capture: true });
  window.painted = new Promise((done) => {
    (function look() {
      const viewer = document.getElementById("viewer");
      if (viewer === old || viewer?.dataset.state !== "ready") return requestAnimationFrame(look);
      const canvas = viewer.querySelector("[data-part=picture]");
      const { width, height } = canvas;
      const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
      const brightest = data.reduce((most, value, at) => (at % 4 === 0 && value > most ? value : most), 0);
      done({ waited: performance.now() - pressed, brightest, file: document.querySelector("h1").textContent });
    })();
  });
}"""


def test_a_verdict_is_undone_by_another_one_and_both_stay_on_record(room, window):
    room.user()
    keys = submit(room, *chests(2))
    page = window("dr-a")
    page.goto(f"/scan/{keys[0]}")
    opens(page, "chest-00.dcm")
    page.keyboard.press("c")
    page.keyboard.press("c")
    opens(page, "chest-01.dcm")

    page.keyboard.press("z")
    opens(page, "chest-00.dcm")
    page.wait_for_selector("legend:has-text('in place of the last')")
    page.keyboard.press("d")
    page.keyboard.press("d")
    opens(page, "chest-01.dcm")

    assert verdicts(room) == {"chest-00.dcm": ["confirm", "dismiss"]}
    assert room.entry(keys[0]).verdict == "dismiss"


def test_skipping_leaves_a_scan_unread_and_it_comes_back_at_the_end(room, window):
    room.user()
    keys = submit(room, *chests(3))
    page = window("dr-a")
    page.goto(f"/scan/{keys[0]}")
    opens(page, "chest-00.dcm")
    page.keyboard.press("n")
    for path in ("chest-01.dcm", "chest-02.dcm", "chest-00.dcm"):
        opens(page, path)
        page.keyboard.press("d")
        page.keyboard.press("d")

    page.wait_for_selector("h2:has-text('All read')")
    assert verdicts(room) == {f"chest-{n:02}.dcm": ["dismiss"] for n in range(3)}


def test_findings_and_a_note_go_with_the_verdict_from_the_keyboard(room, window):
    room.user()
    keys = submit(room, *chests(2))
    known = room.config.findings
    page = window("dr-a")
    page.goto(f"/scan/{keys[0]}")
    opens(page, "chest-00.dcm")

    page.keyboard.press("c")
    page.keyboard.press("f")
    page.keyboard.press("2")
    page.keyboard.press("Escape")
    page.keyboard.press("o")
    page.keyboard.type("mind the cold upper zone: n, d and u are letters here")
    page.keyboard.press("Control+Enter")
    opens(page, "chest-01.dcm")

    (review,) = room.entry(keys[0]).my_reviews
    assert (review.verdict, list(review.findings)) == ("confirm", [known[1]])
    assert review.note == "mind the cold upper zone: n, d and u are letters here"


@pytest.mark.parametrize("presses", [["c", "Enter"], ["c", "c"], ["c", "Control+Enter"]])
def test_a_verdict_pressed_hastily_is_saved_once(room, window, presses):
    room.user()
    keys = submit(room, *chests(2))
    page = window("dr-a")
    page.goto(f"/scan/{keys[0]}")
    opens(page, "chest-00.dcm")

    for press in (*presses, presses[-1], presses[-1]):
        page.keyboard.press(press)
    opens(page, "chest-01.dcm")
    page.wait_for_timeout(500)

    assert verdicts(room)["chest-00.dcm"] == ["confirm"]
    assert "chest-01.dcm" not in verdicts(room)


def test_the_focus_is_never_lost_when_the_next_scan_comes(room, window):
    room.user()
    keys = submit(room, *chests(4))
    page = window("dr-a")
    page.goto(f"/scan/{keys[0]}")
    focused = []
    for n in range(3):
        opens(page, f"chest-{n:02}.dcm")
        ahead_is_ready(page)
        if n == 1:
            page.locator("#note").focus()
            page.keyboard.press("Escape")
        page.keyboard.press("d")
        page.keyboard.press("d")
        opens(page, f"chest-{n + 1:02}.dcm")
        focused.append(page.evaluate("document.activeElement.id"))

    assert focused == ["main"] * 3
    assert page.locator("#said").inner_text().startswith("Saved")


def test_a_verdict_that_does_not_arrive_stays_on_the_page_and_can_be_sent_again(room, window):
    room.user()
    keys = submit(room, *chests(2))
    page = window("dr-a")
    page.goto(f"/scan/{keys[0]}")
    opens(page, "chest-00.dcm")
    ahead_is_ready(page)
    page.context.set_offline(True)
    page.keyboard.press("o")
    page.keyboard.type("a long thought")
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    page.keyboard.press("c")
    page.wait_for_selector("#problem:visible")
    told = page.locator("#problem").inner_text()

    page.context.set_offline(False)
    page.keyboard.press("Enter")
    opens(page, "chest-01.dcm")

    assert "not saved" in told
    (review,) = room.entry(keys[0]).my_reviews
    assert (review.verdict, review.note) == ("confirm", "a long thought")


def test_without_scripts_the_forms_and_links_are_enough(room, window):
    room.user()
    keys = submit(room, *chests(2))
    page = window("dr-a", java_script_enabled=False)
    page.goto("/")
    page.click("a.row >> nth=0")
    page.wait_for_selector("h1:has-text('chest-00.dcm')")
    assert page.locator("img.viewer-plain").evaluate("image => image.decode().then(() => image.naturalWidth)") == 256

    page.check("[name=verdict][value=dismiss]")
    page.fill("#note", "by a plain form")
    page.click("button.primary:has-text('Save')")
    page.wait_for_selector("h1:has-text('chest-01.dcm')")
    page.click("a[data-key=n]")

    (review,) = room.entry(keys[0]).my_reviews
    assert (review.verdict, review.note) == ("dismiss", "by a plain form")
    assert room.entry(keys[1]).my_reviews == []
