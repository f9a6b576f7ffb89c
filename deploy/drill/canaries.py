"""Strings planted in place of patients' names, looked for wherever no patient may be, in every form they may take.

The search is one pass over the bytes, however many canaries there are: a thousand of them in a dozen forms each."""

import base64
import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, quote_plus

import numpy as np
from numpy.typing import NDArray

PREFIX = 8  # bytes of a form by which it is looked up; a shorter form could hardly be told from chance


@dataclass(frozen=True)
class Search:
    """Finds canaries in bytes. Raises ValueError for one of fewer than eight bytes: chance would find it too."""

    canaries: tuple[str, ...]

    def __post_init__(self) -> None:
        if short := [one for one in self.canaries if len(_bytes(one)) < PREFIX]:
            raise ValueError(f"{len(short)} canaries of fewer than {PREFIX} bytes: plant longer ones")

    @cached_property
    def _forms(self) -> dict[int, list[tuple[bytes, int]]]:
        """The forms with their canary's position, by their first bytes as a number."""
        found: dict[int, list[tuple[bytes, int]]] = {}
        for position, canary in enumerate(self.canaries):
            for form in forms(canary):
                found.setdefault(int.from_bytes(form[:PREFIX], "little"), []).append((form, position))
        return found

    @cached_property
    def _prefixes(self) -> NDArray[np.uint64]:
        return np.array(sorted(self._forms), np.uint64)

    def within(self, data: bytes) -> set[int]:
        """The positions, among the canaries, of those that `data` holds in some form."""
        return {
            position
            for place, prefix in self._candidates(data)
            for form, position in self._forms[prefix]
            if data.startswith(form, place)
        }

    def _candidates(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where in `data` the first bytes of a form are, and which they are."""
        for offset in range(min(PREFIX, max(len(data) - PREFIX + 1, 0)) if len(self._prefixes) else 0):
            words = np.frombuffer(data, "<u8", count=(len(data) - offset) // PREFIX, offset=offset)
            nearest = np.searchsorted(self._prefixes, words).clip(max=len(self._prefixes) - 1)
            for at in np.flatnonzero(self._prefixes[nearest] == words):
                yield int(at) * PREFIX + offset, int(words[at])


def forms(text: str) -> set[bytes]:
    """The bytes that a text may hide in: UTF-8, UTF-16, escaped for JSON, HTML, Python or an address, in hex, in
    base64 (wherever it begins in what was encoded; what kombu sends is base64 of JSON)."""
    raw = _bytes(text)
    wide = {text.encode(coding, "surrogatepass") for coding in ("utf-16-le", "utf-16-be")}
    addresses = {quote(raw), quote(raw, safe=""), quote_plus(raw)}
    addresses |= {re.sub("%..", lambda code: code[0].lower(), one) for one in addresses}
    as_json = json.dumps(text)[1:-1]
    written = {as_json, html.escape(text), repr(text)[1:-1], repr(raw)[2:-1], raw.hex(), raw.hex().upper(), *addresses}
    encoded = {form for one in (raw, _bytes(as_json)) for form in _base64(one)}
    every = {raw} | wide | encoded | {_bytes(one) for one in written}
    return {form for form in every if len(form) >= PREFIX}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _base64(raw: bytes) -> Iterator[bytes]:
    """What base64 makes of `raw` whatever stands before and after it: only the digits that it alone decides."""
    for before in range(3):
        for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
            digits = encode(bytes(before) + raw)
            yield digits[-(-8 * before // 6) : 8 * (before + len(raw)) // 6]


def below(folder: Path, *, without: Iterable[Path] = ()) -> Iterator[tuple[str, bytes]]:
    """Each file below a folder, with its name, but for those at or below `without`; names count as content."""
    left_out = tuple(path.resolve() for path in without)
    for at, _, names in os.walk(folder):
        for name in names:
            path = Path(at, name)
            if path.is_symlink() or not path.is_file() or _is_below(path.resolve(), left_out):
                continue
            yield str(path.relative_to(folder)), os.fsencode(name) + b"\n" + path.read_bytes()


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)


def leaks(search: Search, sinks: Iterable[tuple[str, bytes]]) -> Mapping[str, set[int]]:
    """Which canaries each sink holds; sinks without any are left out."""
    found = ((name, search.within(data)) for name, data in sinks)
    return {name: positions for name, positions in found if positions}
