"""Labelled images: folders and CSVs, splits that share no picture and no patient, what is refused or left out."""

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from dicom_builders import dicom

from db.errors import DataRefused
from db.words import Exit
from workers.training import data
from workers.training.data import Collection, Example, Split, parted, read, split_of, training_sides

HELD_BACK, VALIDATION, TRAINING = f"{20:064x}", f"{71:064x}", f"{11:064x}"


def picture(seed, size=96):
    return np.random.default_rng(list(str(seed).encode())).integers(0, 256, (size, size), dtype=np.uint8)


def example(seed, *, sha256=None, label=0, pixels=None, **more):
    pixels = picture(seed, 16) if pixels is None else pixels
    return Example(Path(f"{seed}.png"), label, sha256 or hashlib.sha256(str(seed).encode()).hexdigest(), pixels, **more)


def write(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture(seed))
    return path


def folders(root, **counts):
    """Class folders with so many pictures each, all different."""
    for start, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            write(root / name / f"{number:03}.png", 1000 * start + number)
    return root


def labels(sides):
    return {side: sorted(sides[side].labels.tolist()) for side in Split}


def test_hashes_divisible_by_ten_are_held_back():
    assert split_of(HELD_BACK) == Split.HELD_BACK
    assert split_of(VALIDATION) == Split.VALIDATION
    assert split_of(TRAINING) == Split.TRAINING


def test_about_a_tenth_is_held_back():
    sides = [split_of(hashlib.sha256(str(n).encode()).hexdigest()) for n in range(5000)]

    assert 0.085 < sides.count(Split.HELD_BACK) / 5000 < 0.115
    assert 0.11 < sides.count(Split.VALIDATION) / 5000 < 0.15


def test_folders_are_read_as_scoring_reads_them_with_normal_first(tmp_path):
    path = write(tmp_path / "covid" / "deep" / "a.png", 1)
    write(tmp_path / "normal" / "b.png", 2)
    (tmp_path / "normal" / ".DS_Store").write_text("hidden")
    (tmp_path / "covid" / "Thumbs.db").write_text("not an image")

    collection = read([tmp_path], 64)

    sick = next(example for example in collection.examples if example.label == 1)
    assert collection.classes == ("normal", "covid")
    assert sick.path == path
    assert sick.pixels.shape == (64, 64)
    assert sick.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (sick.facts.bytes, sick.facts.width, sick.facts.height) == (path.stat().st_size, 96, 96)
    assert sick.facts.format == "png"
    assert [(left.path.name, left.why.split(":")[0]) for left in collection.excluded] == [("Thumbs.db", "not_an_image")]


def test_several_folders_and_csvs_make_one_collection(tmp_path):
    folders(tmp_path / "a", normal=2, covid=1)
    write(tmp_path / "b" / "x.png", 77)
    (tmp_path / "b" / "list.csv").write_text("path,label\nx.png,covid\n")
    told = []

    collection = read([tmp_path / "a", tmp_path / "b" / "list.csv"], 64, progress=lambda *done: told.append(done))

    assert [example.label for example in collection.examples] == [1, 0, 0, 1]
    assert told == [(n, 4) for n in range(1, 5)]


def test_a_csv_names_patients_and_sides(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}.png", number)
    (tmp_path / "list.csv").write_text(
        "﻿Label;Path;Patient;Split\ncovid;0.png;p 1;train\nnormal;1.png;;val\n\nnormal;2.png;p2;test\n", "utf-8"
    )

    collection = read([tmp_path / "list.csv"], 64)

    assert [(one.label, one.patient, one.wanted) for one in collection.examples] == [
        (1, "p 1", Split.TRAINING),
        (0, None, Split.VALIDATION),
        (0, "p2", Split.HELD_BACK),
    ]


def test_a_dicom_files_patient_is_known_without_a_csv(tmp_path):
    folders(tmp_path, normal=1, covid=0)
    (tmp_path / "covid" / "a.dcm").write_bytes(dicom(PatientID="secret 7"))

    collection = read([tmp_path], 64)

    assert [one.patient for one in collection.examples] == ["secret 7", None]


def test_only_the_classes_asked_for_are_read(tmp_path):
    folders(tmp_path, normal=2, covid=2, pneumonia=2)

    collection = read([tmp_path], 64, classes=("covid", "normal"))

    assert collection.classes == ("covid", "normal")
    assert len(collection.examples) == 4
    assert [left.why for left in collection.excluded] == ["its class 'pneumonia' was not asked for"] * 2


