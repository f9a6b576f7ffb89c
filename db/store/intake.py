"""Batches and the scans found in a folder."""

import secrets
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, Row, Table, exists, func, insert, select
from sqlalchemy.orm import Session

from db.schema import Batch, Chunk, Outcome, Scan, Site
from db.store.audit import record
from db.store.bulk import among, insert_rows
from db.store.connection import Database, now
from db.store.reading import printable
from db.words import Kind, Reason

# The bare tables: rows of a page go in without the bookkeeping of mapped objects.
SCANS, OUTCOMES, CHUNKS = (cast(Table, of.__table__) for of in (Scan, Outcome, Chunk))
COLUMNS = ("key", "batch_id", "chunk_id", "path", "size", "sha256", "patient", "study", "age", "tags")  # of SCANS
ROUTINE, URGENT = 0, 10  # priorities of chunks
BY = "intake"  # on the audit record


@dataclass(slots=True)  # not frozen: that doubles the cost of making one, and there are millions
class FoundFile:
    """One file of a submitted folder. `path` is relative to the root; `size` in bytes; `sha256` is None where the
    bytes could not be read; `reason` says why intake rejected it, None where a worker shall score it."""

    path: str
    size: int
    sha256: str | None
    reason: Reason | None = None
    detail: str | None = None
    patient: str | None = None
    study: str | None = None
    age: float | None = None
    urgent: bool = False
    tags: dict[str, Any] | None = None


@dataclass(frozen=True)
class Submission:
    """Where files come from and what they run with."""

    site_id: int
    trained_model_id: int
    root: str
    urgent: bool = False
    manifest: str | None = None
    chunk_size: int = 64
    resumes: bool = False  # an open batch was there when this submission began


@dataclass(frozen=True)
class Page:
    """What registering a page did: `batch_id` is None when every file of it was known already."""

    batch_id: int | None
    added: int = 0
    known: int = 0
    chunks: int = 0


def add_page(db: Database, submission: Submission, files: Sequence[FoundFile]) -> Page:
    """Register files of a submission in one transaction: known ones are skipped, a content that the site sent
    before under another name is rejected as duplicate, the rest is cut into waiting chunks. The open batch of
    this folder takes them; there is one as soon as one file is new."""
    with db.writing() as session:
        _alone(session, submission.site_id)
        earlier = _earlier(session, submission, files)
        registered = _in_open_batch(session, submission, files) if submission.resumes else set()
        new = [
            found for found in files if found.path not in registered and not _is_known(found, earlier, submission.root)
        ]
        if not new:
            return Page(None, known=len(files))
        batch_id = _open_batch(session, submission)
        chunks = _add_scans(session, submission, batch_id, new, earlier)
        return Page(batch_id, added=len(new), known=len(files) - len(new), chunks=chunks)


def seal(db: Database, submission: Submission) -> int:
    """Close the folder's open batch, or return the newest one when nothing was new; an empty folder gets an
    empty batch, so that there is something to report on."""
    same = (
        Batch.site_id == submission.site_id,
        Batch.root == submission.root,
        Batch.trained_model_id == submission.trained_model_id,
    )
    with db.writing() as session:
        _alone(session, submission.site_id)
        batch = session.scalar(select(Batch).where(*same).order_by(Batch.id.desc()).limit(1))
        if batch is None:
            batch = session.get_one(Batch, _open_batch(session, submission))
        if batch.sealed_at is None:
            batch.sealed_at = now()
            # How many there were then: the certificate holds its count against this one.
            found = session.scalar(select(func.count()).select_from(Scan).where(Scan.batch_id == batch.id))
            record(session, BY, "batch_sealed", f"batch {batch.id}", {"found": found})
        return batch.id


def is_open(db: Database, submission: Submission) -> bool:
    """Whether a submission of this folder is under way, or was interrupted."""
    with db.reading() as session:
        return session.scalar(select(Batch.id).where(*_is_open(submission))) is not None


def under_way(db: Database, batch_id: int) -> tuple[int, int]:
    """How many chunks of a batch some worker has claimed, and how many are complete."""
    with db.reading() as session:
        counts = select(func.count(Chunk.token), func.count(Chunk.completed_at)).where(Chunk.batch_id == batch_id)
        claimed, completed = session.execute(counts).one()
    return claimed, completed


def open_submissions(db: Database) -> list[tuple[int, Submission]]:
    """Batches whose submission was interrupted, to be gone on with."""
    with db.reading() as session:
        rows = session.scalars(select(Batch).where(Batch.sealed_at.is_(None)).order_by(Batch.id))
        return [
            (row.id, Submission(row.site_id, row.trained_model_id, row.root, row.urgent, row.manifest)) for row in rows
        ]


@dataclass(frozen=True)
class _Sent:
    """Where a content was sent before."""

    root: str
    path: str


Earlier = dict[str | None, list[_Sent]]  # by sha256

# What these rejected was never looked at: sent again, it is new.
NEVER_SEEN = (Reason.MISSING, Reason.CHANGED_SINCE_SUBMISSION)


