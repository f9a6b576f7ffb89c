"""Who may do what: every route that the application has, by method, by who asks, by whose scans they are. The routes
come from the application's own URL map; one that is not in the table below fails the test."""

import re
from urllib.parse import urlsplit

import pytest
from flask import Flask
from reading_room import FOREIGN, NOBODYS_KEY, Browser, Found, ReadingRoom, routes

from db.store import audit, people
from db.words import Reason, Role
from webui import create_app
from webui.guard import SAFE_METHODS

PEOPLE = ("nobody", "half", "disabled", "reader", "stranger", "admin", "opener", "arbiter", "centre")
DOOR = "/sign-in"
OUTSIDERS = ("nobody", "half", "disabled")


def row(
    outside: object,
    reader: object,
    stranger: object,
    admin: object,
    opener: object,
    arbiter: object = None,
    centre: object = 403,
) -> dict[str, object]:
    """What each gets: a status, or where they are sent. Three are outsiders: signed out; half-way, with the password
    alone; disabled, with a session from before. `stranger` reads for another site; `opener` is an admin who opened
    the batch, with a reason; `admin` one who did not; an arbiter gets what a reader gets, unless said otherwise."""
    insiders = (reader, stranger, admin, opener, reader if arbiter is None else arbiter, centre)
    return dict(zip(PEOPLE, (outside, outside, outside, *insiders), strict=True))


def alike(outside: object, inside: object) -> dict[str, object]:
    return row(outside, inside, inside, inside, inside, centre=inside)


TABLE: dict[tuple[str, str], dict[str, object]] = {
    ("static", "GET"): alike(200, 200),
    ("health", "GET"): alike(200, 200),
    ("auth.sign_in", "GET"): row(200, "/", "/", "/batches", "/batches", centre="/batches"),
    ("auth.try_to_sign_in", "POST"): alike(401, 401),
    ("auth.code", "GET"): alike(DOOR, DOOR) | {"half": 200},
    ("auth.try_code", "POST"): alike(DOOR, DOOR) | {"half": 401},
    ("sso.begin", "GET"): alike(404, 404),  # no identity provider is configured: test_webui_sso.py
    ("sso.back", "GET"): alike(404, 404),
    ("auth.sign_out", "POST"): alike(DOOR, DOOR),
    ("worklist.index", "GET"): row(DOOR, 200, 200, "/batches", "/batches", centre="/batches"),
    ("worklist.arbitration", "GET"): row(DOOR, 403, 403, 403, 403, arbiter=200),
    ("worklist.search", "POST"): row(DOOR, 200, 200, 403, 403),
    ("review.last", "GET"): row(DOOR, "/", "/", 403, 403),
    ("review.show", "GET"): row(DOOR, 200, 404, 403, 200),
    ("review.give_verdict", "POST"): row(DOOR, "/", 404, 403, 403),
    ("review.skip", "GET"): row(DOOR, "/", 404, 403, 403),
    ("review.image", "GET"): row(401, 200, 404, 403, 200),
    ("review.heat", "GET"): row(401, 200, 404, 403, 200),
    ("review.model_input", "GET"): row(401, 200, 404, 403, 200),
    ("review.seen", "POST"): row(DOOR, 200, 404, 403, 403),
    ("review.hold", "POST"): row(DOOR, 200, 404, 403, 403),
    ("review.release", "POST"): row(DOOR, 200, 404, 403, 403),
    ("batches.index", "GET"): alike(DOOR, 200),
    ("batches.progress", "GET"): alike(401, 200),
    ("batches.show", "GET"): row(DOOR, 200, 404, 200, 200, centre=200),
    ("batches.open_batch", "POST"): row(DOOR, 403, 403, "/batches/1", "/batches/1"),
    ("batches.export", "GET"): row(DOOR, 200, 404, 403, 200, centre=200),
    ("quality.index", "GET"): row(DOOR, 403, 403, 200, 200, arbiter=200),
    ("unscreened.index", "GET"): row(DOOR, 200, 200, 403, 403, centre=200),
    ("unscreened.acknowledge", "POST"): row(DOOR, "/unscreened", 404, 403, 403, centre="/unscreened"),
    ("unscreened.send_again", "POST"): row(DOOR, "/unscreened", 404, 403, 403, centre="/unscreened"),
    ("cases.index", "GET"): row(DOOR, 200, 200, 403, 403, centre=200),
    ("cases.search", "POST"): row(DOOR, 200, 200, 403, 403, centre=200),
    ("cases.upload", "POST"): row(DOOR, 400, 400, 403, 403, centre=400),
    ("cases.show", "GET"): row(DOOR, 200, 404, 403, 403, centre=200),
    ("cases.add", "POST"): row(DOOR, 400, 404, 403, 403, centre=400),
    ("account.index", "GET"): alike(DOOR, 200),
    ("account.change_password", "POST"): alike(DOOR, 400),
    ("codes.index", "GET"): alike(DOOR, 200),
    ("codes.begin", "POST"): alike(DOOR, 400),
    ("codes.confirm", "POST"): alike(DOOR, "/account/codes"),
}
FORM = {"verdict": "confirm", "reason": "a reason that is long enough", "name": "x", "password": "not it", "code": "0"}
FORM |= {"text": "patient"}


