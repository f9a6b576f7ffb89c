"""Which scan comes after this one: the worst of the reader's list that nobody else has open, passing over what they
skipped; in a list of what was read, the line below."""

from flask import session

from db.errors import Unknown
from db.store import entries, reading, worklist
from db.store.reading import ScanView
from db.store.worklist import Filters
from db.words import Role, State
from webui import filters
from webui.guard import database, me, my_sites

SKIPPED = "skipped"
MOST_SKIPPED = 40  # keys in the cookie of the session, which may hold 4 KB
LINES = 50


def following(scan: ScanView, listed: Filters, *, also_not: str = "", comes_back: bool = False) -> str | None:
    """The key of the scan to open after this one, None at the end of the list; what was skipped is left out, or, where
    it `comes_back`, comes last."""
    here = {scan.key, also_not} - {""}
    found = _first(scan, listed, not_keys=here | set(_skipped()))
    return found or (_first(scan, listed, not_keys=here) if comes_back and _skipped() else None)


def skip(key: str) -> None:
    """Remember that the reader passed over a scan."""
    session[SKIPPED] = [*(one for one in _skipped() if one != key), key][-MOST_SKIPPED:]


def come_back_to(key: str | None) -> None:
    """Forget what was skipped once its turn has come again."""
    if key is None or key in _skipped():
        session.pop(SKIPPED, None)


def still_next(key: str, listed: Filters) -> bool:
    """Whether a scan that was fetched ahead is still to be read by this reader."""
    try:
        scan = reading.scan(database(), key, site_ids=my_sites())
    except Unknown:
        return False
    entry = entries.entry(database(), scan.scan_id, me=me())
    if entry is None:
        return False
    if _is_arbiters(listed):
        return entry.may_arbitrate
    if not filters.is_to_read(listed):
        return True
    return entry.state in (State.UNREAD, State.SECOND) and entry.may_read and entry.holder is None


def _skipped() -> list[str]:
    kept: list[str] = session.get(SKIPPED, [])
    return kept


def _is_arbiters(listed: Filters) -> bool:
    return listed.state == State.ARBITER and me().role == Role.ARBITER


def _first(scan: ScanView, listed: Filters, *, not_keys: set[str]) -> str | None:
    db, arbiter = database(), _is_arbiters(listed)
    if listed == Filters(state=State.ARBITER if arbiter else None):
        free = worklist.next_entries(db, me=me(), model_id=scan.model_id, not_keys=not_keys, arbiter=arbiter)
        return free[0].key if free else None
    entry = None if filters.is_to_read(listed) or arbiter else entries.entry(db, scan.scan_id, me=me())
    lines = worklist.page(
        db,
        me=me(),
        model_id=scan.model_id,
        filters=listed,
        after=entry.place if entry else None,
        limit=LINES,
        arbiter=arbiter,
    )
    return next((line.key for line in lines if line.key not in not_keys and line.holder is None), None)
