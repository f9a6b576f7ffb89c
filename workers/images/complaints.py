"""What native codecs print to standard error while they decode: the only sign that some give of damage.

gdcm's libjpeg warns of a picture that ends too early and fills the rest with grey; OpenCV logs libtiff's errors and
returns what there is. Neither tells by its result.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from workers.images.fields import damaged

_ONE_AT_A_TIME = threading.Lock()  # standard error is the process's
_HEARD = (b"Corrupt JPEG", b"Premature end", b"TIFF_Error", b"Inconsistent", b"Invalid SOS")


@contextmanager
def taken_seriously() -> Iterator[None]:
    """Refuse (unreadable) what a codec complained of inside the block. Nothing of it is quoted or let through."""
    with _ONE_AT_A_TIME:
        sys_error = os.dup(2)
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.dup2(writing, 2)
            try:
                yield
            finally:
                os.dup2(sys_error, 2)
            said = b""
            with suppress(BlockingIOError):
                said = os.read(reading, 2**16)
        finally:
            for descriptor in (sys_error, reading, writing):
                os.close(descriptor)
    if any(word in said for word in _HEARD):
        raise damaged("its decoder complained of damage")
