"""Laboratory results from a CSV: each line finds its scans by path, patient or study, and is accounted for."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from enum import StrEnum

from sqlalchemy import ColumnElement, Select, exists, select
from sqlalchemy.orm import Session

from db.errors import Refused
from db.moments import stated, zone_of
from db.schema import Batch, CaseStep, Outcome, Scan, Site
from db.store.audit import record
from db.store.cases import NOTE_CHARACTERS, SOON, append
from db.store.connection import Database, now
from db.words import LabResult, Reason, Step

WHOSE = ("path", "patient", "study")  # a file has at least one of these columns, a line at least one of them filled
COLUMNS = (*WHOSE, "result", "at", "note")
MORE = "more"  # cells than columns
IN_ONE = 500  # lines of a transaction


class Fate(StrEnum):
    """What became of a line."""

    APPLIED = "applied"
    KNOWN = "known"  # applied by an earlier import
    UNKNOWN = "unknown"  # no scan of this site is meant
    AMBIGUOUS = "ambiguous"  # it may mean more than one patient or study
    WRONG = "wrong"  # it says no result, no moment, or nobody


@dataclass(frozen=True)
class Problem:
    """A line that was not applied, by its number in the file; `why` names no patient."""

    line: int
    fate: Fate
    why: str


@dataclass(frozen=True)
class Imported:
    """How many lines ended in which way; the counts add up to the lines that the file has."""

    counts: dict[Fate, int] = field(default_factory=lambda: dict.fromkeys(Fate, 0))
    problems: list[Problem] = field(default_factory=list)

    @property
    def lines(self) -> int:
        return sum(self.counts.values())

    @property
    def is_complete(self) -> bool:
        """Whether every line is on record now."""
        return self.counts[Fate.APPLIED] + self.counts[Fate.KNOWN] == self.lines


@dataclass(frozen=True)
class _Result:
    """A line that says something."""

    path: str
    patient: str
    study: str
    result: LabResult
    at: datetime
    note: str


class _Wrong(ValueError):
    """What is wrong with a line."""


def import_results(db: Database, text: Iterable[str], *, site_id: int, by: str) -> Imported:
    """Append what a laboratory's CSV says of a site's scans; the same file again changes nothing. Columns are COLUMNS,
    in any order; `result` and `at` (ISO 8601, in the site's time zone unless it names one) must be there. A patient
    with several scans of one study has one case; with several studies, a line must say which.
    Raises Refused where the file is no such CSV: nothing of it is applied then."""
    rows = list(_rows(text))
    done = Imported()
    for start in range(0, len(rows), IN_ONE):
        with db.writing() as session:
            site = session.get_one(Site, site_id, with_for_update=True)  # one import a site at a time
            for number, row in rows[start : start + IN_ONE]:
                fate, why = _apply(session, site, row, by)
                done.counts[fate] += 1
                if why:
                    done.problems.append(Problem(number, fate, why))
    with db.writing() as session:
        record(session, by, "laboratory_imported", f"site {site_id}", {str(fate): n for fate, n in done.counts.items()})
    return done


def _rows(text: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    table = csv.DictReader(text, restkey=MORE)
    try:
        heads = [name.strip() for name in table.fieldnames or []]
        names = set(heads)
        is_whole = bool(names & set(WHOSE)) and {"result", "at"} <= names <= set(COLUMNS)
        if not is_whole or len(names) < len(heads):
            raise Refused(
                f"The first line must name the columns result, at, one of {', '.join(WHOSE)}, and may name note."
            )
        for row in table:
            yield table.line_num, {name.strip(): str(value or "") for name, value in row.items()}
    except csv.Error as error:
        raise Refused(f"Line {table.line_num + 1} is no CSV: {error}.") from error


def _apply(session: Session, site: Site, row: dict[str, str], by: str) -> tuple[Fate, str]:
    try:
        line = _line(row, zone_of(site.time_zone))
    except _Wrong as wrong:
        return Fate.WRONG, str(wrong)
    meant = session.execute(_meant(site.id, line)).all()
    if not meant:
        return Fate.UNKNOWN, "no scan of this site"
    if len(meant) > 1 and (len({study for _, study in meant}) > 1 or meant[0].study is None):
        return Fate.AMBIGUOUS, f"{len(meant)} scans that are not of one study: give the path or the study"
    new = [scan_id for scan_id, _ in meant if not session.scalar(_same(scan_id, line))]
    for scan_id in new:
        append(session, scan_id, step=Step.LABORATORY, result=line.result, at=line.at, note=line.note, by=by)
    return (Fate.APPLIED if new else Fate.KNOWN), ""


def _line(row: dict[str, str], zone: tzinfo) -> _Result:
    """Raises _Wrong."""
    if MORE in row:
        raise _Wrong("more cells than columns")
    cells = {name: row.get(name, "").strip() for name in COLUMNS}
    if not any(cells[name] for name in WHOSE):
        raise _Wrong("path, patient and study are empty")
    if not all(_is_text(cells[name]) for name in COLUMNS if name != "path") or "\0" in cells["path"]:
        raise _Wrong("it holds bytes that are not UTF-8 text")
    try:
        result = LabResult(cells["result"].lower())
    except ValueError:
        raise _Wrong(f"result is none of {', '.join(LabResult)}") from None
    try:
        at = stated(cells["at"], zone)
    except ValueError:
        raise _Wrong("at is no date or date and time as in 2026-11-24 or 2026-11-24 18:30") from None
    if at.timestamp() > now().timestamp() + SOON:
        raise _Wrong("at has not come yet")
    if len(cells["note"]) > NOTE_CHARACTERS:
        raise _Wrong(f"note has more than {NOTE_CHARACTERS:,} characters")
    return _Result(cells["path"].removeprefix("./"), cells["patient"], cells["study"], result, at, cells["note"])


def _is_text(cell: str) -> bool:
    return "\0" not in cell and not any("\ud800" <= letter <= "\udfff" for letter in cell)


def _meant(site_id: int, line: _Result) -> Select[int, str | None]:
    """The scans that a line means; a second copy of a file is nobody's case."""
    copy = exists().where(Outcome.scan_id == Scan.id, Outcome.reason == Reason.DUPLICATE)
    wanted: list[ColumnElement[bool]] = [Batch.site_id == site_id, ~copy]
    for column, text in ((Scan.path, line.path), (Scan.patient, line.patient), (Scan.study, line.study)):
        if text:
            wanted.append(column == text)
    return select(Scan.id, Scan.study).join(Batch, Scan.batch_id == Batch.id).where(*wanted).order_by(Scan.id)


def _same(scan_id: int, line: _Result) -> Select[bool]:
    return select(
        exists().where(
            CaseStep.scan_id == scan_id,
            CaseStep.step == Step.LABORATORY,
            CaseStep.result == line.result,
            CaseStep.at == line.at,
            CaseStep.note == line.note,
        )
    )
