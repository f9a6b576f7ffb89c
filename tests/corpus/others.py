"""What is no picture of ours at all, and what is two things at once."""

import gzip
import io
import pickle
import struct
import zipfile

from builders import dicom, encoded, pillow
from PIL import Image as Pillow

from corpus import SCORED, Draw, File, Kind
from corpus.rasters import jpeg
from corpus.tiffs import tiff
from db.words import Reason

NOTHING = Reason.NOT_AN_IMAGE


def _bytes(make):
    """A file of no picture; the seed makes each different."""
    return lambda draw: File(make(draw), NOTHING)


def zipped(draw: Draw) -> bytes:
    """A ZIP archive of a picture."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("scan.png", encoded(".png", draw.grey))
    return stream.getvalue()


def _text(words: str):
    return _bytes(lambda draw: f"{words} {draw.seed}\n".encode() * 40)


def _boxes(brand: bytes):
    """The beginning of an ISO base media file: HEIC, AVIF, video."""
    return _bytes(lambda draw: struct.pack(">I4s4sI", 24, b"ftyp", brand, 0) + b"mif1" + brand + draw.rng.bytes(3000))


def _tiff_in_preamble(draw: Draw) -> File:
    """A DICOM file whose preamble makes it a TIFF too: it is read as DICOM, whatever the TIFF says."""
    data = dicom(draw.grey)
    preamble = (b"II*\0" + struct.pack("<I", len(data))).ljust(128, b"\0")
    other = tiff(draw.grey[::-1])
    return File(preamble + data[128:] + other[8:], SCORED, draw.grey)


def _after(picture, rest):
    return lambda draw: File(picture(draw) + rest(draw), SCORED, draw.grey, 1.5)


def _pdf(draw: Draw) -> bytes:
    return b"%PDF-1.7\n1 0 obj\n<</Filter/DCTDecode>>stream\n" + jpeg(draw) + b"\nendstream\nendobj\n%%EOF\n"


def _png(draw: Draw) -> bytes:
    return encoded(".png", draw.grey)


KINDS = [
    Kind("page.png", "a web page under a picture's name", _text("<!DOCTYPE html><html><body>404 not found")),
    Kind("notes.txt", "text", _text("the patient was seen")),
    Kind("bitmap.txt", "text that begins like a bitmap", _text("BM is how this text begins")),
    Kind("table.csv", "a table", _text("path,patient\na.png,P1\n")),
    Kind("wide.txt", "text in UTF-16", _bytes(lambda d: f"scan {d.seed}".encode("utf-16") * 30)),
    Kind("drawing.svg", "an SVG drawing", _text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script>')),
    Kind("empty.png", "no bytes", lambda d: File(b"", Reason.EMPTY)),
    Kind("zeros.png", "zeros", _bytes(lambda d: bytes(200 + d.seed % 5000))),
    Kind("noise.png", "random bytes", _bytes(lambda d: b"\x80" + d.rng.bytes(4000))),
    Kind("scan.png.gz", "a picture, gzipped", _bytes(lambda d: gzip.compress(_png(d)))),
    Kind("scans.zip", "pictures in an archive", _bytes(zipped)),
    Kind("scan.gif", "a GIF", _bytes(lambda d: pillow(Pillow.fromarray(d.grey), "GIF"))),
    Kind("scan.heic", "HEIC", _boxes(b"heic")),
    Kind("scan.avif", "AVIF", _boxes(b"avif")),
    Kind("scan.mp4", "a video", _boxes(b"isom")),
    Kind("scan.pdf", "a PDF with a JPEG inside", _bytes(_pdf)),
    Kind("program", "a program", _bytes(lambda d: b"\x7fELF\x02\x01\x01" + d.rng.bytes(2000))),
    Kind("weights.pkl", "a pickle", _bytes(lambda d: pickle.dumps({"seed": d.seed}, 4))),
    Kind("only_signature.png", "a PNG's first bytes alone",
         lambda d: File((b"\x89PNG\r\n\x1a\n" + d.rng.bytes(7))[: 8 + d.seed % 8], Reason.TRUNCATED)),
    Kind("only_signature.jpg", "a JPEG's first bytes alone",
         lambda d: File(b"\xff\xd8\xff\xe0\x7f\xff" + bytes(d.seed % 300), Reason.TRUNCATED)),
    Kind("tiff_inside.dcm", "a DICOM file that is a TIFF too", _tiff_in_preamble),
    Kind("zip_after.png", "a PNG that is an archive too", _after(_png, zipped)),
    Kind("zip_after.jpg", "a JPEG that is an archive too", _after(jpeg, zipped)),
    Kind("page_after.jpg", "a JPEG that is a web page too",
         _after(jpeg, lambda d: b"<html><script>alert(1)</script></html>")),
    Kind("pdf_after.png", "a PNG that is a PDF too", _after(_png, _pdf)),
]  # fmt: skip