CSVS = {
    "empty": ("", "columns path and label"),
    "no label": ("path,class\na.png,covid\n", "there is no label"),
    "a missing file": ("path,label\na.png,covid\nb.png,normal\nc.png,normal\n", r"b.png, which is not there \(nor 1"),
    "an unknown side": ("path,label,split\na.png,covid,dunno\n", "line 2: split 'dunno' is none of"),
    "no name": ("path,label\na.png,\n", "line 2: a path and a label"),
    "a short line": ("path,label\na.png\n", "line 2: a path and a label"),
    "one class": ("path,label\na.png,covid\n", r"one class \(covid\)"),
}


@pytest.mark.parametrize("name", CSVS)
def test_a_bad_csv_is_refused_in_a_sentence(tmp_path, name):
    text, complaint = CSVS[name]
    write(tmp_path / "a.png", 1)
    (tmp_path / "list.csv").write_text(text)

    with pytest.raises(DataRefused, match=complaint) as refused:
        read([tmp_path / "list.csv"], 64)

    assert refused.value.exit_code == Exit.REFUSED
    assert "\n" not in str(refused.value)


def test_an_image_in_place_of_a_csv_is_refused(tmp_path):
    with pytest.raises(DataRefused, match="not a CSV file"):
        read([write(tmp_path / "a.png", 1)], 64)
    with pytest.raises(DataRefused, match="neither a folder"):
        read([tmp_path / "nowhere"], 64)


def test_a_class_without_images_is_refused(tmp_path):
    with pytest.raises(DataRefused, match="no images of class covid"):
        read([folders(tmp_path, normal=2, covid=0)], 64)


def test_a_class_without_a_readable_image_is_refused(tmp_path):
    folders(tmp_path, normal=2, covid=0)
    (tmp_path / "covid" / "a.png").write_bytes(b"")

    with pytest.raises(DataRefused, match="no readable images of class covid"):
        read([tmp_path], 64)


@pytest.mark.parametrize(("counts", "complaint"), [({}, "no class folders"), ({"covid": 2}, r"one class \(covid\)")])
def test_one_class_or_none_is_refused(tmp_path, counts, complaint):
    with pytest.raises(DataRefused, match=complaint):
        read([folders(tmp_path, **counts)], 64)


def test_three_images_are_too_few_to_train_with(tmp_path):
    collection = read([folders(tmp_path, normal=2, covid=1)], 64)

    with pytest.raises(DataRefused, match="at least 5 different ones besides the held-back tenth"):
        training_sides(collection)


def test_fifty_images_of_each_class_always_train_and_validate(tmp_path):
    for draw in range(30):
        examples = [example(f"{draw} {n}", label=n % 2) for n in range(100)]

        sides, excluded = training_sides(Collection(("normal", "covid"), tuple(examples), ()))

        assert not excluded
        assert sum(map(len, sides.values())) == 100
        assert 4 <= len(sides[Split.VALIDATION]) <= 30


def test_where_chance_leaves_a_side_without_a_class_a_seventh_of_each_validates():
    hashes = [f"{10 * 7 * n + 11:064x}" for n in range(14)]
    examples = [example(n, sha256=sha256, label=n % 2) for n, sha256 in enumerate(hashes)]
    assert {split_of(sha256) for sha256 in hashes} == {Split.TRAINING}

    first, again = (training_sides(Collection(("a", "b"), tuple(order), ()))[0] for order in (examples, examples[::-1]))

    assert labels(first) == {
        Split.TRAINING: [0] * 6 + [1] * 6,
        Split.VALIDATION: [0, 1],
        Split.HELD_BACK: [],
    }
    assert set(first[Split.VALIDATION].paths) == set(again[Split.VALIDATION].paths)


def test_the_held_back_tenth_stays_so_in_small_sets():
    hashes = [*(f"{700 * n + 11:064x}" for n in range(12)), f"{20:064x}", f"{30:064x}"]
    examples = [example(n, sha256=sha256, label=n % 2) for n, sha256 in enumerate(hashes)]

    sides, _ = training_sides(Collection(("a", "b"), tuple(examples), ()))

    assert {path.name for path in sides[Split.HELD_BACK].paths} == {"12.png", "13.png"}


