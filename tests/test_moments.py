"""When a patient was suspected and imaged: as DICOM headers and manifests state it."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import builders
import click
import pytest

from db.moments import is_zone, stated, zone_of
from db.store.intake import FoundFile
from producer.intake import find_files
from producer.manifest import Manifest
from workers.images import tags

DX = {"StudyDate": "20260104", "StudyTime": "235959"}


@pytest.mark.parametrize(
    ("fields", "moment"),
    [
        ({"StudyDate": "20260104"}, "2026-01-04"),
        ({"StudyDate": None}, None),
        (DX, "2026-01-04T23:59:59"),
        (DX | {"StudyTime": "2359"}, "2026-01-04T23:59:00"),
        (DX | {"StudyTime": "23"}, "2026-01-04"),
        (DX | {"StudyTime": "235960"}, "2026-01-04T23:59:59"),
        (DX | {"StudyTime": "235959.123456"}, "2026-01-04T23:59:59"),
        (DX | {"StudyTime": "23:59:59"}, "2026-01-04T23:59:59"),
        (DX | {"TimezoneOffsetFromUTC": "+0100"}, "2026-01-04T23:59:59+01:00"),
        (DX | {"AcquisitionDate": "20260105", "AcquisitionTime": "070503"}, "2026-01-05T07:05:03"),
        (DX | {"AcquisitionDateTime": "20260105070503.5-0500"}, "2026-01-05T07:05:03-05:00"),
        (DX | {"AcquisitionDateTime": "202601050705", "TimezoneOffsetFromUTC": "+0530"}, "2026-01-05T07:05:00+05:30"),
        (DX | {"AcquisitionDateTime": "20260105"}, "2026-01-05"),
        (DX | {"AcquisitionDateTime": "2026"}, "2026-01-04T23:59:59"),
    ],
)
def test_a_dicom_image_was_taken_when_its_header_says(fields, moment):
    assert tags(builders.dicom(**fields)).imaged == moment


@pytest.mark.parametrize(
    ("stated", "altered", "moment"),
    [
        (b"20260104", b"20261304", None),
        (b"20260104", b"2026010\xc2", None),
        (b"235959", b"246060", "2026-01-04"),
        (b"235959", b"<scr>t", "2026-01-04"),
        (b"+0100", b"+9900", "2026-01-04T23:59:59"),
    ],
)
def test_a_senseless_moment_of_a_header_is_no_moment(stated, altered, moment):
    data = builders.dicom(**DX, TimezoneOffsetFromUTC="+0100")
    assert data.count(stated) == 1

    assert tags(data.replace(stated, altered)).imaged == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-07-01", datetime(2026, 6, 30, 22, 0, tzinfo=UTC)),
        ("2026-01-01 08:30", datetime(2026, 1, 1, 7, 30, tzinfo=UTC)),
        ("20260101", datetime(2025, 12, 31, 23, 0, tzinfo=UTC)),
        ("2026-01-01T08:30:00Z", datetime(2026, 1, 1, 8, 30, tzinfo=UTC)),
        ("2026-01-01T08:30:00-05:00", datetime(2026, 1, 1, 13, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_of_the_zone_unless_it_names_one(text, moment):
    assert stated(text, ZoneInfo("Europe/Berlin")) == moment


@pytest.mark.parametrize("text", ["", "soon", "0001-01-01", "9999-12-31T23:59:59", "1899-12-31", "2026-02-30", "12:00"])
def test_what_states_no_moment_of_our_time_is_none(text):
    with pytest.raises(ValueError, match=r"."):
        stated(text, UTC)


def test_a_zone_that_there_is_not_counts_as_utc():
    assert not is_zone("Mars/Olympus")
    assert zone_of("Mars/Olympus") is UTC
    assert zone_of("Asia/Kolkata") == ZoneInfo("Asia/Kolkata")


def test_a_manifest_says_when_who_was_suspected_and_imaged(tmp_path):
    (tmp_path / "m.csv").write_text(
        "path,patient,suspected,imaged\na.png,P1,2026-01-03,2026-01-04 08:15\nb.dcm,,2026-01-02,2026-01-09\n"
        "c.png,P3,,\n"
    )
    (tmp_path / "b.dcm").write_bytes(builders.dicom(**DX))
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes(builders.encoded(".png", builders.chest(seed=len(name))))
    manifest = Manifest.read(tmp_path / "m.csv")

    found = {file.path: file for file in find_files(tmp_path, max_bytes=10_000_000, manifest=manifest)}

    assert found["a.png"].tags == {"suspected": "2026-01-03", "imaged": "2026-01-04 08:15"}
    assert found["b.dcm"].tags["suspected"] == "2026-01-02"
    assert found["b.dcm"].tags["imaged"] == "2026-01-04T23:59:59"  # what a DICOM header says of itself stays
    assert found["c.png"].tags is None
    assert manifest.link(FoundFile("other.png", 1, None)).tags is None


@pytest.mark.parametrize("wrong", ["yesterday", "2026-13-01", "0001-01-01"])
@pytest.mark.parametrize("column", ["suspected", "imaged"])
def test_a_manifest_with_a_moment_that_is_none_is_refused_with_its_line(tmp_path, column, wrong):
    (tmp_path / "m.csv").write_text(f"path,{column}\na.png,2026-01-03\nb.png,{wrong}\n")

    with pytest.raises(click.BadParameter, match=rf"m\.csv, line 3: {column}"):
        Manifest.read(tmp_path / "m.csv")
