"""The identity provider's side of single sign-on (OpenID Connect Core 1.0, RFC 7636, RFC 9207): what it publishes, the
address to send somebody to, and who they are. Needs the extra `sso`."""

import hmac
import json
import logging
import time
from dataclasses import dataclass, field
from typing import Any

import requests
from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]
from authlib.integrations.requests_client import OAuth2Session  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from db.errors import SignOnFailed
from db.settings import Settings
from db.transport import is_private_web
from webui.text import _

log = logging.getLogger("nightread.web")

SCOPE = "openid"
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]  # never a shared key
SECONDS = 10  # that the provider has for an answer
LEEWAY = 60  # seconds that two clocks may differ
MOST_BYTES = 512 * 1024
KEPT_SECONDS = 600  # what it publishes is asked for anew after that
# RFC 8176: "mfa" says it; else two kinds of proof do (what one knows, has, is).
KINDS = (
    {"pwd", "pin", "kba"},
    {"otp", "hwk", "swk", "sc", "sms", "tel", "pop"},
    {"face", "fpt", "iris", "retina", "vbm"},
)


@dataclass(frozen=True)
class Flow:
    """One sign-on under way, known to the browser that began it alone."""

    state: str
    nonce: str
    verifier: str
    back: str  # our address that the provider sends the browser to


@dataclass(frozen=True)
class Identity:
    """Who somebody is to the provider, and whether it asked for a second factor and says so."""

    subject: str
    second_factor: bool


@dataclass
class Provider:
    """What an identity provider publishes of itself."""

    issuer: str
    authorization: str
    token: str
    keys_at: str
    auth_methods: list[str]
    since: float
    keys: list[dict[str, Any]] = field(default_factory=list)


_providers: dict[str, Provider] = {}  # by issuer


def address(config: Settings, flow: Flow) -> str:
    """Where to send the browser. Raises SignOnFailed."""
    provider = _provider(config)
    url, _ = _client(config, provider, flow).create_authorization_url(
        provider.authorization, state=flow.state, nonce=flow.nonce, code_verifier=flow.verifier
    )
    return str(url)


def identity(config: Settings, flow: Flow, *, code: str, issuer: str | None) -> Identity:
    """Who came back with this code; `issuer` is what the answer says of itself, if anything. Raises SignOnFailed."""
    provider = _provider(config)
    if issuer is not None and not hmac.compare_digest(issuer.encode(), provider.issuer.encode()):
        raise _untrusted("issuer")
    try:
        with _client(config, provider, flow) as client:
            token = client.fetch_token(
                provider.token,
                grant_type="authorization_code",
                code=code,
                code_verifier=flow.verifier,
                allow_redirects=False,
            )
    except requests.RequestException as error:
        raise _silent("token", error) from error
    except (AuthlibBaseError, ValueError) as error:
        raise _untrusted("code") from error
    claims = _claims(config, provider, flow, token)
    return Identity(str(claims["sub"]), has_second_factor(claims.get("amr") or []))


def has_second_factor(amr: list[Any]) -> bool:
    """Whether these methods (RFC 8176) are of more than one kind."""
    said = {method for method in amr if isinstance(method, str)}
    return "mfa" in said or sum(bool(said & kind) for kind in KINDS) > 1


def _claims(config: Settings, provider: Provider, flow: Flow, token: dict[str, Any]) -> dict[str, Any]:
    """What the ID token says, once its signature, issuer, audience, time and nonce are right. Raises SignOnFailed."""
    text = token.get("id_token")
    if not isinstance(text, str):
        raise _untrusted("id_token")
    options = {
        "iss": {"essential": True, "value": provider.issuer},
        "aud": {"essential": True, "value": config.oidc_client_id},
        "sub": {"essential": True},
    }
    params = {"nonce": flow.nonce, "client_id": config.oidc_client_id, "access_token": token.get("access_token")}
    try:
        signed = _verified(provider, text)
        claims = CodeIDToken(signed.claims, signed.header, options, params)
        claims.validate(leeway=LEEWAY)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        log.warning("single sign-on: an ID token was refused (%s)", type(error).__name__)
        raise _untrusted("id_token") from error
    if not isinstance(claims["sub"], str) or not claims["sub"]:
        raise _untrusted("sub")
    return dict(claims)


def _verified(provider: Provider, text: str) -> jwt.Token:
    """The token under one of the provider's keys; a key that is new since we asked is fetched."""
    registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
    try:
        return jwt.decode(text, _keys(provider), registry=registry)
    except (JoseError, ValueError):
        provider.keys = []
        return jwt.decode(text, _keys(provider), registry=registry)


def _keys(provider: Provider) -> KeySet:
    if not provider.keys:
        found = _published(provider.keys_at).get("keys")
        usable = [key for key in found if isinstance(key, dict)] if isinstance(found, list) else []
        provider.keys = [key for key in usable if key.get("kty") in ("RSA", "EC") and key.get("use", "sig") == "sig"]
    if not provider.keys:
        raise _untrusted("keys")
    return KeySet.import_key_set({"keys": provider.keys})


def _client(config: Settings, provider: Provider, flow: Flow) -> OAuth2Session:
    secret = config.oidc_client_secret.get_secret_value()
    methods = ("client_secret_basic", "client_secret_post") if secret else ("none",)
    offered = [method for method in methods if method in provider.auth_methods] or methods
    return OAuth2Session(
        config.oidc_client_id,
        secret or None,
        token_endpoint_auth_method=offered[0],
        scope=SCOPE,
        redirect_uri=flow.back,
        code_challenge_method="S256",
        default_timeout=SECONDS,
    )


def _provider(config: Settings) -> Provider:
    """What the configured provider publishes. Raises SignOnFailed."""
    issuer = config.oidc_issuer
    known = _providers.get(issuer)
    if known is not None and time.monotonic() - known.since < KEPT_SECONDS:
        return known
    published = _published(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if published.get("issuer") != issuer:
        log.error("single sign-on: the provider calls itself by another name than NIGHTREAD_OIDC_ISSUER")
        raise _untrusted("issuer")
    names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    authorization, token, keys_at = (str(published.get(name) or "") for name in names)
    if not all(is_private_web(url) for url in (authorization, token, keys_at)):
        raise _untrusted("endpoints")
    methods = published.get("token_endpoint_auth_methods_supported")
    auth_methods = [str(method) for method in methods] if isinstance(methods, list) else []
    _providers[issuer] = Provider(issuer, authorization, token, keys_at, auth_methods, time.monotonic())
    return _providers[issuer]


def _published(url: str) -> dict[str, Any]:
    """A JSON object of the provider's; only over https, but for a provider on this machine. Raises SignOnFailed."""
    if not is_private_web(url):
        raise _untrusted("plaintext")
    try:
        with requests.get(url, timeout=SECONDS, allow_redirects=False, stream=True) as answer:
            if answer.status_code != 200:
                raise _silent(f"status {answer.status_code}")
            found = json.loads(answer.raw.read(MOST_BYTES, decode_content=True))
    except (requests.RequestException, OSError) as error:
        raise _silent("published", error) from error
    except ValueError as error:
        raise _untrusted("published") from error
    if not isinstance(found, dict):
        raise _untrusted("published")
    return found


def _silent(what: str, error: Exception | None = None) -> SignOnFailed:
    log.warning("single sign-on: the identity provider does not answer (%s, %s)", what, type(error).__name__)
    return SignOnFailed("silent", _("The identity provider does not answer. Try again, or sign in with your password."))


def _untrusted(why: str) -> SignOnFailed:
    return SignOnFailed(why, _("The identity provider's answer cannot be trusted. Try again, or tell your admin."))
