"""Single sign-on in a real browser: the identity provider is another site there, whose redirections bring no
SameSite=Strict cookie along; and our policy lets forms lead nowhere else."""

import pytest
from driving import LAPTOP
from identity_provider import CLIENT, SECRET, serving

from db.store import links, people


@pytest.fixture
def provider(monkeypatch):
    """An identity provider on 127.0.0.1; the reading room is on localhost: another site."""
    with serving("127.0.0.1") as running:
        known = {"ISSUER": running.issuer, "CLIENT_ID": CLIENT, "CLIENT_SECRET": SECRET, "LABEL": "ward account"}
        for name, value in known.items():
            monkeypatch.setenv(f"NIGHTREAD_OIDC_{name}", value)
        yield running


@pytest.fixture
def door(provider, room, address, chromium):
    """A window at the door, and what the browser complained about."""
    room.user("dr-a")
    links.link(
        room.db, people.user_named(room.db, "dr-a").id, issuer=provider.issuer, subject=provider.subject, by="test"
    )
    context = chromium.new_context(viewport=LAPTOP, base_url=address)
    context.set_default_timeout(20_000)
    page, complaints = context.new_page(), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if "Policy" in said.text else None)
    yield page
    context.close()
    assert complaints == []


def test_one_click_and_back_from_another_site_somebody_is_in(door, provider):
    door.goto("/account")

    door.click("text=Sign in with your ward account")

    door.wait_for_selector("h1:has-text('Change password')")
    assert [page for page, *_ in provider.asked].count("authorize") == 1
    assert {cookie["name"] for cookie in door.context.cookies()} >= {"nightread"}
    assert not any(cookie["name"] == "nightread_sso" for cookie in door.context.cookies())


def test_who_is_declined_there_is_back_at_the_door_with_a_sentence(door, provider):
    provider.refuses = "access_denied"
    door.goto("/sign-in")

    door.click("text=Sign in with your ward account")

    assert "did not sign you in" in door.text_content("[role=alert]")
    assert door.is_visible("#password")
