"""Numbers in addresses and forms: an id, a place in a list."""

from flask import abort

DIGITS = 18  # more do not fit a database's integer


def is_number(text: str) -> bool:
    """Whether this is a whole number as our pages write them: digits alone, and no more than an id can have."""
    return text.isdecimal() and text.isascii() and len(text) <= DIGITS


def number(text: str, problem: str) -> int | None:
    """The number that an address holds, None where it holds none; anything else is a bad request with this problem."""
    if text and not is_number(text):
        abort(400, problem)
    return int(text) if text else None
