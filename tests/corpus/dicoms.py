"""DICOM objects: every encoding that is read, and every way in which a header rules its picture out or lies of it."""

import struct
import zlib

import builders
import cv2
import numpy as np
from builders import declared_deflated, dicom, dicom_in, dicom_set, encoded, written
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import UID

from corpus import SCORED, Draw, File, Kind
from corpus.rasters import bordered, lossless_jpeg, patched_frame
from db.words import Reason

UNREADABLE, TRUNCATED = Reason.UNREADABLE, Reason.TRUNCATED
TWELVE = {"BitsStored": 12, "HighBit": 11}
BASELINE, EXTENDED, LOSSLESS = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 70))
JPEG_LS, JPEG_2000, RLE = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"
STREAM_SYNTAXES = (BASELINE, LOSSLESS, JPEG_LS, JPEG_2000, RLE)


def enclosed(stream: bytes, syntax: str, pixels: np.ndarray, **fields: object) -> bytes:
    """A radiograph whose compressed picture is `stream`."""
    data_set = dicom_set(pixels, **fields)
    data_set.PixelData = encapsulate([stream])
    data_set["PixelData"].is_undefined_length = True
    data_set.file_meta.TransferSyntaxUID = UID(syntax)
    return written(data_set)


_ENCODERS = {RLE: "pydicom", JPEG_LS: "pyjpegls", JPEG_2000: "pylibjpeg"}  # gdcm's ends the process over odd widths


def stream_of(pixels: np.ndarray, syntax: str, **fields: object) -> bytes:
    """The picture compressed as that syntax has it."""
    if syntax in (BASELINE, EXTENDED):
        return encoded(".jpg", pixels, cv2.IMWRITE_JPEG_QUALITY, 95)
    if syntax == LOSSLESS:
        return lossless_jpeg(pixels)
    data_set = dicom_set(pixels, **fields)
    data_set.compress(syntax, encoding_plugin=_ENCODERS[syntax])
    return next(generate_frames(data_set.PixelData, number_of_frames=1))


def _plain(pixels: str = "grey", tolerance: float = 0, **fields: object):
    return lambda draw: File(dicom(getattr(draw, pixels), **fields), SCORED, draw.grey, tolerance)


def _in(syntax: str, pixels: str = "grey", tolerance: float = 0, **fields: object):
    return lambda draw: File(dicom_in(syntax, getattr(draw, pixels), **fields), SCORED, draw.grey, tolerance)


def _compressed(syntax: str, tolerance: float = 0, pixels: str = "grey", **fields: object):
    def make(draw: Draw) -> File:
        stored = getattr(draw, pixels)
        data = enclosed(stream_of(stored, syntax, **fields), syntax, stored, **fields)
        return File(data, SCORED, draw.grey, tolerance)

    return make


def _bordered(syntax: str):
    def make(draw: Draw) -> File:
        field = bordered(draw)
        return File(enclosed(stream_of(field, syntax), syntax, field), SCORED, field)

    return make


def _refused(reason: Reason, **fields: object):
    return lambda draw: File(dicom(draw.grey, **fields), reason)


def _from_white(draw: Draw) -> File:
    return File(dicom(255 - draw.grey, PhotometricInterpretation="MONOCHROME1"), SCORED, draw.grey)


def _windowed(draw: Draw) -> File:
    data = dicom(draw.twelve, **TWELVE, WindowCenter=2048, WindowWidth=4096)
    return File(data, SCORED, draw.grey, 1)


def _rescaled(draw: Draw) -> File:
    data = dicom(draw.twelve, **TWELVE, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=3072, WindowWidth=8192)
    return File(data, SCORED, draw.grey, 1)


def _signed(draw: Draw) -> File:
    stored = draw.twelve.astype(np.int16) - 2048
    return File(dicom(stored, WindowCenter=0, WindowWidth=4096), SCORED, draw.grey, 1)


