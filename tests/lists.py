"""Nights whose scores are known, and people to read them, for tests of the worklist."""

from ledger import claim, found, scored
from sqlalchemy import select

from db.schema import Entry
from db.store import entries, intake, models, people, scoring, worklist
from db.store.sites import add_site, every_site, set_site
from db.words import Role, Stage, Verdict


def person(db, name="rosa", *, role=Role.READER, sites=("local",)):
    """Somebody of that role at these sites."""
    site_ids = {site(db, name) for name in sites}
    people.add_user(db, name, role=role, password_hash="x", site_ids=site_ids, by="test")
    return people.user_named(db, name)


def site(db, name, **reads):
    """The site's id, made where there is none; from now on it reads so (readers, blind_first, sample_share)."""
    known = {site.name: site.id for site in every_site(db)}
    site_id = known[name] if name in known else add_site(db, name, by="test")
    if reads:
        set_site(db, name, reads, by="test")
    return site_id


def night(db, scores, *, at="local", root="/night", drawn=(), patients=(), studies=()):
    """Submit and score a batch, one chunk; the scans' ids in the order of the scores. `drawn`: indices of those that
    the worker drew, with a share of 0.25."""
    files = [
        found(f"{at}{root}{n:05}.png", patient=_nth(patients, n), study=_nth(studies, n)) for n in range(len(scores))
    ]
    what = intake.Submission(site(db, at), models.active(db).id, root, chunk_size=len(scores))
    intake.add_page(db, what, files)
    intake.seal(db, what)
    held = claim(db)
    results = [
        scored(scan, score, share=0.25 if n in drawn else None)
        for n, (scan, score) in enumerate(zip(held.scans, scores, strict=True))
    ]
    assert scoring.complete_chunk(db, held, results)
    return [scan.id for scan in held.scans]


def say(db, scan_id, who, verdict=Verdict.CONFIRM, stage=Stage.VERDICT, **more):
    return entries.add_review(db, scan_id, me=who, stage=stage, verdict=verdict, **more)


def listed(db, who, *, limit=50, **asked):
    """The scans of a whole list in order, page by page; no page repeats or skips one."""
    arbiter = asked.pop("arbiter", False)
    seen, after = [], None
    while True:
        found = worklist.page(
            db,
            me=who,
            model_id=models.active(db).id,
            filters=worklist.Filters(**asked),
            after=after,
            limit=limit,
            arbiter=arbiter,
        )
        seen += found
        if len(found) < limit:
            assert len({item.scan_id for item in seen}) == len(seen)
            return seen
        after = found[-1].place


def ids(items):
    return [item.scan_id for item in items]


def row(db, scan_id):
    """The entry's own row."""
    with db.reading() as session:
        found = session.scalars(select(Entry).where(Entry.scan_id == scan_id)).one()
        session.expunge_all()
        return found


def _nth(values, n):
    return values[n] if n < len(values) else None
