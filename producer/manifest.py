"""The manifest: a CSV that says whose picture a PNG or JPEG file is. DICOM files bring their own tags."""

import csv
from collections.abc import Set
from dataclasses import dataclass, field, replace
from datetime import UTC
from pathlib import Path
from typing import Self

import click

from db.moments import stated
from db.store.intake import FoundFile

COLUMNS = ("path", "patient", "study", "age", "urgent", "suspected", "imaged")
MOMENTS = ("suspected", "imaged")  # ISO 8601; in the site's time zone where they name none
YES, NO = {"yes", "y", "true", "1", "urgent"}, {"", "no", "n", "false", "0", "routine"}


@dataclass(frozen=True)
class Line:
    """One file's line; `age` in years; `moments` of MOMENTS, as they were stated."""

    patient: str | None
    study: str | None
    age: float | None
    urgent: bool
    moments: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Lines by path relative to the submitted folder; empty where there is no manifest."""

    file: Path | None = None
    lines: dict[str, Line] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path | None) -> Self:
        """Read a CSV with a header of COLUMNS (only `path` must be there). Raises click.BadParameter naming the
        line that is wrong: a manifest that is half understood would lose patients."""
        if file is None:
            return cls()
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as text:
            table = csv.DictReader(text)
            unknown = set(table.fieldnames or []) - set(COLUMNS)
            if unknown or "path" not in (table.fieldnames or []):
                raise click.BadParameter(f"{file}: the first line must name columns of {', '.join(COLUMNS)}")
            lines: dict[str, Line] = {}
            for number, row in enumerate(table, start=2):
                path = _plain(row["path"] or "")
                if not path or path in lines:
                    raise click.BadParameter(f"{file}, line {number}: path is empty or named twice")
                lines[path] = _line(row, f"{file}, line {number}")
        return cls(file.absolute(), lines)

    def __contains__(self, path: str) -> bool:
        return path in self.lines

    def paths(self) -> Set[str]:
        """Every path that the manifest names."""
        return self.lines.keys()

    def link(self, found: FoundFile) -> FoundFile:
        """The file with what its line says; what a DICOM header said of itself stays."""
        line = self.lines.get(found.path)
        if line is None:
            return found
        return replace(
            found,
            patient=found.patient or line.patient,
            study=found.study or line.study,
            age=line.age if found.age is None else found.age,
            urgent=line.urgent,
            tags={**line.moments, **(found.tags or {})} or None,
        )


def _plain(path: str) -> str:
    return path.strip().removeprefix("./")


def _line(row: dict[str, str], where: str) -> Line:
    urgent, age = (row.get("urgent") or "").strip().lower(), (row.get("age") or "").strip()
    if urgent not in YES | NO:
        raise click.BadParameter(f"{where}: urgent is {urgent!r}; say yes or no")
    try:
        years = float(age) if age else None
    except ValueError:
        years = -1.0
    if years is not None and not 0 <= years <= 150:
        raise click.BadParameter(f"{where}: age {age!r} is not a number of years")
    patient, study = ((row.get(name) or "").strip()[:200] or None for name in ("patient", "study"))
    return Line(patient, study, years, urgent in YES, _moments(row, where))


def _moments(row: dict[str, str], where: str) -> dict[str, str]:
    moments = {name: text for name in MOMENTS if (text := (row.get(name) or "").strip())}
    for name, text in moments.items():
        try:
            stated(text, UTC)
        except ValueError:
            raise click.BadParameter(f"{where}: {name} {text!r} is no date or date and time (ISO 8601)") from None
    return moments
