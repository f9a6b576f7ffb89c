"""The viewer as a part of a page: its keys, its toolbars, coming and going."""

import cv2
import numpy as np
import pytest
from viewing import EVIDENCE, attribute, canvas, dotted, facts, noise, png


def test_keys_are_letters_in_a_field_and_off_where_they_are_switched_off(table, page):
    table.lay(png(noise(90, 70)), png(noise(90, 70)))
    table.open(page)

    page.locator("#note").focus()
    page.keyboard.type("mirth 7 +")
    page.keyboard.press("ArrowLeft")
    typed = page.input_value("#note")
    page.locator("#note").blur()
    page.evaluate("localStorage.setItem('nightread.shortcuts', 'off')")
    page.keyboard.press("m")
    page.keyboard.press("2")
    still = [attribute(page, "preset"), page.get_attribute("[data-tool=heat]", "aria-pressed")]
    page.evaluate("localStorage.removeItem('nightread.shortcuts')")
    page.keyboard.press("m")

    assert typed == "mirth 7 +"
    assert still == ["default", "true"]
    assert page.get_attribute("[data-tool=heat]", "aria-pressed") == "false"


def test_a_toolbar_is_one_stop_and_its_buttons_are_walked_with_arrows(table, page):
    table.lay(png(noise(90, 70)))
    table.open(page)
    focused = "(({ tool, preset, part }) => tool ?? preset ?? part)(document.activeElement.dataset)"

    page.keyboard.press("Tab")
    first = page.evaluate(focused)
    page.keyboard.press("ArrowRight")
    second = page.evaluate(focused)
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    around = page.evaluate(focused)
    page.keyboard.press("Enter")
    pressed = page.get_attribute("[data-tool=invert]", "aria-pressed")
    stops = []
    for _ in range(4):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(focused))

    assert (first, second, around, pressed) == ("invert", "lens", "invert", "true")
    assert stops == ["default", "level", "width", "stage"]


def test_the_heat_map_fades_and_goes(table, page):
    image, heat = dotted(300, 200, x=60, y=100, side=40)
    table.lay(image, heat)
    table.open(page)
    page.wait_for_selector("#viewer[data-heat-state=ready]")

    strength = [canvas(page, "overlay", channel=3).max()]
    page.locator("[data-part=opacity]").fill("20")
    strength.append(canvas(page, "overlay", channel=3).max())
    page.keyboard.press("m")
    strength.append(canvas(page, "overlay", channel=3).max())

    assert strength == pytest.approx([0.7 * 255, 0.2 * 255, 0], abs=1)


def test_the_heat_map_stays_as_the_reader_left_it_for_the_next_scan(table, page):
    image, heat = dotted(300, 200, x=60, y=100, side=40)
    table.lay(image, heat)
    table.open(page)
    page.locator("[data-part=opacity]").fill("35")
    page.keyboard.press("m")
    attribute(page, "matrix")

    read_scans(page, 1)

    assert page.get_attribute("[data-tool=heat]", "aria-pressed") == "false"
    assert page.input_value("[data-part=opacity]") == "35"
    page.reload()
    assert page.get_attribute("[data-tool=heat]", "aria-pressed") == "true"
    assert page.input_value("[data-part=opacity]") == "70"


def test_a_lost_heat_map_leaves_the_picture(table, page):
    table.lay(png(noise(90, 70)), heat=b"no picture")
    assert table.open(page)

    page.wait_for_selector("#viewer[data-heat-state=failed]")

    assert page.is_disabled("[data-tool=heat]")
    assert "heat map could not be loaded" in page.locator("[data-part=message]").inner_text()


