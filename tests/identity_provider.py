"""An OpenID Connect provider of our own on this machine: RS256, PKCE, one client; it can be told to lie."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET, ACCESS = "nightread", "client-secret-canary", "access-token-canary"


@cache
def key(kid: str) -> RSAKey:
    """A pair of keys of that name."""
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


class Provider:
    """`claims` and `published` change what it says; `fails` names a path that answers 500, `moves` one that redirects;
    `asked` is what it heard, `given` the ID tokens that it gave."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.server = ThreadingHTTPServer((host, 0), _handler(self))
        self.issuer = f"http://{host}:{self.server.server_port}/realms/ward"
        self.subject = "sub-17"
        self.key = key("one")
        self.signs_with = self.key
        self.algorithm = "RS256"
        self.claims: Callable[[dict[str, Any]], dict[str, Any]] = dict
        self.published: dict[str, Any] = {}
        self.token: dict[str, Any] = {}
        self.fails = ""
        self.moves = ""  # a path that redirects elsewhere
        self.refuses = ""  # an error that its page ends with
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.given: list[str] = []
        self.codes: dict[str, dict[str, str]] = {}

    def metadata(self) -> dict[str, Any]:
        names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return (
            {"issuer": self.issuer} | {name: f"{self.issuer}/{path}" for name, path in names.items()} | self.published
        )

    def authorize(self, asked: dict[str, str]) -> str:
        """Where it sends the browser back to."""
        answer = {"state": asked["state"], "iss": self.issuer}
        if self.refuses:
            return f"{asked['redirect_uri']}?{urlencode(answer | {'error': self.refuses})}"
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode(answer | {'code': code})}"

    def exchange(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        """The token for a code, once; None where client, code, address or verifier are not right."""
        begun = self.codes.pop(form.get("code", ""), None)
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        is_right = begun and authorization == f"Basic {basic}" and begun["code_challenge"] == challenge
        if not is_right or begun["redirect_uri"] != form.get("redirect_uri"):
            return None
        return {"access_token": ACCESS, "token_type": "Bearer", "id_token": self.id_token(begun)} | self.token

    def id_token(self, begun: dict[str, str]) -> str:
        now = int(time.time())
        usual = {"iss": self.issuer, "sub": self.subject, "aud": CLIENT, "iat": now, "exp": now + 300}
        claims = self.claims(usual | {"nonce": begun.get("nonce", "")})
        header = {"alg": self.algorithm, "kid": self.signs_with.kid}
        self.given.append(jwt.encode(header, claims, self.signs_with, algorithms=[self.algorithm]))
        return self.given[-1]


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Provider]:
    """A provider that answers until the block ends."""
    provider = Provider(host)
    thread = threading.Thread(target=provider.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        provider.server.shutdown()
        provider.server.server_close()
        thread.join(10)


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
            self._answer(_flat(body))

        def _answer(self, form: dict[str, str]) -> None:
            parts = urlsplit(self.path)
            page = parts.path.removeprefix("/realms/ward/")
            provider.asked.append((page, _flat(parts.query), form))
            if page == provider.moves:
                self._send(307, {}, Location=f"{provider.issuer}/elsewhere")
            elif page == provider.fails:
                self._send(500, {"error": "broken"})
            elif page == "authorize":
                self._send(303, {}, Location=provider.authorize(_flat(parts.query)))
            elif page == "token":
                token = provider.exchange(form, self.headers.get("Authorization", ""))
                self._send(200 if token else 400, token or {"error": "invalid_grant"})
            else:
                keys = {"keys": [provider.key.as_dict(private=False)]}
                known = {".well-known/openid-configuration": provider.metadata(), "keys": keys}
                self._send(200 if page in known else 404, known.get(page, {}))

        def _send(self, status: int, content: Any, **headers: str) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    return Handler


def _flat(query: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(query).items()}
