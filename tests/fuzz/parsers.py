"""The atheris targets: `python -m fuzz.parsers headers|dicom`, with libFuzzer's options; `python -m fuzz` starts it."""

import contextlib
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import atheris

with atheris.instrument_imports(include=["workers.images"]):
    from workers import images
    from workers.images import codestreams, dicom, headers, jpeg, strips, tiff

from db.errors import UnreadableImage

LIMITS = images.Limits(max_bytes=2**20, max_pixels=250_000)
PARSERS = (headers.measure_png, headers.measure_jpeg, tiff.measure_tiff, headers.measure_bmp, headers.measure_webp)


def one_header(data: bytes) -> None:
    """Each parser of a raster's header on bytes of its own or of another format."""
    reader = images.reader_for(data[: images.SIGNATURE_BYTES])
    if reader is None:
        PARSERS[sum(data[:8]) % len(PARSERS)](data)
        strips.unpacked_length(data)
        strips.lzw_length(data, 2**20)
    elif reader.name == "png":
        headers.measure_png(headers.plain_png(data))
        headers.measure_png(data)
    elif reader.name == "tiff":
        tiff.measure_tiff(data)
        tiff.plain_tiff(data)
        layout = tiff.layout(data)
        if layout.compression != 7:  # which is libjpeg's
            strips.check_strips(layout)
    else:
        {"jpeg": headers.measure_jpeg, "bmp": headers.measure_bmp, "webp": headers.measure_webp}.get(
            reader.name, images.tags
        )(data)


def one_dicom(data: bytes) -> None:
    """The header walk, the rules, and for what is not compressed the whole way through pydicom."""
    if not data.startswith(b"\xff") and not data.startswith(b"\0\0\0\x0c"):
        images.tags(data)
        header, frame = dicom.measure_dicom(data, LIMITS)
        if header.syntax not in dicom._CODECS:
            dicom.decode_dicom(header, frame)
    elif data.startswith(b"\xff\x4f"):
        codestreams._jpeg_2000(data)
    else:
        jpeg.frame_of(data)
        jpeg.check_scans(data)


TARGETS = {"headers": one_header, "dicom": one_dicom}


def main() -> None:
    """Hand over to libFuzzer, which ends the process."""
    target = TARGETS[sys.argv.pop(1)]
    warnings.simplefilter("ignore")

    def once(data: bytes) -> None:
        with contextlib.suppress(UnreadableImage):
            target(data)

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
