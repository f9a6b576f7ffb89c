"""The auditor and the hostile nights are worth what they catch: each mutant of the protocol breaks one night, and the
same night under the protocol as it is breaks nothing."""

import json
import shutil

import pytest
from staged import CANARY, Stage, expected_digest, pictures, write_folder

from deploy.drill.mutants import MUTANTS, arm
from deploy.drill.runs import ExpectedOutcome

FIRST = f"{CANARY}-00.png".encode()
# Which night each mutant does not come through.
CAUGHT = {
    "complete_without_token": "a_sleeper_wakes_with_wrong_results",
    "complete_twice": "a_sleeper_wakes_with_wrong_results",
    "outcomes_before_token": "a_sleeper_wakes_with_wrong_results",
    "outcomes_after_commit": "a_worker_dies_at_its_first_commit_of_a_completion",
    "acknowledge_at_claim": "a_worker_is_killed",
    "remainder_completed": "a_worker_is_told_to_stop",
    "remainder_held": "a_worker_is_told_to_stop",
    "flagged_by_chance": "quiet",
    "flagged_and_not_listed": "quiet",
    "listed_and_not_counted": "quiet",
    "one_token_for_all": "a_sleeper_wakes_with_wrong_results",
    "claim_not_exclusive": "two_workers_at_once",
    "claim_without_lease": "a_worker_is_killed",
    "claim_uncounted": "a_scan_kills_its_workers",
    "renew_without_token": "a_sleeper_goes_on_renewing",
    "renew_nothing": "the_device_is_slow_and_the_sweep_quick",
    "host_clock": "a_worker_with_a_wrong_clock_dies",
    "free_nothing": "a_worker_is_killed",
    "free_the_living": "the_device_is_slow_and_the_sweep_quick",
    "breadcrumb_ignored": "a_scan_kills_its_workers",
    "blame_at_once": "a_sound_worker_is_killed_once_with_a_scan_in_hand",
    "blame_never": "a_scan_kills_its_workers",
    "blame_neighbours": "a_scan_kills_its_workers",
    "retry_without_generation": "what_failed_is_tried_again",
    "retry_forgets": "what_failed_is_tried_again",
    "retry_unrecorded": "what_failed_is_tried_again",
    "generation_ignored": "what_failed_is_tried_again",
    "chain_of_single_links": "what_failed_is_tried_again",
    "head_not_noted": "what_failed_is_tried_again",
    "seal_before_the_last_page": "a_producer_is_killed_between_pages",
    "never_sealed": "quiet",
    "page_in_pieces": "a_producer_is_killed_within_a_page",
    "duplicates_unmarked": "quiet",
    "bad_files_left_out": "quiet",
    "known_files_forgotten": "a_folder_is_submitted_twice",
    "no_ring_again": "the_queue_is_wiped",
    "rings_unbounded": "many_chunks_wait",
    "rings_carry_work": "many_chunks_wait",
    "any_score_taken": "many_chunks_wait",
    "scores_shifted": "quiet",
    "rejects_dropped": "quiet",
    "hash_unchecked": "a_file_changes_after_submission",
    "root_away_is_missing": "the_storage_is_away_for_a_while",
    "neighbours_spoiled": "the_engine_fails_over_one_scan",
    "blame_without_golden": "a_sick_device_kills_its_workers",
    "names_in_the_log": "quiet",
    "names_in_the_heartbeat": "quiet",
}
# What the first scan comes to where it is not scored.
OTHERWISE = {
    "a_scan_kills_its_workers": ExpectedOutcome("failed", reason="worker_died"),
    "the_engine_fails_over_one_scan": ExpectedOutcome("failed", reason="engine_error"),
    "a_file_changes_after_submission": ExpectedOutcome("rejected", reason="changed_since_submission"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("nights")
    return {name: (root / name, write_folder(root / name, good=good)) for name, good in (("usual", 8), ("many", 40))}


@pytest.fixture
def play(home, queue_server, folders, tmp_path, request):
    """Run a night, with a mutant or none; what people saw and what the auditor finds."""
    stages = []

    def played(night, mutant=""):
        template, files = folders["many" if night == "many_chunks_wait" else "usual"]
        folder = shutil.copytree(template, tmp_path / "scans")
        expected = {**files, FIRST: OTHERWISE.get(night, files[FIRST])}
        stage = Stage(request.getfixturevalue("home"), folder, expected)
        stages.append(stage)
        if night == "many_chunks_wait":
            stage.config = stage.config.model_copy(update={"chunk_size": 1})
        first = [expected_digest(pictures(1)[0])]
        report = stage.config.home / "report.json"
        order = {"night": night, "mutant": mutant, "poison": first, "broken": first, "report": str(report)}
        assert stage.run("staged_nights.run", **order) == 0
        return [f"seen: {one}" for one in json.loads(report.read_text())] + stage.audit()

    yield played
    for stage in stages:
        stage.close()


def test_every_mutant_has_a_night_that_shall_catch_it():
    assert CAUGHT.keys() == MUTANTS.keys()
    assert len(MUTANTS) >= 20
    with pytest.raises(ValueError, match="no such mutant"):
        arm("a_mutant_that_nobody_wrote")


@pytest.mark.parametrize("night", sorted(set(CAUGHT.values())))
def test_the_protocol_as_it_is_comes_through_every_night(play, night):
    assert play(night) == []


@pytest.mark.parametrize(("mutant", "night"), CAUGHT.items())
def test_a_mutant_of_the_protocol_is_caught(play, mutant, night):
    said = play(night, mutant)

    assert said, f"{mutant} survives the night"
