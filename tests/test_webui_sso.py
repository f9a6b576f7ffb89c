"""Single sign-on, at a provider of our own: who is linked comes in; what is not right is one sentence, on record."""

import json
import logging
import time
from dataclasses import dataclass
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit
from urllib.request import HTTPRedirectHandler, build_opener

import pytest
from click.testing import CliRunner
from identity_provider import ACCESS, CLIENT, SECRET, Provider, serving
from joserfc.jwk import OctKey, RSAKey
from reading_room import PASSWORD, Browser, ReadingRoom

from db.errors import Refused
from db.settings import Settings, settings
from db.store import links, people
from db.words import Role
from producer.cli import group
from webui import openid
from webui.serve import insist_on_sign_on

UNTRUSTED = "The identity provider&#39;s answer cannot be trusted."
NOT_LINKED = "That account opens nothing here."
STALE = "That sign-in was not begun here, or too long ago."


@dataclass
class Ward:
    """A reading room with an identity provider, and a browser at its door."""

    room: ReadingRoom
    provider: Provider
    browser: Browser

    def link(self, name="dr-a", subject="sub-17") -> int:
        user = people.user_named(self.room.db, name).id
        links.link(self.room.db, user, issuer=self.provider.issuer, subject=subject, by="test")
        return user

    def begin(self, address="/sign-in/sso") -> str:
        """Where the browser is sent; the provider's page."""
        return self.browser.get(address).location

    def at_provider(self, page: str) -> str:
        """Our address, with code and state, that the provider sends the browser back to."""
        back = urlsplit(_where_to(page))
        return f"{back.path}?{back.query}"

    def sign_on(self, address="/sign-in/sso"):
        return self.browser.get(self.at_provider(self.begin(address)))


class _Stay(HTTPRedirectHandler):
    def http_error_303(self, *answer):
        return SimpleNamespace(headers=answer[-1])


def _where_to(page: str) -> str:
    return build_opener(_Stay).open(page, timeout=10).headers["Location"]


@pytest.fixture(scope="module")
def key():
    return RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})


@pytest.fixture
def ward(home):
    with serving() as provider:
        yield from _ward(home, provider)


def _ward(home, provider, **update):
    openid._providers.clear()
    known = {"oidc_issuer": provider.issuer, "oidc_client_id": CLIENT, "oidc_label": "ward account"}
    config = home.model_copy(update=known | {"oidc_client_secret": type(home.web_secret)(SECRET)} | update)
    room = ReadingRoom(config)
    room.user("dr-a")
    yield Ward(room, provider, room.visitor())
    room.close()


@pytest.fixture
def strict_ward(home):
    """One that asks everybody for a second factor."""
    with serving() as provider:
        yield from _ward(home, provider, require_totp=True)


def refused(answer, sentence, status=401):
    assert answer.status_code == status
    assert sentence in answer.text
    assert 'name="password"' in answer.text  # the other way in is still there
    return answer


# In


def test_who_is_linked_comes_in_and_it_is_on_record(ward):
    user = ward.link()

    answer = ward.sign_on()

    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0; url=/">' in answer.text
    assert ward.browser.get("/").status_code == 200
    signed_in = ward.room.events("signed_in")
    assert [(event.actor, event.object, event.detail) for event in signed_in] == [
        ("dr-a", f"user {user}", {"sso": True})
    ]
    assert ward.browser.client.get_cookie("nightread_sso") is None


def test_the_way_leads_through_a_link_with_state_nonce_and_challenge_and_no_secret(ward):
    door = ward.browser.get("/sign-in").text
    assert '<a class="button primary wide" href="/sign-in/sso">Sign in with your ward account</a>' in door

    page = ward.begin()
    asked = {name: values[0] for name, values in parse_qs(urlsplit(page).query).items()}

    assert page.startswith(f"{ward.provider.issuer}/authorize?")
    assert asked["response_type"] == "code"
    assert (asked["client_id"], asked["scope"], asked["code_challenge_method"]) == (CLIENT, "openid", "S256")
    assert asked["redirect_uri"] == "http://localhost/sign-in/sso/back"
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43
    assert SECRET not in page
    again = {name: values[0] for name, values in parse_qs(urlsplit(ward.begin()).query).items()}
    assert all(again[name] != asked[name] for name in ("state", "nonce", "code_challenge"))


def test_the_cookie_comes_along_from_another_site_and_the_session_s_does_not(ward):
    ward.link()

    begun = ward.browser.get("/sign-in/sso").headers["Set-Cookie"]
    back = ward.sign_on().headers.getlist("Set-Cookie")

    assert "HttpOnly" in begun
    assert "SameSite=Lax" in begun
    session = next(cookie for cookie in back if cookie.startswith("nightread="))
    assert "SameSite=Strict" in session


