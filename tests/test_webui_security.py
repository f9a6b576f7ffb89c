"""The reading room keeps its door: sessions, form tokens, other sites, hostile text, headers, the log."""

import logging
import re
import time
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reading_room import FOREIGN, NOBODYS_KEY, PASSWORD, Found, routes
from sqlalchemy import update

import webui
from db.schema import WebSession
from db.store.connection import now
from db.words import Role
from webui import create_app, limits
from webui.guard import is_loopback

PUBLIC = {
    "static",
    "health",
    "auth.sign_in",
    "auth.try_to_sign_in",
    "auth.code",
    "auth.try_code",
    "sso.begin",
    "sso.back",
}
# What changes something, or takes a patient's identifier that is to stand in no address.
CHANGING = {"auth.try_to_sign_in", "auth.try_code", "auth.sign_out"}
CHANGING |= {"account.change_password", "codes.begin", "codes.confirm", "batches.open_batch"}
CHANGING |= {"worklist.search", "review.give_verdict", "review.seen", "review.hold", "review.release"}
CHANGING |= {"cases.add", "cases.search", "cases.upload", "unscreened.acknowledge", "unscreened.send_again"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}\u202egnp \u2066"


# Signed out


def test_every_address_but_the_public_ones_is_refused_to_somebody_signed_out(room):
    room.user()
    room.one()
    visitor = room.visitor()
    token = visitor.token()

    tried = [(name, method, address) for name, method, address in routes(room.app) if name not in PUBLIC]
    for _, method, address in tried:
        answer = visitor.client.open(address, method=method, data={"csrf_token": token})

        is_sent_to_sign_in = answer.status_code == 303 and answer.location.startswith("/sign-in")
        assert is_sent_to_sign_in or answer.status_code == 401, (method, address)
    assert len(tried) >= 12


def test_an_address_that_does_not_exist_tells_nothing_to_somebody_signed_out(room):
    assert room.visitor().get("/no/such/page").location.startswith("/sign-in")


def test_signing_in_leads_to_the_page_that_was_asked_for(room):
    room.user()
    key = room.one()
    visitor = room.visitor()

    asked = visitor.get(f"/scan/{key}")
    answer = visitor.sign_in(next=f"/scan/{key}")

    assert asked.location == f"/sign-in?next=/scan/{key}"
    assert answer.location == f"/scan/{key}"


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "/\t/evil.example", "javascript:x", "/x"],
)
def test_signing_in_never_leads_elsewhere(room, elsewhere):
    room.user()

    assert room.visitor().sign_in(next=elsewhere).location == "/"


def test_a_verdict_sent_after_the_session_ended_is_not_passed_over_in_silence(room):
    room.user()
    key = room.one()
    browser = room.signed_in()
    token = browser.token(f"/scan/{key}")
    age_sessions(room, seen=timedelta(minutes=16))

    answer = browser.client.post(f"/scan/{key}", data={"csrf_token": token, "verdict": "confirm"})

    assert "lost=1" in answer.location
    assert "not saved" in browser.get(answer.location).text
    assert not room.events("reviewed")


# Signing in


def test_unknown_user_wrong_password_and_disabled_user_get_the_same_answer(room):
    room.user("known")
    visitor = room.visitor()

    wrong = visitor.sign_in("known", "not the password")
    unknown = visitor.sign_in("nobody", "not the password")

    assert (wrong.status_code, unknown.status_code) == (401, 401)
    assert stripped(wrong.text, "known") == stripped(unknown.text, "nobody")


def test_an_unknown_user_takes_as_long_as_a_wrong_password(room):
    room.user("known")
    visitor = room.visitor()
    visitor.sign_in("warm-up", "x")

    def cpu_seconds(name: str) -> float:
        started = time.process_time()
        visitor.sign_in(name, "not the password")
        return time.process_time() - started

    known = min(cpu_seconds("known") for _ in range(3))
    unknown = min(cpu_seconds("nobody") for _ in range(3))

    assert unknown == pytest.approx(known, rel=0.5)


