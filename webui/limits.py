"""Guessing passwords is slow: failed sign-ins are counted in the audit record, by account and by address."""

import hashlib
import threading
from datetime import timedelta

from db.errors import Unknown
from db.store import people
from db.store.connection import Database
from db.store.people import UserView

MINUTES = 15
WINDOW = timedelta(minutes=MINUTES)
ACCOUNT_FAILURES = 5
ADDRESS_FAILURES = 20
FAILED = "sign_in_failed"
# One attempt at a time: guesses sent side by side must not slip past the count, and each hash takes 64 MiB.
one_at_a_time = threading.Lock()


def user_or_none(db: Database, name: str) -> UserView | None:
    """The user of that name, if there is one."""
    try:
        return people.user_named(db, name)
    except Unknown:
        return None


def is_over(db: Database, name: str, user: UserView | None, address: str) -> bool:
    """Whether this account or this address failed too often lately. Signing in, or a new password,
    starts the account anew; nothing starts an address anew but time."""
    anew = ({"signed_in", "password_changed"}, f"user {user.id}") if user else None
    of_account = people.recent_events(db, FAILED, _account(name), within=WINDOW, since=anew)
    of_address = people.recent_events(db, FAILED, _address(address), within=WINDOW)
    return of_account >= ACCOUNT_FAILURES or of_address >= ADDRESS_FAILURES


def note_failure(db: Database, name: str, address: str) -> None:
    """Put a failed sign-in on record, under the account and under the address."""
    for about in (_account(name), _address(address)):
        people.note_event(db, by="nobody", action=FAILED, about=about)


def _account(name: str) -> str:
    # A hash, because people type their password into the name field.
    return f"account {hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _address(address: str) -> str:
    return f"address {address[:80]}"