def test_behind_tls_the_cookie_is_for_this_host_over_https_alone(home):
    with serving() as provider:
        for ward in _ward(home, provider, web_https=True):
            begun = ward.browser.client.get("/sign-in/sso", base_url="https://localhost").headers["Set-Cookie"]

    assert begun.startswith("__Host-nightread_sso=")
    assert "Secure" in begun


def test_somebody_goes_on_to_the_page_that_they_asked_for_and_to_no_other_host(ward):
    ward.link()

    assert 'url=/account"' in ward.sign_on("/sign-in/sso?next=/account").text
    for foreign in ("https://evil.example/", "//evil.example", "/nowhere"):
        assert 'url=/"' in ward.sign_on(f"/sign-in/sso?next={foreign}").text


def test_what_the_provider_gives_us_is_kept_nowhere(ward):
    ward.link()

    answer = ward.sign_on()

    words = [ACCESS, SECRET, *(part for token in ward.provider.given for part in token.split(".")[1:])]
    assert len(words) == 4
    assert not any(word in answer.text + str(answer.headers) for word in words)
    held = b"".join(file.read_bytes() for file in ward.room.config.home.rglob("*") if file.is_file())
    assert not any(word.encode() in held for word in words)


def test_an_admin_goes_to_the_batches(ward):
    ward.room.user("boss", role=Role.ADMIN)
    ward.link("boss")

    assert 'url=/batches"' in ward.sign_on().text


def test_a_new_key_of_the_provider_is_fetched(ward):
    ward.link()
    assert ward.sign_on().status_code == 200
    ward.provider.key = ward.provider.signs_with = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"})

    assert ward.sign_on().status_code == 200


# The second factor


@pytest.mark.parametrize(
    ("amr", "is_second"),
    [
        (["pwd", "mfa"], True),
        (["pwd", "otp"], True),
        (["face", "hwk"], True),
        (["pwd"], False),
        (["otp", "sms"], False),
        ([], False),
        ([7, None], False),
    ],
)
def test_a_second_factor_is_another_kind_of_proof(amr, is_second):
    assert openid.has_second_factor(amr) is is_second


def test_an_app_s_code_is_not_asked_for_where_the_provider_signed_in(ward):
    ward.room.app_of("dr-a")
    ward.link()

    assert 'url=/"' in ward.sign_on().text
    assert ward.browser.get("/").status_code == 200


def test_where_a_second_factor_is_required_the_provider_may_vouch_for_it(strict_ward):
    strict_ward.link()
    strict_ward.provider.claims = lambda claims: claims | {"amr": ["pwd", "otp"]}

    strict_ward.sign_on()

    assert strict_ward.browser.get("/").status_code == 200


def test_where_it_does_not_the_app_s_code_is_next(strict_ward):
    app = strict_ward.room.app_of("dr-a")
    strict_ward.link()

    assert 'url=/sign-in/code"' in strict_ward.sign_on().text
    assert strict_ward.browser.get("/").location == "/sign-in"
    assert strict_ward.browser.post("/sign-in/code", code=app.now()).location == "/"
    assert strict_ward.browser.get("/").status_code == 200


def test_where_there_is_no_app_either_one_must_be_enrolled_first(strict_ward):
    strict_ward.link()
    strict_ward.sign_on()

    assert strict_ward.browser.get("/").location == "/account/codes"


# What is not right


def test_nobody_is_made_by_it(ward):
    before = people.users(ward.room.db)

    refused(ward.sign_on(), NOT_LINKED)

    assert people.users(ward.room.db) == before
    assert [event.detail for event in ward.room.events("sign_on_failed")] == [{"why": "unlinked"}]
    assert ward.browser.get("/").location == "/sign-in"


def test_somebody_disabled_stays_out(ward):
    user = ward.link()
    people.disable_user(ward.room.db, user, by="test")

    refused(ward.sign_on(), NOT_LINKED)

    assert [event.detail for event in ward.room.events("sign_on_failed")] == [{"why": "disabled"}]
    assert ward.room.events("signed_in") == []


def test_who_is_unlinked_stays_out_from_then_on(ward):
    user = ward.link()
    ward.sign_on()

    links.link(ward.room.db, user, issuer=ward.provider.issuer, subject=None, by="test")

    assert ward.browser.get("/").location == "/sign-in"
    refused(ward.sign_on(), NOT_LINKED)


