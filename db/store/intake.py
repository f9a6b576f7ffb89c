"""Batches and the scans found in a folder."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, Table, exists, insert, select
from sqlalchemy.orm import Session

from db.schema import Batch, Chunk, Outcome, Scan, Site
from db.store.connection import Database, now
from db.store.reading import printable
from db.words import Kind, Reason

# The bare tables: rows of a page go in without the bookkeeping of mapped objects.
SCANS, OUTCOMES = cast(Table, Scan.__table__), cast(Table, Outcome.__table__)
ROUTINE, URGENT = 0, 10  # priorities of chunks


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
        session.get_one(Site, submission.site_id, with_for_update=True)  # one intake a site at a time
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
        session.get_one(Site, submission.site_id, with_for_update=True)
        batch = session.scalar(select(Batch).where(*same).order_by(Batch.id.desc()).limit(1))
        if batch is None:
            batch = session.get_one(Batch, _open_batch(session, submission))
        if batch.sealed_at is None:
            batch.sealed_at = now()
        return batch.id


def is_open(db: Database, submission: Submission) -> bool:
    """Whether a submission of this folder is under way, or was interrupted."""
    with db.reading() as session:
        return session.scalar(select(Batch.id).where(*_is_open(submission))) is not None


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
    contents = {found.sha256 for found in files if found.sha256}
    unread = [found.path for found in files if found.sha256 is None]
    never_seen = exists().where(Outcome.scan_id == Scan.id, Outcome.reason.in_(NEVER_SEEN))
    rows = session.execute(
        columns.where(Scan.sha256.in_(contents), ~(never_seen & Batch.sealed_at.is_not(None))).order_by(Scan.id)
    ).all()
    if unread:
        by_path = columns.where(Batch.root == submission.root, Scan.sha256.is_(None), Scan.path.in_(unread))
        rows = [*rows, *session.execute(by_path)]
    found: Earlier = {}
    for sha256, root, path in rows:
        found.setdefault(sha256, []).append(_Sent(root, path))
    return found


def _is_known(found: FoundFile, earlier: Earlier, root: str) -> bool:
    return _Sent(root, found.path) in earlier.get(found.sha256, ())


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


@dataclass
class _Row:
    """A file on its way into the tables."""

    found: FoundFile
    key: str
    urgent: bool
    reason: Reason | None
    detail: str | None
    chunk_id: int | None = None


def _add_scans(
    session: Session, submission: Submission, batch_id: int, new: Sequence[FoundFile], earlier: Earlier
) -> int:
    """Add the scans in bulk, with the outcomes that intake can give; the number of chunks made of the others."""
    rows = _plan(new, earlier, submission)
    waiting = [row for row in rows if row.reason is None]
    chunks = _add_chunks(session, submission, batch_id, waiting)
    session.execute(insert(SCANS), [_scan(batch_id, row) for row in rows])
    rejected = [row for row in rows if row.reason is not None]
    if rejected:
        named = session.execute(select(Scan.key, Scan.id).where(Scan.key.in_([row.key for row in rejected])))
        ids = {row.key: row.id for row in named}
        session.execute(insert(OUTCOMES), [_rejected(row, ids, submission.trained_model_id) for row in rejected])
    return chunks


def _plan(new: Sequence[FoundFile], earlier: Earlier, submission: Submission) -> list[_Row]:
    firsts = {sha256: f"{known[0].path} (submitted before)" for sha256, known in earlier.items() if sha256}
    rows = []
    keys = secrets.token_hex(16 * len(new))
    for number, found in enumerate(new):
        key = keys[32 * number : 32 * number + 32]
        row = _Row(found, key, found.urgent or submission.urgent, found.reason, found.detail)
        if found.reason is None and found.sha256 in firsts:
            row.reason, row.detail = Reason.DUPLICATE, f"same content as {printable(firsts[found.sha256])}"
        elif found.sha256:
            firsts.setdefault(found.sha256, found.path)
        rows.append(row)
    return rows


def _scan(batch_id: int, row: _Row) -> dict[str, Any]:
    found = row.found
    return {
        "key": row.key,
        "batch_id": batch_id,
        "chunk_id": row.chunk_id,
        "path": found.path,
        "size": found.size,
        "sha256": found.sha256,
        "patient": found.patient,
        "study": found.study,
        "age": found.age,
        "tags": found.tags,
    }


def _rejected(row: _Row, ids: dict[str, int], model_id: int) -> dict[str, Any]:
    return {
        "scan_id": ids[row.key],
        "trained_model_id": model_id,
        "generation": 0,
        "kind": Kind.REJECTED,
        "reason": row.reason,
        "detail": row.detail,
        "at": now(),
    }


def _add_chunks(session: Session, submission: Submission, batch_id: int, waiting: Sequence[_Row]) -> int:
    """Cut the waiting scans into chunks, urgent ones apart; how many."""
    cut = []
    for urgent in (True, False):
        rows = [row for row in waiting if row.urgent is urgent]
        for start in range(0, len(rows), submission.chunk_size):
            chunk = Chunk(
                batch_id=batch_id,
                trained_model_id=submission.trained_model_id,
                priority=URGENT if urgent else ROUTINE,
            )
            cut.append((chunk, rows[start : start + submission.chunk_size]))
    session.add_all(chunk for chunk, _ in cut)
    session.flush()
    for chunk, rows in cut:
        for row in rows:
            row.chunk_id = chunk.id
    return len(cut)
