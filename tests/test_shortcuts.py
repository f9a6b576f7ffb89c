"""The shortcut audit: a leak through frame or file is found, honest images are not accused."""

from pathlib import Path

import numpy as np
import pytest

from workers.training import metrics, shortcuts
from workers.training.examples import Examples, Facts

SIZE = 64
SQUARE = Facts(80_000, 1024, 1024, "png")


def images(count=160, seed=0, *, frame=0, centre=0, leaking_files=False):
    """Noise; positives (label 1) are brighter by `frame` in the frame and by `centre` in the middle. Where files
    leak, all negatives are exactly 1024 x 1024, and positives have any size around it."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = rng.normal(110, 40, (count, SIZE, SIZE))
    pixels[:, shortcuts.frame(SIZE)] += frame * labels[:, None]
    pixels[:, 20:44, 20:44] += centre * labels[:, None, None]
    drawn = [_facts(rng, leaking_files and label == 0) for label in labels]
    return Examples(
        pixels.clip(0, 255).astype(np.uint8), labels, tuple(Path(str(n)) for n in range(count)), tuple(drawn)
    )


def _facts(rng, is_square):
    width, height = rng.integers(700, 1400, 2).tolist()
    return SQUARE if is_square else Facts(int(rng.integers(50_000, 120_000)), width, height, "png")


def centre_score(pixels):
    """A model that looks at the middle of the picture alone."""
    return pixels[:, 20:44, 20:44].mean(axis=(1, 2)) / 255


def whole_score(pixels):
    return pixels.mean(axis=(1, 2)) / 255


def audited(score=centre_score, **fields):
    return shortcuts.audit(images(seed=1, **fields), images(seed=2, **fields), [1], score)


def test_a_leak_through_image_size_is_found_though_the_pixels_say_nothing():
    found = audited(leaking_files=True)

    assert found["file"]["value"] > 0.98
    assert found["frame"]["value"] < 0.65
    assert found["verdict"].startswith("Suspicious: the file alone")


def test_a_leak_through_the_frame_is_found():
    found = audited(whole_score, frame=25)

    assert found["frame"]["value"] > 0.98
    assert found["verdict"].startswith("Suspicious: the outer frame alone")


def test_what_shows_in_the_middle_is_no_shortcut():
    found = audited(centre=25)

    assert found["model"]["value"] > 0.95
    assert 0.35 < found["frame"]["value"] < 0.65
    assert 0.35 < found["file"]["value"] < 0.65
    assert found["thumbnail"]["value"] > 0.9
    assert found["verdict"].startswith("No probe comes within 0.05")


def test_a_model_that_lives_on_the_frame_falls_when_it_is_blanked():
    found = audited(whole_score, frame=25)

    assert found["model"]["value"] > 0.95
    assert found["frame_blanked"]["value"] < 0.65
    assert found["lungs_blanked"]["value"] > 0.95


def test_a_model_that_lives_on_the_lungs_falls_when_they_are_blanked():
    part = shortcuts.lungs(SIZE)
    judged = images(seed=2)
    judged.pixels[judged.labels == 1] = np.where(part, 200, judged.pixels[judged.labels == 1])

    found = shortcuts.audit(images(seed=1), judged, [1], lambda pixels: pixels[:, part].mean(axis=1) / 255)

    assert found["model"]["value"] == 1
    assert found["lungs_blanked"]["value"] < 0.65


def test_blanking_leaves_nothing_of_the_part_and_all_of_the_rest():
    pixels = images(4).pixels
    part = shortcuts.frame(SIZE)

    blank = shortcuts.blanked(pixels, part)

    assert all(len(np.unique(picture[part])) == 1 for picture in blank)
    np.testing.assert_array_equal(blank[:, ~part], pixels[:, ~part])


def test_the_audit_gives_the_same_figures_again():
    assert audited(count=60) == audited(count=60)


def test_few_images_are_not_enough_to_judge():
    found = shortcuts.audit(images(seed=1), images(16, seed=2), [1], centre_score)

    assert found == {"images": 16, "verdict": "Not enough images to judge: 8 of one kind, 10 are needed on each side."}


def test_one_kind_alone_is_not_enough_to_judge():
    found = shortcuts.audit(images(seed=1), images(40, seed=2), [2], centre_score)

    assert "Not enough images" in found["verdict"]


def test_flag_classes_stand_against_the_rest():
    training, judged = images(seed=1, centre=25), images(seed=2, centre=25)
    halves = [
        Examples(side.pixels, side.labels + 2 * (np.arange(160) >= 80), side.paths, side.facts)
        for side in (training, judged)
    ]

    found = shortcuts.audit(*halves, [1, 3], centre_score)

    assert found["model"] == shortcuts.audit(training, judged, [1], centre_score)["model"]


def test_unknown_files_are_not_audited_and_the_verdict_says_so():
    training, judged = (Examples(e.pixels, e.labels, e.paths) for e in (images(seed=1), images(seed=2)))

    found = shortcuts.audit(training, judged, [1], centre_score)

    assert "file" not in found
    assert "not audited" in found["verdict"]


@pytest.mark.parametrize(("probe", "suspicious"), [(0.96, True), (0.90, False)])
def test_a_probe_is_suspicious_from_a_margin_below_the_model(probe, suspicious):
    model, near = metrics.Figure(0.97, 0.95, 0.99), metrics.Figure(probe, 0.8, 0.99)

    assert shortcuts.verdict_on({"model": model, "frame": near}).startswith("Suspicious") == suspicious
