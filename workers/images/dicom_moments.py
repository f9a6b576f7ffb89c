"""When a DICOM image was taken, as its header says: PS3.5 6.2 (DA, TM, DT), PS3.3 C.7.6.1 and C.12.1.1 (offset)."""

import re
from datetime import date, time

from workers.images.dicom_header import Header

_ACQUIRED, _ACQUIRED_ON, _ACQUIRED_AT = 0x0008002A, 0x00080022, 0x00080032
_STUDY_ON, _STUDY_AT, _OFFSET = 0x00080020, 0x00080030, 0x00080201
MOMENT_TAGS = frozenset({_ACQUIRED, _ACQUIRED_ON, _ACQUIRED_AT, _STUDY_ON, _STUDY_AT, _OFFSET})


def imaged(header: Header) -> str | None:
    """ISO 8601: a date, with its time where the header has one, with its offset from UTC where it states one. Of the
    acquisition; of the study where that is not told. None where neither is."""
    acquired, _, sign, zone = _parts(header.text(_ACQUIRED))
    offset = _offset(sign + zone) or _offset(header.text(_OFFSET))
    stated = (
        (acquired[:8], acquired[8:]),
        (header.text(_ACQUIRED_ON), header.text(_ACQUIRED_AT)),
        (header.text(_STUDY_ON), header.text(_STUDY_AT)),
    )
    return next((found for on, at in stated if (found := _iso(on, at, offset))), None)


def _parts(moment: str) -> tuple[str, str, str, str]:
    """A DT: date and time, fraction of a second, sign, offset."""
    found = re.fullmatch(r"(\d{0,14})(\.\d{1,6})?(?:([+-])(\d{4}))?", moment, re.ASCII)
    return (found[1], found[2] or "", found[3] or "", found[4] or "") if found else ("", "", "", "")


def _offset(text: str) -> str:
    found = re.fullmatch(r"([+-])(\d\d)([0-5]\d)", text, re.ASCII)
    return f"{found[1]}{found[2]}:{found[3]}" if found and int(found[2]) <= 14 else ""


def _iso(on: str, at: str, offset: str) -> str:
    if not re.fullmatch(r"\d{8}", on, re.ASCII):
        return ""
    try:
        day = date.fromisoformat(on).isoformat()
    except ValueError:
        return ""
    clock = _time(at)
    return f"{day}T{clock}{offset}" if clock else day


def _time(text: str) -> str:
    found = re.fullmatch(r"(\d\d):?(\d\d):?(\d\d)?(\.\d{1,6})?", text, re.ASCII)
    if not found:
        return ""
    try:
        return time(int(found[1]), int(found[2]), min(int(found[3] or 0), 59)).isoformat()  # 60: a leap second
    except ValueError:
        return ""
