"""Mutants of the ledger: claims, completion, leases."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace as changed
from types import SimpleNamespace
from typing import Any

from sqlalchemy import literal, select, text
from sqlalchemy.orm import Session

from db.schema import Chunk, Outcome, Scan
from db.store import models, scoring
from db.store.connection import Database, now
from db.store.scoring import Claim, Result
from deploy.drill.patches import replace

COMPLETE, CLAIM, RENEW = (f"db.store.scoring:{name}" for name in ("complete_chunk", "claim_chunk", "renew"))


def complete_without_token() -> None:
    """Whoever has a chunk's number may complete it."""
    _held_inside(COMPLETE, lambda claim: (Chunk.id == claim.chunk_id, Chunk.completed_at.is_(None)))


def renew_without_token() -> None:
    """Whoever has a chunk's number may renew its lease."""
    _held_inside(RENEW, lambda claim: (Chunk.id == claim.chunk_id, Chunk.completed_at.is_(None)))


def complete_twice() -> None:
    """Results that come too late are kept as well."""

    def make(original: Any) -> Any:
        def complete(db: Database, claim: Claim, results: Sequence[Result]) -> bool:
            return bool(original(db, claim, results)) or _add_outcomes(db, claim, results, later=1)

        return complete

    replace(COMPLETE, make)


def outcomes_before_token() -> None:
    """Outcomes are written first, in a transaction of their own; then it is asked whether the claim holds."""

    def make(original: Any) -> Any:
        def complete(db: Database, claim: Claim, results: Sequence[Result]) -> bool:
            _add_outcomes(db, claim, results)
            with db.writing() as session:
                return _check_off(session, claim)

        return complete

    replace(COMPLETE, make)


def outcomes_after_commit() -> None:
    """A chunk is checked off in one transaction, its outcomes are written in the next."""

    def make(original: Any) -> Any:
        def complete(db: Database, claim: Claim, results: Sequence[Result]) -> bool:
            with db.writing() as session:
                if not _check_off(session, claim):
                    return False
            return _add_outcomes(db, claim, results)

        return complete

    replace(COMPLETE, make)


def acknowledge_at_claim() -> None:
    """A chunk is checked off when it is handed out: acknowledged before the commit of its outcomes."""
    _held_inside(COMPLETE, lambda claim: (Chunk.id == claim.chunk_id, Chunk.token == claim.token))
    _held_inside(RENEW, lambda claim: (Chunk.id == claim.chunk_id, Chunk.token == claim.token))
    _after_claim("completed_at = '2026-01-01 00:00:00'")


def remainder_completed() -> None:
    """A chunk that is only partly scored counts as completed."""

    def make(original: Any) -> Any:
        def complete(db: Database, claim: Claim, results: Sequence[Result]) -> bool:
            done = bool(original(db, claim, results))
            if done:
                _sql(db, "UPDATE chunks SET completed_at = '2026-01-01 00:00:00' WHERE id = :id", id=claim.chunk_id)
            return done

        return complete

    replace(COMPLETE, make)


def remainder_held() -> None:
    """Whoever completes a part of a chunk keeps the rest, though it stops."""

    def make(original: Any) -> Any:
        def complete(db: Database, claim: Claim, results: Sequence[Result]) -> bool:
            done = bool(original(db, claim, results))
            held = "UPDATE chunks SET token = :token WHERE id = :id AND completed_at IS NULL"
            _sql(db, held, id=claim.chunk_id, token=claim.token)
            return done

        return complete

    replace(COMPLETE, make)


def flagged_by_chance() -> None:
    """What is flagged has nothing to do with the threshold."""

    def make(original: Any) -> Any:
        def outcome_of(result: Result, model_id: int, threshold: float, generation: int) -> Outcome:
            row: Outcome = original(result, model_id, threshold, generation)
            row.flagged = None if row.flagged is None else result.scan_id % 2 == 0
            return row

        return outcome_of

    replace("db.store.scoring:outcome_of", make)


def flagged_and_not_listed() -> None:
    """What is flagged is on no reader's worklist."""
    replace("db.store.enlisting:enlist", lambda original: lambda *told: None)


def listed_and_not_counted() -> None:
    """The worklist's counts are not kept."""
    replace("db.store.tallies:change", lambda original: lambda *told: None)


def one_token_for_all() -> None:
    """A token is no secret of one claim."""
    replace("db.store.scoring:secrets", lambda original: SimpleNamespace(token_hex=lambda size: "0" * 2 * size))


def claim_not_exclusive() -> None:
    """A chunk may be claimed while somebody holds it."""
    replace(
        "db.store.scoring:_claimable",
        lambda original: (
            lambda not_batches: (
                select(Chunk).where(Chunk.completed_at.is_(None)).order_by(Chunk.priority.desc(), Chunk.id).limit(1)
            )
        ),
    )


def claim_without_lease() -> None:
    """A claim never runs out."""
    _after_claim("lease_until = NULL")
    replace(RENEW, lambda original: lambda db, claim, **more: True)


def claim_uncounted() -> None:
    """Every claim is the first one."""
    _after_claim("attempts = 1")
    replace(
        CLAIM,
        lambda original: (
            lambda *told, **more: None if (claim := original(*told, **more)) is None else changed(claim, attempts=1)
        ),
    )


def renew_nothing() -> None:
    """A lease ends though its holder makes progress."""
    replace(RENEW, lambda original: lambda db, claim, **more: True)


def host_clock() -> None:
    """Leases go by the clock of whoever asks."""
    replace("db.store.connection:epoch_now", lambda original: lambda: literal(time.time()))


def _held_inside(target: str, held: Callable[[Claim], tuple[Any, ...]]) -> None:
    """Let `target` ask `held` whether a claim holds, and nobody else."""
    inside = threading.local()

    def make(original: Any) -> Any:
        def entered(*told: Any, **more: Any) -> Any:
            inside.here = True
            try:
                return original(*told, **more)
            finally:
                inside.here = False

        return entered

    replace(target, make)
    replace(
        "db.store.scoring:_held",
        lambda original: lambda claim: held(claim) if getattr(inside, "here", False) else original(claim),
    )


def _after_claim(values: str) -> None:
    def make(original: Any) -> Any:
        def claim_chunk(db: Database, *told: Any, **more: Any) -> Claim | None:
            claim: Claim | None = original(db, *told, **more)
            if claim is not None:
                _sql(db, f"UPDATE chunks SET {values} WHERE id = :id", id=claim.chunk_id)  # noqa: S608 (ours)
            return claim

        return claim_chunk

    replace(CLAIM, make)


def _add_outcomes(db: Database, claim: Claim, results: Sequence[Result], *, later: int = 0) -> bool:
    with db.writing() as session:
        threshold = models.held_threshold(session, claim.trained_model_id)
        for result in results:
            generation = session.get_one(Scan, result.scan_id).generation + later
            session.add(scoring.outcome_of(result, claim.trained_model_id, threshold, generation))
    return not later


def _check_off(session: Session, claim: Claim) -> bool:
    chunk = session.scalar(select(Chunk).where(*scoring._held(claim)))
    if chunk is not None:
        scoring.let_go(chunk)
        chunk.completed_at = now()
    return chunk is not None


def _sql(db: Database, statement: str, **values: Any) -> None:
    with db.writing() as session:
        session.execute(text(statement), values)
