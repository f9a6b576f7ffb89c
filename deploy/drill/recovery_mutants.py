"""Mutants of recovery: what the sweep takes back, who is blamed, what is tried again, what is on record."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db.schema import Batch, Chunk, Outcome, Scan
from db.store import recovery, scoring
from db.store.chain import FIRST
from deploy.drill.patches import replace


def free_nothing() -> None:
    """What was lost with a worker stays lost."""
    replace("db.store.recovery:free_expired", lambda original: lambda db: recovery.Swept())


def free_the_living() -> None:
    """The sweep takes back whatever is held."""
    replace(
        "db.store.recovery:_expired",
        lambda original: (
            lambda session: session.scalars(
                select(Chunk).where(Chunk.completed_at.is_(None), Chunk.token.is_not(None))
            ).all()
        ),
    )


def breadcrumb_ignored() -> None:
    """Nobody looks at which scan a lost worker had in hand."""
    _before_taking_back(lambda session, chunk: setattr(chunk, "breadcrumb", None))


def blame_at_once() -> None:
    """One sound worker that is lost with a scan is enough to give it up."""
    replace("db.store.recovery:_set_apart", lambda original: _given_up_at_once(original))
    recovery.VOUCHERS = 1


def blame_never() -> None:
    """No scan is ever given up."""
    recovery.VOUCHERS = 1_000_000


def blame_neighbours() -> None:
    """All scans of a chunk fail with the one that was in hand."""

    def fail_all(session: Session, chunk: Chunk) -> None:
        scans = [scan.id for scan in scoring.waiting_scans(session, chunk.id)]
        for scan_id in scans if chunk.breadcrumb in scans else ():
            recovery._give_up(session, chunk, scan_id, is_alive=False)

    _before_taking_back(fail_all)


def retry_without_generation() -> None:
    """What failed is put into a chunk again, under the generation that it failed at."""

    def make(original: Any) -> Any:
        def rewait(session: Session, batch: Batch, scans: Sequence[Scan]) -> None:
            original(session, batch, scans)
            for scan in scans:
                scan.generation -= 1

        return rewait

    replace("db.store.recovery:_rewait", make)


def retry_forgets() -> None:
    """What is tried again never failed: its outcome is removed, its generation stays."""

    def make(original: Any) -> Any:
        def rewait(session: Session, batch: Batch, scans: Sequence[Scan]) -> None:
            original(session, batch, scans)
            for scan in scans:
                scan.generation -= 1
            session.execute(delete(Outcome).where(Outcome.scan_id.in_([scan.id for scan in scans])))

        return rewait

    replace("db.store.recovery:_rewait", make)


def retry_unrecorded() -> None:
    """Nobody can tell that scans were tried again."""
    vars(recovery)["record"] = lambda *told, **more: None  # there alone: others go on recording


def generation_ignored() -> None:
    """Every outcome is written at generation 0."""
    replace(
        "db.store.scoring:generations_of",
        lambda original: lambda session, chunk_id: dict.fromkeys(original(session, chunk_id), 0),
    )


def chain_of_single_links() -> None:
    """An event's hash covers that event alone."""
    replace("db.store.chain:digest", lambda original: lambda key, before, event: original(key, FIRST, event))


def head_not_noted() -> None:
    """Where the record ends is known to the database alone."""
    replace("db.store.audit:_keep_head", lambda original: lambda config, head: None)


def _before_taking_back(step: Callable[[Session, Chunk], None]) -> None:
    def make(original: Any) -> Any:
        def take_back(session: Session, chunk: Chunk) -> Any:
            step(session, chunk)
            session.flush()
            return original(session, chunk)

        return take_back

    replace("db.store.recovery:_take_back", make)


def _given_up_at_once(original: Any) -> Any:
    def set_apart(session: Session, chunk: Chunk, scan_ids: Sequence[int], *, attempts: int, vouched: int) -> None:
        original(session, chunk, scan_ids, attempts=attempts, vouched=vouched)
        if vouched:
            apart = session.get_one(Chunk, session.get_one(Scan, scan_ids[0], populate_existing=True).chunk_id)
            recovery._give_up(session, apart, scan_ids[0], is_alive=False)

    return set_apart
