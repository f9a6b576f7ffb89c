"""Files that centres send: one synthetic chest in every good format, and one file for every way to be bad.

Everything is drawn by the project; no pixel comes from a patient. `CHEST` is the picture; `good_files()` and
`bad_files()` give name -> bytes, and name -> (reason code, bytes).
"""

import io
import struct
import zlib

import cv2
import numpy as np
from dicom_builders import (
    JPEG_BASELINE,
    crashing_dicom,
    declared_deflated,
    deflated_bomb,
    dicom,
    dicom_in,
    dicom_set,
    dicomdir,
    encrypted,
    nested_dicom,
    sealed,
    unsupported,
    vast_dicom,
    with_fields,
    without_pixels,
    written,
)
from drawn import CHEST, Grey, chest, encoded
from PIL import Image as Pillow

from db.words import Reason

__all__ = [
    "CHEST",
    "JPEG_BASELINE",
    "Grey",
    "animated",
    "bad_files",
    "chest",
    "crashing_dicom",
    "declared_deflated",
    "deflated_bomb",
    "dicom",
    "dicom_in",
    "dicom_set",
    "dicomdir",
    "encoded",
    "encrypted",
    "good_files",
    "nested_dicom",
    "pillow",
    "png_bomb",
    "png_chunk",
    "rotated_jpeg",
    "sealed",
    "turned_away_by_header",
    "two_pages",
    "unsupported",
    "vast_dicom",
    "with_fields",
    "without_pixels",
    "written",
]


