import contextlib
import io
import logging
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import builders
import numpy as np
import pydicom
import pytest
from builders import CHEST
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.sequence import Sequence

from db.errors import UnreadableImage
from db.words import Reason
from workers.images import HEADER_BYTES, Limits, Tags, read, tags, to_grey8
from workers.images.dicom_rules import TRANSFER_SYNTAXES

BAD = builders.bad_files()
TURNED_AWAY = builders.turned_away_by_header()
LIMITS = Limits(max_bytes=32 * 2**20)


def grey_of(data, limits=LIMITS):
    return to_grey8(read(data, limits))


# DICOM: what pixels mean.


def ramp():
    """All values of 12 bits, as a modality would store them."""
    return np.arange(4096, dtype=np.uint16).reshape(64, 64)


def test_a_window_is_applied_after_the_modality_lut():
    data = builders.dicom(
        ramp(),
        BitsStored=12,
        HighBit=11,
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=1000,
        WindowWidth=2000,
    )

    grey = grey_of(data).ravel()

    # PS3.3 C.11.2.1.2.1: black up to c - 0.5 - (w - 1) / 2, so a stored 500 is 0 and a stored 1500 is 2000.
    assert grey[:500].max() == 0
    assert grey[1501:].min() == 255
    assert abs(int(grey[1000]) - 128) <= 1


def test_a_window_that_misses_every_value_is_left_aside():
    astray = builders.dicom(CHEST, WindowCenter=-5000, WindowWidth=100)

    assert np.array_equal(grey_of(astray), CHEST)


def test_a_voi_lut_wins_over_a_window():
    lut = Dataset()
    lut.LUTDescriptor = [4096, 0, 16]
    lut.LUTData = (np.arange(4096)[::-1] * 16).astype("<u2").tobytes()
    lut["LUTData"].VR = "OW"
    data = builders.dicom(
        ramp(), BitsStored=12, HighBit=11, VOILUTSequence=Sequence([lut]), WindowCenter=1, WindowWidth=9
    )

    grey = grey_of(data).ravel().astype(int)

    assert grey[0] == 255
    assert grey[-1] == 0


def test_a_sigmoid_is_half_way_at_its_centre():
    data = builders.dicom(
        ramp(), BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=1000, VOILUTFunction="SIGMOID"
    )

    assert abs(int(grey_of(data).ravel()[2048]) - 128) <= 1


@pytest.mark.parametrize("fields", [{}, {"WindowCenter": 2000, "WindowWidth": 3000}])
def test_monochrome1_twins_look_alike(fields):
    twelve = CHEST.astype(np.uint16) * 16
    depth = {"BitsStored": 12, "HighBit": 11}
    mirrored = {"WindowCenter": 4096 - 2000, "WindowWidth": 3000} if fields else {}
    second = builders.dicom(twelve, **depth, **fields)
    first = builders.dicom(4095 - twelve, **depth, **mirrored, PhotometricInterpretation="MONOCHROME1")

    assert np.abs(grey_of(first).astype(int) - grey_of(second)).max() <= 1


def test_twelve_bits_without_a_window_are_not_near_black_whatever_the_header_says():
    data = builders.dicom(CHEST.astype(np.uint16) * 16)

    assert np.abs(grey_of(data).astype(int) - CHEST).max() <= 1


def test_signed_samples_start_at_the_darkest():
    data = builders.dicom(CHEST.astype(np.int16) * 16 - 2048)

    grey = grey_of(data).astype(int)

    assert np.corrcoef(grey.ravel(), CHEST.ravel())[0, 1] > 0.999
    assert grey.max() > 200


def test_padding_is_black_even_in_monochrome1():
    picture = (255 - CHEST).astype(np.uint8)
    picture[:40] = 0
    data = builders.dicom(picture, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)

    assert not grey_of(data)[:40].any()


def test_a_jpeg_of_another_size_than_its_header_says_is_not_decoded():
    small, large = builders.dicom_in(builders.JPEG_BASELINE), builders.dicom_in(builders.JPEG_BASELINE, Rows=300)

    assert grey_of(small).shape == (320, 288)
    with pytest.raises(UnreadableImage, match="another size"):
        read(large, LIMITS)


def test_bits_above_those_stored_are_ignored_where_an_overlay_lies_there():
    twelve = CHEST.astype(np.uint16) * 16
    overlaid = builders.dicom_set(twelve | 0x8000, BitsStored=12, HighBit=11)
    overlaid.add_new(0x60000100, "US", 16)
    overlaid.add_new(0x60000102, "US", 15)

    assert np.abs(grey_of(builders.written(overlaid)).astype(int) - CHEST).max() <= 1


def test_a_header_that_promises_fewer_bits_than_there_are_is_not_believed():
    data = builders.dicom(CHEST.astype(np.uint16) * 16, BitsStored=9, HighBit=8)

    with pytest.raises(UnreadableImage, match="more bits than its header says"):
        read(data, LIMITS)


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_every_transfer_syntax_promised_has_a_decoder_installed(syntax):
    uid = pydicom.uid.UID(syntax)

    assert not uid.is_compressed or uid.is_deflated or get_decoder(uid).is_available


