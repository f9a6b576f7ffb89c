"""What a list was asked to show, in an address and back. A search for a patient is never part of an address."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from flask import abort

from db.store.worklist import Filters, Order
from db.words import State, Verdict

MOST_CHARACTERS = 100
A_DAY = timedelta(days=1)


def read(asked: Mapping[str, str]) -> Filters:
    """The filters of an address or form; empty fields do not filter. Anything malformed is a bad request."""
    found: dict[str, Any] = {}
    for name, parse in PARSERS.items():
        text = asked.get(name, "").strip()
        if not text:
            continue
        try:
            found[name] = parse(text[: MOST_CHARACTERS + 1])
        except (ValueError, OverflowError):
            abort(400, f"That is no {name}.")
    return Filters(**found)


def written(filters: Filters) -> dict[str, str]:
    """The filters as fields of an address, without those that are as usual, and without the search."""
    usual = Filters()
    changed = {f.name: getattr(filters, f.name) for f in fields(filters) if f.name in PARSERS}
    return {name: _text(name, value) for name, value in changed.items() if value != getattr(usual, name)}


def is_to_read(filters: Filters) -> bool:
    """Whether a list holds what waits for a reader, not what was read."""
    return filters.state in (None, State.UNREAD, State.SECOND) and not (filters.verdict or filters.reader)


def _text(name: str, value: Any) -> str:
    if isinstance(value, datetime):
        day = value.astimezone(UTC) - (A_DAY if name == "until" else timedelta())
        return f"{day:%Y-%m-%d}"
    return str(value) if isinstance(value, StrEnum) else repr(value) if isinstance(value, float) else str(value)


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise ValueError(text)
    return int(text)


def _share(text: str) -> float:
    value = float(text.replace(",", "."))
    if not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(text)
    return value


def _day(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)


def _day_after(text: str) -> datetime:
    """The last day counts whole."""
    return _day(text) + A_DAY


def _name(text: str) -> str:
    if len(text) > MOST_CHARACTERS or not text.isprintable():
        raise ValueError(text)
    return text


PARSERS: dict[str, Callable[[str], Any]] = {
    "site_id": _number,
    "batch_id": _number,
    "since": _day,
    "until": _day_after,
    "lowest": _share,
    "highest": _share,
    "reader": _name,
    "state": State,
    "verdict": Verdict,
    "order": Order,
}
