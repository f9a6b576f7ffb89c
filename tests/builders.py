"""Files that centres send: one synthetic chest in every good format, and one file for every way to be bad.

Everything is drawn by the project; no pixel comes from a patient. `CHEST` is the picture; `good_files()` and
`bad_files()` give name -> bytes, and name -> (reason code, bytes).
"""

import io
import struct
import zlib

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from db.words import Reason

Grey = NDArray[np.uint8]
DX_STORAGE = "1.2.840.10008.5.1.4.1.1.1.1"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


def chest(height: int = 320, width: int = 288, seed: int = 0) -> Grey:
    """A drawn chest: two dark lungs in a grey trunk, a bright spine, ribs, noise; 0-255, bone white."""
    down, across = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    grey = 170 - 40 * np.abs(across)
    for side in (-0.42, 0.42):
        lung = ((across - side) / 0.3) ** 2 + ((down + 0.05) / 0.62) ** 2
        grey -= 105 * np.clip(1.4 - lung, 0, 1)
    grey += 60 * np.exp(-((across / 0.1) ** 2)) + 9 * np.sin(26 * down + 5 * across**2)
    noise = np.random.default_rng(seed).normal(0, 3, grey.shape)
    return np.clip(grey + noise, 0, 255).astype(np.uint8)


CHEST = chest()


def encoded(suffix: str, pixels: np.ndarray, *options: int) -> bytes:
    """`pixels` in the format that OpenCV knows by that suffix."""
    done, data = cv2.imencode(suffix, pixels, list(options))
    assert done
    return data.tobytes()


def pillow(image: Pillow.Image, kind: str, **options: object) -> bytes:
    """`image` in a format or mode that OpenCV does not write."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(side: int = 12_000, *, deep: bool = False) -> bytes:
    """A few kB that unfold to side x side pixels, grey of one byte each or (deep) RGBA of eight."""
    rows = zlib.compress(bytes((side * (8 if deep else 1) + 1) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 16 if deep else 8, 6 if deep else 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def rotated_jpeg(grey: Grey, orientation: int) -> bytes:
    """A JPEG whose EXIF asks a viewer to turn it; shown right, it looks like `grey` with orientation 1."""
    exif = Pillow.Exif()
    exif[274] = orientation
    return pillow(Pillow.fromarray(grey), "JPEG", exif=exif, quality=95)


def dicom_set(pixels: np.ndarray = CHEST, **fields: object) -> FileDataset:
    """A digital radiograph of a chest, uncompressed; `fields` are set last, None deletes."""
    data_set = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.SOPClassUID = data_set.file_meta.MediaStorageSOPClassUID = DX_STORAGE
    data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["scan"])
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    data_set.PatientID, data_set.PatientName = "site-0001", "Synthetic^Chest"
    data_set.StudyDate, data_set.PatientAge, data_set.PatientSex = "20260105", "047Y", "F"
    data_set.Modality, data_set.BodyPartExamined, data_set.ViewPosition = "DX", "CHEST", "PA"
    data_set.ImagerPixelSpacing = ["0.143", "0.143"]
    data_set.Rows, data_set.Columns = pixels.shape
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation = 1, "MONOCHROME2"
    data_set.BitsAllocated = data_set.BitsStored = pixels.dtype.itemsize * 8
    data_set.HighBit, data_set.PixelRepresentation = data_set.BitsStored - 1, int(pixels.dtype.kind == "i")
    data_set.PixelData = pixels.tobytes()
    data_set["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    return with_fields(data_set, fields)


def with_fields(data_set: FileDataset, fields: dict[str, object]) -> FileDataset:
    """Set or (None) delete fields by keyword."""
    for name, value in fields.items():
        if value is None:
            delattr(data_set, name)
        else:
            setattr(data_set, name, value)
    return data_set


def written(data_set: FileDataset) -> bytes:
    """The file's bytes, in the transfer syntax of its meta header."""
    stream = io.BytesIO()
    data_set.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def dicom(pixels: np.ndarray = CHEST, **fields: object) -> bytes:
    """The bytes of `dicom_set`."""
    return written(dicom_set(pixels, **fields))


