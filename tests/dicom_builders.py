"""DICOM files, good and bad, of the drawn chest in `drawn.py`."""

import io
import struct
import zlib

import cv2
import numpy as np
import pydicom
from drawn import CHEST, encoded
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

DX_STORAGE = "1.2.840.10008.5.1.4.1.1.1.1"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


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


def vast_dicom() -> bytes:
    """A compressed radiograph that claims 60,000 x 60,000 pixels."""
    return dicom_in(JPEG_BASELINE, Rows=60_000, Columns=60_000)


def unsupported() -> bytes:
    """A radiograph in MPEG-4, it says."""
    data_set = pydicom.dcmread(io.BytesIO(dicom_in(JPEG_BASELINE)))
    data_set.file_meta.TransferSyntaxUID = pydicom.uid.MPEG4HP41
    return written(data_set)
