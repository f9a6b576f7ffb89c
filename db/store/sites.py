"""Screening centres, as an admin registered them."""

import difflib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from db.errors import Refused, Unknown
from db.schema import Site
from db.store.audit import record
from db.store.connection import Database, now


@dataclass(frozen=True)
class SiteView:
    id: int
    name: str
    time_zone: str
    created_at: datetime


def add_site(db: Database, name: str, *, time_zone: str = "UTC", by: str) -> int:
    """Register a screening centre. Raises Refused when the name is taken or empty."""
    with db.writing() as session:
        if not name.strip() or session.scalar(select(Site.id).where(Site.name == name)) is not None:
            raise Refused(f"site {name!r} exists already" if name.strip() else "a site needs a name")
        site = Site(name=name, time_zone=time_zone, created_at=now())
        session.add(site)
        session.flush()
        record(session, by, "site_added", f"site {site.id}", {"name": name})
        return site.id


def every_site(db: Database) -> list[SiteView]:
    """Every site, by name."""
    with db.reading() as session:
        rows = session.scalars(select(Site).order_by(Site.name))
        return [SiteView(site.id, site.name, site.time_zone, site.created_at) for site in rows]


def site_named(db: Database, name: str) -> SiteView:
    """The site of that name. Raises Unknown with the nearest names: a typo does not make a site."""
    known = {site.name: site for site in every_site(db)}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)[:3]
    advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "there is none yet."
    raise Unknown(f"no site {name!r}: {advice} `nightread site add NAME` registers a new one")