BUNDLED = sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"))


def test_pydicoms_own_test_files_decode_or_get_a_code():
    decoded, codes = [], {}
    for path in BUNDLED:
        try:
            decoded.append((path.name, grey_of(path.read_bytes(), Limits(min_side=1))))
        except UnreadableImage as error:
            codes[path.name] = error.code

    assert len(decoded) >= 35
    assert len(decoded) + len(codes) == len(BUNDLED)
    assert codes["MR_truncated.dcm"] is Reason.TRUNCATED
    assert codes["test-SR.dcm"] is Reason.NOT_AN_IMAGE
    assert codes["SC_rgb_rle_2frame.dcm"] is Reason.MULTI_FRAME
    same = dict(decoded)
    for twin in ("MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm"):
        assert np.array_equal(same[twin], same["MR_small.dcm"])


# DICOM: what headers say.


@pytest.mark.parametrize("name", TURNED_AWAY)
def test_what_the_header_rules_out_gets_a_code(name):
    reason, data = TURNED_AWAY[name]

    with pytest.raises(UnreadableImage) as refused:
        tags(data[:HEADER_BYTES])

    assert refused.value.code is reason


@pytest.mark.parametrize(
    "fields",
    [
        {"ViewPosition": "PA"},
        {"ViewPosition": "AP"},
        {"ViewPosition": "AP SUPINE"},
        {"ViewPosition": ""},
        {"ViewPosition": None},
        {"ViewPosition": "", "PatientOrientation": ["L", "F"]},
        {"BodyPartExamined": "THORAX"},
        {"BodyPartExamined": None},
        {"BodyPartExamined": "TORAX"},
        {"Modality": "CR"},
        {"Modality": "OT"},
    ],
)
def test_frontal_chests_and_unknown_words_are_let_through(fields):
    assert tags(builders.dicom(**fields)).patient_id == "site-0001"


@pytest.mark.parametrize("name", ["frames.dcm", "report.dcm", "DICOMDIR", "video.dcm", "encrypted.dcm", "sealed.dcm"])
def test_the_header_alone_already_tells(name):
    reason, data = BAD[name]

    with pytest.raises(UnreadableImage) as refused:
        tags(data[:HEADER_BYTES])

    assert refused.value.code is reason


def test_the_kept_tags_are_an_allow_list():
    kept = asdict(tags(builders.dicom(InstitutionName="General Hospital", PatientBirthDate="19790101")))

    assert kept.pop("instance_uid")
    assert kept == {
        "patient_id": "site-0001",
        "study_uid": "1.2.3",
        "series_uid": "1.2.3.4",
        "study_date": "20260105",
        "imaged": "2026-01-05",
        "age_years": 47,
        "sex": "F",
        "view": "PA",
        "modality": "DX",
        "spacing_mm": (0.143, 0.143),
    }


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"])
def test_tags_are_the_same_in_every_encoding(syntax):
    wide = CHEST.astype(np.uint16)

    assert tags(builders.dicom_in(syntax, wide)) == tags(builders.dicom(wide))


@pytest.mark.parametrize(
    ("age", "born", "years"),
    [
        ("047Y", None, 47),
        ("018M", None, 1.5),
        ("010D", None, 0.03),
        (None, "19960105", 30),
        (None, None, None),
    ],
)
def test_age_is_in_years_and_falls_back_on_the_birth_date(age, born, years):
    found = tags(builders.dicom(PatientAge=age, PatientBirthDate=born or "")).age_years

    assert found == pytest.approx(years, abs=0.01)


def test_hostile_values_are_dropped():
    kept = tags(builders.dicom(PatientID="a\x1b[31m" + "x" * 60, StudyInstanceUID="1.2", PatientSex="<b>"))

    assert kept.patient_id == "a[31m" + "x" * 59
    assert kept.sex is None


def test_other_formats_have_no_tags():
    assert tags(builders.encoded(".png", CHEST)) == Tags()


def test_bombs_in_a_header_cost_the_producer_little():
    bombs = [builders.deflated_bomb(), builders.nested_dicom(60_000)]

    started = time.perf_counter()
    for bomb in bombs:
        with contextlib.suppress(UnreadableImage):
            tags(bomb[:HEADER_BYTES])
    assert time.perf_counter() - started < 3


def test_no_value_of_a_header_reaches_a_log_a_warning_or_an_error(caplog):
    canary = "CANARY-4711"
    odd = builders.dicom(PatientID=canary, RescaleSlope=1)
    odd = odd.replace(b"20260105", b"CANARY47").replace(b"047Y", b"CANA")
    broken = builders.dicom_in(builders.JPEG_BASELINE, PatientID=canary).replace(b"\xff\xd8\xff", b"\0\0\0")
    stream = io.StringIO()
    logging.getLogger().addHandler(handler := logging.StreamHandler(stream))

    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        read(odd, LIMITS)
        with pytest.raises(UnreadableImage) as refused:
            read(broken, LIMITS)
    logging.getLogger().removeHandler(handler)

    said = stream.getvalue() + caplog.text + str(refused.value) + "".join(str(w.message) for w in warned)
    assert "CANA" not in said
