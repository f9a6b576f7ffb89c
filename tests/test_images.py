import time
from dataclasses import replace

import builders
import cv2
import numpy as np
import pytest
from builders import CHEST
from PIL import Image as Pillow

from db.errors import UnreadableImage
from db.words import Reason
from workers import images
from workers.images import Limits, as_png, is_image, read, reader_for, review, to_grey8

GOOD = builders.good_files()
BAD = builders.bad_files()
TURNED_AWAY = builders.turned_away_by_header()
LIMITS = Limits(max_bytes=32 * 2**20)


def grey_of(data, limits=LIMITS):
    return to_grey8(read(data, limits))


def reason_for(data, limits=LIMITS):
    with pytest.raises(UnreadableImage) as refused:
        read(data, limits)
    return refused.value.code


@pytest.mark.parametrize("name", GOOD)
def test_one_picture_reads_the_same_from_every_lossless_format(name):
    assert np.array_equal(grey_of(GOOD[name]), CHEST)


@pytest.mark.parametrize(
    "data",
    [
        builders.encoded(".jpg", CHEST, cv2.IMWRITE_JPEG_QUALITY, 98),
        builders.encoded(".jpg", CHEST, cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        builders.encoded(".jpg", np.dstack([CHEST] * 3), cv2.IMWRITE_JPEG_QUALITY, 98),
        builders.dicom_in(builders.JPEG_BASELINE),
    ],
    ids=["grey", "progressive", "colour", "in DICOM"],
)
def test_a_jpeg_differs_by_its_own_loss_only(data):
    assert np.abs(grey_of(data).astype(int) - CHEST).mean() < 1.5


def test_four_ink_jpegs_are_read_as_printed_with_and_without_adobes_mark():
    no_ink = np.dstack([np.full_like(CHEST, 0)] * 3 + [255 - CHEST])
    adobe = builders.pillow(Pillow.fromarray(no_ink, "CMYK"), "JPEG", quality=98)
    # Pillow writes what Adobe does: inverted, and marked so (an APP14 segment of 16 bytes).
    marked = builders.pillow(Pillow.fromarray(255 - no_ink, "CMYK"), "JPEG", quality=98)
    at = marked.index(b"\xff\xee\x00\x0eAdobe")
    plain = marked[:at] + marked[at + 16 :]

    assert np.abs(grey_of(adobe).astype(int) - CHEST).mean() < 2
    assert np.abs(grey_of(plain).astype(int) - CHEST).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    stored = cv2.GaussianBlur(CHEST[:200, :160], (0, 0), 3)
    data = builders.rotated_jpeg(stored, orientation)

    shown = {
        1: stored,
        2: np.fliplr(stored),
        3: np.rot90(stored, 2),
        4: np.flipud(stored),
        5: stored.T,
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).T,
        8: np.rot90(stored, 1),
    }[orientation]
    assert np.abs(grey_of(data).astype(int) - shown).mean() < 1.5


def test_orientation_is_applied_in_png_tiff_and_webp_too():
    exif = Pillow.Exif()
    exif[274] = 6
    picture = Pillow.fromarray(CHEST)
    png = builders.pillow(picture, "PNG", exif=exif)
    webp = builders.pillow(picture.convert("RGB"), "WEBP", exif=exif, lossless=True)
    tiff = builders.pillow(picture, "TIFF", tiffinfo={274: 6})

    for data in (png, webp, tiff):
        assert np.array_equal(grey_of(data), np.rot90(CHEST, -1))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_twelve_bits_in_a_sixteen_bit_file_are_not_near_black(suffix):
    twelve = CHEST.astype(np.uint16) * 16

    image = read(builders.encoded(suffix, twelve), LIMITS)

    assert image.bits == 12
    assert np.abs(to_grey8(image).astype(int) - CHEST).max() <= 1


def test_a_full_white_marker_does_not_darken_twelve_bits():
    twelve = CHEST.astype(np.uint16) * 16
    twelve[5:12, 5:20] = 65535

    image = read(builders.encoded(".png", twelve), LIMITS)

    assert image.bits == 12
    assert to_grey8(image)[8, 10] == 255
    assert np.abs(to_grey8(image)[20:].astype(int) - CHEST[20:]).max() <= 1


