"""What a DICOM header says about whether, and as what, a file may be screened."""

import datetime
import re
from dataclasses import dataclass

from db.errors import UnreadableImage
from db.words import Reason
from workers.images.dicom_header import (
    CLASS,
    DICOMDIR_CLASS,
    ENCRYPTED_ATTRIBUTES,
    Header,
)
from workers.images.dicom_moments import MOMENT_TAGS, imaged
from workers.images.picture import Frame

# What the permissive codecs decode (a test asks pydicom for each); video, HTJ2K and JPIP are left out.
TRANSFER_SYNTAXES: dict[str, str] = {
    "1.2.840.10008.1.2": "implicit little endian",
    "1.2.840.10008.1.2.1": "explicit little endian",
    "1.2.840.10008.1.2.1.99": "deflated explicit little endian",
    "1.2.840.10008.1.2.2": "explicit big endian",
    "1.2.840.10008.1.2.4.50": "JPEG baseline",
    "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless, first order",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE lossless",
}
# Objects that hold no picture of their own, or one that is not a radiograph's: PS3.3 C.7.3.1.1.1.
# fmt: off
_NOT_IMAGES = {
    "SR", "PR", "KO", "DOC", "SEG", "REG", "RTPLAN", "RTSTRUCT", "RTDOSE", "RTRECORD", "ECG", "AU", "FID",
}
# No projection of a chest comes from these. An unlisted modality is left to the model's own gate.
_NOT_RADIOGRAPHS = {
    "CT", "MR", "PT", "NM", "US", "MG", "IO", "PX", "ES", "GM", "SM", "OP", "OPT", "XC", "BMD",
}
_NOT_FRONTAL = {
    "LL", "RL", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "LAT", "LATERAL", "OBLIQUE", "OBL", "AXIAL",
}
# Terms of PS3.16 annex L and their everyday forms. An unlisted word, in whatever language, is left to the gate.
_NOT_CHEST = {
    "ABDOMEN", "ANKLE", "ARM", "BRAIN", "BREAST", "CALCANEUS", "CSPINE", "ELBOW", "EXTREMITY", "EYE",
    "FACE", "FEMUR", "FINGER", "FOOT", "FOREARM", "HAND", "HEAD", "HEADNECK", "HIP", "HUMERUS", "JAW",
    "KNEE", "LEG", "LSPINE", "MANDIBLE", "MAXILLA", "NECK", "ORBIT", "PATELLA", "PELVIS", "SACRUM",
    "SHOULDER", "SINUS", "SKULL", "SPINE", "SSPINE", "TIBIA", "TOE", "TSPINE", "WRIST", "ZYGOMA",
}
# fmt: on

_MODALITY, _BODY_PART, _VIEW, _ORIENTATION = 0x00080060, 0x00180015, 0x00185101, 0x00200020
_FRAMES, _ROWS, _COLUMNS = 0x00280008, 0x00280010, 0x00280011
_SAMPLES, _PHOTOMETRIC, _ALLOCATED = 0x00280002, 0x00280004, 0x00280100
_STORED, _HIGH = 0x00280101, 0x00280102
_PATIENT, _STUDY, _SERIES, _INSTANCE = 0x00100020, 0x0020000D, 0x0020000E, 0x00080018
_DATE, _AGE, _BIRTH, _SEX = 0x00080020, 0x00101010, 0x00100030, 0x00100040
_SPACING, _IMAGER_SPACING, _CHARSET, _OBJECT = 0x00280030, 0x00181164, 0x00080005, 0x00080016

# fmt: off
WANTED = MOMENT_TAGS | frozenset({
    _MODALITY, _BODY_PART, _VIEW, _ORIENTATION, _FRAMES, _ROWS, _COLUMNS, _SAMPLES, _PHOTOMETRIC, _ALLOCATED,
    _STORED, _HIGH,
    _PATIENT, _STUDY, _SERIES, _INSTANCE, _DATE, _AGE, _BIRTH, _SEX, _SPACING, _IMAGER_SPACING, _CHARSET,
    _OBJECT, ENCRYPTED_ATTRIBUTES,
})
# fmt: on


@dataclass(frozen=True)
class Tags:
    """The DICOM fields that the store keeps: an allow-list. None where absent or senseless; all None for others."""

    patient_id: str | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    instance_uid: str | None = None
    study_date: str | None = None  # YYYYMMDD
    imaged: str | None = None  # ISO 8601, with a time and an offset where the header has them
    age_years: float | None = None
    sex: str | None = None  # M, F or O
    view: str | None = None
    modality: str | None = None
    spacing_mm: tuple[float, float] | None = None  # between rows, between columns


def tags_of(header: Header) -> Tags:
    """The kept fields, each checked for its form: what a header says ends up in a database and a page."""
    date = _matching(r"\d{8}", header.text(_DATE))
    return Tags(
        patient_id=header.text(_PATIENT)[:64] or None,
        study_uid=_matching(r"[\d.]{1,64}", header.text(_STUDY)),
        series_uid=_matching(r"[\d.]{1,64}", header.text(_SERIES)),
        instance_uid=_matching(r"[\d.]{1,64}", header.text(_INSTANCE)),
        study_date=date,
        imaged=imaged(header),
        age_years=_age(header.text(_AGE), header.text(_BIRTH), date),
        sex=_matching(r"[MFO]", header.text(_SEX)),
        view=_matching(r"[A-Z0-9 _]{1,16}", header.text(_VIEW).upper()),
        modality=_matching(r"[A-Z0-9 _]{1,16}", header.text(_MODALITY)),
        spacing_mm=_spacing(header.texts(_SPACING)) or _spacing(header.texts(_IMAGER_SPACING)),
    )


