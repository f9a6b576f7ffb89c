"""A small TIFF writer: every byte order, layout and lie."""

import struct
import zlib

import numpy as np

_SHORT, _LONG, _LONG8, _BYTES = 3, 4, 16, 7


def tiff(
    pixels: np.ndarray,
    *,
    end: str = "<",
    big: bool = False,
    rows: int = 40,
    tile: int = 0,
    compression: int = 1,
    fields: dict[int, tuple[int, list[int]]] | None = None,
    planar: bool = False,
    deflate: bool = False,
) -> bytes:
    """H x W or H x W x C samples as a TIFF; `fields` (tag -> type, values) come last and win."""
    grey = pixels if pixels.ndim == 3 else pixels[:, :, None]
    planes = [grey[:, :, n : n + 1] for n in range(grey.shape[2])] if planar else [grey]
    ordered = [plane.astype(plane.dtype.newbyteorder(end)) for plane in planes]
    parts = [part for plane in ordered for part in (_tiles(plane, tile) if tile else _strips(plane, rows))]
    if deflate:
        parts, compression = [zlib.compress(part) for part in parts], 8
    return assembled(parts, _described(pixels, rows, tile, compression, planar) | (fields or {}), end=end, big=big)


def _strips(plane: np.ndarray, rows: int) -> list[bytes]:
    return [plane[at : at + rows].tobytes() for at in range(0, len(plane), rows)]


def _tiles(plane: np.ndarray, side: int) -> list[bytes]:
    height, width = plane.shape[:2]
    padded = np.pad(plane, ((0, -height % side), (0, -width % side), (0, 0)))
    return [
        padded[top : top + side, left : left + side].tobytes()
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


def _described(
    pixels: np.ndarray, rows: int, tile: int, compression: int, planar: bool
) -> dict[int, tuple[int, list[int]]]:
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    size = {322: (_SHORT, [tile]), 323: (_SHORT, [tile])} if tile else {278: (_LONG, [rows])}
    return size | {
        256: (_LONG, [pixels.shape[1]]),
        257: (_LONG, [pixels.shape[0]]),
        258: (_SHORT, [pixels.dtype.itemsize * 8] * samples),
        259: (_SHORT, [compression]),
        262: (_SHORT, [2 if samples == 3 else 5 if samples == 4 else 1]),
        277: (_SHORT, [samples]),
        284: (_SHORT, [2 if planar else 1]),
    }


def assembled(
    parts: list[bytes], fields: dict[int, tuple[int, list[int]]], *, end: str = "<", big: bool = False, after: int = 0
) -> bytes:
    """Strips or tiles and a directory, in a file; `after` is where the next directory is said to lie."""
    at, offsets = 16, []
    for part in parts:
        offsets.append(at)
        at += len(part) + len(part) % 2
    body = b"".join(part + b"\0" * (len(part) % 2) for part in parts)
    tiled = 322 in fields
    places = {324 if tiled else 273: (_LONG, offsets), 325 if tiled else 279: (_LONG, [len(part) for part in parts])}
    directory = _directory(places | fields, at, end, big=big, after=after)
    order = b"II" if end == "<" else b"MM"
    head = order + struct.pack(end + ("HHHQ" if big else "HI"), *((43, 8, 0, at) if big else (42, at)))
    return head.ljust(16, b"\0") + body + directory


def _directory(fields: dict[int, tuple[int, list[int]]], at: int, end: str, *, big: bool, after: int) -> bytes:
    inline, forms = 8 if big else 4, {_SHORT: "H", _LONG: "I", _LONG8: "Q", _BYTES: "B", 1: "B", 13: "I"}
    entry_size = 20 if big else 12
    extra_at = at + (8 if big else 2) + entry_size * len(fields) + (8 if big else 4)
    entries, extra = b"", b""
    for tag, (kind, values) in sorted(fields.items()):
        packed = struct.pack(f"{end}{len(values)}{forms[kind]}", *values)
        if len(packed) > inline:
            place = struct.pack(end + ("Q" if big else "I"), extra_at + len(extra))
            extra += packed + b"\0" * (len(packed) % 2)
        else:
            place = packed.ljust(inline, b"\0")
        entries += struct.pack(end + ("HHQ" if big else "HHI"), tag, kind, len(values)) + place
    count = struct.pack(end + ("Q" if big else "H"), len(fields))
    return count + entries + struct.pack(end + ("Q" if big else "I"), after) + extra