def test_a_preloaded_picture_is_shown_without_a_request(table, page):
    image, heat = dotted(300, 200, x=60, y=100, side=40)
    table.lay(image, heat)
    table.open(page, is_mounted=False)

    came = page.evaluate("import('/static/viewer.js').then(({ preload }) => preload('/image.png', '/heat.png'))")
    asked = dict(table.asked)
    table.pictures.clear()
    page.evaluate("""() => import("/static/viewer.js").then(({ mount }) => {
      window.viewer = mount(document.getElementById("viewer"));
      return viewer.ready;
    })""")

    assert came is True
    assert asked == {"image.png ahead": 1, "heat.png ahead": 1}
    assert dict(table.asked) == asked
    assert canvas(page, channel=0).max() == 255
    page.wait_for_selector("#viewer[data-heat-state=ready]")


def test_a_preload_that_fails_is_asked_for_again(table, page):
    table.lay(png(noise(90, 70)))
    table.open(page, is_mounted=False)
    kept = dict(table.pictures)
    table.pictures.clear()

    came = page.evaluate("import('/static/viewer.js').then(({ preload }) => preload('/image.png', null))")
    table.pictures.update(kept)
    mounted = page.evaluate(
        "import('/static/viewer.js').then(({ mount }) => mount(document.getElementById('viewer')).ready)"
    )

    assert (came, mounted) == (False, True)


def test_fifty_scans_leave_nothing_behind(table, page):
    samples = noise(600, 500)
    seen = cv2.imencode(".png", noise(64, 64, 255, np.uint8))[1].tobytes()
    evidence = {**EVIDENCE, "width": 500, "height": 600}
    table.lay(png(samples), dotted(600, 500, 60, 100, 40)[1], seen, evidence=evidence, display=facts())
    table.open(page)
    tools = page.context.new_cdp_session(page)
    read_scans(page, 3)
    before = held(tools)

    read_scans(page, 50)

    after = held(tools)
    assert after == before
    assert before["pictures"] == 3  # the last ones, the one on the screen among them
    page.keyboard.press("i")  # one viewer answers, not fifty
    assert attribute(page, "inverted") == "true"


def read_scans(page, count):
    """Mount a fresh section for each of so many scans, use it, and destroy the one before, as reading.js does."""
    page.evaluate(
        """async (count) => {
          for (let scan = 0; scan < count; scan += 1) {
            viewer.destroy();
            const old = document.getElementById("viewer");
            const section = old.cloneNode(true);
            section.dataset.image = `/image.png?scan=${scan}-${performance.now()}`;
            old.replaceWith(section);
            window.viewer = mount(section);
            if (scan % 5 === 4) viewer.destroy(); // gone before its picture came
            await viewer.ready;
            for (const tool of ["crop", "lens", "ruler", "right", "in"]) viewer.act(tool);
            viewer.draw();
          }
          await viewer.ready;
          viewer.destroy();
          window.viewer = mount(document.getElementById("viewer")); // again on the same section
          await viewer.ready;
        }""",
        count,
    )


def held(tools):
    """What the page holds after collecting garbage: listeners on window and document, pictures, canvases."""
    tools.send("HeapProfiler.enable")
    for _ in range(3):
        tools.send("HeapProfiler.collectGarbage")
    listeners = 0
    for target in ("window", "document"):
        found = tools.send("Runtime.evaluate", {"expression": target})["result"]["objectId"]
        listeners += len(tools.send("DOMDebugger.getEventListeners", {"objectId": found})["listeners"])
    pictures = "import('/static/viewer_picture.js').then(({ Picture }) => Picture.prototype)"
    return {
        "listeners": listeners,
        "pictures": how_many(tools, pictures),
        "canvases": how_many(tools, "HTMLCanvasElement.prototype"),
    }


def how_many(tools, kind):
    """Objects of a prototype that are alive."""
    prototype = tools.send("Runtime.evaluate", {"expression": kind, "awaitPromise": True})["result"]["objectId"]
    found = tools.send("Runtime.queryObjects", {"prototypeObjectId": prototype})["objects"]["objectId"]
    call = {"objectId": found, "functionDeclaration": "function () { return this.length; }", "returnByValue": True}
    count = tools.send("Runtime.callFunctionOn", call)["result"]["value"]
    tools.send("Runtime.releaseObject", {"objectId": found})  # it would keep all that it found
    return count
