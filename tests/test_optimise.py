"""`nightread models optimize`: a model's faster forms, made in its folder with the report that says which may run."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from small_models import SIZE, offer_small, write_small
from sqlalchemy import select

pytest.importorskip("openvino", reason="the extra `worker` is not installed")
pytest.importorskip("nncf", reason="the extra `optimize` is not installed")

from db.errors import DataRefused, ModelRefused
from db.schema import AuditEvent
from db.store import models
from db.store.connection import connect
from db.words import Exit
from producer.cli import group
from workers import engines, golden, images, model_folders, parity, trained_models
from workers.engines import openvino as engine
from workers.scoring import Scorer
from workers.two_stage import TwoStage

pytestmark = pytest.mark.skipif(not engine.can("int8"), reason="this processor does not compute at int8")


@pytest.fixture
def house(home, tmp_path, monkeypatch):
    """A home folder in which the small model is registered."""
    offer_small(monkeypatch)
    write_small(tmp_path / "small")
    opened = connect(home)
    model_folders.take_in(opened, tmp_path / "small", by="test")
    yield opened
    opened.engine.dispose()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A CSV of drawn pictures: 60 to train with, 120 to validate with."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    lines = ["path,label,split"]
    for number in range(180):
        picture = cv2.resize(rng.integers(20, 256, (8, 8), np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        label, side = ("normal", "covid")[number % 2], "training" if number < 60 else "validation"
        lines.append(f"{number}.png,{label},{side}")
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    return folder / "data.csv"


def optimize(labelled, *words):
    result = CliRunner().invoke(
        group, ["models", "optimize", "small", "--data", str(labelled), "--images", "20", *words], standalone_mode=False
    )
    if result.exception:
        raise result.exception
    return result


def load(folder, precision):
    return Scorer.load(folder, batch_size=4, engine="openvino", precision=precision)


def lacking_here():
    if not engine.can("bfloat16"):
        yield "bfloat16"
    if not engines.is_installed("tensorflow"):
        yield "float16"


def pictures(count):
    return np.random.default_rng(5).integers(0, 256, (count, SIZE, SIZE), dtype=np.uint8)


def test_a_model_gets_its_faster_forms_and_keeps_its_weights(house, labelled):
    before = models.named(house, "small")

    told = json.loads(optimize(labelled, "--json").stdout)

    folder = Path(before.folder)
    model = model_folders.checked(models.named(house, "small"))
    report = parity.read(folder, model)
    assert model.weights.sha256 == before.weights_sha256
    assert {file.file for file in model.files()} >= {"int8.safetensors", "parity.json"}
    expected = {"float32", "bfloat16", "float16", "int8", "two_stage", "reduced_jpeg", "reduced_jpeg2000"}
    assert report["forms"].keys() == told["forms"].keys() == expected - set(lacking_here())
    assert told["allowed"] == [mode for mode, form in told["forms"].items() if form["refused"] is None]
    assert {"float32", "int8", "two_stage"} <= set(told["allowed"])
    assert parity.reductions(report, "auto") == tuple(
        codec for codec in images.CODECS if f"reduced_{codec}" in told["allowed"]
    )
    counts = [told["reduced"][codec] for codec in images.CODECS]
    assert all(100 <= one["reduced"] <= one["images"] == 110 for one in counts)  # 55 of each class
    assert report["calibration"] == {"images": 20, "side": "training", "float32_layers": []}
    assert (folder / "int8.safetensors").stat().st_size < (folder / "weights.safetensors").stat().st_size
    with house.reading() as session:
        (event,) = session.scalars(select(AuditEvent).where(AuditEvent.action == "model_optimised"))
        assert event.detail["allowed"] == told["allowed"]


def test_what_was_made_is_what_runs(house, labelled):
    optimize(labelled)
    folder = Path(models.named(house, "small").folder)
    report = parity.read(folder, trained_models.load_folder(folder))

    both, fast, exact = (load(folder, precision) for precision in ("auto", "int8", "float32"))

    assert isinstance(both, TwoStage)
    assert (both.first.describe()["precision"], both.second.describe()["precision"]) == ("int8", "float32")
    assert both.margin == parity.margin(report)
    scores = [[one.score for one in scorer.predict(pictures(6))] for scorer in (fast, exact)]
    assert scores[0] != scores[1]
    np.testing.assert_allclose(*scores, atol=0.02)
    seen = fast.predict(golden.picture(SIZE)[None])[0].score
    assert fast.golden_score == pytest.approx(seen, abs=1e-5)
    with pytest.raises(ModelRefused, match="cannot be had on this machine's engine"):
        Scorer.load(folder, batch_size=1, engine="tensorflow", precision="int8")


def test_what_keeps_no_limit_is_not_shipped(house, labelled, monkeypatch):
    monkeypatch.setattr(parity, "LIMIT_P99", -1.0)
    folder = Path(models.named(house, "small").folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    result = optimize(labelled)

    assert result.return_value == Exit.REFUSED
    assert "the folder stays as it is" in result.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_it_works_twice_and_says_the_same(house, labelled):
    first, again = (json.loads(optimize(labelled, "--json").stdout) for _ in range(2))

    assert first["int8_sha256"] == again["int8_sha256"]
    assert first["margin"] == pytest.approx(again["margin"], abs=1e-4)


def test_layers_can_be_left_at_float32(house, labelled):
    told = json.loads(optimize(labelled, "--json", "--float32-layers", "late.*").stdout)

    assert told["calibration"]["float32_layers"] == ["late.*"]
    assert told["forms"]["int8"]["largest"] < 1e-5


def test_too_few_images_tell_nothing(house, labelled, tmp_path):
    few = labelled.parent / "few.csv"
    few.write_text("\n".join(labelled.read_text().splitlines()[:100]) + "\n")

    with pytest.raises(DataRefused, match="35 validation images tell nothing of one score in a hundred"):
        optimize(few)


def test_the_same_model_that_comes_with_faster_forms_brings_them_to_the_copy_that_lacks_them(house, labelled, tmp_path):
    optimize(labelled)
    optimised = model_folders.hand_out(models.named(house, "small"), tmp_path / "out")
    kept = Path(models.named(house, "small").folder)
    model_folders.put_in(kept, replace(trained_models.load_folder(kept), int8=None, parity=None), {})
    assert trained_models.load_folder(kept).parity is None

    model_folders.take_in(house, optimised, by="test")

    assert model_folders.same_files(optimised, kept)


def test_an_int8_model_without_its_report_cannot_be_activated(house, labelled):
    optimize(labelled)
    folder = Path(models.named(house, "small").folder)
    trained_models.write_model(folder, replace(trained_models.load_folder(folder), parity=None))

    with pytest.raises(ModelRefused, match="without its parity report"):
        CliRunner().invoke(
            group, ["models", "activate", "small", "--why", "a test"], standalone_mode=False, catch_exceptions=False
        )
