"""What scoring keeps of a scan that a reader may open: a lossless review copy, what the model saw of it, and the heat
map over it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from db.files import derived_path
from workers.decoding import DecoderPool, Prepared, Source
from workers.heat import heatmap_png
from workers.images import Grey8, png

if TYPE_CHECKING:
    from workers.scoring import Prediction


def keep(
    folder: Path, decoders: DecoderPool, source: Source, key: str, decoded: Prepared, prediction: "Prediction"
) -> None:
    """Write the three pictures, each whole or not at all; the same scan again overwrites them with the same bytes.
    Raises UnreadableImage and RootUnavailable as reading the original does."""
    keep_copy(folder, decoders, source, key)
    keep_input(folder, key, decoded.pixels)
    _write(derived_path(folder, key, "heat"), heatmap_png(prediction.heat(), decoded.evidence, prediction.grid))


def keep_copy(folder: Path, decoders: DecoderPool, source: Source, key: str) -> None:
    """Write the review copy alone. Raises as `keep` does."""
    _write(derived_path(folder, key, "image"), decoders.review_copy(source))


def keep_input(folder: Path, key: str, pixels: Grey8) -> None:
    """Write the model's input alone: S x S, the very values."""
    _write(derived_path(folder, key, "input"), png.encode(pixels))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.chmod(0o600)
    draft.replace(path)
