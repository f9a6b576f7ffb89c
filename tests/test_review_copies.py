"""Review copies keep a picture's own samples and depth, through the decoders as well, in bounds of memory."""

import json
from dataclasses import asdict
from hashlib import sha256

import builders
import cv2
import numpy as np
import pytest
from builders import CHEST
from reviewing import LIMITS, TWELVE, lut, of_dicom, reviewed, windowed

from workers.decoding import DecoderPool, Source
from workers.images import Limits, as_png, read, review, to_grey8
from workers.images.display import Display
from workers.preprocessing import prepare

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


# Through a decoder


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(1, LIMITS, memory_bytes=1_500_000_000, seconds=60) as decoders:
        yield decoders


def put(folder, name, data):
    (folder / name).write_bytes(data)
    return Source(str(folder), name, sha256(data).hexdigest())


def test_the_review_copy_is_the_whole_picture_in_its_own_depth_and_comes_with_how_to_show_it(pool, tmp_path):
    twelve = CHEST.astype(np.uint16) * 16
    data = builders.dicom(twelve, BitsStored=12, HighBit=11, WindowCenter=2000, WindowWidth=3000)
    source = put(tmp_path, "a.dcm", data)

    copy, said = pool.review_copy(source), pool.prepare(source, 224).evidence.display

    assert copy == as_png(review(data, LIMITS))
    assert np.array_equal(cv2.imdecode(np.frombuffer(copy, np.uint8), cv2.IMREAD_UNCHANGED), twelve)
    assert said == review(data, LIMITS).display.as_json()
    assert (said["bits"], said["low"], said["high"]) == (12, 500, 3499)


@pytest.mark.parametrize(
    "said", [{"low": float("nan")}, {"slope": "x"}, {"bits": 99}, {"windows": [{"name": "x" * 10**6}]}, {"low": 9e9}]
)
def test_a_decoder_that_was_taken_over_cannot_say_how_to_show_anything_it_likes(monkeypatch, tmp_path, said):
    """What the worker keeps goes into a database and a page."""
    display = Display(8, 0, 255).as_json() | said
    evidence = {**asdict(prepare(CHEST, 224)[1]), "display": display}
    pool = DecoderPool(1, LIMITS, memory_bytes=10**9, seconds=20)
    answer = {"evidence": json.loads(json.dumps(evidence)), "seconds": 0.1, "waited": 0.0}, bytes(224 * 224)
    monkeypatch.setattr(pool, "_answer", lambda order: answer)

    assert pool.prepare(Source(str(tmp_path), "a.png"), 224).evidence.display is None


def test_a_copy_of_the_largest_picture_in_16_bits_stays_in_the_decoders_memory_and_answer(tmp_path):
    """Noise, which does not compress; the memory fits these pixels as tightly as the default settings' fits theirs."""
    noise = np.frombuffer(np.random.default_rng(1).bytes(2 * 6000 * 6000), np.uint16).reshape(6000, 6000)
    source = put(tmp_path, "a.dcm", builders.dicom(noise, WindowCenter=30_000, WindowWidth=60_000))

    with DecoderPool(1, Limits(max_pixels=36_000_000), memory_bytes=750_000_000, seconds=60) as pool:
        said, copy = pool.prepare(source, 224).evidence.display, pool.review_copy(source)

    assert said["bits"] == 16
    assert len(copy) > noise.nbytes
    assert np.array_equal(cv2.imdecode(np.frombuffer(copy, np.uint8), cv2.IMREAD_UNCHANGED), noise)


def test_what_earlier_pictures_left_behind_takes_no_room_from_the_largest(tmp_path):
    """A decoder keeps the memory of one picture for the next."""
    random = np.random.default_rng(2)
    sides = [900, 3900, 1700, 3000, 2300, 3900, 800, 3500, 4000, 1200, 2800]

    def picture(name, side):
        noise = np.frombuffer(random.bytes(2 * side * side), np.uint16).reshape(side, side)
        return put(tmp_path, name, builders.dicom(noise, WindowCenter=30_000, WindowWidth=60_000))

    earlier = [picture(f"{number}.dcm", side) for number, side in enumerate(sides)]
    largest = picture("largest.dcm", 6000)

    with DecoderPool(1, Limits(max_pixels=36_000_000), memory_bytes=750_000_000, seconds=60) as pool:
        for source in earlier:
            pool.prepare(source, 224)
            pool.review_copy(source)
        assert pool.prepare(largest, 224).evidence.height == 6000
        assert len(pool.review_copy(largest)) > 2 * 6000 * 6000