def _earlier(session: Session, submission: Submission, files: Iterable[FoundFile]) -> Earlier:
    """What this site sent before under this model: by content, and by path where there was no content to read."""
    same = (
        Batch.site_id == submission.site_id,
        Batch.trained_model_id == submission.trained_model_id,
    )
    columns = select(Scan.sha256, Batch.root, Scan.path).join(Batch, Scan.batch_id == Batch.id).where(*same)
    never_seen = exists().where(Outcome.scan_id == Scan.id, Outcome.reason.in_(NEVER_SEEN))
    rows: list[Row[str | None, str, str]] = []
    # Contents alone first: that question has one index to go by, and mostly no answer.
    contents = [found.sha256 for found in files if found.sha256]
    if ids := session.scalars(select(Scan.id).where(among(session, Scan.sha256, contents))).all():
        seen = columns.where(among(session, Scan.id, ids), ~(never_seen & Batch.sealed_at.is_not(None)))
        rows += session.execute(seen.order_by(Scan.id))
    if unread := [found.path for found in files if found.sha256 is None]:
        rows += session.execute(
            columns.where(Batch.root == submission.root, Scan.sha256.is_(None), Scan.path.in_(unread))
        )
    found: Earlier = {}
    for sha256, root, path in rows:
        found.setdefault(sha256, []).append(_Sent(root, path))
    return found


def _alone(session: Session, site_id: int) -> None:
    """One intake a site at a time. Rows that refer to the site, as a worker's entries do, may come meanwhile."""
    session.get_one(Site, site_id, with_for_update={"key_share": True})


def _is_known(found: FoundFile, earlier: Earlier, root: str) -> bool:
    return found.sha256 in earlier and _Sent(root, found.path) in earlier[found.sha256]


def _is_open(submission: Submission) -> tuple[ColumnElement[bool], ...]:
    return (
        Batch.site_id == submission.site_id,
        Batch.root == submission.root,
        Batch.trained_model_id == submission.trained_model_id,
        Batch.sealed_at.is_(None),
    )


def _in_open_batch(session: Session, submission: Submission, files: Iterable[FoundFile]) -> set[str]:
    """Paths that an interrupted submission registered already; a file that changed since stays one scan of this
    batch, and the worker says that it changed."""
    paths = select(Scan.path).join(Batch, Scan.batch_id == Batch.id)
    return set(session.scalars(paths.where(*_is_open(submission), Scan.path.in_([found.path for found in files]))))


def _open_batch(session: Session, submission: Submission) -> int:
    known = session.scalar(select(Batch.id).where(*_is_open(submission)))
    if known is not None:
        return known
    batch = Batch(
        site_id=submission.site_id,
        trained_model_id=submission.trained_model_id,
        root=submission.root,
        manifest=submission.manifest,
        urgent=submission.urgent,
        submitted_at=now(),
    )
    session.add(batch)
    session.flush()
    return batch.id


def _add_scans(
    session: Session, submission: Submission, batch_id: int, new: Sequence[FoundFile], earlier: Earlier
) -> int:
    """Add the scans in bulk, with the outcomes that intake can give; the number of chunks made of the others."""
    rejected = _rejections(new, earlier)
    chunk_ids, chunks = _add_chunks(session, submission, batch_id, new, rejected)
    keys = secrets.token_hex(16 * len(new))  # 32 digits each
    rows = [
        (keys[32 * at : 32 * at + 32], batch_id, chunk_id, f.path, f.size, f.sha256, f.patient, f.study, f.age, f.tags)
        for at, (f, chunk_id) in enumerate(zip(new, chunk_ids, strict=True))
    ]
    insert_rows(session, SCANS, COLUMNS, rows)
    if rejected:
        _add_rejections(session, submission.trained_model_id, {rows[at][0]: why for at, why in rejected.items()})
    return chunks


Rejection = tuple[Reason, str | None]  # with its detail


def _rejections(new: Sequence[FoundFile], earlier: Earlier) -> dict[int, Rejection]:
    """Which of the files no worker shall see, by position: what intake found wrong, and second copies."""
    firsts = {sha256: f"{known[0].path} (submitted before)" for sha256, known in earlier.items() if sha256}
    rejected: dict[int, Rejection] = {}
    for at, found in enumerate(new):
        if found.reason is not None:
            rejected[at] = (found.reason, found.detail)
        elif found.sha256 in firsts:
            rejected[at] = (Reason.DUPLICATE, f"same content as {printable(firsts[found.sha256])}")
        if found.sha256:
            firsts.setdefault(found.sha256, found.path)
    return rejected


def _add_rejections(session: Session, model_id: int, rejected: dict[str, Rejection]) -> None:
    """The outcomes of scans, by key, that intake rejects."""
    ids = session.execute(select(Scan.key, Scan.id).where(Scan.key.in_(rejected)))
    at = now()
    rows = [(scan_id, model_id, 0, Kind.REJECTED, *rejected[key], at) for key, scan_id in ids]
    insert_rows(
        session, OUTCOMES, ("scan_id", "trained_model_id", "generation", "kind", "reason", "detail", "at"), rows
    )


def _add_chunks(
    session: Session, submission: Submission, batch_id: int, new: Sequence[FoundFile], rejected: Container[int]
) -> tuple[list[int | None], int]:
    """Cut the waiting scans into chunks, urgent ones apart; each file's chunk, and how many there are."""
    chunk_ids: list[int | None] = [None] * len(new)
    waiting = [(at, found.urgent or submission.urgent) for at, found in enumerate(new) if at not in rejected]
    count = 0
    for priority in (URGENT, ROUTINE):
        places = [at for at, is_urgent in waiting if is_urgent is (priority == URGENT)]
        chunk = {"batch_id": batch_id, "trained_model_id": submission.trained_model_id, "priority": priority}
        ids = _new_chunks(session, chunk, -(-len(places) // submission.chunk_size))
        for number, at in enumerate(places):
            chunk_ids[at] = ids[number // submission.chunk_size]
        count += len(ids)
    return chunk_ids, count


def _new_chunks(session: Session, chunk: dict[str, int], count: int) -> list[int]:
    """Add `count` chunks that are alike; their ids, ascending: they are claimed in that order."""
    if not count:
        return []
    return sorted(session.scalars(insert(CHUNKS).returning(CHUNKS.c.id), [chunk] * count))