def _rgb(draw: Draw) -> File:
    data_set = dicom_set(draw.grey, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    data_set.PixelData = draw.rgb.tobytes() + b"\0" * (draw.rgb.size % 2)
    return File(written(data_set), SCORED, draw.grey)


def _palette(draw: Draw) -> File:
    data_set = dicom_set(draw.grey, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(data_set, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        table = (np.arange(256)[::-1] * 257).astype("<u2").tobytes()
        setattr(data_set, f"{colour}PaletteColorLookupTableData", table)
    return File(written(data_set), SCORED, 255 - draw.grey, 1)


def _overlay(draw: Draw) -> File:
    data_set = dicom_set(draw.twelve | 0x8000, **TWELVE)
    data_set.add_new(0x60000100, "US", 16)
    data_set.add_new(0x60000102, "US", 15)
    return File(written(data_set), SCORED, draw.grey, 1)


def _table(draw: Draw) -> File:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 16]
    item.LUTData = (np.arange(4096)[::-1] * 16).astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    data = dicom(draw.twelve, **TWELVE, VOILUTSequence=Sequence([item]))
    return File(data, SCORED, 255 - draw.grey, 1.5)


def _padded(draw: Draw) -> File:
    data_set = dicom_set(draw.grey)
    data_set.PixelData += bytes(128 + len(data_set.PixelData) % 2)
    return File(written(data_set), SCORED, draw.grey)


def _odd(draw: Draw) -> File:
    """A value of odd length, which the standard forbids and devices write."""
    data = dicom(draw.grey, PatientID="site-0001X")
    at = data.index(b"site-0001X")
    length = struct.pack("<H", 9)
    return File(data[: at - 2] + length + data[at : at + 9] + data[at + 10 :], SCORED, draw.grey)


def _sequences(draw: Draw) -> File:
    """Sequences of undefined length in front of the pixels."""
    data = dicom(draw.grey)
    at = data.index(struct.pack("<HH", 0x7FE0, 0x0010))
    opening = struct.pack("<HH2sHIHHI", 0x0040, 0xA730, b"SQ", 0, 2**32 - 1, 0xFFFE, 0xE000, 2**32 - 1)
    closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    depth = int(draw.rng.integers(1, 30))
    return File(data[:at] + opening * depth + closing * depth + data[at:], SCORED, draw.grey)


def _frames(draw: Draw) -> File:
    count = int(draw.rng.integers(2, 6))
    stacked = np.vstack([draw.grey] * count)
    return File(dicom(stacked, Rows=len(draw.grey), NumberOfFrames=count), Reason.MULTI_FRAME)


def _without(sop_class: str, modality: str):
    return lambda draw: File(_report(sop_class, modality, draw), Reason.NOT_AN_IMAGE)


def _report(sop_class: str, modality: str, draw: Draw) -> bytes:
    nothing = dict.fromkeys(["PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"])
    data_set = dicom_set(draw.grey, **nothing, SOPClassUID=sop_class, Modality=modality)
    data_set.PatientID = f"report-{draw.seed}"
    return written(data_set)


def _video(draw: Draw) -> File:
    syntax = f"1.2.840.10008.1.2.4.{draw.rng.integers(100, 107)}"
    return File(enclosed(draw.rng.bytes(4000), syntax, draw.grey), Reason.UNSUPPORTED_TRANSFER_SYNTAX)


def _twelve_bit_jpeg(draw: Draw) -> File:
    stream = patched_frame(encoded(".jpg", draw.grey), marker=0xC1, precision=12)
    return File(enclosed(stream, EXTENDED, draw.twelve, **TWELVE), Reason.UNSUPPORTED_TRANSFER_SYNTAX)


def _encrypted(draw: Draw) -> File:
    item = Dataset()
    item.EncryptedContentTransferSyntaxUID = "1.2.840.10008.1.2.1"
    item.EncryptedContent = draw.rng.bytes(256)
    fields = {"PixelData": None, "EncryptedAttributesSequence": Sequence([item])}
    return File(dicom(draw.grey, **fields), Reason.ENCRYPTED)


def _sealed(draw: Draw) -> File:
    head = b"\x30\x82\x20\x00\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03\xa0\x82"
    return File(head + draw.rng.bytes(8000), Reason.ENCRYPTED)


def _other_size(syntax: str):
    """The stream's own size is right; the header's leaves out 40 rows."""
    return lambda draw: File(
        enclosed(stream_of(draw.grey, syntax), syntax, draw.grey, Rows=len(draw.grey) - 40), UNREADABLE
    )


def _other_samples(syntax: str):
    return lambda draw: File(enclosed(stream_of(draw.grey, syntax), syntax, draw.grey, SamplesPerPixel=3), UNREADABLE)


def _fewer_bits(syntax: str):
    """Five bits stored, it says, of a stream of eight: gdcm ends the process over some of these."""
    return lambda draw: File(
        enclosed(stream_of(draw.grey, syntax), syntax, draw.grey, BitsStored=5, HighBit=4), UNREADABLE
    )


def _dicomdir(draw: Draw) -> File:
    return File(builders.dicomdir().replace(b"NIGHT ", f"N{draw.seed % 100_000:05}".encode()), Reason.NOT_AN_IMAGE)


def _no_end(draw: Draw) -> File:
    return File(enclosed(stream_of(draw.grey, BASELINE), BASELINE, draw.grey)[:-8], TRUNCATED)


def _damaged_deflate(draw: Draw) -> File:
    data = dicom_in("1.2.840.10008.1.2.1.99", draw.grey)
    at = len(data) // 2
    return File(data[:at] + draw.rng.bytes(600) + data[at + 600 :], UNREADABLE, silent=True)


def _short_deflate(draw: Draw) -> File:
    meta = written(dicom_set(draw.grey))
    start = meta.index(b"\x08\x00\x16\x00", 132)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = meta[start:]
    cut = packer.compress(body[: len(body) - len(draw.grey) * 9]) + packer.flush()
    return File(declared_deflated(meta[:start]) + cut, TRUNCATED)


def _crashing(draw: Draw) -> File:
    stream = stream_of(draw.grey, EXTENDED).replace(b"\xff\xdb", b"\0\xdb", 1)
    return File(enclosed(stream, EXTENDED, draw.grey), UNREADABLE)


KINDS = [
    Kind("mono2.dcm", "DICOM, uncompressed", _plain()),
    Kind("mono1.dcm", "DICOM that counts from white (MONOCHROME1)", _from_white),
    Kind("sixteen.dcm", "DICOM, 16 bits", _plain("wide")),
    Kind("twelve.dcm", "DICOM, 12 bits, no window", _plain("twelve", 1, **TWELVE)),
    Kind("twelve_says_sixteen.dcm", "12 bits under a header that says 16", _plain("twelve", 1)),
    Kind("window.dcm", "DICOM with a window", _windowed),
    Kind("rescaled.dcm", "DICOM with rescale slope and intercept, and a window", _rescaled),
    Kind("signed.dcm", "DICOM of signed samples", _signed),
    Kind("lookup.dcm", "DICOM with a VOI lookup table that turns black and white over", _table),
    Kind("implicit.dcm", "DICOM, implicit", _in("1.2.840.10008.1.2")),
    Kind("big_endian.dcm", "DICOM, big endian, 16 bits", _in("1.2.840.10008.1.2.2", "wide")),
    Kind("deflated.dcm", "DICOM, deflated", _in("1.2.840.10008.1.2.1.99")),
    Kind("rle.dcm", "DICOM, RLE", _compressed(RLE)),
    Kind("rle_sixteen.dcm", "DICOM, RLE of 12 bits", _compressed(RLE, 1, "twelve", **TWELVE)),
    Kind("jpeg.dcm", "DICOM, JPEG baseline", _compressed(BASELINE, 1.5)),
    Kind("jpeg_extended.dcm", "DICOM, JPEG extended of 8 bits", _compressed(EXTENDED, 1.5)),
    Kind("jpeg_lossless.dcm", "DICOM, JPEG lossless", _compressed(LOSSLESS)),
    Kind("jpeg_ls.dcm", "DICOM, JPEG-LS", _compressed(JPEG_LS)),
    Kind("jpeg_ls_twelve.dcm", "DICOM, JPEG-LS of 12 bits", _compressed(JPEG_LS, 1, "twelve", **TWELVE)),
    Kind("jpeg_2000.dcm", "DICOM, JPEG 2000", _compressed(JPEG_2000)),
    Kind("jpeg_2000_twelve.dcm", "DICOM, JPEG 2000 of 12 bits", _compressed(JPEG_2000, 1, "twelve", **TWELVE)),
    Kind("bordered_2000.dcm", "JPEG 2000 of a wide plain field", _bordered(JPEG_2000)),
    Kind("bordered_ls.dcm", "JPEG-LS of a wide plain field", _bordered(JPEG_LS)),
    Kind("no_preamble", "DICOM without a preamble", lambda d: File(dicom(d.grey)[132:], SCORED, d.grey)),
    Kind("rgb.dcm", "DICOM in colours", _rgb),
    Kind("palette.dcm", "DICOM with a palette", _palette),
    Kind("overlay.dcm", "an overlay in the bits above those stored", _overlay),
    Kind("padded.dcm", "zeros after the pixels", _padded),
    Kind("odd_length.dcm", "a value of odd length", _odd),
    Kind("undefined_lengths.dcm", "nested sequences of undefined length", _sequences),
    Kind("frames.dcm", "DICOM of several frames", _frames),
    Kind("report.dcm", "a structured report", _without("1.2.840.10008.5.1.4.1.1.88.11", "SR")),
    Kind("key_object.dcm", "a key object note", _without("1.2.840.10008.5.1.4.1.1.88.59", "KO")),
    Kind("presentation.dcm", "a presentation state", _without("1.2.840.10008.5.1.4.1.1.11.1", "PR")),
    Kind("letter.dcm", "a PDF in DICOM", _without("1.2.840.10008.5.1.4.1.1.104.1", "OT")),
    Kind("DICOMDIR", "an index of a medium", _dicomdir),
    Kind("encrypted.dcm", "encrypted attributes", _encrypted),
    Kind("sealed.dcm", "a sealed (CMS) DICOM file", _sealed),
    Kind("video.dcm", "DICOM video", _video),
    Kind("jpeg_twelve.dcm", "JPEG extended of 12 bits, for which there is no codec", _twelve_bit_jpeg),
    Kind("lateral.dcm", "a lateral view", _refused(Reason.NOT_FRONTAL, ViewPosition="LL")),
    Kind("hand.dcm", "a hand", _refused(Reason.NOT_CHEST, BodyPartExamined="HAND")),
    Kind("slice.dcm", "a CT slice", _refused(Reason.NOT_CHEST, Modality="CT")),
    Kind("more_rows.dcm", "fewer pixels than its header says", _refused(TRUNCATED, Rows=400)),
    Kind("fewer_rows.dcm", "more pixels than its header says", _refused(UNREADABLE, Rows=80)),
    Kind("fewer_columns.dcm", "rows longer than its header says: a slanted picture", _refused(UNREADABLE, Columns=100)),
    Kind("no_rows.dcm", "no rows, it says", _refused(UNREADABLE, Rows=0)),
    Kind("three_samples.dcm", "three samples a pixel, it says", _refused(TRUNCATED, SamplesPerPixel=3)),
    Kind("twelve_allocated.dcm", "12 bits allocated, it says", _refused(UNREADABLE, BitsAllocated=12)),
    Kind("sixteen_says_eight.dcm", "16 bits under a header that says 8",
         lambda d: File(dicom(d.twelve, BitsAllocated=8, BitsStored=8, HighBit=7), UNREADABLE)),
    Kind("fewer_bits.dcm", "12 bits under a header that says 9",
         lambda d: File(dicom(d.twelve, BitsStored=9, HighBit=8), UNREADABLE)),
    Kind("high_bit.dcm", "12 bits stored at the upper end of 16",
         lambda d: File(dicom(d.twelve << 4, BitsStored=12, HighBit=15), UNREADABLE)),
    Kind("no_bits.dcm", "no field that says how many bits", _refused(UNREADABLE, BitsAllocated=None)),
    Kind("no_photometric.dcm", "no photometric interpretation", _refused(UNREADABLE, PhotometricInterpretation=None)),
    Kind("senseless_photometric.dcm", "a photometric interpretation of one's own",
         _refused(UNREADABLE, PhotometricInterpretation="GREYISH")),
    Kind("no_size.dcm", "no rows and columns", _refused(Reason.NOT_AN_IMAGE, Rows=None, Columns=None)),
    Kind("no_pixels.dcm", "a picture's header without its pixels", _refused(TRUNCATED, PixelData=None)),
    Kind("flat_slope.dcm", "a rescale slope of nothing: a blank picture",
         _refused(Reason.BLANK, RescaleSlope=0, RescaleIntercept=0)),
    Kind("rle_rows.dcm", "RLE of more rows than the header says", _other_size(RLE)),
    Kind("jpeg_rows.dcm", "JPEG of more rows than the header says", _other_size(BASELINE)),
    Kind("lossless_rows.dcm", "JPEG lossless of more rows than the header says", _other_size(LOSSLESS)),
    Kind("jpeg_ls_rows.dcm", "JPEG-LS of more rows than the header says", _other_size(JPEG_LS)),
    Kind("jpeg_2000_rows.dcm", "JPEG 2000 of more rows than the header says", _other_size(JPEG_2000)),
    Kind("rle_samples.dcm", "RLE of fewer samples than the header says", _other_samples(RLE)),
    Kind("jpeg_samples.dcm", "JPEG of fewer samples than the header says", _other_samples(BASELINE)),
    Kind("jpeg_2000_samples.dcm", "JPEG 2000 of fewer samples than the header says", _other_samples(JPEG_2000)),
    Kind("rle_bits.dcm", "RLE of more bits than the header says", _fewer_bits(RLE)),
    Kind("lossless_bits.dcm", "JPEG lossless of more bits than the header says", _fewer_bits(LOSSLESS)),
    Kind("jpeg_ls_bits.dcm", "JPEG-LS of more bits than the header says", _fewer_bits(JPEG_LS)),
    Kind("other_codec.dcm", "JPEG-LS that is called JPEG lossless",
         lambda d: File(enclosed(stream_of(d.grey, JPEG_LS), LOSSLESS, d.grey), UNREADABLE)),
    Kind("no_stream.dcm", "noise that is called JPEG 2000",
         lambda d: File(enclosed(d.rng.bytes(3000), JPEG_2000, d.grey), UNREADABLE)),
    Kind("no_delimiter.dcm", "pixel fragments without an end", _no_end),
    Kind("damaged_deflate.dcm", "DICOM, deflated (which has no checksum), damaged", _damaged_deflate),
    Kind("short_deflate.dcm", "DICOM, deflated, of fewer pixels than it says", _short_deflate),
    Kind("crashing.dcm", "a JPEG over which gdcm ends the process", _crashing),
]  # fmt: skip