def test_after_five_failures_an_account_waits_even_with_the_right_password(room):
    room.user()
    room.user("dr-b")
    visitor = room.visitor()

    answers = [visitor.sign_in(password=f"guess {n}").status_code for n in range(6)]
    right = visitor.sign_in()

    assert answers == [401] * 5 + [429]
    assert right.status_code == 429
    assert right.headers["Retry-After"] == "900"
    assert "Wait 15 minutes" in right.text
    assert visitor.sign_in("dr-b").status_code == 303


def test_an_account_that_does_not_exist_is_limited_alike(room):
    visitor = room.visitor()

    answers = [visitor.sign_in("nobody", f"guess {n}").status_code for n in range(6)]

    assert answers == [401] * 5 + [429]


def test_twenty_failures_from_one_address_stop_it_for_every_account(room):
    room.user()
    for n in range(limits.ADDRESS_FAILURES):
        limits.note_failure(room.db, f"user {n}", "127.0.0.1")

    assert room.visitor().sign_in().status_code == 429


def test_a_new_password_from_an_admin_ends_the_wait(room):
    from db.store import people
    from webui import passwords

    room.user()
    for _ in range(limits.ACCOUNT_FAILURES):
        limits.note_failure(room.db, "dr-a", "10.9.9.9")
    refused = room.visitor().sign_in().status_code

    user = people.user_named(room.db, "dr-a")
    people.set_password(room.db, user.id, passwords.hash_password("entirely new words"), by="admin")

    assert refused == 429
    assert room.visitor().sign_in(password="entirely new words").status_code == 303


def test_signing_in_starts_the_count_of_an_account_anew(room):
    room.user()
    visitor = room.visitor()

    for _ in range(2):
        slips = [visitor.sign_in(password="a slip").status_code for _ in range(4)]
        right = visitor.sign_in().status_code
        visitor.post("/sign-out", page="/")

        assert (slips, right) == ([401] * 4, 303)


def test_what_was_typed_into_the_name_field_is_not_kept_in_the_clear(room):
    room.visitor().sign_in("my secret password by mistake", "x")

    said = [f"{event.actor} {event.object} {event.detail}" for event in room.events("sign_in_failed")]
    assert len(said) == 2
    assert not any("secret" in text for text in said)


@pytest.mark.parametrize("name", ["", "\x00", "a\x00b", "x" * 5000, HOSTILE, "' OR 1=1 --"])
def test_odd_names_are_only_wrong(room, name):
    answer = room.visitor().sign_in(name)

    assert answer.status_code == 401
    assert_no_markup_from_outside(answer.text)


# Sessions


def age_sessions(room, *, seen: timedelta = timedelta(0), created: timedelta = timedelta(0)) -> None:
    with room.db.writing() as session:
        moments = {"seen_at": now() - seen, "created_at": now() - created}
        session.execute(update(WebSession).values(moments))


def test_a_session_ends_after_fifteen_idle_minutes(room):
    room.user()
    browser = room.signed_in()

    age_sessions(room, seen=timedelta(minutes=14))
    still_in = browser.get("/").status_code
    age_sessions(room, seen=timedelta(minutes=16))

    assert (still_in, browser.get("/").status_code) == (200, 303)


def test_a_session_ends_after_twelve_hours_however_busy(room):
    room.user()
    browser = room.signed_in()

    age_sessions(room, created=timedelta(hours=12, minutes=1))

    assert browser.get("/").status_code == 303


def test_a_page_that_polls_does_not_keep_a_session_alive(room):
    room.user()
    browser = room.signed_in()

    age_sessions(room, seen=timedelta(minutes=10))
    browser.get("/batches/progress.json")
    with room.db.reading() as session:
        after_polling = session.query(WebSession.seen_at).scalar()
    browser.get("/")
    with room.db.reading() as session:
        after_reading = session.query(WebSession.seen_at).scalar()

    assert now() - after_polling > timedelta(minutes=9)
    assert now() - after_reading < timedelta(minutes=1)


