"""Moments as files and people state them: ISO 8601, mostly without a time zone."""

from datetime import UTC, datetime, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

YEARS = range(1900, 2200)  # others are slips of the pen, and would not survive a change of zone


@cache
def zone_of(name: str) -> tzinfo:
    """The time zone of that name; UTC for one that this machine does not know."""
    return ZoneInfo(name) if is_zone(name) else UTC


def is_zone(name: str) -> bool:
    """Whether this machine knows a time zone of that name."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def stated(text: str, zone: tzinfo) -> datetime:
    """The moment that `text` states, a date (its first minute) or a date and time, of `zone` where it names none.
    Raises ValueError."""
    found = datetime.fromisoformat(text.strip())
    if found.year not in YEARS:
        raise ValueError(f"the year {found.year}")
    return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