def dicom_in(syntax: str, pixels: np.ndarray = CHEST, **fields: object) -> bytes:
    """A radiograph in another transfer syntax: what pydicom can encode, and JPEG baseline."""
    data_set = dicom_set(pixels, **fields)
    if syntax == JPEG_BASELINE:
        data_set.PixelData = encapsulate([encoded(".jpg", pixels, cv2.IMWRITE_JPEG_QUALITY, 98)])
        data_set["PixelData"].is_undefined_length = True
        data_set.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    elif pydicom.uid.UID(syntax).is_compressed and not pydicom.uid.UID(syntax).is_deflated:
        data_set.compress(syntax)
    else:
        data_set.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    if syntax == pydicom.uid.ExplicitVRBigEndian and pixels.dtype.itemsize == 2:
        data_set.PixelData = pixels.byteswap().tobytes()
    data_set._read_implicit = data_set._read_little = None  # written as the syntax says, not as built
    return written(data_set)


def crashing_dicom() -> bytes:
    """A JPEG extended radiograph with one byte of a table's marker lost: gdcm 3.2 ends the process over it."""
    data = dicom_in(JPEG_BASELINE).replace(JPEG_BASELINE.encode(), b"1.2.840.10008.1.2.4.51")
    return data.replace(b"\xff\xdb", b"\0\xdb", 1)


def deflated_bomb(megabytes: int = 300) -> bytes:
    """A small deflated DICOM file whose data set inflates to hundreds of MB before its pixels."""
    meta = written(with_fields(dicom_set(), {"PixelData": None}))
    start = meta.index(b"\x08\x00\x16\x00", 132)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    element = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, megabytes * 2**20)
    body = packer.compress(element) + b"".join(packer.compress(bytes(2**20)) for _ in range(megabytes))
    return declared_deflated(meta[:start]) + body + packer.flush()


def declared_deflated(meta: bytes) -> bytes:
    """A meta header (up to the data set) that says explicit little endian, changed to deflated."""
    plain = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
    deflated = struct.pack("<HH2sH", 2, 0x10, b"UI", 22) + b"1.2.840.10008.1.2.1.99"
    assert plain in meta
    return meta.replace(plain, deflated)


def nested_dicom(depth: int = 5_000) -> bytes:
    """A radiograph with sequences nested that deep in front of its pixels."""
    data = dicom()
    at = data.index(struct.pack("<HH", 0x7FE0, 0x0010))
    opening = struct.pack("<HH2sHIHHI", 0x0040, 0xA730, b"SQ", 0, 2**32 - 1, 0xFFFE, 0xE000, 2**32 - 1)
    closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return data[:at] + opening * depth + closing * depth + data[at:]


def without_pixels(sop_class: str, modality: str) -> bytes:
    """A DICOM object that is no picture: a report, a key object note, a presentation state, a PDF."""
    nothing = dict.fromkeys(["PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"])
    data_set = dicom_set(**nothing, SOPClassUID=sop_class, Modality=modality)
    return written(data_set)


def dicomdir() -> bytes:
    """An index of a medium."""
    data_set = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    data_set.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["index"])
    data_set.FileSetID = "NIGHT"
    data_set.DirectoryRecordSequence = Sequence([])
    return written(data_set)


def encrypted() -> bytes:
    """A DICOM object whose picture is in its encrypted attributes (PS3.15 annex E)."""
    item = Dataset()
    item.EncryptedContentTransferSyntaxUID = ExplicitVRLittleEndian
    item.EncryptedContent = bytes(range(256))
    return dicom(PixelData=None, EncryptedAttributesSequence=Sequence([item]))


def sealed() -> bytes:
    """The beginning of an enveloped CMS message, as secure DICOM files are."""
    return b"\x30\x82\x20\x00\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03\xa0\x82" + bytes(8000)


def animated(kind: str) -> bytes:
    """Two frames of a PNG or WebP."""
    frames = [Pillow.fromarray(chest(seed=seed)) for seed in (0, 1)]
    return pillow(frames[0], kind, save_all=True, append_images=frames[1:])


