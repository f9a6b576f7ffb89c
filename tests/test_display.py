"""The numbers beside a review copy say how its samples are to be shown and what they mean, whatever a header says."""

import json

import builders
import numpy as np
import pytest
from reviewing import DEEP, LIMITS, TWELVE, lut, of_dicom, reviewed, windowed

from workers.images import read, review, to_grey8
from workers.images.display import Display, Window, checked
from workers.preprocessing import prepare

# The windows


def test_the_headers_windows_come_with_their_names_and_the_first_one_is_shown_first():
    _, display = of_dicom(
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=[1000, 3000],
        WindowWidth=[2000, 500],
        WindowCenterWidthExplanation=["LUNG", "BONE"],
    )

    # PS3.3 C.11.2.1.2.1: from c - 0.5 - (w - 1) / 2 on; a stored 500.25 means 0.5.
    assert display.windows == (Window("LUNG", 500, 1499.5), Window("BONE", 1875, 2124.5))
    assert (display.low, display.high) == (500, 1499.5)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
@pytest.mark.parametrize("slope", [2, -2])
def test_the_copy_through_its_first_window_is_what_the_header_wants_shown(kind, function, slope):
    fields = {"PhotometricInterpretation": kind, "RescaleSlope": slope, "RescaleIntercept": -100}
    fields |= {"WindowCenter": slope * 1900 - 100, "WindowWidth": 3000, "VOILUTFunction": function}

    samples, display = of_dicom(**fields)

    shown = to_grey8(read(builders.dicom(TWELVE, **DEEP, **fields), LIMITS))
    assert np.abs(windowed(samples, display) - shown).max() <= 1


