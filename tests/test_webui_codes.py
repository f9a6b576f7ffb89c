"""One-time passwords: enrolled by their user, asked for at sign-in, good once, limited like passwords, taken off on
record."""

import hashlib
import json
import re
import time
from datetime import timedelta

import pyotp
import pytest
from click.testing import CliRunner
from reading_room import PASSWORD, Browser, ReadingRoom
from sqlalchemy import select, update

from db.schema import Authenticator, RecoveryCode, WebSession
from db.store import codes, people
from db.store.connection import now
from db.words import Role
from producer.cli import group
from webui import create_app, limits, totp


def enrols(browser: Browser, **fields: str) -> tuple[pyotp.TOTP, list[str]]:
    """Somebody signed in enrols an app as the page says; the app and the recovery codes."""
    page = browser.post("/account/codes", password=PASSWORD, **fields).text
    app = pyotp.TOTP(re.search(r'<code id="secret">([^<]+)</code>', page)[1].replace(" ", ""))
    done = browser.post("/account/codes/confirm", page="/account/codes", code=app.now()).text
    return app, re.findall(r"<li><code>([a-z2-9-]+)</code></li>", done)


def half_in(room: ReadingRoom, name: str = "dr-a", **fields: str) -> Browser:
    """Somebody whose password was right."""
    browser = room.visitor()
    assert browser.sign_in(name, **fields).location.startswith("/sign-in/code")
    return browser


def says(browser: Browser, code: str, **fields: str):
    return browser.post("/sign-in/code", code=code, **fields)


def wait_for_next(app: pyotp.TOTP, spent: str) -> str:
    """The next code that is not `spent`, without waiting: a step ahead, as a fast phone's clock may be."""
    return next(code for code in (app.now(), app.at(time.time() + totp.SECONDS)) if code != spent)


# The codes themselves


RFC_6238 = {59: "94287082", 1111111109: "07081804", 1111111111: "14050471", 1234567890: "89005924"}


@pytest.mark.parametrize(("at", "eight"), RFC_6238.items())
def test_codes_are_those_of_the_standard(at, eight):
    app = pyotp.TOTP(pyotp.TOTP("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").secret)  # RFC 6238, appendix B

    assert totp.step_of(app, eight[-6:], at=at) == at // 30
    assert totp.step_of(app, eight[-6:], at=at + 30) == at // 30
    assert totp.step_of(app, eight[-6:], at=at + 90) is None
    assert totp.step_of(app, eight[:6], at=at) is None


def test_a_secret_is_made_of_the_webs_key_and_is_not_in_the_database(room):
    room.user()
    app, _ = enrols(room.inside())

    with room.db.reading() as session:
        nonce = session.scalar(select(Authenticator.nonce))
    assert len(app.byte_secret()) == 20
    assert totp.app_for(room.app.secret_key, nonce).secret == app.secret
    assert totp.app_for(b"another key", nonce).secret != app.secret
    assert totp.app_for(room.app.secret_key, totp.new_nonce()).secret != app.secret
    assert app.secret.encode() not in (room.config.home / "nightread.db").read_bytes()


@pytest.mark.parametrize("typed", ["123 456", "123-456", " 123456\n", "123456"])
def test_a_code_may_be_typed_as_it_is_shown(typed):
    assert totp.tidy(typed) == "123456"


@pytest.mark.parametrize("typed", ["", "١٢٣٤٥٦", "12345", "1234567", "\0" * 9, "x" * 9999, "１２３４５６"])
def test_what_is_no_code_is_only_wrong(room, typed):
    room.user()
    app = room.app_of()

    assert totp.step_of(app, totp.tidy(typed)) is None
    assert says(half_in(room), typed).status_code == 401


# Enrolling


def test_a_user_enrols_an_app_and_sign_in_asks_for_its_code(room):
    room.user()
    browser = room.inside()
    assert "Off: a password alone signs you in." in browser.get("/account").text

    app, _ = enrols(browser)
    visitor = half_in(room)
    inside_too_early = visitor.get("/").status_code
    answer = says(visitor, wait_for_next(app, spent=app.now()))

    assert "On: sign-in asks for a code" in browser.get("/account").text
    assert inside_too_early == 303
    assert answer.location == "/"
    assert visitor.get("/").status_code == 200