def _matching(pattern: str, text: str) -> str | None:
    return text if re.fullmatch(pattern, text, re.ASCII) else None


def _age(stated: str, born: str, on: str | None) -> float | None:
    """Years, from PatientAge (nnnD, W, M or Y) or else from the birth date, which itself is not kept."""
    if found := re.fullmatch(r"(\d{1,3})([DWMY])", stated, re.ASCII):
        in_a_year = {"D": 365.25, "W": 365.25 / 7, "M": 12, "Y": 1}[found[2]]
        return round(int(found[1]) / in_a_year, 2)
    try:
        days = (datetime.date.fromisoformat(on or "") - datetime.date.fromisoformat(born)).days
    except ValueError:
        return None
    return round(days / 365.25, 2) if days >= 0 else None


def _spacing(values: list[str]) -> tuple[float, float] | None:
    try:
        rows, columns = (float(value) for value in values)
    except ValueError:
        return None
    return (rows, columns) if 0 < rows < 10 and 0 < columns < 10 else None


def refuse_what_is_no_picture(header: Header) -> Frame:
    """Its size, or UnreadableImage: not_an_image, encrypted, multi_frame, unsupported_transfer_syntax."""
    kind = header.values.get(CLASS, b"").rstrip(b"\0 ").decode("ascii", "replace")
    if DICOMDIR_CLASS in (kind, header.text(_OBJECT)):
        raise UnreadableImage(Reason.NOT_AN_IMAGE, "a DICOMDIR")
    rows, columns = header.number(_ROWS), header.number(_COLUMNS)
    if header.pixels is None and ENCRYPTED_ATTRIBUTES in header.values:
        raise UnreadableImage(Reason.ENCRYPTED, "a DICOM object whose attributes are encrypted")
    modality = header.text(_MODALITY)
    if modality in _NOT_IMAGES:
        raise UnreadableImage(Reason.NOT_AN_IMAGE, f"a DICOM object of modality {modality}")
    if rows is None or columns is None:
        raise UnreadableImage(Reason.NOT_AN_IMAGE, "a DICOM object without a picture")
    if header.pixels is None:
        raise UnreadableImage(Reason.TRUNCATED, "a DICOM image that ends before its pixels")
    if _frames(header) > 1:
        raise UnreadableImage(Reason.MULTI_FRAME, f"{_frames(header)} frames")
    if header.syntax not in TRANSFER_SYNTAXES:
        syntax = _matching(r"[\d.]{1,64}", header.syntax) or "a senseless one"
        raise UnreadableImage(Reason.UNSUPPORTED_TRANSFER_SYNTAX, f"transfer syntax {syntax}")
    stored = (header.number(_ALLOCATED) or 8) * (header.number(_SAMPLES) or 1)
    return Frame(rows, columns, depth=max(stored, 8) * _copies(header.syntax))


def _copies(syntax: str) -> int:
    """How often a codec holds a picture in memory at once: OpenJPEG computes in 32 bits, gdcm hands over by text."""
    if syntax in ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"):
        return 4
    return 3 if syntax.startswith("1.2.840.10008.1.2.4.") else 2


def _frames(header: Header) -> int:
    found = _matching(r"\+?\d{1,9}", header.text(_FRAMES))
    return int(found) if found else 1


def refuse_strange_samples(header: Header) -> None:
    """Raise UnreadableImage(unreadable) where the header contradicts itself about how a pixel is stored: decoders take
    one field or the other, and neither shows the picture."""
    allocated, stored, high = (header.number(tag) for tag in (_ALLOCATED, _STORED, _HIGH))
    if allocated not in (8, 16):
        raise UnreadableImage(Reason.UNREADABLE, f"{allocated} bits a sample; 8 and 16 are read")
    if not 1 <= (stored or 0) <= allocated:
        raise UnreadableImage(Reason.UNREADABLE, f"{stored} bits stored of {allocated}")
    if high is not None and high != (stored or 0) - 1:
        raise UnreadableImage(Reason.UNREADABLE, f"{stored} bits stored, the highest of them {high}")
    if header.number(_SAMPLES) not in (1, 3):
        raise UnreadableImage(Reason.UNREADABLE, f"{header.number(_SAMPLES)} samples a pixel; 1 and 3 are read")


def uncompressed_bytes(header: Header, frame: Frame) -> int:
    """Bytes that uncompressed pixels of that size take."""
    # YBR_FULL_422 keeps colour for every other pixel only.
    samples = 2 if header.text(_PHOTOMETRIC) == "YBR_FULL_422" else header.number(_SAMPLES) or 1
    return (frame.height * frame.width * samples * (header.number(_ALLOCATED) or 8) + 7) // 8


def refuse_what_is_not_screened(header: Header) -> None:
    """Raise UnreadableImage (not_frontal, not_chest) where the header says so in words we know."""
    modality, part = header.text(_MODALITY), header.text(_BODY_PART).upper()
    if modality in _NOT_RADIOGRAPHS:
        raise UnreadableImage(Reason.NOT_CHEST, f"its header says modality {modality}")
    if part.replace(" ", "") in _NOT_CHEST:
        raise UnreadableImage(Reason.NOT_CHEST, f"its header says body part {part}")
    view = header.text(_VIEW).upper()
    words = set(re.split(r"[^A-Z]+", view))
    if words & _NOT_FRONTAL and not words & {"PA", "AP"}:
        raise UnreadableImage(Reason.NOT_FRONTAL, f"its header says view {' '.join(sorted(words & _NOT_FRONTAL))}")
    # PS3.3 C.7.6.1.1.1: rows that run towards the front or the back are seen from the side.
    if not view and header.text(_ORIENTATION)[:1] in ("A", "P"):
        raise UnreadableImage(Reason.NOT_FRONTAL, "its header says that its rows run from front to back")
