"""What the settings give a worker: decoders, limits of what it opens, threads, where the note lies that stops it."""

import os
from pathlib import Path

from db.settings import Settings
from workers.decoding import DecoderPool
from workers.images import Limits


def decoder_pool(config: Settings) -> DecoderPool:
    """Decoder processes as the settings have them: as many as cores, limited in memory and time."""
    return DecoderPool(
        config.decoders or len(os.sched_getaffinity(0)),
        limits(config),
        memory_bytes=config.decode_memory_mb * 1_000_000,
        seconds=config.decode_seconds,
    )


def limits(config: Settings) -> Limits:
    """What a submitted file may cost, from the settings."""
    return Limits(
        max_bytes=config.max_file_mb * 1_000_000,
        max_pixels=config.max_megapixels * 1_000_000,
        min_side=config.min_side,
    )


def threads(config: Settings) -> int:
    """Threads of an engine on a CPU."""
    return config.engine_threads or len(os.sched_getaffinity(0))


def stopping_note(config: Settings, parent: int) -> Path:
    """The file by which a worker's parent process tells its child to finish."""
    return config.home / "run" / f"{parent}.stopping"