def test_the_secret_is_shown_once_as_text_and_as_address(room):
    room.user("Dr. Ähm <b>")
    browser = room.inside("Dr. Ähm <b>")

    first = browser.post("/account/codes", password=PASSWORD).text
    wrong = browser.post("/account/codes/confirm", page="/account", code="000000")

    secret = re.search(r'<code id="secret">([^<]+)</code>', first)[1].replace(" ", "")
    address = re.search(r'<code id="address">([^<]+)</code>', first)[1].replace("&amp;", "&")
    read = pyotp.parse_uri(address)
    assert (read.secret, read.name, read.issuer) == (secret, "Dr. Ähm <b>", "nightread")
    assert wrong.status_code == 400
    for page in (wrong.text, browser.get("/account/codes").text, browser.get("/account").text):
        assert secret not in page.replace(" ", "")


def test_an_app_counts_only_from_its_first_code_on(room):
    room.user()
    browser = room.inside()

    browser.post("/account/codes", password=PASSWORD)
    browser.post("/account/codes/confirm", page="/account", code="000000")

    assert room.visitor().sign_in().location == "/"
    assert not room.events("codes_confirmed")


def test_enrolling_asks_for_the_password_again_and_counts_wrong_ones(room):
    room.user()
    browser = room.inside()

    answers = [browser.post("/account/codes", page="/account", password="a guess") for _ in range(6)]
    right = browser.post("/account/codes", page="/account", password=PASSWORD)

    assert [answer.status_code for answer in answers] == [400] * 6
    assert "Too many wrong passwords" in answers[5].text
    assert 'id="secret"' not in right.text


def test_confirming_without_having_begun_leads_back(room):
    room.user()

    assert room.inside().post("/account/codes/confirm", page="/account", code="000000").location == "/account/codes"


def test_an_app_is_replaced_only_with_a_code_of_the_present_one(room):
    room.user()
    browser = room.inside()
    old, recovery = enrols(browser)

    refused = browser.post("/account/codes", page="/account/codes", password=PASSWORD, code="000000")
    new, fresh = enrols(browser, code=recovery[0])

    assert refused.status_code == 400
    assert "The code of the present app is not right" in refused.text
    assert says(half_in(room), wait_for_next(old, spent=old.now())).status_code == 401
    assert says(half_in(room), wait_for_next(new, spent=new.now())).status_code == 303
    assert says(half_in(room), recovery[1]).status_code == 401
    assert says(half_in(room), fresh[0]).status_code == 303


# The second step


def test_between_password_and_code_nothing_opens(room):
    room.user()
    room.app_of()
    key = room.one()
    visitor = half_in(room)

    for address in ("/", f"/scan/{key}", f"/batches/{1}", "/account", "/account/codes"):
        assert visitor.get(address).location.startswith("/sign-in")
    assert visitor.get(f"/scan/{key}/image.png").status_code == 401
    assert [event.action for event in room.events("signed_in")] == []
    assert [event.object for event in room.events("password_accepted")] == ["user 1"]


def test_a_code_is_good_once(room):
    room.user()
    app = room.app_of()
    code = app.now()

    first, again = says(half_in(room), code), says(half_in(room), code)

    assert (first.status_code, again.status_code) == (303, 401)


def test_an_earlier_code_is_void_once_a_later_one_was_used(room):
    room.user()
    app = room.app_of()
    moment = time.time()

    later = says(half_in(room), app.at(moment + totp.SECONDS))
    earlier = says(half_in(room), app.at(moment))

    assert (later.status_code, earlier.status_code) == (303, 401)


def test_the_code_that_confirmed_an_app_does_not_sign_in(room):
    room.user()
    browser = room.inside()
    page = browser.post("/account/codes", password=PASSWORD).text
    app = pyotp.TOTP(re.search(r'<code id="secret">([^<]+)</code>', page)[1].replace(" ", ""))
    code = app.now()
    browser.post("/account/codes/confirm", page="/account", code=code)

    assert says(half_in(room), code).status_code == 401


