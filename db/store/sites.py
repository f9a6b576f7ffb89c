"""Screening centres, as an admin registered them, and how their scans are read."""

import difflib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from db.errors import Refused, Unknown
from db.moments import is_zone
from db.schema import EntryCount, Site
from db.store.audit import record
from db.store.connection import Database, now
from db.words import State

READERS = (1, 2)
# A smaller share would make one drawn scan stand for more than a thousand others; zero draws none.
LEAST_SHARE, MOST_SHARE = 0.001, 1.0
LEAST_PREVALENCE, MOST_PREVALENCE = 0.00001, 0.99
STILL_TO_READ = (State.UNREAD, State.SECOND, State.ARBITER)


@dataclass(frozen=True)
class SiteView:
    """A site. `sample_share` of the cleared scans are drawn into the worklist (0 to 1); `prevalence` of the disease
    among those screened (0 to 1), None where nobody knows."""

    id: int
    name: str
    time_zone: str
    created_at: datetime
    readers: int
    blind_first: bool
    sample_share: float
    prevalence: float | None


@dataclass(frozen=True)
class Change:
    """What a change of a site did: only what is different now, by the column's name; and how many scans still to be
    read keep what they came onto the worklist with."""

    site: SiteView
    changed: dict[str, Any]
    keep: int


def add_site(db: Database, name: str, *, time_zone: str = "UTC", by: str) -> int:
    """Register a screening centre. Raises Refused when the name is taken or empty, or there is no such time zone."""
    with db.writing() as session:
        if not name.strip() or session.scalar(select(Site.id).where(Site.name == name)) is not None:
            raise Refused(f"site {name!r} exists already" if name.strip() else "a site needs a name")
        _check({"time_zone": time_zone})
        site = Site(name=name, time_zone=time_zone, created_at=now())
        session.add(site)
        session.flush()
        record(session, by, "site_added", f"site {site.id}", {"name": name})
        return site.id


def set_site(db: Database, name: str, values: dict[str, Any], *, by: str) -> Change:
    """Change how a site's scans are read, from the next scan that comes onto the list on; `values` are SiteView's
    readers, blind_first, sample_share, prevalence and time_zone, those given. On record where something is different
    then. Raises Unknown, Refused."""
    site_id = site_named(db, name).id
    _check(values)
    with db.writing() as session:
        site = session.get_one(Site, site_id, with_for_update=True)
        changed = {column: value for column, value in values.items() if getattr(site, column) != value}
        before = {column: getattr(site, column) for column in changed}
        for column, value in changed.items():
            setattr(site, column, value)
        if changed:
            # The live estimates read from here when a site sampled, and at which share.
            record(session, by, "site_set", f"site {site_id}", {**changed, "before": before})
        waiting = select(func.sum(EntryCount.count)).where(EntryCount.site_id == site_id)
        keep = session.scalar(waiting.where(EntryCount.state.in_(STILL_TO_READ))) or 0
        return Change(_view(site), changed, int(keep))


def every_site(db: Database) -> list[SiteView]:
    """Every site, by name."""
    with db.reading() as session:
        return [_view(site) for site in session.scalars(select(Site).order_by(Site.name))]


def site_named(db: Database, name: str) -> SiteView:
    """The site of that name. Raises Unknown with the nearest names: a typo does not make a site."""
    known = {site.name: site for site in every_site(db)}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)[:3]
    advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "there is none yet."
    raise Unknown(f"no site {name!r}: {advice} `nightread site add NAME` registers a new one")


def _view(site: Site) -> SiteView:
    names = SiteView.__dataclass_fields__
    return SiteView(**{name: getattr(site, name) for name in names})


def _check(values: dict[str, Any]) -> None:
    """Raises Refused for what no site can have; what is missing is not checked. Not a number fails every comparison."""
    readers, share, prevalence = values.get("readers", 1), values.get("sample_share", 0.0), values.get("prevalence")
    if readers not in READERS:
        raise Refused("a scan is read by one reader or by two")
    if not (share == 0 or LEAST_SHARE <= share <= MOST_SHARE):
        raise Refused(f"the share of the cleared to sample is 0, or from {LEAST_SHARE} to {MOST_SHARE:.0f}")
    if prevalence is not None and not LEAST_PREVALENCE <= prevalence <= MOST_PREVALENCE:
        raise Refused(f"a prevalence lies between {LEAST_PREVALENCE:.5f} and {MOST_PREVALENCE}, or is unknown")
    if "time_zone" in values and not is_zone(values["time_zone"]):
        raise Refused(f"no time zone {values['time_zone']!r}: write it as in Europe/Berlin")
