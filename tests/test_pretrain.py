"""A backbone from pictures, with and without labels: what it says of itself, and that training takes it."""

import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file
from small_models import offer_small

from db.errors import DataRefused, ModelRefused, Refused
from workers.training import bases, pretrain, pretrain_tasks
from workers.training.examples import Split
from workers.training.parting import split_of


@pytest.fixture(autouse=True)
def small(monkeypatch):
    offer_small(monkeypatch)


def write_pictures(folder, count, seed=1, brightness=0):
    """Pictures of waves that rise slowly and fall at once, from top to bottom: one can tell which way up they are."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        picture = rng.integers(20, 40, (72, 72)) + 10 * ((np.arange(72) + number) % 12)[:, None] + brightness
        cv2.imwrite(str(folder / f"{number}.png"), picture.clip(0, 255).astype(np.uint8))
    return folder


def run(*arguments):
    done = CliRunner().invoke(pretrain.pretrain, [str(word) for word in arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done


QUICK = ("--architecture", "small", "--stage", "32:2:1e-2", "--batch-size", "8")


def test_findings_of_any_number_make_a_backbone(tmp_path):
    for number, finding in enumerate(("normal", "bacterial", "viral")):
        write_pictures(tmp_path / "data" / finding, 24, seed=number, brightness=30 * number)

    done = run(tmp_path / "data", *QUICK, "--out", tmp_path / "backbone.safetensors", "--json")

    architecture, weights = pretrain.load_backbone(tmp_path / "backbone.safetensors")
    made = json.loads(done.stdout)
    assert architecture == "small"
    assert weights.keys() == {"early/kernel", "early/bias", "late/kernel", "late/bias"}
    assert made["task"] == "labels"
    assert made["classes"] == ["normal", "bacterial", "viral"]
    assert {name: made[name] for name in ("seed", "data_sha256", "command")} == {
        name: pretrain.provenance(tmp_path / "backbone.safetensors")[name]
        for name in ("seed", "data_sha256", "command")
    }


def test_without_labels_it_learns_which_way_up_a_picture_is(tmp_path):
    folder = write_pictures(tmp_path / "pictures", 60)

    done = run(
        folder, *QUICK, "--stage", "32:8:2e-2", "--augment", "none", "--out", tmp_path / "b.safetensors", "--json"
    )

    made = json.loads(done.stdout)
    assert made["task"] == "rotation"
    assert made["best"]["val_accuracy"] > 0.5  # a guess is right in a quarter


def test_the_held_back_tenth_takes_no_part(tmp_path):
    folder = write_pictures(tmp_path / "pictures", 60)

    task = pretrain_tasks.read([folder], "auto", 32)

    hashes = {path: pretrain_tasks._read_one(path, 32).sha256 for path in folder.iterdir()}
    held = {path for path, sha256 in hashes.items() if split_of(sha256) == Split.HELD_BACK}
    assert held
    assert not held & {*task.sides[Split.TRAINING].paths, *task.sides[Split.VALIDATION].paths}


def test_a_study_takes_a_backbone(tmp_path):
    write_pictures(tmp_path / "pictures", 60)
    run(tmp_path / "pictures", *QUICK, "--out", tmp_path / "b.safetensors")

    base = bases.load("small", str(tmp_path / "b.safetensors"))

    np.testing.assert_array_equal(
        base.weights["late/bias"], pretrain.load_backbone(tmp_path / "b.safetensors")[1]["late/bias"]
    )
    assert "nightread pretrain" in base.label


def test_another_file_is_no_backbone(tmp_path):
    (tmp_path / "text").write_text("not weights")
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")

    for name in ("text", "other.safetensors", "missing"):
        with pytest.raises(ModelRefused, match=name):
            pretrain.load_backbone(tmp_path / name)


def test_what_cannot_be_learned_from_is_refused_in_a_sentence(tmp_path):
    few = write_pictures(tmp_path / "few", 3)
    (tmp_path / "few" / "broken.png").write_bytes(b"no image")

    with pytest.raises(DataRefused, match="of 4 files"):
        run(few, *QUICK, "--out", tmp_path / "b.safetensors")
    with pytest.raises(Refused, match="flip"):
        run(write_pictures(tmp_path / "more", 40), *QUICK, "--augment", "paper", "--out", tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_a_flip_is_no_part_of_the_rotation_task():
    assert not any(option.name.startswith("flip") for option in pretrain_tasks.UPRIGHT.options)
