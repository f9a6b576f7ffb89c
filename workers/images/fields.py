"""Read numbers out of foreign headers."""

import struct

from db.errors import UnreadableImage
from db.words import Reason


def truncated(what: str) -> UnreadableImage:
    """The error for a file that ends before its picture does."""
    return UnreadableImage(Reason.TRUNCATED, what)


def damaged(what: str) -> UnreadableImage:
    """The error for a file whose parts contradict each other."""
    return UnreadableImage(Reason.UNREADABLE, what)


# Compressed data hold no such run; a lost block of a disk is at least as long (512 bytes, less what was cut off).
LOST = bytes(400)


def unpack(form: str, data: bytes, at: int) -> tuple[int, ...]:
    """struct.unpack_from that reports the end of the file as truncation."""
    try:
        return struct.unpack_from(form, data, at)
    except (struct.error, OverflowError) as error:  # an offset of 64 bits
        raise truncated(f"it ends inside its header, at byte {len(data)}") from error