def pillow(image: Pillow.Image, kind: str, **options: object) -> bytes:
    """`image` in a format or mode that OpenCV does not write."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(side: int = 12_000, *, deep: bool = False) -> bytes:
    """A few kB that unfold to side x side pixels, grey of one byte each or (deep) RGBA of eight."""
    rows = zlib.compress(bytes((side * (8 if deep else 1) + 1) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 16 if deep else 8, 6 if deep else 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def rotated_jpeg(grey: Grey, orientation: int) -> bytes:
    """A JPEG whose EXIF asks a viewer to turn it; shown right, it looks like `grey` with orientation 1."""
    exif = Pillow.Exif()
    exif[274] = orientation
    return pillow(Pillow.fromarray(grey), "JPEG", exif=exif, quality=95)


def animated(kind: str) -> bytes:
    """Two frames of a PNG or WebP."""
    frames = [Pillow.fromarray(chest(seed=seed)) for seed in (0, 1)]
    return pillow(frames[0], kind, save_all=True, append_images=frames[1:])


def good_files() -> dict[str, bytes]:
    """`CHEST` in every lossless form; each reads back as the same grey levels."""
    colour = cv2.cvtColor(CHEST, cv2.COLOR_GRAY2BGR)
    opaque = np.dstack([colour, np.full_like(CHEST, 255)])
    levels = Pillow.fromarray(CHEST)
    palette = levels.copy()
    palette.putpalette([level for level in range(256) for _ in "rgb"])
    wide = CHEST.astype(np.uint16) * 257
    return {
        "grey.png": encoded(".png", CHEST),
        "rgb.png": encoded(".png", colour),
        "rgba.png": encoded(".png", opaque),
        "grey_alpha.png": pillow(levels.convert("LA"), "PNG"),
        "palette.png": pillow(palette, "PNG"),
        "sixteen.png": encoded(".png", wide),
        "eight_in_sixteen.png": encoded(".png", CHEST.astype(np.uint16)),
        "grey.tif": encoded(".tif", CHEST),
        "rgb.tif": encoded(".tif", colour),
        "sixteen.tif": encoded(".tif", wide),
        "lzw.tif": pillow(levels, "TIFF", compression="tiff_lzw"),
        "grey.bmp": encoded(".bmp", CHEST),
        "rgb.bmp": encoded(".bmp", colour),
        "lossless.webp": pillow(levels.convert("RGB"), "WEBP", lossless=True),
        "mono2.dcm": dicom(),
        "mono1.dcm": dicom(255 - CHEST, PhotometricInterpretation="MONOCHROME1"),
        "sixteen.dcm": dicom(wide),
        "implicit.dcm": dicom_in("1.2.840.10008.1.2"),
        "big_endian.dcm": dicom_in("1.2.840.10008.1.2.2", wide),
        "deflated.dcm": dicom_in("1.2.840.10008.1.2.1.99"),
        "rle.dcm": dicom_in("1.2.840.10008.1.2.5"),
        "jpeg_ls.dcm": dicom_in("1.2.840.10008.1.2.4.80"),
        "jpeg_2000.dcm": dicom_in("1.2.840.10008.1.2.4.90"),
        "no_preamble.dcm": dicom()[132:],
    }


def bad_files() -> dict[str, tuple[Reason, bytes]]:
    """One file for each way to be bad that reading its bytes tells, with the code it must get."""
    png, jpeg = encoded(".png", CHEST), encoded(".jpg", CHEST)
    return {
        "empty.png": (Reason.EMPTY, b""),
        "page.png": (Reason.NOT_AN_IMAGE, b"<html><body>404 not found</body></html>"),
        "notes.txt": (Reason.NOT_AN_IMAGE, b"BM is how this text begins, and it is not a bitmap" * 5),
        "scan.gif": (Reason.NOT_AN_IMAGE, pillow(Pillow.fromarray(CHEST), "GIF")),
        "report.dcm": (Reason.NOT_AN_IMAGE, without_pixels("1.2.840.10008.5.1.4.1.1.88.11", "SR")),
        "key_object.dcm": (Reason.NOT_AN_IMAGE, without_pixels("1.2.840.10008.5.1.4.1.1.88.59", "KO")),
        "presentation.dcm": (Reason.NOT_AN_IMAGE, without_pixels("1.2.840.10008.5.1.4.1.1.11.1", "PR")),
        "letter.pdf.dcm": (Reason.NOT_AN_IMAGE, without_pixels("1.2.840.10008.5.1.4.1.1.104.1", "OT")),
        "DICOMDIR": (Reason.NOT_AN_IMAGE, dicomdir()),
        "cut.png": (Reason.TRUNCATED, png[: len(png) // 2]),
        "endless.png": (Reason.TRUNCATED, png[:-12]),
        "cut.jpg": (Reason.TRUNCATED, jpeg[: len(jpeg) // 2]),
        "cut_and_closed.jpg": (Reason.TRUNCATED, jpeg[: len(jpeg) // 2] + b"\xff\xd9"),
        "cut.bmp": (Reason.TRUNCATED, encoded(".bmp", CHEST)[:-5000]),
        "cut.tif": (Reason.TRUNCATED, encoded(".tif", CHEST)[:4000]),
        "cut.webp": (Reason.TRUNCATED, encoded(".webp", CHEST)[:-100]),
        "cut.dcm": (Reason.TRUNCATED, dicom()[:-1000]),
        "cut_header.dcm": (Reason.TRUNCATED, dicom()[:300]),
        "cut_jpeg.dcm": (Reason.TRUNCATED, dicom_in(JPEG_BASELINE)[:-2000]),
        "lying_rows.dcm": (Reason.TRUNCATED, dicom(Rows=4000)),
        "broken.png": (Reason.UNREADABLE, png[:2000] + bytes([png[2000] ^ 255]) + png[2001:]),
        "broken.jpg": (Reason.UNREADABLE, jpeg[:2] + b"\xff\xe0\x00\x10JFIF\0" + bytes(9) + b"\xff\xd9"),
        "nested.dcm": (Reason.UNREADABLE, nested_dicom()),
        "float.tif": (Reason.UNREADABLE, encoded(".tif", CHEST.astype(np.float32))),
        "bomb.png": (Reason.TOO_LARGE, png_bomb()),
        "vast.dcm": (Reason.TOO_LARGE, vast_dicom()),
        "deflated_bomb.dcm": (Reason.TOO_LARGE, deflated_bomb()),
        "small.png": (Reason.TOO_SMALL, encoded(".png", CHEST[:40, :40])),
        "video.dcm": (Reason.UNSUPPORTED_TRANSFER_SYNTAX, unsupported()),
        "encrypted.dcm": (Reason.ENCRYPTED, encrypted()),
        "sealed.dcm": (Reason.ENCRYPTED, sealed()),
        "pages.tif": (Reason.MULTI_FRAME, two_pages()),
        "animated.png": (Reason.MULTI_FRAME, animated("PNG")),
        "animated.webp": (Reason.MULTI_FRAME, animated("WEBP")),
        "frames.dcm": (Reason.MULTI_FRAME, dicom(np.vstack([CHEST, CHEST]), Rows=320, NumberOfFrames=2)),
    }


def two_pages() -> bytes:
    """A TIFF of two pages."""
    done, data = cv2.imencodemulti(".tif", [CHEST, CHEST])
    assert done
    return data.tobytes()


def turned_away_by_header() -> dict[str, tuple[Reason, bytes]]:
    """Sound radiographs that their headers rule out."""
    fields: dict[str, tuple[Reason, dict[str, object]]] = {
        "left_lateral.dcm": (Reason.NOT_FRONTAL, {"ViewPosition": "LL"}),
        "lateral.dcm": (Reason.NOT_FRONTAL, {"ViewPosition": "LATERAL"}),
        "oblique.dcm": (Reason.NOT_FRONTAL, {"ViewPosition": "RAO"}),
        "from_the_side.dcm": (Reason.NOT_FRONTAL, {"ViewPosition": "", "PatientOrientation": ["A", "F"]}),
        "hand.dcm": (Reason.NOT_CHEST, {"BodyPartExamined": "HAND"}),
        "skull.dcm": (Reason.NOT_CHEST, {"BodyPartExamined": "SKULL"}),
        "slice.dcm": (Reason.NOT_CHEST, {"Modality": "CT"}),
    }
    return {name: (reason, dicom(**changed)) for name, (reason, changed) in fields.items()}
