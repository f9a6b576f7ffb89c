"""Decode PNG, JPEG, TIFF, BMP and WebP, once their headers have been found sound."""

from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from db.errors import UnreadableImage
from db.words import Reason
from workers.images.complaints import taken_seriously
from workers.images.headers import plain_png
from workers.images.jpeg import adobe_transform
from workers.images.picture import Frame, Image, Samples, fill, significant_bits, to_grey, turn
from workers.images.strips import check_strips
from workers.images.tiff import layout, plain_tiff


def decode_raster(data: bytes, frame: Frame, source: str) -> Image:
    """PNG, TIFF, BMP, WebP of 8 or 16 bits a channel. Raises UnreadableImage(unreadable)."""
    try:
        colours = _decoded(data, source)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        raise UnreadableImage(Reason.UNREADABLE, f"its {source} decoder refused it") from error
    if colours is None:
        raise UnreadableImage(Reason.UNREADABLE, f"its {source} decoder gave up")
    if colours.dtype not in (np.uint8, np.uint16):
        raise UnreadableImage(Reason.UNREADABLE, f"samples of type {colours.dtype}; 8 or 16 bits are read")
    if colours.shape[:2] != (frame.height, frame.width):
        raise UnreadableImage(Reason.UNREADABLE, "it decodes to another size than its header says")
    return _finish(to_grey(np.asarray(colours)), frame, source)


def _decoded(data: bytes, source: str) -> NDArray[Any] | None:
    # UNCHANGED: GRAYSCALE would throw away the low byte of 16, and turns by EXIF in some formats only.
    if source == "tiff":
        check_strips(layout(data))
        with taken_seriously():
            return cv2.imdecode(np.frombuffer(plain_tiff(data), np.uint8), cv2.IMREAD_UNCHANGED)
    plain = plain_png(data) if source == "png" else data
    return cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)


def decode_jpeg(data: bytes, frame: Frame) -> Image:
    """Any 8-bit JPEG, strictly: what libjpeg warns of and papers over in grey is refused here."""
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours in ("CMYK", "YCCK"):
            grey = _grey_of_inks(simplejpeg.decode_jpeg(data, "CMYK"), adobe=adobe_transform(data) is not None)
        else:
            grey = simplejpeg.decode_jpeg(data, "GRAY")[:, :, 0]
    except ValueError as error:
        raise UnreadableImage(_reason(str(error)), f"JPEG: {error}") from error
    return _finish(grey, frame, "jpeg")


def _reason(complaint: str) -> Reason:
    return Reason.TRUNCATED if "premature end" in complaint.lower() else Reason.UNREADABLE


def _grey_of_inks(inks: NDArray[np.uint8], *, adobe: bool) -> NDArray[np.uint8]:
    """Adobe stores CMYK inverted (255 = no ink); without its marker 0 is no ink."""
    light = inks if adobe else 255 - inks
    red_green_blue = light[:, :, :3] * (light[:, :, 3:] / np.float32(255))
    return np.rint(red_green_blue @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)


def _finish(grey: Samples, frame: Frame, source: str) -> Image:
    if frame.from_white:
        highest = 255 if grey.dtype == np.uint8 else 2 ** significant_bits(grey) - 1
        grey = highest - np.minimum(grey, highest)
    upright = turn(grey, frame.orientation)
    if upright.dtype == np.uint16:
        return fill(upright.astype(np.uint16, copy=False), source)
    return Image(upright, 8, source)
