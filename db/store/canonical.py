"""What the digest of a batch's outcomes covers, so that two parties can compare one line.

SHA-256 over the line `nightread-outcomes-1`, then one line a scan in the order of its path's bytes, each ended by a
line feed: a JSON array without spaces, what is not ASCII escaped, of

    path (its bytes in hex), size, sha256, kind, reason, score, threshold, flagged,
    the model's name, version and weights' sha256, engine, precision

with the outcome by the batch's own model at the scan's generation. Score and threshold are strings as C's "%.17e"
prints a double; what there is not is null, so a scan that waits has nulls from its kind on. Detail texts are left out.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

FORM = "nightread-outcomes-1"


def begun() -> "hashlib._Hash":
    """A digest that holds the first line."""
    return hashlib.sha256(f"{FORM}\n".encode())


def line(outcome: Row[Any] | None, scan: Row[Any], model: Sequence[str], *, with_flag: bool = True) -> bytes:
    """A scan's line; `model` is name, version and weights' sha256. Without threshold and flag (null) it is what a new
    threshold leaves as it was."""
    fields = [scan.path.encode("utf-8", "surrogateescape").hex(), scan.size, scan.sha256]
    said: list[Any] = [None] * 10
    if outcome is not None:
        flag = [_number(outcome.threshold), outcome.flagged] if with_flag else [None, None]
        said = [outcome.kind, outcome.reason, _number(outcome.score), *flag, *model, outcome.engine, outcome.precision]
    return json.dumps([*fields, *said], separators=(",", ":")).encode() + b"\n"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value + 0.0:.17e}"
