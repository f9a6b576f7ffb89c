"""`nightread evaluate`: the figures are those of the scores that screening gives, and nothing flatters silently."""

import hashlib
import json
import subprocess
import sys

import click
import numpy as np
import pytest
from click.testing import CliRunner
from drawn import encoded
from small_models import SIZE, offer_small, write_small

from db.errors import DataRefused, ModelRefused, Unknown
from db.store import models, thresholds
from db.store.connection import database
from db.words import Exit
from producer.cli import group
from workers import model_folders, trained_models
from workers.scoring import Scorer
from workers.training import data, fingerprints, metrics

FIGURES = {"auc", "sensitivity", "specificity", "accuracy", "precision", "f1"}


def picture(seed):
    """Noise with its own brightness, so that even random weights give it a score of its own."""
    rng = np.random.default_rng(seed)
    return rng.integers(25, 60 + 10 * (seed % 18), (96, 96), dtype=np.uint8)


def labelled(folder, **counts):
    for place, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number:03}.png").write_bytes(encoded(".png", picture(1000 * place + number)))
    return folder


@pytest.fixture
def small(monkeypatch):
    offer_small(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # which the command sets: put back afterwards


@pytest.fixture
def model(small, tmp_path):
    write_small(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def images(tmp_path):
    return labelled(tmp_path / "images", normal=12, covid=10)


def run(*arguments):
    done = CliRunner().invoke(group, ["evaluate", *map(str, arguments)], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    assert done.return_value == Exit.DONE
    return done


def told(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


def scores_of(model, files):
    pixels = np.stack([data.prepared(file.read_bytes(), SIZE) for file in files])
    return np.array([one.score for one in Scorer.load(model).predict(pixels)])


def test_the_figures_are_those_of_the_scores_that_screening_gives(model, images):
    files = sorted(images.rglob("*.png"))
    truth = np.array([file.parent.name == "covid" for file in files])

    found = told(model, images)

    expected = metrics.as_json(metrics.evaluate(truth, scores_of(model, files), 0.4))
    assert (found["model"], found["n"], found["threshold"]) == ("small 1", 22, 0.4)
    assert found["images"] == {"normal": 12, "covid": 10}
    for name in FIGURES:
        assert found[name] == pytest.approx(expected[name]), name


def test_people_read_figures_with_intervals(model, images):
    done = run(model, images)

    assert "small 1 at threshold 0.4000 (the one its report recommends): 22 images scored" in done.stdout
    assert all(f"  {name} " in done.stdout for name in FIGURES)
    assert "does not say which images it was trained on" in done.stderr


def test_the_active_model_is_judged_at_the_threshold_that_rules(home, model, images):
    view = model_folders.take_in(database(), model, by="a test")
    models.activate(database(), view.id, why="a test", by="a test")
    thresholds.set_threshold(database(), view.id, 0.7, why="a test", by="a test")

    assert told("active", images)["threshold"] == 0.7
    assert told("small:1", images)["threshold"] == 0.7
    assert told(model, images)["threshold"] == 0.4


def test_without_a_database_active_is_the_model_that_ships(capsys):
    from workers.training.evaluate import find

    served = find("active")

    assert served.folder == trained_models.SHIPPED
    assert served.threshold == trained_models.recommended_threshold(trained_models.SHIPPED).value
    assert "there is no database" in capsys.readouterr().err


def test_without_a_database_no_other_name_is_known(images):
    with pytest.raises(Unknown, match="`active` is the model that ships"):
        run("nosuch", images)


def test_an_unknown_name_is_unknown(home, images):
    with pytest.raises(Unknown, match="stub 1"):
        run("stab", images)


def test_an_altered_model_is_refused(model, images):
    (model / "weights.safetensors").write_bytes(b"altered")

    with pytest.raises(ModelRefused):
        run(model, images)


def test_a_foreign_class_names_the_way_out(model, tmp_path):
    folder = labelled(tmp_path / "mixed", normal=3, covid=3, pneumonia=4)

    with pytest.raises(DataRefused, match=r"class pneumonia .*small 1 \(normal, covid\).*--as pneumonia=normal"):
        run(model, folder)
    assert told(model, folder, "--as", "pneumonia=normal")["images"] == {"normal": 7, "covid": 3}


@pytest.mark.parametrize(
    ("words", "said"),
    [("pneumonie=normal", "there is no class folder 'pneumonie'"), ("covid=sars", "has no class 'sars'")],
)
def test_a_renaming_that_means_nothing_is_refused(model, images, words, said):
    with pytest.raises(DataRefused, match=said):
        run(model, images, "--as", words)


@pytest.mark.parametrize("words", ["normal", "=normal", "normal="])
def test_a_renaming_without_a_class_is_a_wrong_use(model, images, words):
    with pytest.raises(click.BadParameter, match="FOLDER=CLASS"):
        run(model, images, "--as", words)


def test_class_folders_may_be_in_capitals(model, tmp_path):
    assert told(model, labelled(tmp_path / "loud", NORMAL=3, COVID=4))["images"] == {"normal": 3, "covid": 4}


def test_a_csv_is_judged_like_folders(model, images):
    lines = [f"{file.relative_to(images)},{file.parent.name}" for file in sorted(images.rglob("*.png"))]
    (images / "list.csv").write_text("path,label\n" + "\n".join(lines))

    assert told(model, images / "list.csv")["auc"] == told(model, images)["auc"]


def test_what_cannot_be_read_and_copies_are_left_out_by_name(model, images):
    (images / "normal" / "broken.png").write_text("not an image")
    (images / "normal" / "copy.png").write_bytes((images / "normal" / "000.png").read_bytes())

    done = run(model, images, "--json")

    found = json.loads(done.stdout)
    assert found["n"] == 22
    assert {one["path"].rpartition("/")[2] for one in found["excluded"]} <= {"broken.png", "copy.png", "000.png"}
    assert len(found["excluded"]) == 2
    assert "broken.png: not_an_image" in done.stderr


def test_one_class_alone_gives_the_figures_that_it_can(model, tmp_path):
    found = told(model, labelled(tmp_path / "one", normal=5))

    assert found["specificity"] == found["accuracy"]
    assert found["auc"] is None
    assert found["sensitivity"] is None


def test_what_the_gate_refuses_has_no_score(small, tmp_path, images):
    write_small(tmp_path / "open")
    files = sorted(images.rglob("*.png"))
    pixels = np.stack([data.prepared(file.read_bytes(), SIZE) for file in files])
    distances = np.array([one.distance for one in Scorer.load(tmp_path / "open").predict(pixels)])
    limit = float(np.median(distances))
    write_small(tmp_path / "strict", limit=limit)

    found = told(tmp_path / "strict", images)

    assert found["n"] == int((distances <= limit).sum())
    assert sum(found["rejected"].values()) == 22 - found["n"] > 0


def test_a_gate_that_refuses_everything_leaves_nothing_to_judge(small, tmp_path, images):
    write_small(tmp_path / "closed", limit=0.0)

    with pytest.raises(DataRefused, match="none of the 22 images"):
        run(tmp_path / "closed", images)


def test_only_the_held_back_tenth_is_judged_when_asked_for(model, tmp_path):
    folder = labelled(tmp_path / "many", normal=60, covid=60)
    kept = [f for f in folder.rglob("*.png") if int(hashlib.sha256(f.read_bytes()).hexdigest(), 16) % 10 == 0]

    assert told(model, folder, "--held-back")["n"] == len(kept) > 0


def test_images_that_trained_the_model_are_called_so(small, tmp_path, images):
    written = write_small(tmp_path / "model")
    seen = np.stack([data.prepared(file.read_bytes(), SIZE) for file in sorted((images / "covid").iterdir())])
    report = {"threshold": {"value": 0.4, "why": "a test"}, "data": {"seen": fingerprints.of(seen)}}
    trained_models.write_folder(tmp_path / "model", written, report)

    done = run(tmp_path / "model", images, "--json")

    assert json.loads(done.stdout)["seen_in_training"] == 10
    assert "WARNING: 10 of these images trained small 1" in done.stderr


def test_a_page_is_written_with_pictures_only_where_they_are_wanted(model, images, tmp_path):
    run(model, images, "--html", tmp_path / "with.html")
    run(model, images, "--html", tmp_path / "without.html", "--no-thumbnails")

    with_pictures, without = ((tmp_path / f"{name}.html").read_text() for name in ("with", "without"))
    assert "data:image/png" in with_pictures
    assert "data:image/png" not in without
    assert "22 images of images" in without


def test_more_than_two_classes_also_have_figures_of_their_own(small, tmp_path):
    classes = ("normal", "covid", "other")
    write_small(tmp_path / "model", classes=classes, flag_classes=("covid", "other"))

    found = told(tmp_path / "model", labelled(tmp_path / "images", normal=4, covid=4, other=4))

    assert set(found["per_class"]["recall"]) == set(classes)
    assert found["images"] == dict.fromkeys(classes, 4)


def test_reading_the_command_line_loads_no_engine():
    code = (
        "import sys, workers.training.evaluate; "
        "assert not {'tensorflow', 'keras', 'matplotlib', 'sklearn'} & set(sys.modules), 'loaded'"
    )

    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
