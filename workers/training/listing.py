"""Which file shows what: labelled images as a folder of class folders, or as a CSV (path,label[,patient][,split])."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from db.errors import DataRefused
from workers.training.examples import Split

SPLIT_WORDS: dict[str, Split] = {
    **dict.fromkeys(("training", "train"), Split.TRAINING),
    **dict.fromkeys(("validation", "valid", "val", "verification", "dev"), Split.VALIDATION),
    **dict.fromkeys(("held_back", "held-back", "held back", "test", "testing", "holdout"), Split.HELD_BACK),
}


@dataclass(frozen=True)
class Listed:
    """One file that DATA names: its class by name, and what a CSV says of its patient and side."""

    path: Path
    label: str
    patient: str | None = None
    wanted: Split | None = None


def listed(data: Path) -> list[Listed]:
    """Every file that a folder of class folders or a CSV names, sorted by path (a CSV: in its own order).

    Hidden files are passed over. Raises DataRefused where DATA is neither, has no class, or where the CSV lacks a
    column, a label, a file that it names, or uses an unknown word for a side.
    """
    try:
        if data.is_dir():
            return list(_in_folder(data))
        if data.is_file():
            return _in_csv(data)
    except OSError as error:
        raise DataRefused(f"{data} cannot be read: {error.strerror}") from error
    raise DataRefused(f"{data}: neither a folder of class folders nor a CSV file")


def class_folders(data: Path) -> list[Path]:
    """The folders in DATA, each of which is a class by its name."""
    return sorted(path for path in data.iterdir() if path.is_dir() and not path.name.startswith("."))


def _in_folder(data: Path) -> Iterator[Listed]:
    folders = class_folders(data)
    if not folders:
        raise DataRefused(f"{data} has no class folders: put the images of each class into a folder of its name")
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield Listed(path, folder.name)


def _in_csv(data: Path) -> list[Listed]:
    try:
        text = data.read_text("utf-8-sig")
        rows = list(csv.reader(text.splitlines(), delimiter=_delimiter(text)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataRefused(f"{data} is not a CSV file in UTF-8, nor a folder of class folders") from error
    columns = [name.strip().casefold() for name in rows[0]] if rows else []
    if lacking := [name for name in ("path", "label") if name not in columns]:
        raise DataRefused(
            f"{data}: its first line must name the columns path and label (patient and split if you have them); "
            f"there is no {' and no '.join(lacking)}"
        )
    found = [
        _one_row(data, number, dict(zip(columns, (cell.strip() for cell in row), strict=False)))
        for number, row in enumerate(rows[1:], 2)
        if any(cell.strip() for cell in row)
    ]
    if missing := [entry.path for entry in found if not entry.path.is_file()]:
        more = f" (nor {len(missing) - 1} others)" if len(missing) > 1 else ""
        raise DataRefused(f"{data} names {missing[0]}, which is not there{more}: paths count from the CSV's folder")
    return found


def _delimiter(text: str) -> str:
    """Spreadsheets of some countries write semicolons."""
    first = text.partition("\n")[0]
    return ";" if ";" in first and "," not in first else ","


def _one_row(data: Path, number: int, row: dict[str, str]) -> Listed:
    path, label, side = row.get("path", ""), row.get("label", ""), row.get("split", "").casefold()
    if not path or not label:
        raise DataRefused(f"{data}, line {number}: a path and a label are needed in every line")
    if side and side not in SPLIT_WORDS:
        raise DataRefused(
            f"{data}, line {number}: split {side!r} is none of {', '.join(Split)} (or train, val, test, or nothing)"
        )
    return Listed(data.parent / path, label, row.get("patient") or None, SPLIT_WORDS.get(side))
