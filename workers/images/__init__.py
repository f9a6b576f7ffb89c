"""Read chest images of any usual format into one kind of grey picture, or say by code why not.

One door for producer, workers and web: imports neither TensorFlow, OpenVINO nor Keras. `read` and `review` decode
foreign bytes and belong in the decoders (`workers.decoding`); `is_image` and `tags` are safe anywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass

from db.errors import UnreadableImage
from db.words import Reason
from workers.images import dicom, dicom_reduced, headers, reduced
from workers.images.dicom_header import HEADER_BYTES, parse, starts_dicom
from workers.images.dicom_rules import (
    WANTED,
    Tags,
    refuse_what_is_no_picture,
    refuse_what_is_not_screened,
    tags_of,
)
from workers.images.levels import Levels, of_raster
from workers.images.picture import Frame, Grey8, Image, Limits, as_png, check, to_grey8
from workers.images.raster import decode_jpeg, decode_raster
from workers.images.reduced import CODECS, NotReduced, Plan, Reduced
from workers.images.tiff import measure_tiff

__all__ = [
    "CODECS",
    "HEADER_BYTES",
    "READERS",
    "SIGNATURE_BYTES",
    "Grey8",
    "Image",
    "Limits",
    "NotReduced",
    "Plan",
    "Reader",
    "Reduced",
    "Tags",
    "as_png",
    "is_image",
    "read",
    "read_reduced",
    "reader_for",
    "review",
    "tags",
    "to_grey8",
]

SIGNATURE_BYTES = 132


@dataclass(frozen=True)
class Reader:
    """A format: `recognises` the first bytes of a file; `decode` turns all of them into Levels within limits, and
    `reduce`, where there is a quicker way to a smaller picture, into that."""

    name: str
    recognises: Callable[[bytes], bool]
    decode: Callable[[bytes, Limits], Levels]
    reduce: Callable[[bytes, Limits, Plan], Reduced] | None = None


def _jpeg(data: bytes, limits: Limits) -> Levels:
    frame = headers.measure_jpeg(data)
    check(frame, limits)
    return decode_jpeg(data, frame)


def _jpeg_reduced(data: bytes, limits: Limits, plan: Plan) -> Reduced:
    frame = headers.measure_jpeg(data)
    check(frame, limits)
    factor = plan.factor("jpeg", frame)
    image = of_raster(reduced.jpeg(data, frame, factor), "jpeg").for_model()
    return Reduced(image, factor, frame.height, frame.width)


def _raster(name: str, measure: Callable[[bytes], Frame]) -> Callable[[bytes, Limits], Levels]:
    def decode(data: bytes, limits: Limits) -> Levels:
        frame = measure(data)
        check(frame, limits)
        return decode_raster(data, frame, name)

    return decode


def _dicom(data: bytes, limits: Limits) -> Levels:
    header, frame = dicom.measure_dicom(data, limits)
    return dicom.decode_dicom(header, frame)


def _dicom_reduced(data: bytes, limits: Limits, plan: Plan) -> Reduced:
    header, frame = dicom.measure_dicom(data, limits)
    return dicom_reduced.decode(header, frame, plan)


# The sizes that a BMP's second header can have: "BM" alone also begins many a text.
_BMP_HEADERS = {size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)}

READERS: tuple[Reader, ...] = (
    # First: a DICOM file may begin like a TIFF, in the preamble left to other formats (PS3.10 7.1).
    Reader("dicom", starts_dicom, _dicom, _dicom_reduced),
    Reader("png", lambda head: head.startswith(headers.PNG), _raster("png", headers.measure_png)),
    Reader("jpeg", lambda head: head.startswith(b"\xff\xd8\xff"), _jpeg, _jpeg_reduced),
    Reader(
        "tiff",
        lambda head: head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        _raster("tiff", measure_tiff),
    ),
    Reader(
        "bmp",
        lambda head: head.startswith(b"BM") and head[14:18] in _BMP_HEADERS,
        _raster("bmp", headers.measure_bmp),
    ),
    Reader(
        "webp",
        lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP",
        _raster("webp", headers.measure_webp),
    ),
)


def reader_for(head: bytes) -> Reader | None:
    """The reader of a file that begins with `head` (SIGNATURE_BYTES of it are enough); None: not an image."""
    return next((reader for reader in READERS if reader.recognises(head)), None)


def is_image(head: bytes) -> bool:
    """Whether a file that begins with `head` is worth opening, whatever its name says."""
    return reader_for(head) is not None


def tags(beginning: bytes) -> Tags:
    """What the store keeps of a file's DICOM header; empty Tags for other formats.

    `beginning`: the first HEADER_BYTES of the file, or all of it where it is shorter. Pixels are not looked at.
    Raises UnreadableImage: not_an_image, encrypted, multi_frame, not_frontal, not_chest,
    unsupported_transfer_syntax, truncated, unreadable.
    """
    if not starts_dicom(beginning):
        return Tags()
    header = parse(beginning, WANTED, limit=HEADER_BYTES)
    if header.pixels is not None or len(header.body) < HEADER_BYTES:
        refuse_what_is_no_picture(header)
    refuse_what_is_not_screened(header)
    return tags_of(header)


def read(data: bytes, limits: Limits) -> Image:
    """Decode a file's bytes as the model's path has them. Every limit is checked from its header before any pixel is
    decoded.

    EXIF orientation is applied, in every format that can carry it. Raises UnreadableImage: empty, not_an_image,
    truncated, unreadable, too_large, too_small, multi_frame, encrypted, unsupported_transfer_syntax.
    """
    return _decoded(data, limits).for_model()


def review(data: bytes, limits: Limits) -> Image:
    """The same picture as readers get it: its own samples before any window, and how to show them. Raises as `read`
    does."""
    return _decoded(data, limits).for_readers()


def read_reduced(data: bytes, limits: Limits, plan: Plan) -> Reduced:
    """The same picture for the model, smaller, within the same limits. Raises NotReduced where `read` is to tell, and
    UnreadableImage as it does."""
    reduce = _reader_of(data, limits).reduce
    if reduce is None:
        raise NotReduced("no reduced form")
    return reduce(data, limits, plan)


def _decoded(data: bytes, limits: Limits) -> Levels:
    return _reader_of(data, limits).decode(data, limits)


def _reader_of(data: bytes, limits: Limits) -> Reader:
    if not data:
        raise UnreadableImage(Reason.EMPTY, "no bytes")
    if len(data) > limits.max_bytes:
        raise UnreadableImage(Reason.TOO_LARGE, f"{len(data):,} bytes, at most {limits.max_bytes:,} are read")
    reader = reader_for(data)
    if reader is None:
        raise UnreadableImage(
            Reason.NOT_AN_IMAGE, f"not PNG, JPEG, TIFF, BMP, WebP or DICOM (starts with {data[:5].hex(' ')})"
        )
    return reader
