"""Pictures decoded at half their size: the same to the model within a grey level or two, or decoded whole."""

from dataclasses import asdict

import builders
import cv2
import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless

from db.errors import ModelRefused
from workers import images, parity, preprocessing, reduced
from workers.decoding import DecoderPool, Source
from workers.images import CODECS, Limits, NotReduced, Plan
from workers.preprocessing import DEFAULT_BORDER

LIMITS = Limits()
SIZE = 64
HEIGHT, WIDTH = 631, 577  # neither is a multiple of anything; 2 x 4 x 64 and more
NOISE = np.random.default_rng(3).normal(0, 2, (HEIGHT, WIDTH))


def picture(bits=8):
    """A drawn chest that uses all of its bits, without a border."""
    large = cv2.resize(builders.chest(seed=2), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.float64)
    large = 40 + (large - large.min()) * (200 / np.ptp(large)) + NOISE
    return np.clip(large * (2**bits - 1) / 255, 0, 2**bits - 1).astype(np.uint8 if bits <= 8 else np.uint16)


def jpeg(samples=None, colour=False):
    samples = picture() if samples is None else samples
    return builders.encoded(".jpg", cv2.merge([samples] * 3) if colour else samples, cv2.IMWRITE_JPEG_QUALITY, 95)


def jpeg_2000(samples=None, bits=12, **fields):
    depth = {"BitsStored": bits, "HighBit": bits - 1}
    return builders.dicom_in(JPEG2000Lossless, picture(bits) if samples is None else samples, **depth, **fields)


def jpeg_in_dicom(**fields):
    return builders.dicom_in(builders.JPEG_BASELINE, picture(), **fields)


def small(data, codecs=CODECS):
    return reduced.prepare(data, LIMITS, SIZE, codecs, DEFAULT_BORDER, "exact")


def whole(data):
    return preprocessing.prepare(images.to_grey8(images.read(data, LIMITS)), SIZE)


WINDOW = {"WindowCenter": 2000, "WindowWidth": 3600}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(jpeg(), id="jpeg"),
        pytest.param(jpeg(colour=True), id="colour-jpeg"),
        pytest.param(jpeg_in_dicom(), id="jpeg-in-dicom"),
        pytest.param(jpeg_in_dicom(PhotometricInterpretation="MONOCHROME1"), id="jpeg-in-monochrome1"),
        pytest.param(jpeg_2000(), id="jpeg2000"),
        pytest.param(jpeg_2000(bits=16), id="jpeg2000-16"),
        pytest.param(jpeg_2000(**WINDOW), id="jpeg2000-window"),
        pytest.param(jpeg_2000(**WINDOW, PhotometricInterpretation="MONOCHROME1"), id="jpeg2000-monochrome1"),
    ],
)
def test_the_model_sees_the_same_to_a_grey_level_or_two(data):
    image, pixels, evidence = small(data)
    exact, its_evidence = whole(data)

    assert image.samples.shape == (-(-HEIGHT // 2), -(-WIDTH // 2))
    assert np.abs(pixels.astype(int) - exact).max() <= 2
    assert abs((pixels.astype(int) - exact).mean()) < 0.1
    assert evidence.preprocessing == preprocessing.REDUCED
    assert asdict(its_evidence) | {"preprocessing": preprocessing.REDUCED} == asdict(evidence)


def test_how_the_whole_copy_is_shown_is_told_alike():
    shown = {"WindowCenter": 4000, "WindowWidth": 7000, "RescaleSlope": "2", "RescaleIntercept": "-100"}
    data = jpeg_2000(**shown, PhotometricInterpretation="MONOCHROME1")

    assert small(data)[0].display == images.read(data, LIMITS).display


def padded(**sides):
    around = {"top": 0, "bottom": 0, "left": 0, "right": 0} | sides
    return cv2.copyMakeBorder(picture(), *around.values(), cv2.BORDER_CONSTANT, value=4)


DIM = picture(12) // 2  # its highest bit is not used


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(builders.encoded(".png", picture()), id="png"),
        pytest.param(jpeg(cv2.resize(picture(), (500, 500))), id="small"),
        pytest.param(jpeg(padded(top=9)), id="border above"),
        pytest.param(jpeg(padded(right=30)), id="border right"),
        pytest.param(jpeg(255 - padded(left=9)), id="white page"),
        pytest.param(jpeg(np.full((600, 600), 90, np.uint8)), id="blank"),
        pytest.param(builders.dicom(picture(12), BitsStored=12, HighBit=11), id="uncompressed"),
        pytest.param(jpeg_2000(DIM), id="range by its brightest sample"),
        pytest.param(jpeg_2000(picture(12).astype(np.int16) - 2048, PixelRepresentation=1), id="signed"),
        pytest.param(jpeg_2000(PixelPaddingValue=0), id="padding"),
    ],
)
def test_what_only_the_whole_picture_can_tell_is_decoded_whole(data):
    with pytest.raises(NotReduced):
        small(data)