def good_files() -> dict[str, bytes]:
    """`CHEST` in every lossless form; each reads back as the same grey levels."""
    colour = cv2.cvtColor(CHEST, cv2.COLOR_GRAY2BGR)
    opaque = np.dstack([colour, np.full_like(CHEST, 255)])
    levels = Pillow.fromarray(CHEST)
    palette = levels.copy()
    palette.putpalette([level for level in range(256) for _ in "rgb"])
    wide = CHEST.astype(np.uint16) * 257
    return {
        "grey.png": encoded(".png", CHEST),
        "rgb.png": encoded(".png", colour),
        "rgba.png": encoded(".png", opaque),
        "grey_alpha.png": pillow(levels.convert("LA"), "PNG"),
        "palette.png": pillow(palette, "PNG"),
        "sixteen.png": encoded(".png", wide),
        "eight_in_sixteen.png": encoded(".png", CHEST.astype(np.uint16)),
        "grey.tif": encoded(".tif", CHEST),
        "rgb.tif": encoded(".tif", colour),
        "sixteen.tif": encoded(".tif", wide),
        "lzw.tif": pillow(levels, "TIFF", compression="tiff_lzw"),
        "grey.bmp": encoded(".bmp", CHEST),
        "rgb.bmp": encoded(".bmp", colour),
        "lossless.webp": pillow(levels.convert("RGB"), "WEBP", lossless=True),
        "mono2.dcm": dicom(),
        "mono1.dcm": dicom(255 - CHEST, PhotometricInterpretation="MONOCHROME1"),
        "sixteen.dcm": dicom(wide),
        "implicit.dcm": dicom_in("1.2.840.10008.1.2"),
        "big_endian.dcm": dicom_in("1.2.840.10008.1.2.2", wide),
        "deflated.dcm": dicom_in("1.2.840.10008.1.2.1.99"),
        "rle.dcm": dicom_in("1.2.840.10008.1.2.5"),
        "jpeg_ls.dcm": dicom_in("1.2.840.10008.1.2.4.80"),
        "jpeg_2000.dcm": dicom_in("1.2.840.10008.1.2.4.90"),
        "no_preamble.dcm": dicom()[132:],
    }