@pytest.mark.parametrize("guarded", [HELD_BACK, VALIDATION])
def test_copies_of_one_picture_are_on_the_most_guarded_side_alone(guarded):
    pixels = picture(1)
    copies = [example(1, sha256=TRAINING, pixels=pixels), example(2, sha256=guarded, pixels=pixels)]

    sides, excluded = parted(Collection(("a", "b"), tuple(copies), ()))

    assert len(sides[split_of(guarded)]) == 1
    assert len(sides[Split.TRAINING]) == 0
    assert [(left.path.name, left.why) for left in excluded] == [("1.png", "the same picture as 2.png")]


def test_a_picture_with_two_labels_teaches_nothing_and_is_recorded():
    pixels = picture(1)
    both = [example(1, label=0, pixels=pixels), example(2, label=1, pixels=pixels)]

    sides, excluded = parted(Collection(("a", "b"), tuple(both), ()))

    assert sum(map(len, sides.values())) == 0
    assert [left.why for left in excluded] == ["the same picture in two classes: 1.png and 2.png"] * 2


def test_a_patient_is_on_one_side():
    patients = [f"patient {n}" for n in range(60)]
    examples = [example(f"{name} {n}", label=n % 2, patient=name) for name in patients for n in range(6)]

    sides, excluded = parted(Collection(("a", "b"), tuple(examples), ()))

    of = {one.path: one.patient for one in examples}
    found = {side: {of[path] for path in sides[side].paths} for side in Split}
    assert all(found.values())
    assert sum(map(len, found.values())) == len(set().union(*found.values()))
    assert {left.why.split(",")[0] for left in excluded} == {"its hash is of the held-back tenth"}
    assert not any(name in left.why for left in excluded for name in patients)


def test_what_a_csv_wants_is_done_except_with_the_held_back_tenth():
    wanted = [
        example(1, sha256=TRAINING, wanted=Split.VALIDATION),
        example(2, sha256=VALIDATION, wanted=Split.TRAINING),
        example(3, sha256=TRAINING, wanted=Split.HELD_BACK),
        example(4, sha256=HELD_BACK, wanted=Split.TRAINING),
        example(5, sha256=HELD_BACK, wanted=Split.HELD_BACK),
    ]

    sides, excluded = parted(Collection(("a", "b"), tuple(wanted), ()))

    assert {side: [path.stem for path in sides[side].paths] for side in Split} == {
        Split.TRAINING: ["2"],
        Split.VALIDATION: ["1"],
        Split.HELD_BACK: ["3", "5"],
    }
    assert [left.path.stem for left in excluded] == ["4"]


def test_where_a_csv_names_no_validation_a_seventh_of_its_training_validates():
    examples = [example(n, label=n % 2, wanted=Split.TRAINING if n % 4 else Split.HELD_BACK) for n in range(400)]

    sides, excluded = parted(Collection(("a", "b"), tuple(examples), ()))

    assert len(sides[Split.HELD_BACK]) == 100
    assert 20 < len(sides[Split.VALIDATION]) < 60
    assert len(sides[Split.TRAINING]) + len(sides[Split.VALIDATION]) + len(excluded) == 300
    assert all("held-back tenth" in left.why for left in excluded)


def test_a_patient_whom_a_csv_puts_on_two_sides_is_on_the_more_guarded_one():
    both = [
        example(1, sha256=TRAINING, patient="p", wanted=Split.TRAINING),
        example(2, sha256=TRAINING, patient="p", wanted=Split.VALIDATION),
        example(3, sha256=TRAINING, patient="p"),
    ]

    sides, excluded = parted(Collection(("a", "b"), tuple(both), ()))

    assert {path.stem for path in sides[Split.VALIDATION].paths} == {"2", "3"}
    assert "another image of its patient" in excluded[0].why


def test_drawing_takes_the_same_ones_every_time_with_their_paths():
    examples = data.gather([example(n) for n in range(20)])

    first, again = (data.draw(examples, 5) for _ in range(2))

    assert first.paths == again.paths
    assert len(set(first.paths)) == 5
    np.testing.assert_array_equal(first.pixels[0], picture(int(first.paths[0].stem), 16))


@pytest.mark.skipif("NIGHTREAD_TEST_DATA" not in os.environ, reason="NIGHTREAD_TEST_DATA names no real images")
def test_no_real_picture_is_on_two_sides():
    folder = Path(os.environ["NIGHTREAD_TEST_DATA"]) / "cxr"

    sides = data.split(data.load([folder], ["normal", "covid"], 64))

    seen = [{image.tobytes() for image in examples.pixels} for examples in sides.values()]
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert len(sides[Split.HELD_BACK]) > 400
