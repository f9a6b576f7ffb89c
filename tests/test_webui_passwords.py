"""Passwords: what is refused, how they are kept, and that guessing gets nowhere."""

import argon2
import pytest
from reading_room import PASSWORD

from db.errors import Refused
from db.store import people
from webui import easy, limits, passwords

# Of 15 characters and more, as they stand in lists of leaked passwords or are made from what does.
LEAKED = """
passwordpassword password1234567 Password!Password! P@ssw0rdP@ssw0rd 123456789012345
123456789123456789 987654321987654321 000000000000000 qwertyuiopasdfg qwertyuiop123456 qwertyqwertyqwerty
asdfghjklasdfghjkl zxcvbnmzxcvbnm1 1qaz2wsx3edc4rfv !QAZ@WSX#EDC$RFV q1w2e3r4t5y6u7i8 1q2w3e4r5t6y7u8i qwer1234asdf5678
abcdefghijklmnop abcabcabcabcabc aaaaaaaaaaaaaaa abababababababab iloveyouiloveyou iloveyou1234567 trustno1trustno1
letmeinletmein1 welcome123welcome changemechangeme administrator2026! Administrator123 Summer2026Summer2026
princess12345678 football12345678 superman12345678 michaelmichael1 monkeymonkeymonkey correcthorsebatterystaple
Hospital2026Hospital radiologyradiology1 Doctor-Doctor-1 nightreadnightread Nightread2026!!! mynightreadaccount
"""
FINE = [
    PASSWORD,
    "tulips grow behind barns",
    "violet kayak thunder",
    "my password is a long story about cats",
    "Grüße aus Bad Ems 7",
    "雨が降る前に帰ろうとしたけれど",
    "x7Kq-pw2m-Zt9r-4vb",
]


@pytest.mark.parametrize("password", LEAKED.split())
def test_what_guessers_try_first_is_refused_however_long(password):
    with pytest.raises(Refused, match="easy to guess"):
        passwords.check_choice(password, "rosa")


@pytest.mark.parametrize("password", FINE)
def test_a_phrase_of_ones_own_is_accepted(password):
    passwords.check_choice(password, "rosa")


def test_a_password_with_the_users_name_in_it_is_refused():
    with pytest.raises(Refused, match="leave out your name"):
        passwords.check_choice("violet ROSA kayak thunder", "rosa")


@pytest.mark.parametrize("length", [0, 1, 14, 257])
def test_a_password_has_15_to_256_characters(length):
    many_letters = "".join(chr(0x4E00 + n) for n in range(length))

    with pytest.raises(Refused, match="characters"):
        passwords.check_choice(many_letters, "rosa")


def test_the_longest_password_is_judged_at_once():
    for hostile in ("a" * 256, "ab" * 128, "password" * 32, ("x" * 127 + "y") * 2, "".join(map(chr, range(33, 289)))):
        easy.is_easy(hostile, "rosa")


def test_a_hash_made_with_weaker_parameters_is_renewed_at_sign_in(full_cost, room):
    weak = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1).hash(PASSWORD)
    room.user()
    people.rehash_password(room.db, 1, weak)

    wrong = room.visitor().sign_in(password="not the password")
    kept = people.user_named(room.db, "dr-a").password_hash
    right = room.visitor().sign_in()
    renewed = people.user_named(room.db, "dr-a").password_hash

    assert (wrong.status_code, right.status_code) == (401, 303)
    assert kept == weak
    assert renewed != weak
    found = argon2.extract_parameters(renewed)
    assert (found.type, found.memory_cost, found.time_cost, found.parallelism) == (argon2.Type.ID, 64 * 1024, 3, 1)
    assert room.visitor().sign_in().status_code == 303
    assert len(room.events("password_rehashed")) == 2  # the test's own, and the sign-in's


# A thousand guesses


@pytest.fixture
def counted(monkeypatch):
    """How many passwords were compared with a hash."""
    compared = []
    real = passwords.matches
    monkeypatch.setattr(passwords, "matches", lambda *given: compared.append(given) or real(*given))
    return compared


def guess(room, name: str, address: str, token: str, client) -> int:
    form = {"csrf_token": token, "name": name, "password": "a guess that is wrong"}
    return client.post("/sign-in", data=form, environ_base={"REMOTE_ADDR": address}).status_code


def test_a_thousand_guesses_at_an_account_from_a_thousand_addresses_try_five_passwords(room, counted):
    room.user()
    visitor = room.visitor()
    token = visitor.token()

    answers = [guess(room, "dr-a", f"10.0.{n // 250}.{n % 250}", token, visitor.client) for n in range(1000)]

    assert answers == [401] * limits.ACCOUNT_FAILURES + [429] * 995
    assert len(counted) == limits.ACCOUNT_FAILURES


def test_a_thousand_guesses_from_one_address_at_a_thousand_accounts_try_twenty_passwords(room, counted):
    visitor = room.visitor()
    token = visitor.token()

    answers = [guess(room, f"user {n}", "10.0.0.1", token, visitor.client) for n in range(1000)]

    assert answers == [401] * limits.ADDRESS_FAILURES + [429] * 980
    assert len(counted) == limits.ADDRESS_FAILURES
