"""By when: moments as an admin states them, in the sites' time zone where they share one, else in this machine's."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from db.moments import duration, zone_of

DAY = 24 * 3600.0
MOST_DAYS = 1000  # beyond which a date tells nothing


@dataclass(frozen=True)
class Deadline:
    """So many seconds from `now`; times are told in `zone` (None: this machine's)."""

    seconds: float
    now: datetime
    zone: tzinfo | None

    def clock(self, seconds: float) -> str:
        """The moment so long from now: 04:12 CET, with the date where it is not today's."""
        if seconds > MOST_DAYS * DAY:
            return "in years"
        there = self.now.astimezone(self.zone)
        then = (self.now.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(self.zone)
        return f"{then:%H:%M %Z}" if then.date() == there.date() else f"{then:%Y-%m-%d %H:%M %Z}"


def zone(names: Sequence[str]) -> tzinfo | None:
    """The zone to tell times in: that of the sites, where it is one; None is this machine's own."""
    return zone_of(names[0]) if len(names) == 1 else None


def seconds_until(text: str, now: datetime, zone: tzinfo | None) -> float:
    """From now to the next time that a clock of the zone shows `text` (HH:MM). Raises ValueError."""
    asked = datetime.strptime(text, "%H:%M").time()
    there = now.astimezone(zone)
    then = datetime.combine(there.date(), asked, zone or there.tzinfo)
    if then <= there:
        then = datetime.combine(there.date() + timedelta(days=1), asked, zone or there.tzinfo)
    return (then.astimezone(UTC) - now.astimezone(UTC)).total_seconds()


def length(seconds: float) -> str:
    """How long, to be read: as `duration`, and in days from the third on."""
    if seconds < 1:
        return "under a second"
    return duration(seconds) if seconds < 2 * DAY else f"{seconds / DAY:,.1f} days"
