"""The screening centre's commands: counts that add up, stable exit codes, JSON shapes that others build on."""

import csv
import json
import sys

import builders
import click
import pytest
from click.testing import CliRunner

from db.store import models, reading, scoring
from db.store.connection import database
from db.words import Exit
from producer.cli import group, main

SHAPE = {
    "batch",
    "site",
    "model",
    "found",
    "scored",
    "flagged",
    "rejected",
    "failed",
    "waiting",
    "reasons",
    "seconds",
    "images_per_second",
}
SCAN_SHAPE = {
    "path",
    "outcome",
    "reason",
    "score",
    "threshold",
    "flagged",
    "model",
    "engine",
    "precision",
    "seconds",
}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "scans"
    made.mkdir()
    for number in range(3):
        (made / f"{number}.png").write_bytes(builders.encoded(".png", builders.chest(seed=number)))
    (made / "empty.png").touch()
    return made


def run(*arguments):
    done = CliRunner().invoke(group, [str(word) for word in arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done


def as_json(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


def score_all(*, cause=None):
    """What a worker would do, without one."""
    db = database()
    model = models.active(db).id
    while claim := scoring.claim_chunk(db, "w", trained_model_id=model, lease_seconds=30):
        results = [
            scoring.Failed(scan.id, cause, "a test")
            if cause
            else scoring.Scored(scan.id, 0.25 + scan.id / 10, {}, {}, "tensorflow", "float32", "cpu", 0.1)
            for scan in claim.scans
        ]
        assert scoring.complete_chunk(db, claim, results)


def test_submit_counts_what_a_person_can_act_on(home, queue_server, folder):
    said = run("submit", folder).stdout

    assert "4 scans in batch 1 (4 new, 0 known before); 1 files rejected (1 empty)" in said


def test_submitting_again_unchanged_gives_the_same_batch_and_totals(home, queue_server, folder):
    first = as_json("submit", folder)
    score_all()
    scored = as_json("status", 1)["batches"][0]
    again = as_json("submit", folder)

    assert first.keys() == SHAPE
    assert again == scored
    assert (again["found"], again["scored"], again["rejected"], again["waiting"]) == (4, 3, 1, 0)


def test_submitting_with_additions_gives_a_new_batch_of_those(home, queue_server, folder):
    run("submit", folder)
    (folder / "new.png").write_bytes(builders.encoded(".png", builders.chest(seed=9)))
    (folder / "copy.png").write_bytes((folder / "1.png").read_bytes())

    added = as_json("submit", folder)

    assert (added["batch"], added["found"], added["reasons"]) == (2, 2, {"duplicate": 1})


def test_an_unknown_site_is_refused_with_the_nearest_names(home, folder, monkeypatch, capsys):
    run("site", "add", "North clinic")
    monkeypatch.setattr("sys.argv", ["nightread", "submit", str(folder), "--site", "Nort clinic"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == Exit.USAGE
    assert "did you mean 'North clinic'" in capsys.readouterr().err
    assert {one["site"] for one in as_json("site", "list")} == {"local", "North clinic"}


def test_a_dry_run_registers_nothing(home, folder):
    assert as_json("submit", folder, "--dry-run") == {"found": 4, "rejected": 1, "reasons": {"empty": 1}}
    assert reading.batches(database()) == []


def test_a_folder_outside_the_listed_roots_is_refused(home, folder, monkeypatch, tmp_path):
    from db.settings import settings

    monkeypatch.setenv("NIGHTREAD_ROOTS", str(tmp_path / "elsewhere"))
    settings.cache_clear()
    database.cache_clear()
    monkeypatch.setattr("sys.argv", ["nightread", "submit", str(folder)])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == Exit.REFUSED


def test_without_a_queue_the_scans_are_registered_all_the_same(home, folder):
    done = run("submit", folder)

    assert done.return_value == Exit.DONE
    assert "the sweep will ring" in done.stderr
    assert reading.totals(database(), 1).waiting == 3


def test_the_report_lists_every_file_and_ends_0_only_when_all_are_accounted_for(home, queue_server, folder, tmp_path):
    run("submit", folder)
    assert run("report", 1).return_value == Exit.PARTIAL
    score_all()

    done = run("report", 1, "--csv", tmp_path / "r.csv")
    report = as_json("report", 1)

    assert done.return_value == Exit.DONE
    assert report.keys() == SHAPE | {"scans", "certificate", "to_verdict", "live"}
    assert all(scan.keys() == SCAN_SHAPE for scan in report["scans"])
    assert [scan["path"] for scan in report["scans"]] == ["0.png", "1.png", "2.png", "empty.png"]
    assert [row["outcome"] for row in csv.DictReader((tmp_path / "r.csv").open())] == ["scored"] * 3 + ["rejected"]


def test_the_morning_report_reads_from_totals_to_the_worst_scan(home, queue_server, folder):
    run("submit", folder)
    score_all()

    said = run("report", 1).stdout

    assert "4 found = 3 scored + 1 rejected + 0 failed" in said
    assert said.index("empty ") < said.index("Flagged, worst first") < said.index("0.550 >= 0.500  2.png")
    assert "only a physician says positive" in said


def test_a_cell_that_a_spreadsheet_would_run_is_defused(home, queue_server, folder, tmp_path):
    (folder / "=1+1.png").touch()
    run("submit", folder)
    run("report", 1, "--csv", tmp_path / "r.csv")

    assert "'=1+1.png" in {row["path"] for row in csv.DictReader((tmp_path / "r.csv").open())}


def test_failed_scans_are_retried_on_record(home, queue_server, folder):
    run("submit", folder)
    score_all(cause="engine_error")
    assert run("status", 1).return_value == Exit.PARTIAL

    assert as_json("retry", 1) == {"batch": 1, "retried": 3}
    score_all()

    assert as_json("status", 1)["batches"][0]["scored"] == 3
    assert run("status", 1).return_value == Exit.DONE


def test_an_interrupted_submission_is_gone_on_with(home, queue_server, folder, monkeypatch):
    from producer import submission

    monkeypatch.setattr(submission, "FIRST_PAGE", 2)
    pages = submission.pages

    def interrupted(files):
        yield next(pages(files))
        raise KeyboardInterrupt

    monkeypatch.setattr(submission, "pages", interrupted)
    with pytest.raises(click.Abort):
        run("submit", folder)
    monkeypatch.setattr(submission, "pages", pages)
    assert not reading.totals(database(), 1).sealed

    assert as_json("resume")["resumed"] == [1]

    totals = reading.totals(database(), 1)
    assert (totals.found, totals.sealed) == (4, True)


def test_an_unknown_batch_is_a_usage_error(home, monkeypatch):
    monkeypatch.setattr("sys.argv", ["nightread", "report", "77"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == Exit.USAGE


def test_a_database_out_of_reach_ends_3(home, monkeypatch, capsys):
    from db.settings import settings

    monkeypatch.setenv("NIGHTREAD_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    settings.cache_clear()
    database.cache_clear()
    monkeypatch.setattr("sys.argv", ["nightread", "status"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == Exit.UNREACHABLE
    assert "the database does not answer" in capsys.readouterr().err


def test_a_front_end_says_which_extra_a_command_needs(home, monkeypatch, capfd):
    monkeypatch.delitem(sys.modules, "workers.training.pretrain", raising=False)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setattr(sys, "argv", ["nightread", "pretrain", "--help"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == Exit.REFUSED
    assert "the extra `worker`" in capfd.readouterr().err