def test_a_codec_that_is_not_allowed_is_not_used():
    with pytest.raises(NotReduced):
        small(jpeg(), ("jpeg2000",))
    with pytest.raises(NotReduced):
        small(jpeg_2000(), ("jpeg",))


@pytest.mark.parametrize(("side", "least", "factor"), [(511, 256, None), (512, 256, 2), (1023, 256, 2), (4096, 256, 8)])
def test_the_furthest_reduction_that_leaves_enough(side, least, factor):
    plan, frame = Plan(least, ("jpeg",)), images.reduced.Frame(side, 5000)

    if factor is None:
        with pytest.raises(NotReduced):
            plan.factor("jpeg", frame)
    else:
        assert plan.factor("jpeg", frame) == factor
        assert plan._replace(most=2).factor("jpeg", frame) == 2


def test_averages_are_those_of_the_area():
    lines = np.random.default_rng(1).integers(0, 255, (60, 7)).astype(np.uint8)
    fine = np.repeat(lines, 10, axis=0).astype(np.float64)

    found = reduced.averages(lines, 3.7, 52.0, 13)

    np.testing.assert_allclose(found, [fine[37 + 40 * n : 77 + 40 * n].mean(axis=0) for n in range(13)])


def damaged(data):
    """A file cut, cut and closed again, with a block lost, and with some bytes lost, at places all over its picture."""
    middle = [len(data) * n // 12 for n in range(4, 12)]
    for at in middle:
        yield data[:at]
        yield data[:at] + b"\xff\xd9"
        yield data[:at] + bytes(512) + data[at + 512 :]
        yield data[:at] + data[at + 40 :]


@pytest.mark.parametrize("data", [jpeg(), jpeg_in_dicom(), jpeg_2000(**WINDOW)], ids=["jpeg", "in-dicom", "jpeg2000"])
def test_no_damage_that_is_refused_whole_is_scored_reduced(data):
    refused = 0
    for one in damaged(data):
        try:
            images.read(one, LIMITS)
        except images.UnreadableImage:
            refused += 1
            with pytest.raises((NotReduced, images.UnreadableImage)):
                small(one)

    assert refused >= 16


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(1, LIMITS, memory_bytes=1_300_000_000, seconds=30.0) as decoders:
        yield decoders


def test_a_decoder_reduces_what_it_can_and_says_which_version_it_made(pool, tmp_path):
    (tmp_path / "large").write_bytes(jpeg_2000())
    (tmp_path / "framed").write_bytes(jpeg(padded(top=9)))

    def version(name, reduce):
        prepared = pool.prepare(Source(str(tmp_path), name), SIZE, reduce=reduce)
        assert prepared.evidence.display is not None
        return prepared.evidence.preprocessing

    assert version("large", CODECS) == preprocessing.REDUCED
    assert version("large", ("jpeg",)) == version("large", ()) == preprocessing.VERSION
    assert version("framed", CODECS) == preprocessing.VERSION
    assert preprocessing.versions(CODECS) == {preprocessing.VERSION, preprocessing.REDUCED}
    assert preprocessing.versions(()) == {preprocessing.VERSION}


def test_a_file_that_is_refused_whole_is_refused_by_the_same_code(pool, tmp_path):
    (tmp_path / "cut").write_bytes(jpeg()[:-2000])

    with pytest.raises(images.UnreadableImage) as found:
        pool.prepare(Source(str(tmp_path), "cut"), SIZE, reduce=CODECS)
    assert found.value.code == "truncated"


def report(**refused):
    return {"forms": {parity.reduced_form(codec): {"refused": why} for codec, why in refused.items()}}


def test_reduced_are_the_codecs_that_the_report_allows():
    half = report(jpeg="too far apart", jpeg2000=None)

    assert parity.reductions(half, "auto") == parity.reductions(half, "reduced") == ("jpeg2000",)
    assert parity.reductions(half, "exact") == ()
    assert parity.reductions(report(jpeg=None), "auto") == ("jpeg",)
    assert parity.reductions(None, "auto") == ()
    with pytest.raises(ModelRefused, match=r"NIGHTREAD_DECODE=reduced is not for this model: jpeg: too far apart"):
        parity.reductions(report(jpeg="too far apart"), "reduced")
