"""What the tests in a real browser do and ask again and again."""

from __future__ import annotations

import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from reading_room import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page, Request, Response, Route

EMPTY = "3"  # bytes of `{}` and the end of its line
LAPTOP = {"width": 1366, "height": 768}
PORTRAIT = {"width": 1200, "height": 1920}


def address_answers(url: str, *, while_: Callable[[], bool] = lambda: True) -> bool:
    """Wait until an address answers; False once `while_` is not so any more."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and while_():
        try:
            with urllib.request.urlopen(url, timeout=5):  # ours, on loopback
                return True
        except OSError:
            time.sleep(0.2)
    return False


def sign_in(page: Page, name: str = "dr-a") -> None:
    """By the form, from the keyboard."""
    page.goto("/")
    page.wait_for_selector("#name:focus")  # the browser gives it the focus, a moment after it says that it loaded
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.wait_for_selector("#password:focus")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Worklist')")


def opens(page: Page, path: str) -> None:
    """Wait until the scan of that file is before the reader, its picture drawn where there is one."""
    page.wait_for_selector(f"h1:has-text('{path}')")
    page.wait_for_selector("#viewer:not([data-state=loading]), .no-picture", state="attached")


def ahead_is_ready(page: Page) -> None:
    """Wait until the scan after this one, if there is one, has been fetched with its picture."""
    page.wait_for_function("""() => {
      const key = document.getElementById("scan").dataset.nextKey;
      const came = performance.getEntriesByType("resource").filter((entry) => entry.responseEnd > 0);
      return !key || came.some((entry) => entry.name.includes(`/scan/${key}/image.png`));
    }""")
    page.wait_for_timeout(300)  # its heat map, and decoding


def dialog_is_closed(page: Page) -> None:
    """Wait until a dialog is closed and two frames are drawn: until then Chromium may give the next key to nothing."""
    page.wait_for_selector("dialog[open]", state="detached")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def fits(page: Page) -> bool:
    """Whether nothing lies to the right of the window."""
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@dataclass
class Heard:
    """Everything that a window receives from now on, in the order in which it came: (path, body), and the headers.
    `unread`: answers that were no longer to be had; those of static files, and empty ones, are left out."""

    page: Page
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    headers: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.context.on("response", self._hear)

    def _hear(self, response: Response) -> None:
        path = urlsplit(response.url).path
        self.headers.append((path, response.headers))
        if 300 <= response.status < 400:
            return
        try:
            self.bodies.append((path, response.body()))
        except Exception as error:  # noqa: BLE001 (a page was left before it could be asked for one)
            if not path.startswith("/static/") and response.headers.get("content-length") != EMPTY:
                self.unread.append(f"{path} {response.headers.get('content-length')}: {error}")

    def clear(self) -> None:
        for kept in (self.bodies, self.headers, self.unread):
            kept.clear()

    def paths(self) -> list[str]:
        return [path for path, _ in self.headers]


class Gate:
    """While it is shut the window's requests wait, but for those that `passes` lets through."""

    def __init__(self, page: Page, passes: Callable[[Request], bool]) -> None:
        self._passes, self._is_open = passes, False
        self.passed: list[Request] = []
        self._waiting: list[Route] = []
        page.route("**/*", lambda route: self._stop(route))

    def _stop(self, route: Route) -> None:
        if self._is_open:
            route.continue_()
        elif self._passes(route.request):
            self.passed.append(route.request)
            route.continue_()
        else:
            self._waiting.append(route)

    def open(self) -> None:
        self._is_open = True
        while self._waiting:
            self._waiting.pop().continue_()