def bad_files() -> dict[str, tuple[Reason, bytes]]:
    """One file for each way to be bad that reading its bytes tells, with the code it must get."""
    png, jpeg = encoded(".png", CHEST), encoded(".jpg", CHEST)
    return {
        "empty.png": (Reason.EMPTY, b""),
        "page.png": (Reason.NOT_AN_IMAGE, b"<html><body>404 not found</body></html>"),
        "notes.txt": (Reason.NOT_AN_IMAGE, b"BM is how this text begins, and it is not a bitmap" * 5),
        "scan.gif": (Reason.NOT_AN_IMAGE, pillow(Pillow.fromarray(CHEST), "GIF")),
        "report.dcm": (Reason.NOT_AN_IMAGE, without_pixels("1.2.840.10008.5.1.4.1.1.88.11", "SR")),
        "key_object.dcm": (Reason.NOT_AN_IMAGE, without_pixels("1.2.840.10008.5.1.4.1.1.88.59", "KO")),
        "presentation.dcm": (Reason.NOT_AN_IMAGE, without_pixels("1.2.840.10008.5.1.4.1.1.11.1", "PR")),
        "letter.pdf.dcm": (Reason.NOT_AN_IMAGE, without_pixels("1.2.840.10008.5.1.4.1.1.104.1", "OT")),
        "DICOMDIR": (Reason.NOT_AN_IMAGE, dicomdir()),
        "cut.png": (Reason.TRUNCATED, png[: len(png) // 2]),
        "endless.png": (Reason.TRUNCATED, png[:-12]),
        "cut.jpg": (Reason.TRUNCATED, jpeg[: len(jpeg) // 2]),
        "cut_and_closed.jpg": (Reason.TRUNCATED, jpeg[: len(jpeg) // 2] + b"\xff\xd9"),
        "cut.bmp": (Reason.TRUNCATED, encoded(".bmp", CHEST)[:-5000]),
        "cut.tif": (Reason.TRUNCATED, encoded(".tif", CHEST)[:4000]),
        "cut.webp": (Reason.TRUNCATED, encoded(".webp", CHEST)[:-100]),
        "cut.dcm": (Reason.TRUNCATED, dicom()[:-1000]),
        "cut_header.dcm": (Reason.TRUNCATED, dicom()[:300]),
        "cut_jpeg.dcm": (Reason.TRUNCATED, dicom_in(JPEG_BASELINE)[:-2000]),
        "lying_rows.dcm": (Reason.TRUNCATED, dicom(Rows=4000)),
        "broken.png": (Reason.UNREADABLE, png[:2000] + bytes([png[2000] ^ 255]) + png[2001:]),
        "broken.jpg": (Reason.UNREADABLE, jpeg[:2] + b"\xff\xe0\x00\x10JFIF\0" + bytes(9) + b"\xff\xd9"),
        "nested.dcm": (Reason.UNREADABLE, nested_dicom()),
        "float.tif": (Reason.UNREADABLE, encoded(".tif", CHEST.astype(np.float32))),
        "bomb.png": (Reason.TOO_LARGE, png_bomb()),
        "vast.dcm": (Reason.TOO_LARGE, vast_dicom()),
        "deflated_bomb.dcm": (Reason.TOO_LARGE, deflated_bomb()),
        "small.png": (Reason.TOO_SMALL, encoded(".png", CHEST[:40, :40])),
        "video.dcm": (Reason.UNSUPPORTED_TRANSFER_SYNTAX, unsupported()),
        "encrypted.dcm": (Reason.ENCRYPTED, encrypted()),
        "sealed.dcm": (Reason.ENCRYPTED, sealed()),
        "pages.tif": (Reason.MULTI_FRAME, two_pages()),
        "animated.png": (Reason.MULTI_FRAME, animated("PNG")),
        "animated.webp": (Reason.MULTI_FRAME, animated("WEBP")),
        "frames.dcm": (Reason.MULTI_FRAME, dicom(np.vstack([CHEST, CHEST]), Rows=320, NumberOfFrames=2)),
    }


def vast_dicom() -> bytes:
    """A compressed radiograph that claims 60,000 x 60,000 pixels."""
    return dicom_in(JPEG_BASELINE, Rows=60_000, Columns=60_000)


def unsupported() -> bytes:
    """A radiograph in MPEG-4, it says."""
    data_set = pydicom.dcmread(io.BytesIO(dicom_in(JPEG_BASELINE)))
    data_set.file_meta.TransferSyntaxUID = pydicom.uid.MPEG4HP41
    return written(data_set)


def two_pages() -> bytes:
    """A TIFF of two pages."""
    done, data = cv2.imencodemulti(".tif", [CHEST, CHEST])
    assert done
    return data.tobytes()


def turned_away_by_header() -> dict[str, tuple[Reason, bytes]]:
    """Sound radiographs that their headers rule out."""
    fields: dict[str, tuple[Reason, dict[str, object]]] = {
        "left_lateral.dcm": (Reason.NOT_FRONTAL, {"ViewPosition": "LL"}),
        "lateral.dcm": (Reason.NOT_FRONTAL, {"ViewPosition": "LATERAL"}),
        "oblique.dcm": (Reason.NOT_FRONTAL, {"ViewPosition": "RAO"}),
        "from_the_side.dcm": (Reason.NOT_FRONTAL, {"ViewPosition": "", "PatientOrientation": ["A", "F"]}),
        "hand.dcm": (Reason.NOT_CHEST, {"BodyPartExamined": "HAND"}),
        "skull.dcm": (Reason.NOT_CHEST, {"BodyPartExamined": "SKULL"}),
        "slice.dcm": (Reason.NOT_CHEST, {"Modality": "CT"}),
    }
    return {name: (reason, dicom(**changed)) for name, (reason, changed) in fields.items()}
