"""The sample scans that ship: drawn by us, passing the gate, some flagged and some not, a few turned away."""

import hashlib

import pytest

from db.errors import UnreadableImage
from db.words import Reason
from deploy import draw_samples
from deploy.phantom import Chest, draw
from workers import images, trained_models
from workers.images import Limits
from workers.preprocessing import prepare
from workers.scoring import Scorer

LIMITS = Limits(max_bytes=50_000_000, max_pixels=50_000_000, min_side=64)
SCANS = sorted((draw_samples.SAMPLES / "scans").iterdir())
ODD = draw_samples.SAMPLES / "odd"


def pixels(path):
    content = path.read_bytes()
    images.tags(content)
    return prepare(images.to_grey8(images.read(content, LIMITS)), 224)[0]


@pytest.fixture(scope="module")
def scorer():
    return Scorer.load(trained_models.SHIPPED, batch_size=8)


@pytest.fixture(scope="module")
def predictions(scorer):
    return {path.name: scorer.predict(pixels(path)[None])[0] for path in SCANS}


def test_there_are_enough_in_the_formats_that_centres_send():
    assert len(SCANS) >= 24
    assert {path.suffix for path in SCANS} == {".png", ".jpg", ".dcm", ".tif"}
    assert sum(path.stat().st_size for path in draw_samples.SAMPLES.rglob("*.*")) < 3_000_000


def test_no_two_scans_are_the_same():
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in SCANS}) == len(SCANS)


def test_every_scan_passes_the_gate(predictions):
    assert [name for name, prediction in predictions.items() if not prediction.is_chest] == []


def test_some_are_flagged_and_some_are_not(predictions):
    threshold = trained_models.recommended_threshold(trained_models.SHIPPED).value
    flagged = [name for name, prediction in predictions.items() if prediction.score >= threshold]

    assert 3 <= len(flagged) <= len(SCANS) - 3


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.png", Reason.EMPTY),
        ("notes.png", Reason.NOT_AN_IMAGE),
        ("cut-short.jpg", Reason.TRUNCATED),
        ("from-the-side.dcm", Reason.NOT_FRONTAL),
        ("two-frames.dcm", Reason.MULTI_FRAME),
    ],
)
def test_the_odd_ones_are_turned_away_each_for_its_reason(name, reason):
    with pytest.raises(UnreadableImage) as refusal:
        pixels(ODD / name)

    assert refusal.value.code == reason


def test_the_garden_is_no_chest(scorer):
    assert not scorer.predict(pixels(ODD / "garden.jpg")[None])[0].is_chest


def test_the_child_is_younger_than_the_model_is_for():
    age = images.tags((ODD / "child.dcm").read_bytes()).age_years

    assert age < trained_models.load_folder(trained_models.SHIPPED).intended_use.minimum_age


def test_one_odd_file_is_a_scan_again():
    copies = {hashlib.sha256(path.read_bytes()).digest() for path in SCANS}

    assert hashlib.sha256((ODD / "chest-01-again.jpg").read_bytes()).digest() in copies


def test_drawing_again_gives_the_files_that_are_committed(tmp_path):
    name, (seed, size, opacities, write) = "chest-01.jpg", draw_samples.CHESTS[0]

    write(tmp_path / "chest-01", draw(Chest(seed, size, opacities)), 1)

    assert images.read((tmp_path / name).read_bytes(), LIMITS).samples.shape == (size, size)
    again = images.read((tmp_path / name).read_bytes(), LIMITS).samples.astype(int)
    committed = images.read((draw_samples.SAMPLES / "scans" / name).read_bytes(), LIMITS).samples.astype(int)
    assert abs(again - committed).mean() < 1


def test_more_opacities_make_brighter_lungs():
    clear, patchy = (draw(Chest(5, 128, opacities)) for opacities in (0.0, 1.0))

    lungs = (slice(40, 90), slice(22, 45))
    assert patchy[lungs].mean() > clear[lungs].mean() + 0.05
