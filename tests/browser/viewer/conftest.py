"""Fixtures of the viewer's own tests: a light table instead of the application (viewing.py)."""

import pytest
from viewing import SMALL, LightTable, serve


@pytest.fixture(scope="session")
def table():
    yield from serve(LightTable())


@pytest.fixture
def window(chromium):
    """A browser window, `window(device_scale_factor=2)`, that fails the test on a script error or a blocked request."""
    contexts, complaints = [], []

    def opens(**options):
        contexts.append(chromium.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if "Policy" in message.text else None)
        return page

    yield opens
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(window):
    return window(viewport=SMALL)