def test_signing_in_never_adopts_a_token_that_was_there_before(room):
    room.user()
    visitor = room.visitor()
    visitor.client.set_cookie("nightread", "planted")

    visitor.sign_in()
    first = visitor.cookie()
    visitor.client.post("/sign-in", data={"csrf_token": visitor.token("/"), "name": "dr-a", "password": PASSWORD})

    assert first not in (None, "planted", visitor.cookie())
    thief = room.visitor()
    thief.client.set_cookie("nightread", first)
    assert thief.get("/").status_code == 303


def test_the_form_token_changes_with_signing_in(room):
    room.user()
    visitor = room.visitor()
    before = visitor.token()
    visitor.sign_in()

    answer = visitor.client.post("/sign-out", data={"csrf_token": before})

    assert answer.status_code == 400


def test_signing_out_ends_the_session_on_the_server(room):
    room.user()
    browser = room.signed_in()
    token = browser.cookie()

    browser.post("/sign-out", page="/")

    assert browser.cookie() is None
    thief = room.visitor()
    thief.client.set_cookie("nightread", token)
    assert thief.get("/").status_code == 303


def test_only_the_hash_of_a_token_is_kept(room):
    room.user()
    browser = room.signed_in()

    with room.db.reading() as session:
        kept = session.query(WebSession.token_sha256).scalar()

    assert len(browser.cookie()) >= 43
    assert browser.cookie() != kept


def test_cookies_are_out_of_reach_of_scripts_and_other_sites(room):
    room.user()
    visitor = room.visitor()

    cookies = visitor.get("/sign-in").headers.getlist("Set-Cookie") + visitor.sign_in().headers.getlist("Set-Cookie")

    assert len(cookies) >= 2
    for cookie in cookies:
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie


def test_behind_tls_cookies_are_secure_and_bound_to_the_host(room):
    room.user()
    app = create_app(room.config.model_copy(update={"web_https": True}))
    client = app.test_client()

    page = client.get("/sign-in", base_url="https://localhost")
    token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)[1]
    form = {"csrf_token": token, "name": "dr-a", "password": PASSWORD}
    answer = client.post("/sign-in", base_url="https://localhost", data=form)

    cookies = page.headers.getlist("Set-Cookie") + answer.headers.getlist("Set-Cookie")
    assert answer.status_code == 303
    assert len(cookies) >= 2
    for cookie in cookies:
        assert cookie.startswith("__Host-nightread")
        assert "; Secure" in cookie
        assert "; Path=/" in cookie
    assert "max-age" in answer.headers["Strict-Transport-Security"]
    app.extensions["nightread"].engine.dispose()


# Changes only from our own pages


def test_every_change_without_its_token_is_refused(room):
    room.user()
    room.user("boss", role=Role.ADMIN)
    key = room.one()
    reader, admin = room.inside(), room.inside("boss")

    tried = [
        (name, address.replace(NOBODYS_KEY, key)) for name, method, address in routes(room.app) if method == "POST"
    ]
    form = {"verdict": "confirm", "name": "dr-a", "password": PASSWORD, "reason": "a reason that is long enough"}
    for name, address in tried:
        browser = admin if name == "batches.open_batch" else reader
        answer = browser.client.post(address, data=form)
        assert answer.status_code == 400, address
        assert "The form was too old" in answer.text
    assert {name for name, _ in tried} == CHANGING
    assert not room.events("reviewed")
    assert not room.events("opened")
    assert reader.get("/").status_code == 200


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_change_sent_from_another_page_is_refused_even_with_its_token(room, headers):
    room.user()
    key = room.one()
    browser = room.signed_in()
    form = {"csrf_token": browser.token(f"/scan/{key}"), "verdict": "confirm"}

    assert browser.client.post(f"/scan/{key}", data=form, headers=headers).status_code == 400
    assert not room.events("reviewed")


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "same-origin", "Origin": "null"}, {"Origin": "http://localhost"}]
)
def test_a_change_sent_from_our_own_page_goes_through(room, headers):
    room.user()
    key = room.one()
    browser = room.signed_in()
    form = {"csrf_token": browser.token(f"/scan/{key}"), "verdict": "confirm"}

    assert browser.client.post(f"/scan/{key}", data=form, headers=headers).status_code == 303


