"""Review copies keep a picture's own samples, and the numbers beside them say how to show them and what they mean."""

import json

import builders
import cv2
import numpy as np
import pytest
from builders import CHEST
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from workers.images import Limits, read, review, to_grey8
from workers.images.display import Display, Window, checked
from workers.preprocessing import prepare

LIMITS = Limits(max_bytes=32 * 2**20)
TWELVE = CHEST.astype(np.uint16) * 16
DEEP = {"BitsStored": 12, "HighBit": 11}


def reviewed(data):
    """Samples as ints, and the display."""
    image = review(data, LIMITS)
    return image.samples.astype(int), image.display


def of_dicom(pixels=TWELVE, **fields):
    return reviewed(builders.dicom(pixels, **(DEEP if pixels.dtype.itemsize == 2 else {}) | fields))


def windowed(samples, display):
    """As a viewer shows it at first: 0-255."""
    return np.clip((samples - display.low) / (display.high - display.low), 0, 1) * 255


def lut(entries, *, bits=16, first=0, **fields):
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = np.asarray(entries).astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    for name, value in fields.items():
        setattr(item, name, value)
    return Sequence([item])


# The samples


@pytest.mark.parametrize(
    ("pixels", "bits"),
    [(CHEST, 8), (TWELVE, 12), (CHEST.astype(np.uint16) * 257, 16), (CHEST.astype(np.uint16) + 600, 10)],
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_raster_keeps_its_own_samples_and_depth(suffix, pixels, bits):
    image = review(builders.encoded(suffix, pixels), LIMITS)

    assert np.array_equal(image.samples, pixels)
    assert (image.samples.dtype, image.display.bits) == (pixels.dtype, bits)
    assert (image.display.low, image.display.high) == (pixels.min(), pixels.max())
    assert (image.display.slope, image.display.intercept, image.display.spacing) == (1, 0, None)


def test_few_bits_in_a_deep_file_are_kept_in_as_few():
    image = review(builders.encoded(".png", CHEST.astype(np.uint16)), LIMITS)

    assert image.samples.dtype == np.uint8
    assert np.array_equal(image.samples, CHEST)
    assert image.display.bits == 8


def test_burned_in_letters_are_kept_and_do_not_darken_the_first_window():
    lettered = TWELVE.copy()
    lettered[5:12, 5:20] = 65535

    samples, display = reviewed(builders.encoded(".png", lettered))

    assert np.array_equal(samples, lettered)
    assert (display.bits, display.high) == (16, 4095)


def test_a_tiff_that_counts_from_white_is_turned_over_without_loss():
    stored = (65535 - CHEST.astype(np.uint16) * 255).astype(np.uint16)
    data = builders.encoded(".tif", stored, cv2.IMWRITE_TIFF_COMPRESSION, 1)
    field = (262).to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little")
    at = data.index(field) + 8
    data = data[:at] + bytes(2) + data[at + 2 :]

    samples, display = reviewed(data)

    assert np.array_equal(samples, CHEST.astype(int) * 255)
    assert np.abs(windowed(samples, display) - to_grey8(read(data, LIMITS))).max() < 25  # the same way up


def test_dicom_samples_come_before_any_window():
    samples, display = of_dicom(WindowCenter=1000, WindowWidth=200)

    assert np.array_equal(samples, TWELVE)
    assert display.bits == 12


@pytest.mark.parametrize("syntax", [builders.JPEG_BASELINE, "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"])
def test_compressed_dicom_has_its_own_samples_too(syntax):
    samples, display = reviewed(builders.dicom_in(syntax))

    assert np.abs(samples - CHEST).mean() < 1.5
    assert display.bits == 8


def test_monochrome1_is_turned_over_without_loss_and_says_so():
    samples, display = of_dicom(4095 - TWELVE, PhotometricInterpretation="MONOCHROME1")

    assert np.array_equal(samples, TWELVE)
    assert display.inverted
    # What a sample means counts from white, as the file does.
    assert (display.slope, display.intercept) == (-1, 4095)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -1000), (0.5, 3.25), (-1, 4095)])
def test_a_sample_means_what_the_stored_value_means(kind, slope, intercept):
    samples, display = of_dicom(
        PhotometricInterpretation=kind, RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="OD"
    )

    np.testing.assert_allclose(display.slope * samples + display.intercept, TWELVE * float(slope) + intercept)
    assert display.unit == "OD"
    brighter_is_higher = (kind == "MONOCHROME2") == (slope > 0)
    assert np.corrcoef(samples.ravel(), TWELVE.ravel())[0, 1] == pytest.approx(1 if brighter_is_higher else -1)


def test_signed_samples_are_counted_from_their_lowest_and_mean_what_was_stored():
    stored = CHEST.astype(np.int16) * 16 - 2048

    samples, display = of_dicom(stored, BitsStored=16, HighBit=15)

    assert samples.min() == 0
    assert np.array_equal(display.slope * samples + display.intercept, stored)


def test_a_modality_lut_is_applied_before():
    squares = (np.arange(4096) ** 2 // 4096).astype(np.uint16)

    samples, display = of_dicom(ModalityLUTSequence=lut(squares, ModalityLUTType="OD"))

    assert np.array_equal(samples, squares[TWELVE])
    assert display.unit == "OD"


def test_padding_is_black_and_does_not_widen_the_first_window():
    stored = CHEST.astype(np.int16) * 16
    stored[:40] = -32000

    samples, display = of_dicom(stored, BitsStored=16, HighBit=15, PixelPaddingValue=-32000)

    assert not samples[:40].any()
    assert np.array_equal(samples[40:], stored[40:])
    assert display.bits == 12
    assert (display.low, display.high) == (stored[40:].min(), stored[40:].max())


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