@pytest.fixture
def house(room: ReadingRoom):
    """A scan of one site, a reader of it, a reader of another, admins; the scan's key."""
    for name in ("reader", "disabled", "half"):
        room.user(name)
    room.app_of("half")
    room.user("stranger", sites=["elsewhere"])
    for name, role in (
        ("admin", Role.ADMIN),
        ("opener", Role.ADMIN),
        ("arbiter", Role.ARBITER),
        ("centre", Role.CENTRE),
    ):
        room.user(name, role=role)
    return room.one()


def arrives(room: ReadingRoom, who: str) -> Browser:
    """One of PEOPLE at the door, with whatever session they have."""
    if who == "nobody":
        return room.visitor()
    if who == "opener":
        return room.opened(1, "opener")
    browser = room.inside(who, awaits_code=who == "half")
    if who == "disabled":
        people.disable_user(room.db, people.user_named(room.db, who).id, by="test")
    return browser


def asks(browser: Browser, method: str, address: str, form: dict[str, str] | None = None, **headers: str):
    """Send the request, a change with a form of ours (by default, with a fresh token)."""
    if form is None:
        form = {} if method in SAFE_METHODS else form_of(browser)
    return browser.client.open(address, method=method, data=form, headers=headers)


def form_of(browser: Browser) -> dict[str, str]:
    """What a form of ours sends: its token, good until the session is another, and a bit of everything."""
    page = browser.get("/account")
    text = page.text if page.status_code == 200 else browser.get("/sign-in").text
    return {"csrf_token": re.findall(r'name="csrf_token" value="([^"]+)"', text)[-1], **FORM}


def outcome(answer) -> object:
    """A status, or for a redirection the path that it leads to."""
    return urlsplit(answer.location).path if 300 <= answer.status_code < 400 else answer.status_code


def unlisted(app: Flask) -> set[tuple[str, str]]:
    return {(endpoint, method) for endpoint, method, _ in routes(app)} - TABLE.keys()


# The table


def test_every_route_of_the_application_is_in_the_table_and_no_other(room):
    assert unlisted(room.app) == set()
    assert TABLE.keys() <= {(endpoint, method) for endpoint, method, _ in routes(room.app)}


@pytest.mark.parametrize("who", PEOPLE)
def test_everybody_gets_from_every_route_what_the_table_says(room, house, who):
    got = {}
    for endpoint, method, address in routes(room.app):
        answer = asks(arrives(room, who), method, address.replace(NOBODYS_KEY, house))
        got[endpoint, method] = outcome(answer)

    assert got == {route: row[who] for route, row in TABLE.items()}


@pytest.mark.parametrize("who", [*OUTSIDERS, "admin", "stranger", "foreign arbiter", "foreign centre"])
def test_whom_the_table_keeps_out_sees_nothing_of_the_scan(room, who):
    for name in ("half", "disabled"):
        room.user(name)
    room.user("stranger", sites=["elsewhere"])
    room.user("admin", role=Role.ADMIN)
    for role in (Role.ARBITER, Role.CENTRE):
        room.user(f"foreign {role}", role=role, sites=["elsewhere"])
    flagged = Found("folder-canary/file-canary.png", score=0.9, patient="patient-canary")
    key = room.keys(room.night(flagged, pictures=True))[flagged.path]
    room.night(Found("reject-canary.txt", reason=Reason.EMPTY), root="/nights/other")
    browser = arrives(room, who)

    addresses = [(method, address.replace(NOBODYS_KEY, key)) for _, method, address in routes(room.app)]
    for method, address in [*addresses, ("GET", "/batches/2"), ("POST", "/batches/2")]:
        page = asks(browser, method, address)
        is_opening = who == "admin" and method == "POST" and address.startswith("/batches/")
        assert "-canary" not in page.text or is_opening, (method, address)
        if is_opening or address == "/sign-out":
            browser = arrives(room, who)


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_no_route_takes_a_method_that_it_was_not_given(room, house, who, method):
    browser = arrives(room, who)
    form = form_of(browser)

    for address in sorted({address.replace(NOBODYS_KEY, house) for _, _, address in routes(room.app)}):
        assert outcome(asks(browser, method, address, form)) in (DOOR, 401, 405, 400), (method, address)


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_asking_about_a_route_tells_no_more_than_asking_for_it(room, house, who, method):
    for endpoint, listed, address in routes(room.app):
        if listed != "GET":
            continue
        answer = asks(arrives(room, who), method, address.replace(NOBODYS_KEY, house))

        expected = TABLE[endpoint, "GET"][who]
        if method == "HEAD":
            assert (outcome(answer), answer.data) == (expected, b""), endpoint
        else:  # answered with the methods alone, by Flask, or by the guard
            assert (answer.status_code, answer.data) == (200, b"") or outcome(answer) in (DOOR, 401, 403), endpoint


