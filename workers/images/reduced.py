"""Decode a picture at a half, a quarter or an eighth of its size, for the model's path alone.

JPEG keeps the lowest frequencies of each block, JPEG 2000 leaves out its finest resolution levels. What the whole
picture would be refused for is refused here too, or goes to the whole picture: NotReduced says that only that can tell.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from workers.images.fields import unpack
from workers.images.picture import Frame, Grey8, Image

CODECS = ("jpeg", "jpeg2000")
MOST = 8  # libjpeg's furthest; with two, a JPEG 2000 picture of 10 megapixels already costs a sixteenth
_MAIN_HEADER = 2**16  # bytes looked at for the fields of a codestream that say how it was made


class NotReduced(Exception):
    """This picture is to be decoded whole; quotes no value of it."""


@dataclass(frozen=True)
class Reduced:
    """A picture of `height` x `width`, upright; one sample of `image` stands for `factor` pixels a side, the first for
    those that begin `ahead` pixels above and left of the picture: a wavelet's lowest band lies over the first of the
    pixels that a sample stands for, not over the middle of them."""

    image: Image
    factor: int
    height: int
    width: int
    ahead: float = 0.0


class Plan(NamedTuple):
    """How far to reduce, and with which codecs: to no less than `least` pixels of the shorter side, by `most` or less,
    a power of two."""

    least: int
    codecs: tuple[str, ...]
    most: int = MOST

    def factor(self, codec: str, frame: Frame) -> int:
        """Raises NotReduced where this codec, or a picture of this size or turned, is to be decoded whole."""
        if codec not in self.codecs or frame.orientation != 1:
            raise NotReduced(codec)
        factor = min(self.most, 1 << max(min(frame.height, frame.width) // self.least, 1).bit_length() - 1)
        if factor < 2:
            raise NotReduced("small")
        return factor


def shrunk(length: int, factor: int) -> int:
    """Pixels that are left of a side: both codecs round up."""
    return -(-length // factor)


def jpeg(data: bytes, frame: Frame, factor: int) -> Grey8:
    """The grey picture of a JPEG, an exact `factor`-th of its size; every bit of it is still read and complained of.
    Raises NotReduced."""
    height, width = shrunk(frame.height, factor), shrunk(frame.width, factor)
    try:
        if simplejpeg.decode_jpeg_header(data)[2] in ("CMYK", "YCCK"):
            raise NotReduced("inks")
        grey = np.asarray(simplejpeg.decode_jpeg(data, "GRAY", min_height=height, min_width=width)[:, :, 0])
    except ValueError as error:
        raise NotReduced("refused") from error
    if grey.shape != (height, width):
        raise NotReduced("size")
    return grey


def jpeg_2000(stream: bytes, frame: Frame, precision: int, factor: int) -> NDArray[np.unsignedinteger]:
    """The samples of a JPEG 2000 codestream of one unsigned component, uint8 or uint16, where it keeps what is left in
    levels of its own. Raises NotReduced."""
    levels = factor.bit_length() - 1
    if _levels_of_plain(stream, frame) < levels or not 8 <= precision <= 16:
        raise NotReduced("codestream")
    try:  # an extra brings it; where it is missing, pictures are decoded whole
        from PIL import ImageFile
        from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
    except ImportError as error:
        raise NotReduced("no Pillow") from error
    try:
        with Jpeg2KImageFile(BytesIO(stream)) as picture:
            (tile,) = picture.tile
            # As `picture.reduce` would have it, but for the size: OpenJPEG rounds up, Pillow to the nearest, and fails.
            size = shrunk(frame.width, factor), shrunk(frame.height, factor)
            if not isinstance(tile.args, tuple):
                raise NotReduced("codestream")
            codec, _, _, descriptor, length = tile.args
            picture._size = size
            picture.tile = [ImageFile._Tile(tile.codec_name, (0, 0, *size), 0, (codec, levels, 0, descriptor, length))]
            picture.load()
            samples = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, TypeError, LookupError) as error:
        raise NotReduced("refused") from error
    if samples.shape != size[::-1] or samples.dtype != (np.uint16 if precision > 8 else np.uint8):
        raise NotReduced("size")
    return np.asarray(samples >> (16 - precision) if precision > 8 else samples)


def _levels_of_plain(stream: bytes, frame: Frame) -> int:
    """How many resolution levels a codestream can leave out (ITU T.800, annex A). Raises NotReduced unless it is one
    tile that begins at the origin, of one unsigned component as fine as the picture."""
    if not stream.startswith(b"\xff\x4f\xff\x51"):
        raise NotReduced("wrapped")
    wide, high, *origin = unpack(">IIII", stream, 8)
    tile_wide, tile_high, *tile_origin = unpack(">IIII", stream, 24)
    count, precision, *steps = unpack(">HBBB", stream, 40)
    whole = (high, wide) == (frame.height, frame.width) and tile_wide >= wide and tile_high >= high
    if not whole or any((*origin, *tile_origin)) or count != 1 or precision & 0x80 or steps != [1, 1]:
        raise NotReduced("codestream")
    at = 4 + int(unpack(">H", stream, 4)[0])
    while at < _MAIN_HEADER:
        marker, length = unpack(">HH", stream, at)
        if marker == 0xFF52:  # COD: how it was made
            return int(stream[at + 9])
        if marker in (0xFF90, 0xFFD9):
            break
        at += 2 + int(length)
    raise NotReduced("codestream")
