"""What scoring keeps of a scan that a reader may open: a lossless review copy and the heat map over it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from db.files import derived_path
from workers.decoding import DecoderPool, Source
from workers.preprocessing import Evidence

if TYPE_CHECKING:
    from workers.scoring import Prediction


def keep(
    folder: Path, decoders: DecoderPool, source: Source, key: str, evidence: Evidence, prediction: "Prediction"
) -> None:
    """Write both pictures, each whole or not at all; the same scan again overwrites them with the same bytes.
    Raises UnreadableImage and RootUnavailable as reading the original does."""
    from workers.scoring import heatmap_png  # in the child only, like everything that loads TensorFlow

    keep_copy(folder, decoders, source, key)
    _write(derived_path(folder, key, "heat"), heatmap_png(prediction.heat(), evidence))


def keep_copy(folder: Path, decoders: DecoderPool, source: Source, key: str) -> None:
    """Write the review copy alone. Raises as `keep` does."""
    _write(derived_path(folder, key, "image"), decoders.review_copy(source))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.chmod(0o600)
    draft.replace(path)