# The record

# What tells nothing of a scan; what a page that is on record asks for by itself.
SILENT = {"static", "health", "auth.sign_in", "account.index", "codes.index", "batches.index", "batches.progress"}
SILENT |= {"review.heat", "review.model_input", "review.hold", "review.release"}


@pytest.mark.parametrize("who", ["reader", "arbiter", "centre", "opener"])
def test_whatever_somebody_is_shown_of_scans_is_on_record_under_their_name(room, house, who):
    unseen = set()
    for endpoint, method, address in routes(room.app):
        browser = arrives(room, who)
        before = count_events(room, who)
        answer = asks(browser, method, address.replace(NOBODYS_KEY, house))
        if answer.status_code == 200 and count_events(room, who) == before:
            unseen.add(endpoint)

    assert unseen <= SILENT


# Default deny


@pytest.fixture
def grown(room):
    """The application with two pages that somebody added and forgot to mark."""
    app = create_app(room.config)
    app.add_url_rule("/new", view_func=lambda: "in", endpoint="new")
    app.add_url_rule("/new", view_func=lambda: "in", endpoint="change", methods=["POST"])
    app.testing = False
    yield app
    app.extensions["nightread"].engine.dispose()


def test_a_route_that_is_not_listed_fails_the_test(grown):
    assert unlisted(grown) == {("new", "GET"), ("change", "POST")}


@pytest.mark.parametrize("who", PEOPLE)
def test_a_page_without_a_mark_lets_nobody_in(room, house, grown, who):
    browser = arrives(room, who)
    browser.client.application = grown

    for method in ("GET", "POST", "HEAD"):
        got = outcome(asks(browser, method, "/new"))
        assert got == (DOOR if who in OUTSIDERS else 403)


# Changes only from our own pages, for every route that changes something


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_every_change_sent_from_another_page_is_refused_even_with_its_token(room, house, headers):
    changes = [(method, address) for _, method, address in routes(room.app) if method not in SAFE_METHODS]
    events = count_events(room)

    for who in ("nobody", "half", "reader", "admin", "centre"):
        browser = arrives(room, who)
        events += who != "nobody"  # its session
        form = form_of(browser)
        for method, address in changes:
            assert asks(browser, method, address.replace(NOBODYS_KEY, house), form, **headers).status_code == 400, (
                address
            )

    assert len(changes) == sum(method not in SAFE_METHODS for _, method in TABLE)
    assert count_events(room) == events
    assert room.inside("reader").get("/").status_code == 200


def count_events(room, who: str = "") -> int:
    return sum(1 for event in audit.events(room.db) if who in ("", event["actor"]))


# Headers, for every route


@pytest.mark.parametrize("who", ["nobody", "half", "reader", "admin", "opener", "centre"])
def test_every_answer_of_every_route_is_kept_by_nobody_and_runs_nothing_foreign(room, house, who):
    tried = [(method, address.replace(NOBODYS_KEY, house)) for _, method, address in routes(room.app)]
    tried += [("GET", "/missing"), ("GET", f"/scan/{NOBODYS_KEY}"), ("PUT", "/account"), ("GET", "/?after=x")]

    for method, address in tried:
        headers = asks(arrives(room, who), method, address).headers

        if address.startswith("/static/"):
            assert "no-store" not in headers["Cache-Control"]
        else:
            assert headers["Cache-Control"] == "no-store", address
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "attachment" not in headers.get("Content-Disposition", "")
