"""Fixtures of the tests in a real browser: headless Chromium by Playwright, `nightread web` as its own process, real
SQLite, drawn pictures. Needs Chromium (`apt-get install chromium`) and the package playwright; `.ci/run` installs both.

- `address`: where the reading room of the fixture `room` is in service.
- `window`: opens a browser window of its own for each call, signed in as somebody or nobody.
- `page`: one such window, signed in as nobody.
"""

import importlib.util
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from driving import LAPTOP, address_answers

HERE = Path(__file__).parent
collect_ignore_glob = [] if importlib.util.find_spec("playwright") else ["test_*.py"]

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session", autouse=True)
def _quick_web():
    """Here a process of its own serves, with the product's password hashes: those of the tests are the same."""


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def address(room):
    for _ in range(3):  # the port that was free a moment ago may be taken by now
        with serving(room.config.home) as (url, web):
            if address_answers(f"{url}/health", while_=lambda web=web: web.poll() is None):
                yield url
                web.terminate()
                assert web.wait(timeout=30) == 0
                return
    raise RuntimeError("nightread web does not start")


@contextmanager
def serving(home):
    """`nightread web` on a home and a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "producer", "web", "--port", str(port)]
    environment = {**os.environ, "NIGHTREAD_HOME": str(home)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as web:
        try:
            yield f"http://localhost:{port}", web
        finally:
            web.terminate()


@pytest.fixture
def window(chromium, address, room):
    """`window("dr-a", color_scheme="dark")`: a new window, with a context's options, that fails the test on anything
    that the content policy blocks, a script error, a dialog, or a request that leaves this machine."""
    contexts, complaints = [], []

    def complain(message):
        if "Policy" in message.text or "Trusted" in message.text:
            complaints.append(message.text)

    def watch(opened):
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("console", complain)
        opened.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))

    def stays_here(request):
        if not request.url.startswith((address, "data:", "blob:")):
            complaints.append(f"asked {request.url}")

    def opens(name=None, **options):
        context = chromium.new_context(**{"viewport": LAPTOP, "base_url": address, **options})
        contexts.append(context)
        context.set_default_timeout(20_000)
        context.on("page", watch)
        context.on("request", stays_here)
        if name:
            session = {"name": "nightread", "value": room.inside(name).cookie(), "url": address}
            context.add_cookies([{**session, "httpOnly": True, "sameSite": "Strict"}])
        return context.new_page()

    yield opens
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(window):
    return window()
