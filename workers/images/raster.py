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
from workers.images.levels import Levels, of_raster
from workers.images.picture import Frame, Grey8, Samples, to_grey, turn
from workers.images.strips import check_strips
from workers.images.tiff import layout, plain_tiff


def decode_raster(data: bytes, frame: Frame, source: str) -> Levels:
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


def decode_jpeg(data: bytes, frame: Frame) -> Levels:
    """Any 8-bit JPEG, strictly."""
    return _finish(grey_of_jpeg(data), frame, "jpeg")


def grey_of_jpeg(data: bytes) -> Grey8:
    """Its picture as stored: what libjpeg warns of and papers over in grey is refused here (truncated, unreadable)."""
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours in ("CMYK", "YCCK"):
            return _grey_of_inks(simplejpeg.decode_jpeg(data, "CMYK"), adobe=adobe_transform(data) is not None)
        return np.asarray(simplejpeg.decode_jpeg(data, "GRAY")[:, :, 0])
    except ValueError as error:
        raise UnreadableImage(_reason(str(error)), f"JPEG: {error}") from error


def _reason(complaint: str) -> Reason:
    return Reason.TRUNCATED if "premature end" in complaint.lower() else Reason.UNREADABLE


def _grey_of_inks(inks: NDArray[np.uint8], *, adobe: bool) -> NDArray[np.uint8]:
    """Adobe stores CMYK inverted (255 = no ink); without its marker 0 is no ink."""
    light = inks if adobe else 255 - inks
    red_green_blue = light[:, :, :3] * (light[:, :, 3:] / np.float32(255))
    return np.rint(red_green_blue @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)


def _finish(grey: Samples, frame: Frame, source: str) -> Levels:
    return of_raster(turn(grey, frame.orientation), source, from_white=frame.from_white)
