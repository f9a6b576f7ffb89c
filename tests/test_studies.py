"""Studies: what they draw, what their intervals claim, and whole runs on a tiny network and drawn pictures."""

import json
import subprocess
import sys

import click
import cv2
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from small_models import offer_small

from db.errors import DataRefused
from workers import networks
from workers.training import (
    bases,
    data,
    frozen,
    metrics,
    studies,
    study_curve,
    study_draws,
    study_heads,
    study_intervals,
    study_paper,
)
from workers.training.examples import Split
from workers.training.study_protocol import Protocol

SMALL = ("--architecture", "small", "--weights", "small=none", "--head", "pooled256", "--repeats", "2")
QUICK = ("--epochs", "3", "--learning-rate", "0.01", "--batch-size", "8")


def write_pictures(folder, counts, seed=1):
    """Folders of class pictures: noise with a square in the middle, brighter from class to class."""
    rng = np.random.default_rng(seed)
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture = rng.integers(30, 110, (72, 72))
            picture[20:52, 20:52] += 70 * label
            cv2.imwrite(str(folder / name / f"{number}.png"), picture.clip(0, 255).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("two"), {"normal": 40, "covid": 40})


@pytest.fixture
def small(monkeypatch):
    offer_small(monkeypatch)


def run(*arguments):
    done = CliRunner().invoke(studies.study, [str(word) for word in arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done


def test_table4_puts_ours_beside_the_papers_for_every_architecture_with_weights(small, two_classes, tmp_path):
    missing = ("--architecture", "vgg19", "--weights", f"vgg19={tmp_path}/missing.h5", "--collection", "drawn pictures")

    done = run("table4", "--data", two_classes, *SMALL, *missing, *QUICK, "--images", "20", "--out", tmp_path / "out")

    result = json.loads((tmp_path / "out" / "table4.json").read_text())
    ours, lacking = result["rows"]
    assert (ours["trained"], ours["tested"]) == (32, 8)
    assert len(ours["repeats"]) == 2
    assert ours["over_repeats"]["auc"]["value"] > 0.8
    assert lacking["paper"]["accuracy"] == 0.916
    assert "weights not available" in lacking["weights"]
    assert result["data"]["collection"] == "drawn pictures"
    assert {"features", "heads"} == ours["seconds"].keys()
    assert "random weights" in done.stdout
    assert "89.10" in done.stdout  # the paper's sensitivity
    assert "steps of 0.25 points" in done.stdout  # its known error
    assert (tmp_path / "out" / "table4.svg").read_text().startswith("<?xml")


def test_table5_augments_what_trains_and_a_second_run_skips_the_base(small, two_classes, tmp_path, monkeypatch):
    asked = ("table5", "--data", two_classes, *SMALL, *QUICK, "--images", "20", "--copies", "2", "--cache", tmp_path)
    first = json.loads(run(*asked, "--json").stdout)
    monkeypatch.delattr(frozen.Body, "_see")
    second = json.loads(run(*asked, "--json").stdout)

    assert second["rows"][0]["repeats"] == first["rows"][0]["repeats"]
    assert first["made_by"]["protocol"]["copies"] == 2
    assert len(list(tmp_path.rglob("*.npy"))) == 40 * 3  # as they are, and two copies


def test_the_small_sample_study_tests_on_images_that_never_trained(small, tmp_path):
    folder = write_pictures(tmp_path / "data", {"normal": 80, "covid": 80})

    done = run("small-sample", "--data", folder, *SMALL, *QUICK, "--copies", "1", "--out", tmp_path / "out")

    result = json.loads((tmp_path / "out" / "small-sample.json").read_text())
    assert [one["training"] for one in result["runs"]] == [100, 80, 60]
    smaller, larger = result["runs"][0]["tests"]
    assert smaller["tested"] == larger["tested"] // 2
    assert smaller["paper"] == {"tested": 1381, "loss": 0.12437, "accuracy": 0.99131}
    assert larger["constant_answer"] >= 0.5
    assert len(result["runs"][0]["histories"][0]) == 3
    assert result["runs"][0]["histories"][0][0].keys() == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert "99.13" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").glob("*.svg")) == [
        f"small-sample-{size}.svg" for size in (100, 60, 80)
    ]


def test_the_learning_curve_takes_three_classes(small, tmp_path):
    folder = write_pictures(tmp_path / "data", {"normal": 30, "bacterial": 30, "viral": 30})

    done = run("learning-curve", "--data", folder, *SMALL, *QUICK, "--sizes", "6,12,24,9999", "--out", tmp_path / "out")

    result = json.loads((tmp_path / "out" / "learning-curve.json").read_text())
    points = result["curves"][0]["points"]
    assert [point["training"] for point in points] == [6, 12, 24]
    assert all(0 <= point["auc"]["low"] <= point["auc"]["value"] <= 1 for point in points)
    assert result["curves"][0]["reading"] in done.stdout
    assert result["data"]["classes"] == ["normal", "bacterial", "viral"]


def test_tables_are_of_two_classes(small, tmp_path):
    folder = write_pictures(tmp_path, {"normal": 14, "bacterial": 14, "viral": 14})

    with pytest.raises(DataRefused, match="use --classes"):
        run("table4", "--data", folder, *SMALL)


def test_a_pool_holds_every_picture_and_patient_once_and_nothing_held_back(tmp_path):
    folder = write_pictures(tmp_path, {"normal": 40, "covid": 40})
    (folder / "covid" / "copy.png").write_bytes((folder / "covid" / "1.png").read_bytes())
    lines = [
        "path,label,patient",
        *(f"{name}/{n}.png,{name},{name}{n // 2}" for name in ("normal", "covid") for n in range(40)),
    ]
    (folder / "list.csv").write_text("\n".join(lines))
    held_back = data.split(data.read([folder], 32).examples)[Split.HELD_BACK]

    pool = study_draws.read([folder], None, lambda done, of: None)
    of_patients = study_draws.read([folder / "list.csv"], None, lambda done, of: None)

    assert held_back.paths
    assert not set(held_back.paths) & set(pool.examples.paths)
    assert len({pixels.tobytes() for pixels in pool.examples.pixels}) == len(pool.examples)
    assert pool.classes == ("normal", "covid")
    assert 1 <= max(np.unique([f"{path.parent}{int(path.stem) // 2}" for path in of_patients.examples.paths],
                              return_counts=True)[1]) == 1  # fmt: skip


def test_a_split_is_eighty_to_twenty_in_every_class():
    labels = np.repeat([0, 1], 200)

    trained, tested = study_draws.eighty_twenty(labels, np.random.default_rng(1))

    assert np.bincount(labels[trained]).tolist() == [160, 160]
    assert np.bincount(labels[tested]).tolist() == [40, 40]
    assert sorted([*trained, *tested]) == list(range(400))


def test_smaller_draws_are_balanced_parts_of_the_larger():
    labels = np.repeat([0, 1, 2], 30)

    drawn = study_draws.balanced(labels, 20, np.random.default_rng(1), without=range(5))

    assert all(np.bincount(labels[drawn[: 3 * count]]).tolist() == [count] * 3 for count in (1, 7, 20))
    assert not set(range(5)) & set(drawn.tolist())


def test_overlapping_splits_get_wider_intervals_than_independent_draws():
    values = [0.9, 0.92, 0.88, 0.91, 0.89]

    draws = study_intervals.over_repeats(values)
    splits = study_intervals.over_repeats(values, tested=80, trained=320)

    assert draws.high - draws.value == pytest.approx(2.776 * np.std(values, ddof=1) / np.sqrt(5))
    assert (splits.high - splits.low) / (draws.high - draws.low) == pytest.approx(np.sqrt((1 / 5 + 1 / 4) * 5))
    assert study_intervals.over_repeats([0.9]).low == 0.0


@pytest.fixture
def repeats():
    """Five tests of 80 images each out of 400, with errors."""
    rng = np.random.default_rng(3)
    truth = np.arange(400) % 2 == 1
    scores = 1 / (1 + np.exp(-(2.5 * (truth - 0.5) + rng.standard_normal(400))))
    return [
        study_intervals.Tested(chosen, truth[chosen], scores[chosen])
        for chosen in (rng.permutation(400)[:80] for _ in range(5))
    ]


def test_figures_are_those_of_evaluation(repeats):
    ours = study_intervals.figures(repeats[0], 0.5)

    judged = metrics.evaluate(repeats[0].truth, repeats[0].scores, 0.5)
    assert {name: round(value, 9) for name, value in ours.items()} == {
        name: round(judged[name].value, 9) for name in study_paper.FIGURES
    }


def test_an_image_that_is_tested_five_times_is_not_five_images(repeats):
    again = [repeats[0]] * 5

    once = study_intervals.over_images(repeats[:1], 0.5)["accuracy"]
    five_times = study_intervals.over_images(again, 0.5)["accuracy"]
    different = study_intervals.over_images(repeats, 0.5)["accuracy"]

    assert five_times == once
    assert different.high - different.low < once.high - once.low


def test_the_curve_is_read_honestly():
    def points(*accuracies):
        return [
            {"training": size, "accuracy": {"value": float(np.mean(draws))}, "draws": {"accuracy": draws}}
            for size, draws in zip((100, 200, 400), accuracies, strict=True)
        ]

    rising = study_curve.reading(points([0.80, 0.81, 0.79], [0.85, 0.86, 0.84], [0.89, 0.90, 0.88]))
    flat = study_curve.reading(points([0.80, 0.81, 0.79], [0.85, 0.80, 0.84], [0.82, 0.85, 0.83]))

    assert "From 200 to 400 training images accuracy rose by 4.0 points" in rising
    assert "extrapolation, not a measurement" in rising
    assert "do not show that more images help" in flat


def test_weights_that_are_not_there_are_one_sentence(tmp_path):
    (tmp_path / "broken.h5").write_bytes(b"no weights")

    for source, said in (
        ("missing.h5", "no such file"),
        (str(tmp_path / "broken.h5"), "does not hold weights of vgg19"),
        ("shipped", "the model that ships is a resnet50"),
    ):
        with pytest.raises(bases.WeightsUnavailable, match=said) as refused:
            bases.load("vgg19", source)
        assert "\n" not in str(refused.value)


def test_the_shipped_base_is_said_to_have_seen_the_collection():
    base = bases.load("resnet50", "shipped")

    assert "not unseen" in base.label
    assert not any(name.startswith(("hidden", "scores")) for name in base.weights)


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_are_those_of_the_head_in_keras(classes):
    rng = np.random.default_rng(1)
    known = study_heads.Features(rng.standard_normal((40, 6)).astype(np.float16))
    labels = np.arange(40) % classes

    head = study_heads.fit(known, labels, np.arange(40), Protocol(epochs=2, learning_rate=0.05), classes=classes)

    rows = keras.Input((6,))
    model = keras.Model(rows, networks.classifier(rows, classes))
    networks.assign(model, head.weights)
    expected = model.predict(known.plain.astype(np.float32), verbose=0)
    np.testing.assert_allclose(study_heads.scores(head, known.plain), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--architecture", "resnet5"), "no architecture 'resnet5'"),
        (("--weights", "vgg19"), "ARCHITECTURE=... is needed"),
        (("--augment", "sharpen"), "'sharpen' is neither a preset"),
    ],
)
def test_a_wrong_option_is_told_before_any_image_is_read(options, said, tmp_path):
    with pytest.raises(click.BadParameter, match=said):
        run("table5", "--data", tmp_path, *options)


def test_help_loads_no_framework():
    code = (
        "import sys; from producer.cli import group\n"
        "for words in (['study', 'table5', '--help'], ['pretrain', '--help']):\n"
        "    group.main(words, standalone_mode=False)\n"
        "print([name for name in ('keras', 'tensorflow', 'matplotlib', 'sklearn') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)

    assert done.stdout.endswith("[]\n")
    assert "--copies" in done.stdout