def now() -> int:
    return int(time.time())


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"iss": "http://127.0.0.1:1/realms/ward"},
        {"iss": None},
        {"aud": "another-client"},
        {"aud": ["nightread", "another-client"]},
        {"aud": ["another-client"], "azp": CLIENT},
        {"aud": None},
        {"azp": "another-client"},
        {"exp": now() - 3600, "iat": now() - 7200},
        {"exp": None},
        {"iat": now() + 3600},
        {"iat": None},
        {"nbf": now() + 3600},
        {"sub": None},
        {"sub": ""},
        {"sub": 17},
        {"sub": ["sub-17"]},
        {"at_hash": "wrong"},
        {"amr": "mfa"},
    ],
    ids=str,
)
def test_an_id_token_that_says_something_else_lets_nobody_in(ward, claims):
    ward.link()
    ward.provider.claims = lambda usual: {
        name: value for name, value in {**usual, **claims}.items() if value is not None
    }

    refused(ward.sign_on(), UNTRUSTED)

    assert ward.room.events("signed_in") == []


def test_an_id_token_for_several_audiences_names_us_as_who_asked(ward):
    ward.link()
    ward.provider.claims = lambda usual: usual | {"aud": [CLIENT, "another-client"], "azp": CLIENT}

    assert ward.sign_on().status_code == 200


def test_an_id_token_that_somebody_else_signed_lets_nobody_in(ward, key):
    ward.link()
    ward.provider.signs_with = key

    refused(ward.sign_on(), UNTRUSTED)


def test_an_id_token_signed_with_what_is_no_secret_lets_nobody_in(ward):
    ward.link()
    public = json.dumps(ward.provider.key.as_dict(private=False)).encode()
    ward.provider.signs_with, ward.provider.algorithm = OctKey.import_key(public, {"kid": "one"}), "HS256"

    refused(ward.sign_on(), UNTRUSTED)


@pytest.mark.parametrize("token", [{"id_token": None}, {"id_token": "x"}, {"id_token": "e30.e30."}, {"id_token": 7}])
def test_an_answer_without_an_id_token_lets_nobody_in(ward, token):
    ward.link()
    ward.provider.token = token

    refused(ward.sign_on(), UNTRUSTED)


def test_what_came_back_once_does_not_come_back_again(ward):
    ward.link()
    page = ward.begin()
    kept = ward.browser.client.get_cookie("nightread_sso").value
    back = ward.at_provider(page)
    ward.browser.get(back)

    thief = ward.room.visitor()
    thief.client.set_cookie("nightread_sso", kept)
    refused(thief.get(back), STALE)

    assert [event.detail["why"] for event in ward.room.events("sign_on_failed")] == ["replayed"]
    assert len(ward.room.events("signed_in")) == 1


def test_a_way_back_that_another_browser_began_leads_nowhere(ward):
    ward.link()
    back = ward.at_provider(ward.begin())

    refused(ward.room.visitor().get(back), STALE)
    other = ward.room.visitor()
    other.get("/sign-in/sso")
    refused(other.get(back), STALE)

    assert ward.room.events("signed_in") == []


@pytest.mark.parametrize("kept", ["", "x", "a.b.c", "W10.x.y"])
def test_a_cookie_that_is_not_ours_leads_nowhere(ward, kept):
    back = ward.at_provider(ward.begin())
    ward.browser.client.set_cookie("nightread_sso", kept)

    refused(ward.browser.get(back), STALE)


def test_a_sign_on_that_took_too_long_begins_again(ward, monkeypatch):
    ward.link()
    back = ward.at_provider(ward.begin())
    monkeypatch.setattr("webui.sso.MINUTES", -1)

    refused(ward.browser.get(back), STALE)


@pytest.mark.parametrize("query", ["", "?state=x", "?code=c&state=", "?code=" + "c" * 5000])
def test_what_no_provider_sends_leads_nowhere(ward, query):
    ward.begin()

    refused(ward.browser.get(f"/sign-in/sso/back{query}"), STALE)


def test_a_provider_that_declines_is_told_in_our_words(ward):
    ward.provider.refuses = "access_denied<script>"

    page = refused(ward.sign_on(), "The identity provider did not sign you in.").text

    assert "access_denied" not in page


def test_an_answer_of_another_issuer_is_not_believed(ward):
    ward.link()
    back = ward.at_provider(ward.begin())

    refused(ward.browser.get(back.replace("iss=http", "iss=https")), UNTRUSTED)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_no_other_page_signs_somebody_in(ward, site):
    ward.link()

    answer = ward.browser.client.get("/sign-in/sso", headers={"Sec-Fetch-Site": site})

    assert answer.location == "/sign-in"
    assert ward.provider.asked == []


# A provider that is not as it should be


@pytest.mark.parametrize("path", [".well-known/openid-configuration", "keys", "token"])
def test_a_provider_that_does_not_answer_leaves_the_password(ward, path):
    ward.link()
    ward.provider.fails = path

    answer = ward.browser.get("/sign-in/sso")
    if answer.status_code == 303:
        answer = ward.browser.get(ward.at_provider(answer.location))

    refused(answer, "does not answer. Try again, or sign in with your password.", 503)
    assert ward.browser.sign_in("dr-a", PASSWORD).status_code == 303


