"""Protocol mutants: each breaks one promise of the ledger's protocol, by patching this process from outside.

An auditor, and the nights that it looks at, are worth what they catch of these. Not in the table, because the protocol
does not rest on it: Celery's acknowledging early (the sweep rings again for whatever waits; what would hurt is to check
a chunk off before its outcomes are committed, and that is here)."""

import os
from collections.abc import Callable

from deploy.drill import ledger_mutants as ledger
from deploy.drill import recovery_mutants as recovery
from deploy.drill import work_mutants as work

MUTANT = "NIGHTREAD_DRILL_MUTANT"

MUTANTS: dict[str, Callable[[], None]] = {
    "complete_without_token": ledger.complete_without_token,
    "complete_twice": ledger.complete_twice,
    "outcomes_before_token": ledger.outcomes_before_token,
    "outcomes_after_commit": ledger.outcomes_after_commit,
    "acknowledge_at_claim": ledger.acknowledge_at_claim,
    "remainder_completed": ledger.remainder_completed,
    "remainder_held": ledger.remainder_held,
    "flagged_by_chance": ledger.flagged_by_chance,
    "flagged_and_not_listed": ledger.flagged_and_not_listed,
    "listed_and_not_counted": ledger.listed_and_not_counted,
    "one_token_for_all": ledger.one_token_for_all,
    "claim_not_exclusive": ledger.claim_not_exclusive,
    "claim_without_lease": ledger.claim_without_lease,
    "claim_uncounted": ledger.claim_uncounted,
    "renew_without_token": ledger.renew_without_token,
    "renew_nothing": ledger.renew_nothing,
    "host_clock": ledger.host_clock,
    "free_nothing": recovery.free_nothing,
    "free_the_living": recovery.free_the_living,
    "breadcrumb_ignored": recovery.breadcrumb_ignored,
    "blame_at_once": recovery.blame_at_once,
    "blame_never": recovery.blame_never,
    "blame_neighbours": recovery.blame_neighbours,
    "retry_without_generation": recovery.retry_without_generation,
    "retry_forgets": recovery.retry_forgets,
    "retry_unrecorded": recovery.retry_unrecorded,
    "generation_ignored": recovery.generation_ignored,
    "chain_of_single_links": recovery.chain_of_single_links,
    "head_not_noted": recovery.head_not_noted,
    "seal_before_the_last_page": work.seal_before_the_last_page,
    "never_sealed": work.never_sealed,
    "page_in_pieces": work.page_in_pieces,
    "duplicates_unmarked": work.duplicates_unmarked,
    "bad_files_left_out": work.bad_files_left_out,
    "known_files_forgotten": work.known_files_forgotten,
    "no_ring_again": work.no_ring_again,
    "rings_unbounded": work.rings_unbounded,
    "rings_carry_work": work.rings_carry_work,
    "any_score_taken": work.any_score_taken,
    "scores_shifted": work.scores_shifted,
    "rejects_dropped": work.rejects_dropped,
    "hash_unchecked": work.hash_unchecked,
    "root_away_is_missing": work.root_away_is_missing,
    "neighbours_spoiled": work.neighbours_spoiled,
    "blame_without_golden": work.blame_without_golden,
    "names_in_the_log": work.names_in_the_log,
    "names_in_the_heartbeat": work.names_in_the_heartbeat,
}


def arm(name: str) -> None:
    """Let this process run with a mutant; nothing for an empty name. Raises ValueError for one that does not exist,
    LookupError where the product lost what it patches."""
    if name and name not in MUTANTS:
        raise ValueError(f"no such mutant: {name} (deploy.drill.mutants.MUTANTS)")
    if name:
        MUTANTS[name]()


def arm_from_environment() -> None:
    """Arm what the environment asks for; nothing where it does not."""
    arm(os.environ.get(MUTANT, ""))
