"""One-time passwords (RFC 6238: SHA-1, 6 digits, 30 seconds, as every app knows them) and recovery codes.

An app's secret lies nowhere: it is derived (HMAC-SHA-256, as HKDF-Expand does) from the web's own key, which is a file
or a setting, and a nonce in the database. Whoever gets hold of the database alone cannot make codes; whoever has both
can. A new web key (NIGHTREAD_WEB_SECRET, `web.secret`) makes every enrolled app void: `nightread user reset` lets each
user enrol anew.
"""

import base64
import hashlib
import hmac
import secrets
import time

import pyotp

SECONDS = 30  # of one time step
DRIFT = 1  # steps that a phone's clock may be off, either way (RFC 6238, section 5.2)
RECOVERY_CODES = 10
_PURPOSE = b"nightread one-time passwords, 1: "
_SECRET_BYTES = 20  # 160 bits, as RFC 4226 recommends
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike, as in passwords.py


def new_nonce() -> str:
    """What makes an app's secret its own."""
    return secrets.token_hex(16)


def app_for(web_key: bytes, nonce: str) -> pyotp.TOTP:
    """The generator of an enrolled app's codes; its `secret` is base 32, its `provisioning_uri` what apps read."""
    derived = hmac.new(web_key, _PURPOSE + nonce.encode(), hashlib.sha256).digest()[:_SECRET_BYTES]
    return pyotp.TOTP(base64.b32encode(derived).decode(), interval=SECONDS)


def step_of(app: pyotp.TOTP, code: str, *, at: float | None = None) -> int | None:
    """The time step that this code belongs to, near the moment `at` (seconds since 1970; now); None for no code."""
    present = int((time.time() if at is None else at) // SECONDS)
    steps = range(max(present - DRIFT, 0), present + DRIFT + 1)
    fits = [step for step in steps if hmac.compare_digest(app.generate_otp(step), code)]
    return fits[-1] if fits else None


def tidy(code: str) -> str:
    """A code as typed, without the spaces and dashes that help to read it; at most 32 characters, ASCII only."""
    letters = (c for c in code[:64].casefold() if c.isascii() and c.isalnum())
    return "".join(letters)[:32]


def new_recovery_codes() -> list[str]:
    """Ten codes of four groups of four (79 bits each: too many to try, so that a plain hash is enough to keep)."""
    return [
        "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(4)) for _ in range(RECOVERY_CODES)
    ]


def recovery_hash(code: str) -> str:
    """What is kept of a recovery code."""
    return hashlib.sha256(tidy(code).encode()).hexdigest()
