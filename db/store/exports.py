"""A batch as a table for a spreadsheet: every file with its outcome, the final verdict beside the score.

What a blind entry hides from somebody (decisions.Standing) is empty here as well; a verdict is there once it is final.
Rows are read a thousand at a time, each in a short transaction of its own, so that a slow download holds nothing."""

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import and_, literal, select
from sqlalchemy.orm import Session

from db.schema import Batch, Entry, Outcome, Scan, TrainedModel
from db.store.connection import Database
from db.store.listing import is_seen
from db.store.people import UserView
from db.store.reading import printable
from db.store.scoring import current_outcome
from db.words import State

COLUMNS = (
    "path",
    "outcome",
    "reason",
    "score",
    "threshold",
    "flagged",
    "model",
    "engine",
    "precision",
    "seconds",
    "detail",
    "patient",
    "study",
    "reading",
    "verdict",
    "verdict_at",
    "minutes_to_verdict",
)
HIDDEN = ("score", "threshold", "flagged")
ROWS = 1000
TO_READ, READ = "to read", "read"
# OWASP, CSV injection: a cell that begins so is run by a spreadsheet; also after spaces, and in full width.
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def as_csv(db: Database, batch_id: int, *, me: UserView | None) -> Iterator[str]:
    """The table as CSV (RFC 4180), line by line, the names of the columns first; `me` is who gets it, None the
    operator. Cells that a spreadsheet would run are defused with an apostrophe."""
    yield _line(COLUMNS)
    for row in rows(db, batch_id, me=me):
        yield _line([row[name] for name in COLUMNS])


def rows(db: Database, batch_id: int, *, me: UserView | None) -> Iterator[dict[str, Any]]:
    """Every file of a batch in order of its path, as `me` may see it: a value for each of COLUMNS."""
    after: str | None = None
    while True:
        with db.reading() as session:
            found = _page(session, batch_id, after, me)
        yield from (values for _, values in found)
        if len(found) < ROWS:
            return
        after = found[-1][0]


def defused(value: Any) -> Any:
    """A cell's value that no spreadsheet runs."""
    if isinstance(value, str) and value.lstrip(" \u00a0\ufeff").startswith(FORMULAS):
        return f"'{value}"
    return value


def _line(cells: Any) -> str:
    out = io.StringIO()
    csv.writer(out).writerow([defused(cell) for cell in cells])
    return out.getvalue()


def _page(session: Session, batch_id: int, after: str | None, me: UserView | None) -> list[tuple[str, dict[str, Any]]]:
    """Up to ROWS files after a path, each with its path as the file system has it."""
    batch = session.get_one(Batch, batch_id)
    model = session.get_one(TrainedModel, batch.trained_model_id)
    sees = literal(True) if me is None else is_seen(me)
    listed = and_(Entry.scan_id == Scan.id, Entry.trained_model_id == batch.trained_model_id)
    columns = select(Scan.path, Scan.patient, Scan.study, Outcome, Entry, sees)
    joined = columns.outerjoin(Outcome, current_outcome(batch.trained_model_id)).outerjoin(Entry, listed)
    wanted = joined.where(Scan.batch_id == batch_id, *([] if after is None else [Scan.path > after]))
    found = session.execute(wanted.order_by(Scan.path).limit(ROWS))
    label = f"{model.name} {model.version}"
    return [
        (path, _values(path, patient, study, outcome, label) | _read(entry, hides=entry is not None and not seen))
        for path, patient, study, outcome, entry, seen in found
    ]


def _values(path: str, patient: str | None, study: str | None, outcome: Outcome | None, model: str) -> dict[str, Any]:
    named = {"path": path, "patient": patient, "study": study, "model": model}
    names = ("reason", "score", "threshold", "flagged", "engine", "precision", "seconds", "detail")
    ended = {name: getattr(outcome, name) if outcome else None for name in names}
    values = {**ended, **named, "outcome": outcome.kind if outcome else "waiting"}
    return {name: printable(value) if isinstance(value, str) else value for name, value in values.items()}


def _read(entry: Entry | None, *, hides: bool) -> dict[str, Any]:
    """How far the reading is; with `hides` also what goes over the outcome's values."""
    is_done = entry is not None and entry.state == State.DONE
    is_open = entry is not None and entry.state not in (State.DONE, State.WITHDRAWN)
    decided = entry.decided_at if entry is not None and is_done else None
    return {
        "reading": READ if is_done else TO_READ if is_open else None,
        "verdict": entry.verdict if entry is not None and is_done else None,
        "verdict_at": decided.isoformat(timespec="seconds") if decided else None,
        "minutes_to_verdict": _minutes(entry, decided),
        **(dict.fromkeys(HIDDEN) if hides else {}),
    }


def _minutes(entry: Entry | None, decided: datetime | None) -> float | None:
    return None if entry is None or decided is None else round((decided - entry.submitted_at).total_seconds() / 60, 1)
