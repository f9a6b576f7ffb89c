"""`train` and `advise`: from labelled images to a folder that scores, with a report, or to one clear sentence."""

import json
import sys

import builders
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from small_models import offer_small, small_weights

from db.errors import Refused
from db.store import people
from db.store.connection import database
from db.words import Exit, Role
from producer import cli
from workers import golden, networks, trained_models
from workers.activation import shortcut_refusal
from workers.networks import HEADS
from workers.scoring import Scorer
from workers.training import bases, commands, data, making, recipes, reports
from workers.training.strategies import Strategy


def command(monkeypatch, *arguments):
    """Run `nightread` as the console script does: its exit code."""
    monkeypatch.setattr(sys, "argv", ["nightread", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def label(folder, *, normal=0, covid=0, size=128):
    """A folder of class folders; those with covid show a bright disc."""
    for name, count in (("normal", normal), ("covid", covid)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture = builders.chest(height=size, width=size, seed=number + 1000 * (name == "covid"))
            if name == "covid":
                cv2.circle(picture, (size // 3, size // 2), size // 6, 245, -1)
            cv2.imwrite(str(folder / name / f"{number}.png"), picture)
    return folder


@pytest.fixture
def small(monkeypatch):
    offer_small(monkeypatch)


def plan(folder, **fields):
    recipe = recipes.Recipe(
        "small", "pooled256", ("normal", "covid"), (recipes.Stage(32, 6, 5e-3),), strategy=Strategy.ALL, dropout=0.0
    )
    usual = {
        "folder": folder,
        "name": "tiny",
        "version": "1",
        "recipe": recipe,
        "flag_classes": ("covid",),
        "intended_use": making.intended_use(("normal", "covid"), 18, None),
        "command": "nightread train DATA",
    }
    return making.Plan(**{**usual, **fields})


def make(plan, labelled):
    material = making.Material.of(data.read([labelled], 32))
    values = {name: value for name, value in small_weights().items() if not name.startswith(("hidden", "scores"))}
    base = bases.Base("small", values, "random weights", "0" * 64)
    return making.make(plan, material, base, progress=recipes.silent)


def test_training_ends_in_a_folder_that_scores_and_says_what_it_is_worth(small, tmp_path):
    labelled = label(tmp_path / "data", normal=60, covid=60)

    made = make(plan(tmp_path / "tiny-1"), labelled)

    unseen = label(tmp_path / "unseen", normal=1, covid=1)
    pictures = [data.prepared((unseen / name / "0.png").read_bytes(), 32) for name in ("normal", "covid")]
    pictures.append(golden.picture(32))
    normal, covid, drawn = Scorer.load(made.folder, batch_size=2).predict(np.stack(pictures))
    assert normal.score < made.report["threshold"]["value"] <= covid.score
    assert made.report["judged"]["auc"]["value"] > 0.9
    assert made.report["golden_score"] == pytest.approx(drawn.score, abs=golden.SCORE_TOLERANCE / 10)
    assert trained_models.read_report(made.folder) == json.loads(json.dumps(made.report))
    assert list(tmp_path.glob("*.draft")) == []


def test_a_report_has_what_was_promised(small, tmp_path):
    made = make(plan(tmp_path / "tiny-1"), label(tmp_path / "data", normal=60, covid=60))

    wanted = (
        "made_by data parameters history threshold validation held_back judged judged_on confusion histogram roc "
        "precision_recall thresholds calibration rounding gate audit limits"
    )
    assert set(wanted.split()) <= made.report.keys()
    assert made.report["made_by"]["seed"] == 1
    assert made.report["made_by"]["command"] == "nightread train DATA"
    page = (made.folder / "report.html").read_text("utf-8")
    assert "tiny 1" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert reports.epochs(made.report["history"])[-1]["epoch"] == 6


def test_a_trained_model_is_gone_on_from_with_its_head(small, tmp_path):
    made = make(plan(tmp_path / "tiny-1"), label(tmp_path / "data", normal=60, covid=60))

    base = bases.load("small", str(made.folder))
    first = making.first_weights(plan(tmp_path / "tiny-2").recipe, base.weights)

    np.testing.assert_array_equal(first["hidden/kernel"], base.weights["hidden/kernel"])
    np.testing.assert_array_equal(first["late/kernel"], base.weights["late/kernel"])


def test_what_train_prints_as_json_is_what_others_build_on(small, tmp_path):
    made = make(plan(tmp_path / "tiny-1"), label(tmp_path / "data", normal=60, covid=60))

    told = making.summary(made)

    figures = {"auc", "sensitivity", "specificity", "accuracy", "precision", "f1"}
    assert told.keys() == {"model", "n", "threshold", "parameters", "folder", *figures}
    assert all(told[name].keys() == {"value", "low", "high"} for name in figures)
    assert told["parameters"]["total"] == told["parameters"]["trainable"] + told["parameters"]["frozen"]


def test_a_folder_that_is_there_is_not_written_over(small, tmp_path):
    (tmp_path / "tiny-1").mkdir()

    with pytest.raises(Refused, match="--version"):
        make(plan(tmp_path / "tiny-1"), label(tmp_path / "data", normal=20, covid=20))


def test_a_leak_through_the_size_of_images_is_found_and_refused(small, tmp_path):
    labelled = label(tmp_path / "data", normal=60)
    label(labelled, covid=60, size=160)

    made = make(plan(tmp_path / "tiny-1"), labelled)

    assert made.report["audit"]["file"]["value"] > 0.99
    assert "size" in (shortcut_refusal(made.report) or "")


def test_no_picture_of_a_patient_is_in_a_report_without_thumbnails(small, tmp_path):
    labelled = label(tmp_path / "data", normal=40, covid=40)
    (labelled / "covid" / "odd.png").write_bytes((labelled / "normal" / "1.png").read_bytes() + b" ")
    cv2.imwrite(str(labelled / "covid" / "plain.png"), builders.chest(height=128, width=128, seed=7777))

    made = make(plan(tmp_path / "tiny-1", thumbnails=False), labelled)

    assert "data:image/png" not in (made.folder / "report.html").read_text("utf-8")


def test_the_words_for_architectures_and_heads_are_those_of_the_tables():
    assert set(commands.ARCHITECTURES) == networks.ARCHITECTURES.keys()
    assert set(commands.HEADS) == HEADS.keys()
    assert set(commands.STRATEGIES) == set(Strategy)


@pytest.mark.parametrize(
    ("normal", "covid", "said"),
    [(5, 0, "covid"), (2, 1, "at least 5"), (0, 0, "normal")],
)
def test_bad_data_gets_one_clear_sentence(home, tmp_path, monkeypatch, capfd, normal, covid, said):
    labelled = label(tmp_path / "data", normal=normal, covid=covid)

    code = command(monkeypatch, "train", labelled)

    error = capfd.readouterr().err
    assert code == Exit.REFUSED
    assert said in error
    assert "Traceback" not in error


def test_a_csv_that_names_a_missing_file_is_refused(home, tmp_path, monkeypatch, capfd):
    (tmp_path / "data.csv").write_text("path,label\nnowhere.png,covid\nneither.png,normal\n")

    code = command(monkeypatch, "train", tmp_path / "data.csv")

    assert code == Exit.REFUSED
    assert "nowhere.png" in capfd.readouterr().err


@pytest.mark.parametrize(
    "option",
    [
        ("--augment", "wobble"),
        ("--augment", "rotation=50..10"),
        ("--stage", "224"),
        ("--flag", "flu"),
        ("--batch-size", "0"),
    ],
)
def test_a_wrong_option_is_a_wrong_use(home, tmp_path, monkeypatch, capfd, option):
    labelled = label(tmp_path / "data", normal=20, covid=20)

    code = command(monkeypatch, "train", labelled, "--strategy", "frozen", *option)

    assert code == Exit.USAGE
    assert "Traceback" not in capfd.readouterr().err


def test_a_preview_shows_what_augmentation_does_and_trains_nothing(home, tmp_path, monkeypatch, capfd):
    labelled = label(tmp_path / "data", normal=20, covid=20)
    monkeypatch.chdir(tmp_path)

    code = command(monkeypatch, "train", labelled, "--augment", "paper", "--preview", "sheet.png")

    assert code == Exit.DONE
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None
    assert "saturation changes nothing" in capfd.readouterr().err
    assert not list(tmp_path.glob("data-*"))


def test_advice_for_few_images_of_its_own_kind_is_to_freeze_all(home, tmp_path):
    labelled = label(tmp_path / "data", normal=20, covid=20)

    done = CliRunner().invoke(cli.group, ["advise", str(labelled), "--json"], catch_exceptions=False)

    told = json.loads(done.stdout)
    assert told["strategy"] == "frozen"
    assert told["quadrant"] == "small and similar"


def test_a_newcomer_trains_activates_and_measures_a_model_of_their_own(home, tmp_path, monkeypatch, capfd):
    labelled, unseen = (
        label(tmp_path / "data", normal=30, covid=30),
        label(tmp_path / "unseen", normal=6, covid=6, size=144),
    )
    monkeypatch.chdir(tmp_path)

    assert command(monkeypatch, "train", labelled, "--name", "clinic", "--epochs", 8) == Exit.DONE
    assert command(monkeypatch, "models", "import", "clinic-1") == Exit.DONE
    people.add_user(database(), "ada", role=Role.ADMIN, password_hash="none", site_ids=set(), by="a test")
    signed = ("--sign", "ada", "--why", "few images of our own")
    assert command(monkeypatch, "models", "activate", "clinic", *signed) == Exit.DONE
    capfd.readouterr()
    assert command(monkeypatch, "evaluate", "active", unseen, "--json") == Exit.DONE

    told = json.loads(capfd.readouterr().out)
    assert told["model"] == "clinic 1"
    assert told["n"] + sum(told["rejected"].values()) == 12