@pytest.mark.parametrize("path", [".well-known/openid-configuration", "keys", "token"])
def test_nobody_is_followed_elsewhere(ward, path):
    ward.link()
    ward.provider.moves = path

    answer = ward.browser.get("/sign-in/sso")
    if answer.status_code == 303:
        answer = ward.browser.get(ward.at_provider(answer.location))

    assert answer.status_code in (401, 503)
    assert "elsewhere" not in [page for page, *_ in ward.provider.asked]


@pytest.mark.parametrize(
    "published",
    [
        {"issuer": "https://another.example"},
        {"token_endpoint": "http://id.example/token"},
        {"jwks_uri": "ftp://127.0.0.1/keys"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": None},
    ],
    ids=str,
)
def test_a_provider_that_publishes_something_unsound_is_not_gone_to(ward, published):
    ward.provider.published = published

    refused(ward.browser.get("/sign-in/sso"), UNTRUSTED)


def test_no_secret_code_or_name_gets_into_the_log(ward, caplog):
    caplog.set_level(logging.DEBUG, "nightread")
    ward.link()
    back = ward.at_provider(ward.begin())
    ward.browser.get(back)
    ward.provider.claims = lambda usual: usual | {"nonce": "another"}
    ward.sign_on()

    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("nightread"))
    assert "/sign-in/sso/back" in said
    secrets = [SECRET, ward.provider.subject, *(values[0] for values in parse_qs(urlsplit(back).query).values())]
    assert not any(secret in said for secret in secrets)


# Settings and the command line


def test_without_a_provider_there_is_no_such_page(room):
    visitor = room.visitor()

    assert "Sign in with your" not in visitor.get("/sign-in").text
    assert visitor.get("/sign-in/sso").status_code == visitor.get("/sign-in/sso/back?code=c").status_code == 404


@pytest.mark.parametrize("issuer", ["http://id.example", "id.example", "ftp://127.0.0.1", "https://", "javascript:x"])
def test_a_provider_is_spoken_to_over_tls_alone(home, monkeypatch, issuer):
    monkeypatch.setenv("NIGHTREAD_OIDC_ISSUER", issuer)
    settings.cache_clear()

    with pytest.raises(Refused, match="NIGHTREAD_OIDC_ISSUER must begin with https"):
        settings()
    settings.cache_clear()


@pytest.mark.parametrize("missing", ["client", "authlib"])
def test_the_web_does_not_start_with_half_of_it(monkeypatch, missing):
    config = Settings(oidc_issuer="https://id.example", oidc_client_id="" if missing == "client" else CLIENT)
    if missing == "authlib":
        monkeypatch.setattr("webui.serve.find_spec", lambda name: None)

    with pytest.raises(Refused, match="the extra `sso`"):
        insist_on_sign_on(config)
    insist_on_sign_on(Settings())


def run(*arguments):
    done = CliRunner().invoke(group, [str(word) for word in arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture
def configured(home, monkeypatch):
    from db.store.connection import database

    monkeypatch.setenv("NIGHTREAD_OIDC_ISSUER", "https://id.example")
    settings.cache_clear()
    database.cache_clear()
    run("user", "add", "rosa", "--site", "local")
    return database()


def test_an_admin_links_a_user_and_unlinks_them(configured):
    linked = [json.loads(run("user", "link", "rosa", "--subject", "s-1", "--json")) for _ in range(2)]
    found = links.user_of(configured, issuer="https://id.example", subject="s-1")
    listed = json.loads(run("user", "list", "--json"))

    assert linked == [{"user": "rosa", "issuer": "https://id.example", "subject": "s-1"}] * 2
    assert found.name == "rosa"
    assert [(row["user"], row["subject"]) for row in listed] == [("rosa", "https://id.example s-1")]
    assert "password, sso" in run("user", "list")
    assert "nobody comes in as rosa" in run("user", "link", "rosa", "--none")
    assert links.user_of(configured, issuer="https://id.example", subject="s-1") is None


def test_a_subject_is_one_user_s_and_of_one_provider(configured):
    run("user", "add", "ada", "--site", "local")
    run("user", "link", "rosa", "--subject", "s-1")

    with pytest.raises(Refused, match="linked to user 'rosa'"):
        run("user", "link", "ada", "--subject", "s-1")
    assert links.user_of(configured, issuer="https://another.example", subject="s-1") is None


@pytest.mark.parametrize("subject", ["", " s", "s\n", "x" * 300])
def test_what_is_no_subject_is_refused(configured, subject):
    with pytest.raises(Refused, match="printable text"):
        run("user", "link", "rosa", "--subject", subject)


def test_a_subject_cannot_be_linked_before_there_is_a_provider(home):
    run("user", "add", "rosa", "--site", "local")

    with pytest.raises(Refused, match="NIGHTREAD_OIDC_ISSUER first"):
        run("user", "link", "rosa", "--subject", "s-1")