def test_five_wrong_codes_make_the_account_wait_even_with_password_and_code(room):
    room.user()
    app = room.app_of()
    visitor = half_in(room)

    guesses = [says(visitor, "000000").status_code for _ in range(6)]
    right = says(visitor, app.now())
    anew = room.visitor().sign_in()

    assert guesses == [401] * 5 + [429]
    assert (right.status_code, right.headers["Retry-After"]) == (429, "900")
    assert anew.status_code == 429
    assert len(room.events("code_refused")) == 5


def test_a_right_password_does_not_start_the_count_of_wrong_codes_anew(room):
    room.user()
    room.app_of()

    guesses = [says(half_in(room), "000000").status_code for _ in range(limits.ACCOUNT_FAILURES)]

    assert guesses == [401] * 5
    assert room.visitor().sign_in().status_code == 429


def test_the_second_step_waits_five_minutes(room):
    room.user()
    app = room.app_of()
    visitor = half_in(room)
    token = visitor.token("/sign-in/code")
    with room.db.writing() as session:
        past = now() - timedelta(minutes=5, seconds=1)
        session.execute(update(WebSession).values(created_at=past, seen_at=past))

    answer = visitor.client.post("/sign-in/code", data={"csrf_token": token, "code": app.now()})

    assert answer.location == "/sign-in"
    assert not room.events("signed_in")


def test_the_session_is_another_after_the_code_and_the_one_before_is_void(room):
    room.user()
    app = room.app_of()
    visitor = half_in(room)
    before = visitor.cookie()

    says(visitor, app.now())

    thief = room.visitor()
    thief.client.set_cookie("nightread", before)
    assert visitor.cookie() != before
    assert thief.get("/").status_code == 303
    assert thief.get("/sign-in/code").location == "/sign-in"


@pytest.mark.parametrize("ends", ["password", "disabled"])
def test_a_half_done_sign_in_ends_with_a_new_password_or_a_disabled_account(room, ends):
    room.user()
    room.app_of()
    visitor = half_in(room)
    user = people.user_named(room.db, "dr-a")

    if ends == "password":
        people.set_password(room.db, user.id, "new hash", by="admin")
    else:
        people.disable_user(room.db, user.id, by="admin")

    assert visitor.get("/sign-in/code").location == "/sign-in"


def test_signing_in_by_code_leads_to_the_page_that_was_asked_for_and_never_elsewhere(room):
    room.user()
    key, app = room.one(), room.app_of()
    visitor = half_in(room, next=f"/scan/{key}")
    moment = time.time()

    wrong = says(visitor, "000000", next=f"/scan/{key}")
    right = says(visitor, app.at(moment), next=f"/scan/{key}")
    elsewhere = says(half_in(room), app.at(moment + totp.SECONDS), next="//evil.example/")

    assert f'name="next" value="/scan/{key}"' in wrong.text
    assert right.location == f"/scan/{key}"
    assert elsewhere.location == "/"


def test_nobody_gets_a_second_step_without_the_first(room):
    room.user()
    app = room.app_of()
    visitor = room.visitor()
    token = visitor.token()

    assert visitor.get("/sign-in/code").location == "/sign-in"
    posted = visitor.client.post("/sign-in/code", data={"csrf_token": token, "code": app.now()})
    assert posted.location == "/sign-in"


# Recovery


def test_ten_recovery_codes_are_shown_once_kept_as_hashes_and_good_once_each(room):
    room.user()
    browser = room.inside()
    _, recovery = enrols(browser)

    first = says(half_in(room), recovery[3].upper().replace("-", " "))
    again = says(half_in(room), recovery[3])
    page = browser.get("/account/codes").text

    with room.db.reading() as session:
        kept = session.scalars(select(RecoveryCode.code_sha256)).all()
    assert len(set(recovery)) == 10
    assert hashlib.sha256(recovery[0].replace("-", "").encode()).hexdigest() in kept
    assert (first.status_code, again.status_code) == (303, 401)
    assert "9 recovery codes are left" in page
    assert not any(code in page for code in recovery)
    assert len(room.events("recovery_code_used")) == 1


