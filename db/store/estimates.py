"""Live sensitivity and negative predictive value by site, from the database; how they are estimated is in db/live.py.

The cost is that of the entries of the period, which is what people read in it; no other scan is looked at."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.live import Live, Rules, Seen, figures
from db.schema import AuditEvent, Batch, CaseStep, Entry, Outcome, Scan, Site, Threshold
from db.store.connection import Database, now
from db.store.scoring import current_outcome
from db.words import Kind, State, Step

PERIOD = timedelta(days=90)  # of the pages and the morning report
SITE_SET = "site_set"  # the event by which a site's share is changed (store/sites.py)


def live(
    db: Database, *, site_ids: set[int], model_id: int, since: datetime | None = None, threshold: float | None = None
) -> dict[int | None, Live]:
    """The figures by site, and under None those of all these sites together; since the moment given (by default
    PERIOD ago) by the batches' submission. `threshold` (0 to 1) asks what they were at another one."""
    since = now() - PERIOD if since is None else since
    with db.reading() as session:
        rules = _rules(session, model_id, site_ids)
        at = rules.values[-1] if threshold is None else threshold
        return figures(_seen(session, site_ids, model_id, since), rules, site_ids=site_ids, threshold=at)


def of_batch(db: Database, batch_id: int) -> Live:
    """The figures of a batch's site and model over the PERIOD that ends now."""
    with db.reading() as session:
        batch = session.get_one(Batch, batch_id)
        site_id, model_id = batch.site_id, batch.trained_model_id
    return live(db, site_ids={site_id}, model_id=model_id)[site_id]


def _rules(session: Session, model_id: int, site_ids: set[int]) -> Rules:
    thresholds = session.execute(
        select(Threshold.at, Threshold.value).where(Threshold.trained_model_id == model_id).order_by(Threshold.id)
    ).all()
    shares = {site_id: _shares(session, site_id) for site_id in site_ids}
    return Rules([row.at for row in thresholds], [row.value for row in thresholds], shares)


def _shares(session: Session, site_id: int) -> list[tuple[datetime, float]]:
    """The shares that a site drew with, each since when, as the audit record has them; where it has none, as the site
    draws now."""
    same = (AuditEvent.action == SITE_SET, AuditEvent.object == f"site {site_id}")
    events = session.execute(select(AuditEvent.at, AuditEvent.detail).where(*same).order_by(AuditEvent.id))
    noted = [(at, float(detail["sample_share"])) for at, detail in events if detail.get("sample_share") is not None]
    site = session.get_one(Site, site_id)
    return noted or [(site.created_at, site.sample_share)]


def _seen(session: Session, site_ids: set[int], model_id: int, since: datetime) -> Iterable[Seen]:
    """The entries of the period with the moment they were scored and what the laboratory found."""
    newest = select(CaseStep.result).where(CaseStep.scan_id == Entry.scan_id, CaseStep.step == Step.LABORATORY)
    found = newest.order_by(CaseStep.id.desc()).limit(1).correlate(Entry).scalar_subquery()
    same = current_outcome(Entry.trained_model_id)
    columns = (Entry.site_id, Entry.score, Entry.share, Entry.state, Entry.verdict, Outcome.at, found)
    wanted = (
        Entry.trained_model_id == model_id,
        Entry.site_id.in_(site_ids),
        Entry.state.in_(list(State)),  # as the index has it
        Entry.submitted_at >= since,
    )
    joined = select(*columns).join(Scan, Scan.id == Entry.scan_id).join(Outcome, same & (Outcome.kind == Kind.SCORED))
    rows = session.execute(joined.where(*wanted))
    for row in rows.yield_per(5000):
        yield Seen(*row)