def test_a_sigmoid_is_shown_by_the_straight_window_through_its_middle():
    fields = {"WindowCenter": 2048, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"}

    _, display = of_dicom(**fields)

    assert (display.low, display.high) == (1548, 2548)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("falling", [False, True])
def test_a_voi_lut_is_shown_by_the_window_nearest_to_it(kind, falling):
    ramp = np.clip((np.arange(4096) - 1000) / 2000, 0, 1)
    entries = np.rint((1 - ramp if falling else ramp) * 65535)
    fields = {"PhotometricInterpretation": kind, "VOILUTSequence": lut(entries, LUTExplanation="CHEST")}

    samples, display = of_dicom(**fields)

    shown = to_grey8(read(builders.dicom(TWELVE, **DEEP, **fields), LIMITS))
    assert np.abs(windowed(samples, display) - shown).max() <= 2
    assert [one.name for one in display.windows] == ["CHEST"]


def test_a_window_that_misses_every_sample_is_left_out():
    _, display = of_dicom(WindowCenter=[-5000, 2000], WindowWidth=[100, 4000])

    assert len(display.windows) == 1
    assert display.low == pytest.approx(2000 - 0.5 - 3999 / 2)


def test_without_a_window_the_samples_in_use_are_shown():
    samples, display = of_dicom()

    assert (display.low, display.high) == (samples.min(), samples.max())
    assert display.windows == ()


# The spacing


@pytest.mark.parametrize(
    ("fields", "spacing", "kind"),
    [
        ({"ImagerPixelSpacing": None}, None, None),
        ({}, [0.143, 0.143], "detector"),
        ({"PixelSpacing": ["0.143", "0.143"]}, [0.143, 0.143], "detector"),
        ({"PixelSpacing": ["0.12", "0.13"]}, [0.12, 0.13], "calibrated"),
        ({"PixelSpacing": ["0.12", "0.13"], "ImagerPixelSpacing": None}, [0.12, 0.13], "detector"),
        (
            {"PixelSpacing": ["0.12", "0.12"], "ImagerPixelSpacing": None, "PixelSpacingCalibrationType": "FIDUCIAL"},
            [0.12, 0.12],
            "calibrated",
        ),
        ({"PixelSpacing": ["0.143", "0.143"], "PixelSpacingCalibrationType": "GEOMETRY"}, [0.143, 0.143], "calibrated"),
        ({"PixelSpacing": ["0.7", "0.7"], "ImagerPixelSpacing": None, "Modality": "CT"}, [0.7, 0.7], "calibrated"),
        ({"EstimatedRadiographicMagnificationFactor": "1.1"}, [0.13, 0.13], "calibrated"),
        ({"EstimatedRadiographicMagnificationFactor": "90"}, [0.143, 0.143], "detector"),
        ({"ImagerPixelSpacing": ["0", "-1"]}, None, None),
        ({"ImagerPixelSpacing": ["900", "900"]}, None, None),
    ],
)
def test_spacing_says_whether_it_is_the_patients_or_the_detectors(fields, spacing, kind):
    said = of_dicom(**fields)[1].as_json()

    assert said["spacing"] == (spacing and pytest.approx(spacing))
    assert said["spacing_kind"] == kind


# Whatever a header says


HOSTILE = {
    "a slope of nothing": {"RescaleSlope": 0, "RescaleIntercept": 5},
    "a slope without end": {"RescaleSlope": "1e300", "RescaleIntercept": 0},
    "a tiny slope": {"RescaleSlope": "1e-300", "RescaleIntercept": 0},
    "an intercept without end": {"RescaleSlope": 1, "RescaleIntercept": "1e30"},
    "windows without end": {"WindowCenter": ["1e308", "1"] * 50, "WindowWidth": ["1e308", "4000"] * 50},
    "a name with everything": {
        "WindowCenter": 2000,
        "WindowWidth": 4000,
        "SpecificCharacterSet": "ISO_IR 192",
        "WindowCenterWidthExplanation": "<script>\u202e" + "x" * 60,
    },
    "more names than windows": {
        "WindowCenter": 2000,
        "WindowWidth": 4000,
        "WindowCenterWidthExplanation": ["a", "b", "c"],
    },
    "one spacing": {"ImagerPixelSpacing": "0.1"},
    "a strange unit": {
        "SpecificCharacterSet": "ISO_IR 192",
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "RescaleType": "\u202eDO" * 20,
    },
    "a voi lut of no entries": {"VOILUTSequence": lut([0], bits=12)},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_header_says_stays_in_bounds(name):
    data = builders.dicom(TWELVE, **DEEP, **HOSTILE[name])

    samples, display = reviewed(data)

    said = display.as_json()
    assert checked(json.loads(json.dumps(said, allow_nan=False))) == said
    assert np.array_equal(samples, TWELVE)
    assert len(said["windows"]) <= 8
    assert all(len(one["name"]) <= 40 and one["name"].isprintable() for one in said["windows"])


def test_garbage_in_what_only_readers_need_costs_no_scan():
    """Fields that the model's path does not read hold text where numbers belong."""
    data = builders.dicom(TWELVE, **DEEP, EstimatedRadiographicMagnificationFactor="1.1234", RescaleType="ODODOD")
    broken = data.replace(b"1.1234", b"<br>1.").replace(b"ODODOD", b"\xff\xfe\x1b[31")
    spaced = broken.replace(b"0.143\\0.143", b"zero\\0x14.3")

    image = review(spaced, LIMITS)

    assert broken != data != spaced
    assert np.array_equal(image.samples, TWELVE)
    assert image.display.spacing is None
    assert np.array_equal(read(spaced, LIMITS).samples, read(data, LIMITS).samples)


GOOD = Display(12, 10.0, 4000.0, (Window("LUNG", 1.0, 2.0),), 2.0, -1000.0, "HU", (0.1, 0.2), "detector", True)


def test_a_display_goes_through_json_and_back():
    assert checked(json.loads(json.dumps(GOOD.as_json()))) == GOOD.as_json()


@pytest.mark.parametrize(
    "changed",
    [
        {"bits": 17},
        {"bits": True},
        {"bits": "8"},
        {"low": 5000},
        {"high": float("nan")},
        {"slope": 0},
        {"slope": float("inf")},
        {"intercept": None},
        {"windows": 7},
        {"windows": [{"name": "x", "low": 2, "high": 1}]},
        {"windows": [{"low": 1, "high": 2}]},
        {"spacing": [0.1]},
        {"spacing": [0.1, 1e9]},
        {"spacing_kind": "<b>"},
        {"inverted": 1},
    ],
    ids=str,
)
def test_what_is_no_display_is_not_taken_for_one(changed):
    assert checked(GOOD.as_json() | changed) is None


def test_a_decoder_cannot_say_more_than_there_is_room_for():
    said = GOOD.as_json() | {"unit": "x" * 10**5, "windows": [{"name": "y" * 10**5, "low": 1, "high": 2}] * 1000}

    kept = checked(said | {"more": "z" * 10**5})

    assert len(json.dumps(kept)) < 2000
    assert checked([GOOD]) is checked(None) is checked("x") is None


@pytest.mark.parametrize("name", builders.good_files())
def test_both_ways_of_looking_at_a_picture_are_the_same_picture(name):
    data = builders.good_files()[name]

    seen, kept = read(data, LIMITS), review(data, LIMITS)

    assert kept.samples.shape == seen.samples.shape
    assert seen.display == kept.display
    assert kept.samples.max() < 2**kept.display.bits
    assert np.abs(windowed(kept.samples, kept.display) - to_grey8(seen)).mean() < 12
    assert prepare(to_grey8(seen), 64)[1].display is None