def test_nothing_changes_by_asking(room):
    assert {name for name, method, _ in routes(room.app) if method != "GET"} == CHANGING
    assert {method for _, method, _ in routes(room.app)} == {"GET", "POST"}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8470", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_a_local_server_answers_to_no_other_name(room, host):
    answer = room.visitor().client.get("/sign-in", headers={"Host": host})

    assert answer.status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.8.8.8"])
def test_loopback_names(host):
    assert is_loopback(host)


# Other sites, other roles


def test_another_sites_scans_and_batches_do_not_exist(room):
    room.user(sites=["north"])
    batch = room.night(Found(score=0.9), site="south", pictures=True)
    key = room.keys(batch)["night/one.png"]
    browser = room.signed_in()

    for address in (f"/scan/{key}", f"/scan/{key}/image.png", f"/scan/{key}/heat.png", f"/scan/{key}/next"):
        assert browser.get(address).status_code == 404, address
    assert browser.get(f"/batches/{batch}").status_code == 404
    assert browser.post(f"/scan/{key}", page="/account", verdict="confirm").status_code == 404
    assert browser.get("/batches/progress.json?batch=1").json == {"batches": [], "newest": None, "workers": 0}
    assert not room.events("viewed")
    assert not room.events("viewed_image")


def test_a_made_up_scan_looks_like_another_sites(room):
    room.user(sites=["north"])
    batch = room.night(Found(score=0.9), site="south", pictures=True)
    key = room.keys(batch)["night/one.png"]
    browser = room.signed_in()

    theirs, made_up = browser.get(f"/scan/{key}").text, browser.get(f"/scan/{NOBODYS_KEY}").text
    assert stripped(theirs, "") == stripped(made_up, "")


@pytest.mark.parametrize(
    "key", ["..%2f..%2fnightread.db", "../../web.secret", "%2e%2e", "A" * 32, "0" * 31, "0" * 33, "0" * 32 + "%00"]
)
def test_only_keys_address_pictures(room, key):
    room.user()

    answer = room.signed_in().get(f"/scan/{key}/image.png")

    assert answer.status_code == 404


def test_an_admin_lands_on_batches_and_a_reader_on_the_list(room):
    room.user()
    room.user("boss", role=Role.ADMIN)

    assert room.visitor().sign_in("dr-a").location == "/"
    assert room.visitor().sign_in("boss").location == "/batches"


# Hostile text


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def assert_no_markup_from_outside(page: str) -> None:
    for tag, attributes in Tags(page).tags:
        assert tag != "script" or attributes.keys() == {"src", "type"}
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert attributes.get("src", "").startswith(("/static/", "/scan/")) or "src" not in attributes
    assert "49" not in re.findall(r"onerror=alert\(2\)&gt;(.{2})", page)
    assert "\u202e" not in page
    assert "\u2066" not in page


def test_markup_in_paths_patients_notes_and_names_shows_as_text_everywhere(room):
    room.user(HOSTILE[:60], sites=["local"])
    room.site(HOSTILE[:90])
    key = room.one(path=f"{HOSTILE}/\udcff\n.png", patient=HOSTILE + "x" * 100)
    room.night(Found(f"bad {HOSTILE}", score=0.8), root=f"/nights/{HOSTILE}")
    browser = room.signed_in(HOSTILE[:60])
    browser.post(f"/scan/{key}", verdict="unsure", note=HOSTILE + "\n" + HOSTILE)

    pages = ("/", f"/scan/{key}", "/batches", "/batches/1", "/batches/2", "/account")
    for address in (*pages, "/cases?show=all", f"/cases/{key}"):
        page = browser.get(address)
        assert page.status_code == 200, address
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text, address
        assert_no_markup_from_outside(page.text)
    assert "{{7*7}}\\u202egnp" in browser.get(f"/scan/{key}").text


