"""Passwords: argon2id hashes, generated ones, and what a chosen one must be (NIST SP 800-63B-4: 15 characters where a
password may stand alone, a blocklist, no rules of composition, no expiry)."""

import secrets
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from db.errors import Refused
from webui import easy
from webui.text import _

LEAST_CHARACTERS = 15
MOST_CHARACTERS = 256  # bounds the work of one attempt
# OWASP's floor is 19 MiB and 2 passes; RFC 9106's second choice (64 MiB, 3 passes) costs a sign-in under 0.2 s.
_HASHER = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)
# No 0/o, 1/l/i: these get read aloud and copied by hand.
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


def generate() -> str:
    """A new password of four groups of five letters and digits (99 bits)."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(4))


def hash_password(password: str) -> str:
    """The argon2id hash to keep."""
    return _HASHER.hash(password)


def matches(password_hash: str | None, password: str) -> bool:
    """Whether the password fits the hash. None (no such user) costs as much time as a wrong password."""
    try:
        return _HASHER.verify(password_hash or _nobody(), password[:MOST_CHARACTERS]) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return _HASHER.check_needs_rehash(password_hash)


def check_choice(password: str, name: str) -> None:
    """Raises Refused, saying what to change, for a password that is too short, too long or too easy."""
    if len(password) < LEAST_CHARACTERS:
        raise Refused(_("A password needs at least %d characters; three unrelated words will do.") % LEAST_CHARACTERS)
    if len(password) > MOST_CHARACTERS:
        raise Refused(_("A password may have at most %d characters.") % MOST_CHARACTERS)
    if easy.is_easy(password, name):
        raise Refused(_("That password is easy to guess: leave out your name, common words, rows of keys and repeats."))


@cache
def _nobody() -> str:
    return hash_password(secrets.token_hex(16))
