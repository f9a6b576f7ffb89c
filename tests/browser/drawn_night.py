"""Nights of drawn pictures that went the way of real ones: a file's bytes are read, prepared and kept as a worker does
it, with a heat map that the test chooses in place of the network's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from dicom_builders import dicom
from reading_room import Found

from db.files import derived_path
from deploy.phantom import Chest, draw
from workers import images
from workers.heat import heatmap_png
from workers.images import png
from workers.preprocessing import Evidence, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from reading_room import ReadingRoom

INPUT = 224  # pixels a side of the model's input
PLACES = 7  # a side of a heat map


@dataclass(frozen=True)
class Film:
    """A submitted file and what the network made of it."""

    path: str
    data: bytes
    score: float = 0.9
    hot: tuple[int, int] = (3, 2)  # row and column of the heat map's one warm place
    patient: str | None = None
    share: float | None = None


def twelve_bits(seed: int = 0, size: int = 512, opacities: float = 0.7) -> NDArray[np.uint16]:
    """A drawn chest as a detector gives it: H x W, 0-4095, bone white."""
    return np.rint(draw(Chest(seed, size, opacities)) * 4095).astype(np.uint16)


def dicom_of(samples: NDArray[np.uint16], **fields: object) -> bytes:
    """A 12-bit radiograph with the window that its header states (centre and width in samples)."""
    return dicom(samples, **{"BitsStored": 12, "HighBit": 11, "WindowCenter": 2000, "WindowWidth": 3000, **fields})


def submit(room: ReadingRoom, *films: Film, site: str = "local", root: str = "/nights/phantoms") -> list[str]:
    """Screen these; their keys in the order given."""
    read = [_prepared(film) for film in films]
    found = [
        Found(film.path, score=film.score, patient=film.patient, share=film.share, evidence=asdict(evidence))
        for film, (evidence, _) in zip(films, read, strict=True)
    ]
    keys = room.keys(room.night(*found, site=site, root=root))
    for film, (evidence, pixels) in zip(films, read, strict=True):
        _keep(room, keys[film.path], film, evidence, pixels)
    return [keys[film.path] for film in films]


def _prepared(film: Film) -> tuple[Evidence, NDArray[np.uint8]]:
    image = images.read(film.data, images.Limits())
    pixels, evidence = prepare(images.to_grey8(image), INPUT)
    return replace(evidence, display=image.display.as_json() if image.display else None), pixels


def _keep(room: ReadingRoom, key: str, film: Film, evidence: Evidence, pixels: NDArray[np.uint8]) -> None:
    heat = np.zeros((PLACES, PLACES), np.float32)
    heat[film.hot] = 1.0
    pictures = {
        "image": images.as_png(images.review(film.data, images.Limits())),
        "input": png.encode(pixels),
        "heat": heatmap_png(heat, evidence),
    }
    for kind, content in pictures.items():
        path = derived_path(room.config.derived, key, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def chests(count: int, *, score: float = 0.9, size: int = 256, **told: Any) -> list[Film]:
    """So many different drawn chests, worst first, as 12-bit DICOM."""
    return [
        Film(f"chest-{n:02}.dcm", dicom_of(twelve_bits(n, size), PatientID=f"site-{n:04}"), score - n / 1000, **told)
        for n in range(count)
    ]


def names(films: Sequence[Film]) -> list[str]:
    return [film.path for film in films]
