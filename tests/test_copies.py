"""Pictures of scans that a later threshold flags: made from the originals, without an engine and so without heat."""

import json
import shutil

import builders
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from ledger import claim, complete
from plain_models import write_plain

from db.files import derived_path
from db.store import models, worklist
from db.store.connection import connect
from producer import submission
from producer.cli import group
from workers import copies, model_folders
from workers.preprocessing import Border, prepare
from workers.trained_models import Preprocessing

EYES = Preprocessing("1", "paper", Border(clean_lines=2))


@pytest.fixture
def house(home, tmp_path):
    """The database of a home whose active model has its folder there, and eyes of its own."""
    opened = connect(home)
    folder = write_plain(tmp_path / "m", threshold=0.5, preprocessing=EYES)
    models.activate(opened, model_folders.take_in(opened, folder, by="test").id, why="a test", by="test")
    yield opened
    opened.engine.dispose()


@pytest.fixture
def scans(house, tmp_path):
    """A folder of two scans, scored below the threshold."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for seed in (1, 2):
        framed = np.pad(builders.chest(seed=seed), ((30, 0), (0, 12)))
        (folder / f"{seed}.png").write_bytes(builders.encoded(".png", framed))
    submission.submit(house, folder, site_name="local")
    complete(house, claim(house), 0.4)
    return folder


def run(*words):
    result = CliRunner().invoke(group, ["models", *words, "--json"], standalone_mode=False)
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


def lowered():
    return run("threshold", "active", "--set", "0.3", "--why", "more")["set"]


def kept(db, kind):
    """The pictures of that kind there are, by the scan's path."""
    listed = worklist.unread_everywhere(db, models.active(db).id)
    paths = {scan.path: derived_path(db.config.derived, scan.key, kind) for scan in listed}
    return {name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for name, path in paths.items() if path.is_file()}


def test_newly_flagged_scans_get_the_pictures_that_scoring_did_not_keep(house, scans):
    told = lowered()

    assert (told["newly_flagged"], told["pictures_made"], told["pictures_lacking"]) == (2, 2, [])
    for seed in (1, 2):
        framed = np.pad(builders.chest(seed=seed), ((30, 0), (0, 12)))
        assert np.array_equal(kept(house, "image")[f"{seed}.png"], framed)
        seen, _ = prepare(framed, 64, EYES.border, "paper")
        assert np.array_equal(kept(house, "input")[f"{seed}.png"], seen)
    assert kept(house, "heat") == {}
    assert run("pictures") == {"made": 0, "lacking": []}


def test_it_says_that_there_is_no_heat_map_of_these(house, scans):
    words = ["models", "threshold", "active", "--set", "0.3", "--why", "more"]

    said = CliRunner().invoke(group, words, standalone_mode=False).stdout

    assert "2 pictures copied for readers; there is no heat map of these" in said


def test_what_an_older_version_copied_without_the_models_input_is_completed(house, scans):
    lowered()
    for path in house.config.derived.rglob("*.input.png"):
        path.unlink()

    assert run("pictures") == {"made": 2, "lacking": []}
    assert kept(house, "input").keys() == {"1.png", "2.png"}


def test_pictures_whose_originals_are_away_are_told_and_made_later(house, scans, tmp_path):
    scans.rename(tmp_path / "away")

    told = lowered()
    (tmp_path / "away").rename(scans)
    later = copies.make_copies(house, models.active(house).id)

    assert (told["newly_flagged"], told["pictures_made"]) == (2, 0)
    assert "2 not copied: root " in told["pictures_lacking"][0]
    assert (later.made, later.lacking, later.blind) == (2, {}, "")


def test_an_original_that_changed_is_not_shown_as_the_scan_that_was_scored(house, scans):
    (scans / "1.png").write_bytes(builders.encoded(".png", builders.chest(seed=9)))

    told = lowered()

    assert told["pictures_made"] == 1
    assert told["pictures_lacking"] == ["1 not copied: changed_since_submission"]
    assert kept(house, "image").keys() == kept(house, "input").keys() == {"2.png"}


def test_without_the_models_folder_there_are_copies_alone_and_it_says_so(house, scans):
    shutil.rmtree(models.active(house).folder)

    told = lowered()

    assert told["pictures_made"] == 2
    assert kept(house, "image").keys() == {"1.png", "2.png"}
    assert kept(house, "input") == {}
    (said,) = told["pictures_lacking"]
    assert said.startswith("none of what the model saw: ")
    assert run("pictures") == {"made": 0, "lacking": []}
