"""Mutants of what goes on around the ledger: submission, rings, a worker's steps, what is said of them."""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace as changed
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.errors import RootUnavailable, UnreadableImage
from db.schema import Outcome, Scan
from db.store import intake, recovery, reuse
from db.store.connection import Database
from db.store.intake import FoundFile, Page, Submission
from db.words import Reason
from deploy.drill.patches import found, replace

log = logging.getLogger(__name__)


def seal_before_the_last_page() -> None:
    """A batch is sealed once its first page is registered."""

    def make(original: Any) -> Any:
        def registered(db: Database, submission: Submission, pages: Any) -> Iterator[Page]:
            for page in original(db, submission, pages):
                intake.seal(db, submission)
                yield page

        return registered

    replace("producer.submission:_registered", make)


def never_sealed() -> None:
    """A submission ends without sealing its batch."""
    replace("db.store.intake:seal", lambda original: lambda db, submission: 1)


def page_in_pieces() -> None:
    """What belongs to a page is committed bit by bit."""

    def make(original: Any) -> Any:
        def insert_rows(session: Session, *told: Any) -> None:
            original(session, *told)
            connection = session.connection()
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else "BEGIN")

        return insert_rows

    replace("db.store.bulk:insert_rows", make)


def duplicates_unmarked() -> None:
    """A second copy of a content is scored like the first."""
    replace(
        "db.store.intake:_rejections",
        lambda original: (
            lambda new, earlier: {at: why for at, why in original(new, earlier).items() if why[0] != Reason.DUPLICATE}
        ),
    )


def bad_files_left_out() -> None:
    """What intake finds wrong is not registered at all."""

    def make(original: Any) -> Any:
        def add_page(db: Database, submission: Submission, files: Sequence[FoundFile]) -> Page:
            page: Page = original(db, submission, [file for file in files if file.reason is None])
            return page

        return add_page

    replace("db.store.intake:add_page", make)


def any_score_taken() -> None:
    """What was computed last stands for every other picture, too."""

    def make(original: Any) -> Any:
        def of_pixels(db: Database, model_id: int, digests: Collection[str], **told: Any) -> dict[Any, reuse.Standing]:
            newest = select(func.max(Outcome.id)).where(Outcome.recipe.is_not(None))
            with db.reading() as session:
                rows = reuse._rows(session, newest)
            return {(digest, row.preprocessing): reuse._view(row) for digest in digests for row in rows}

        return of_pixels

    replace("db.store.reuse:of_pixels", make)


def known_files_forgotten() -> None:
    """A folder that is submitted again is a new one."""
    replace("db.store.intake:_is_known", lambda original: lambda file, earlier, root: False)


def no_ring_again() -> None:
    """The sweep rings for nothing: what was lost with the queue stays unrung."""
    replace("workers.sweep:sweep", lambda original: lambda db: recovery.free_expired(db))


def rings_unbounded() -> None:
    """A ring for each chunk that waits, each time."""
    replace("workers.queue:MOST_RINGS", lambda most: 10**9)


def rings_carry_work() -> None:
    """A message says what to work on."""

    def make(original: Any) -> Any:
        def send_task(self: Any, name: str, **more: Any) -> Any:
            return original(self, name, args=["chunk 1"], **more)

        return send_task

    replace("celery:Celery.send_task", make)


def scores_shifted() -> None:
    """Each scan of a batch gets its neighbour's score."""

    def make(original: Any) -> Any:
        def predict(hand: Any, loaded: Any, pixels: Any) -> Any:
            first, *others = original(hand, loaded, pixels)
            return [*others, first]

        return predict

    replace("workers.tasks:predict", make)


def rejects_dropped() -> None:
    """What a worker rejects is not handed in."""
    replace(
        "workers.tasks:prepare",
        lambda original: lambda *told: changed(original(*told), rejected=[]),
    )


def hash_unchecked() -> None:
    """What is scored need not be what was submitted."""
    replace("workers.preparing:source_of", lambda original: lambda scan: changed(original(scan), sha256=""))


def root_away_is_missing() -> None:
    """Where the storage is away, its files are missing."""

    def make(original: Any) -> Any:
        def decoded(decoders: Any, cache: Any, eyes: Any, scans: Any, **more: Any) -> Any:
            answers = 0
            try:
                for answer in original(decoders, cache, eyes, scans, **more):
                    answers += 1
                    yield answer
            except RootUnavailable as error:
                for _ in scans[answers:]:
                    yield UnreadableImage(Reason.MISSING, str(error))

        return decoded

    replace("workers.preparing:decoded", make)


def neighbours_spoiled() -> None:
    """Where the engine fails over several scans, all of them have failed."""

    def make(original: Any) -> Any:
        def score_slice(hand: Any, loaded: Any, ready: Any, keepers: Any) -> Any:
            try:
                for _, decoded in ready:
                    loaded.scorer.predict(decoded.pixels[None])
            except RuntimeError as error:
                failed = found("workers.tasks:_failed")
                return [keepers.submit(failed, scan, error) for scan, _ in ready]
            return original(hand, loaded, ready, keepers)

        return score_slice

    replace("workers.tasks:score_slice", make)


def blame_without_golden() -> None:
    """A worker names scans though nothing shows that its device is sound."""
    replace("workers.golden:check", lambda original: lambda *told, **more: None)


def names_in_the_log() -> None:
    """The log says which file is decoded."""

    def make(original: Any) -> Any:
        def answered(scan: Any, answer: Any) -> Any:
            log.info("decoding %r", scan.path)
            return original(scan, answer)

        return answered

    replace("workers.preparing:answered", make)


def names_in_the_heartbeat() -> None:
    """The heartbeat says which file is in hand."""

    def make(original: Any) -> Any:
        def beat(db: Database, **told: Any) -> None:
            with db.reading() as session:
                path = session.scalar(select(Scan.path).limit(1))
            original(db, **{**told, "doing": f"scoring {path}"})

        return beat

    replace("db.store.heartbeats:beat", make)