# Headers


def test_every_answer_carries_a_policy_without_loopholes(room):
    room.user()
    key = room.one()
    browser = room.signed_in()

    tried = [address.replace(NOBODYS_KEY, key) for _, method, address in routes(room.app) if method == "GET"]
    for address in [*tried, "/missing"]:
        headers = browser.get(address).headers
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["img-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        if not address.startswith("/static/"):
            assert headers["Cache-Control"] == "no-store", address


def test_templates_and_script_hold_nothing_that_the_policy_would_block():
    folder = Path(webui.__file__).parent
    templates = sorted((folder / "templates").glob("*.html"))

    for template in templates:
        source = template.read_text()
        assert not re.search(r"\sstyle\s*=|\son\w+\s*=|<style|javascript:|\|\s*safe\b|autoescape|https?://", source), (
            template
        )
        assert not re.search(r"<script(?![^>]*\bsrc=)", source), template
        assert source.count('method="post"') == source.count("csrf_token()") + source.count("parts.token()") or (
            template.name == "_parts.html"
        ), template
    script = (folder / "static" / "nightread.js").read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|https?://", script
    )
    style = (folder / "static" / "nightread.css").read_text()
    assert not re.search(r"@import|url\(", style)
    assert len(templates) >= 8


# Errors and the log


def test_an_error_page_gives_nothing_away(room, caplog):
    room.user()
    key = room.one(patient="CANARY")
    browser = room.signed_in()
    with room.db.writing() as session:
        session.connection().exec_driver_sql("ALTER TABLE outcomes RENAME TO broken")

    answer = browser.get(f"/scan/{key}")

    assert answer.status_code in (500, 503)
    assert "Traceback" not in answer.text
    assert "outcomes" not in answer.text


def test_a_database_that_does_not_answer_is_a_503_for_the_health_check(room):
    config = room.config.model_copy(update={"database_url": "sqlite:////nonexistent/night.db"})

    answer = create_app(config).test_client().get("/health")

    assert answer.status_code == 503
    assert "Nothing is lost" in answer.text
    assert room.visitor().get("/health").text == "ok\n"


def test_the_log_names_routes_and_never_keys_patients_or_users(room, caplog):
    room.user("dr-canary")
    key = room.one(path="canary-path.png", patient="canary-patient")
    browser = room.signed_in("dr-canary")

    with caplog.at_level(logging.DEBUG):
        browser.get(f"/scan/{key}")
        browser.post(f"/scan/{key}", verdict="confirm", note="canary-note")
        browser.get(f"/scan/{key}x")
        with room.db.writing() as session:
            session.connection().exec_driver_sql("ALTER TABLE reviews RENAME TO broken")
        browser.get(f"/scan/{key}")

    assert "GET /scan/<key:key> 200" in caplog.text
    assert "POST /scan/<key:key> 303" in caplog.text
    assert "canary" not in caplog.text
    assert key not in caplog.text


def test_too_large_a_form_is_refused_before_it_is_read(room):
    room.user()
    key = room.one()
    browser = room.signed_in()

    answer = browser.post(f"/scan/{key}", verdict="confirm", note="x" * 300_000)

    assert answer.status_code == 413
    assert not room.events("reviewed")


def stripped(page: str, name: str) -> str:
    """A page without what differs each time: its token, and the name that was typed."""
    return re.sub(r'name="csrf_token" value="[^"]+"', "", page).replace(f'value="{name}"', "")