def test_a_reset_takes_the_app_off_on_record(home, room):
    room.user()
    room.app_of()

    told = json.loads(CliRunner().invoke(group, ["user", "reset", "dr-a", "--json"], standalone_mode=False).stdout)
    again = json.loads(CliRunner().invoke(group, ["user", "reset", "dr-a", "--json"], standalone_mode=False).stdout)

    assert (told["codes_removed"], again["codes_removed"]) == (True, False)
    assert room.visitor().sign_in(password=again["password"]).location == "/"
    (event,) = room.events("codes_removed")
    assert event.object == "user 1"
    assert event.actor.endswith("at the command line")


def test_who_has_codes_is_listed(home, room):
    room.user()
    room.user("dr-b")
    room.app_of("dr-b")

    listed = json.loads(CliRunner().invoke(group, ["user", "list", "--json"], standalone_mode=False).stdout)

    assert {each["user"]: each["codes"] for each in listed} == {"dr-a": False, "dr-b": True}


# Compulsory


@pytest.fixture
def strict(room):
    """A reading room where everybody must enrol."""
    app = create_app(room.config.model_copy(update={"require_totp": True}))
    app.testing = False
    room.app.extensions["nightread"].engine.dispose()
    room.app = app
    return room


@pytest.mark.parametrize("role", list(Role))
def test_where_codes_are_compulsory_nobody_gets_further_than_to_enrol(strict, role):
    strict.user(role=role)
    key = strict.one()
    browser = strict.signed_in()

    for address in ("/", "/batches", "/batches/1", "/account"):
        assert browser.get(address).location == "/account/codes", address
    opened = browser.get(f"/scan/{key}")
    assert opened.status_code == 403 if role == Role.CENTRE else opened.location == "/account/codes"
    assert browser.get(f"/scan/{key}/image.png").status_code == 403
    assert browser.get("/batches/progress.json").status_code == 403
    posted = browser.post(f"/scan/{key}", page="/account/codes", verdict="confirm")
    may_not = (Role.ADMIN, Role.CENTRE)
    assert posted.status_code == 403 if role in may_not else posted.location == "/account/codes"
    assert not strict.events("reviewed")

    enrols(browser)

    assert browser.get("/batches").status_code == 200


def test_where_codes_are_compulsory_one_may_still_sign_out(strict):
    strict.user()
    browser = strict.signed_in()

    assert browser.post("/sign-out", page="/account/codes").location == "/sign-in"


# The store, on either database


def test_a_step_and_a_recovery_code_are_spent_once_on_either_database(db):
    people.add_user(db, "rosa", role=Role.READER, password_hash="hash", site_ids=set(), by="test")
    user = people.user_named(db, "rosa")
    codes.begin(db, user.id, "n" * 32, by="rosa")
    codes.begin(db, user.id, "m" * 32, by="rosa")
    begun = codes.begun(db, user.id)

    assert (begun.nonce, codes.enrolled(db, user.id)) == ("m" * 32, None)
    assert codes.confirm(db, begun, step=100, recovery_sha256=["a" * 64, "b" * 64], by="rosa")
    assert not codes.confirm(db, begun, step=100, recovery_sha256=[], by="rosa")
    app = codes.enrolled(db, user.id)
    assert [codes.spend_step(db, app, step) for step in (99, 100, 102, 101, 102, 103)] == [
        False,
        False,
        True,
        False,
        False,
        True,
    ]
    assert [codes.spend_recovery(db, app, "a" * 64, by="rosa") for _ in range(2)] == [True, False]
    assert codes.enrolled(db, user.id).recovery_left == 1
    assert people.user_named(db, "rosa").has_codes
    assert codes.remove_all(db, user.id, by="admin")
    assert not codes.spend_step(db, app, 200)
    assert not people.user_named(db, "rosa").has_codes