def test_a_tiff_that_counts_from_white_is_turned_over():
    for dtype, white in ((np.uint8, 255), (np.uint16, 65535)):
        wide = CHEST.astype(dtype) * (white // 255)
        data = builders.encoded(".tif", (white - wide).astype(dtype), cv2.IMWRITE_TIFF_COMPRESSION, 1)
        field = (262).to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little")
        at = data.index(field) + 8
        from_white = data[:at] + bytes(2) + data[at + 2 :]

        assert np.array_equal(grey_of(from_white), CHEST), dtype


def test_what_is_transparent_is_black():
    colour = np.dstack([CHEST] * 3)
    alpha = np.full_like(CHEST, 255)
    alpha[:100] = 0

    grey = grey_of(builders.encoded(".png", np.dstack([colour, alpha])))

    assert not grey[:100].any()
    assert np.array_equal(grey[100:], CHEST[100:])


def test_a_wholly_transparent_picture_is_shown_nevertheless():
    hidden = np.dstack([CHEST] * 3 + [np.zeros_like(CHEST)])

    assert np.array_equal(grey_of(builders.encoded(".png", hidden)), CHEST)


@pytest.mark.parametrize("name", BAD)
def test_each_kind_of_bad_file_gets_its_code(name):
    reason, data = BAD[name]

    assert reason_for(data) is reason


def test_there_are_at_least_twenty_kinds_of_bad_files_under_every_code_of_reading():
    codes = {reason for reason, _ in BAD.values()} | {reason for reason, _ in TURNED_AWAY.values()}

    assert len(BAD) + len(TURNED_AWAY) >= 20
    assert codes == {
        *(Reason.EMPTY, Reason.NOT_AN_IMAGE, Reason.TRUNCATED, Reason.UNREADABLE, Reason.TOO_LARGE),
        *(Reason.TOO_SMALL, Reason.UNSUPPORTED_TRANSFER_SYNTAX, Reason.ENCRYPTED, Reason.MULTI_FRAME),
        *(Reason.NOT_FRONTAL, Reason.NOT_CHEST),
    }


@pytest.mark.parametrize("name", ["grey.png", "rgb.png", "grey.tif", "grey.bmp", "lossless.webp", "mono2.dcm"])
def test_a_file_cut_anywhere_is_never_read_as_a_picture(name):
    data = GOOD[name]

    for length in range(0, len(data) - 1, max(len(data) // 40, 1)):
        assert reason_for(data[:length]) in (
            *(Reason.EMPTY, Reason.NOT_AN_IMAGE, Reason.TRUNCATED, Reason.UNREADABLE),
        ), length


def test_a_jpeg_cut_anywhere_is_never_read_as_half_a_picture():
    data = builders.encoded(".jpg", CHEST)

    for length in range(600, len(data) - 4, 997):
        assert reason_for(data[:length]) is Reason.TRUNCATED
        assert reason_for(data[:length] + b"\xff\xd9") in (Reason.TRUNCATED, Reason.UNREADABLE)


def test_limits_are_checked_before_decoding():
    bomb = BAD["bomb.png"][1]

    started = time.perf_counter()
    assert reason_for(bomb) is Reason.TOO_LARGE
    assert time.perf_counter() - started < 0.2
    assert reason_for(GOOD["grey.png"], replace(LIMITS, max_bytes=1000)) is Reason.TOO_LARGE
    for name, data in GOOD.items():
        assert reason_for(data, replace(LIMITS, max_pixels=320 * 288 - 1)) is Reason.TOO_LARGE, name
        assert reason_for(data, replace(LIMITS, min_side=289)) is Reason.TOO_SMALL, name


def test_formats_are_known_by_content():
    names = {name: reader_for(data[: images.SIGNATURE_BYTES]).name for name, data in GOOD.items()}

    assert names["grey.png"] == "png"
    assert names["lzw.tif"] == "tiff"
    assert names["lossless.webp"] == "webp"
    assert {names[name] for name in names if name.endswith(".dcm")} == {"dicom"}
    assert not is_image(b"")
    assert not is_image(b"#!/bin/sh\n")


def test_the_review_copy_is_lossless_and_bears_no_metadata():
    twelve = CHEST.astype(np.uint16) * 16
    deep, plain = review(builders.dicom(twelve, BitsStored=12, HighBit=11), LIMITS), review(GOOD["grey.png"], LIMITS)

    for image, stored in ((deep, twelve), (plain, CHEST)):
        copy = as_png(image)
        assert np.array_equal(cv2.imdecode(np.frombuffer(copy, np.uint8), cv2.IMREAD_UNCHANGED), stored)
        assert np.array_equal(review(copy, LIMITS).samples, stored)
        assert {copy[at - 4 : at] for at in _chunk_starts(copy)} == {b"IHDR", b"IDAT", b"IEND"}


def _chunk_starts(png):
    at = 8
    while at < len(png):
        yield at + 8
        at += 12 + int.from_bytes(png[at : at + 4])
