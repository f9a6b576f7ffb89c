"""PNG, JPEG, TIFF, BMP and WebP in every usual and unusual form: what must score, in these grey levels, and what is
not read."""

import struct
import zlib

import cv2
import numpy as np
from builders import encoded, pillow, png_chunk
from PIL import Image as Pillow
from PIL import ImageCms

from corpus import SCORED, Draw, File, Kind
from corpus.tiffs import tiff
from db.words import Reason

UNREADABLE = Reason.UNREADABLE


def png(pixels: np.ndarray, *, bits: int = 8, colours: int = 0, extra: bytes = b"", body: bytes | None = None) -> bytes:
    """A PNG by hand: rows as bytes (H x bytes), unfiltered; `body` replaces the compressed rows."""
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.uint8)
    width = rows.shape[1] * 8 // bits // {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)) if body is None else body
    return assembled_png(struct.pack(">IIBBBBB", width, len(rows), bits, colours, 0, 0, 0), packed, extra)


def assembled_png(header: bytes, packed: bytes, extra: bytes = b"") -> bytes:
    """Signature, header, other chunks, rows, end."""
    chunks = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def few_bits(grey: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows packed at 1, 2 or 4 bits a pixel, and the grey levels they stand for."""
    grey = grey[:, : grey.shape[1] // 8 * 8]
    levels = grey >> (8 - bits)
    spread = (levels[:, :, None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(spread.reshape(len(grey), -1), axis=1), (levels * (255 // (2**bits - 1))).astype(np.uint8)


def few(bits: int, write: str):
    def make(draw: Draw) -> File:
        rows, levels = few_bits(draw.grey, bits)
        if write == "png":
            return File(png(rows, bits=bits), SCORED, levels)
        fields = {258: (3, [bits]), 256: (4, [levels.shape[1]])}
        return File(tiff(rows, fields=fields), SCORED, levels)

    return make


def _interlaced(draw: Draw) -> File:
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row for top, left, down, across in passes for row in draw.grey[top::down, left::across]]
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    height, width = draw.grey.shape
    return File(assembled_png(struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1), packed), SCORED, draw.grey)


def _palette(draw: Draw) -> File:
    image = Pillow.fromarray(draw.grey)
    image.putpalette([255 - level for level in range(256) for _ in "rgb"])
    return File(pillow(image, "PNG"), SCORED, 255 - draw.grey)


def _transparent(draw: Draw) -> File:
    alpha = np.full_like(draw.grey, 255)
    alpha[: len(alpha) // 4] = 0
    return File(encoded(".png", np.dstack([draw.rgb, alpha])), SCORED, np.where(alpha, draw.grey, 0))


def _marker(draw: Draw) -> File:
    twelve = draw.twelve.copy()
    twelve[4:9, 4:12] = 65535
    levels = draw.grey.copy()
    levels[4:9, 4:12] = 255
    return File(encoded(".png", twelve), SCORED, levels, 1)


def turned(kind: str):
    def make(draw: Draw) -> File:
        exif, turns = Pillow.Exif(), {6: -1, 3: 2, 8: 1}
        exif[274] = orientation = int(draw.rng.choice(list(turns)))
        options = {"TIFF": {"tiffinfo": {274: orientation}}, "WEBP": {"exif": exif, "lossless": True}}
        image = Pillow.fromarray(draw.grey)
        data = pillow(
            image.convert("RGB") if kind == "WEBP" else image, kind, **options.get(kind, {"exif": exif, "quality": 98})
        )
        return File(data, SCORED, np.rot90(draw.grey, turns[orientation]), 1.5 if kind == "JPEG" else 0)

    return make


def _profile(draw: Draw) -> File:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return File(pillow(Pillow.fromarray(draw.rgb), "PNG", icc_profile=profile), SCORED, draw.grey)


def jpeg(draw: Draw, *options: int) -> bytes:
    """A grey JPEG of good quality."""
    return encoded(".jpg", draw.grey, cv2.IMWRITE_JPEG_QUALITY, 95, *options)


def _jpeg(*options: int, pixels: str = "grey", after: bytes = b""):
    def make(draw: Draw) -> File:
        data = encoded(".jpg", getattr(draw, pixels), cv2.IMWRITE_JPEG_QUALITY, 95, *options)
        return File(data + after, SCORED, draw.grey, 1.5)

    return make


def _inks(draw: Draw, *, adobe: bool) -> File:
    ink = np.dstack([np.zeros_like(draw.grey)] * 3 + [255 - draw.grey])
    data = pillow(Pillow.fromarray(ink if adobe else 255 - ink, "CMYK"), "JPEG", quality=98)
    at = data.index(b"\xff\xee\x00\x0eAdobe")
    return File(data if adobe else data[:at] + data[at + 16 :], SCORED, draw.grey, 2)


def _ycck(draw: Draw) -> File:
    """Adobe's: inverted inks, of which the three colours as YCbCr (all light: 0, 128, 128), transform 2."""
    planes = np.dstack([np.full_like(draw.grey, 255), *[np.full_like(draw.grey, 127)] * 2, 255 - draw.grey])
    data = bytearray(pillow(Pillow.fromarray(planes, "CMYK"), "JPEG", quality=98))
    data[data.index(b"\xff\xee\x00\x0eAdobe") + 15] = 2
    return File(bytes(data), SCORED, draw.grey, 2)


def patched_frame(data: bytes, *, marker: int = 0, precision: int = 0, height: int = 0) -> bytes:
    """A baseline JPEG whose frame header says something else."""
    at, patched = data.index(b"\xff\xc0"), bytearray(data)
    patched[at + 1] = marker or patched[at + 1]
    patched[at + 4] = precision or patched[at + 4]
    if height:
        patched[at + 5 : at + 7] = height.to_bytes(2, "big")
    return bytes(patched)


def _frame(**said: int):
    return lambda draw: File(patched_frame(jpeg(draw), **said), UNREADABLE)


def lossless_jpeg(grey: np.ndarray) -> bytes:
    """A lossless JPEG (process 14): each sample's difference from its left neighbour, in plain 16-bit categories.

    One Huffman table gives each of the 17 categories a code of 5 bits, so the encoder is a loop over bits.
    """
    height, width = grey.shape
    left = np.zeros_like(grey, dtype=np.int32)
    left[:, 1:] = grey[:, :-1]
    left[1:, 0] = grey[:-1, 0]
    left[0, 0] = 128
    differences = (grey.astype(np.int32) - left).ravel()
    sizes = np.ceil(np.log2(np.abs(differences) + 1)).astype(int)
    values = np.where(differences < 0, differences + (1 << sizes) - 1, differences)
    bits = "".join(
        f"{size:05b}" + (f"{value:0{size}b}" if size else "")
        for size, value in zip(sizes.tolist(), values.tolist(), strict=True)
    )
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    table = b"\xff\xc4\x00\x24\x00" + bytes([0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17))
    frame = b"\xff\xc3\x00\x0b\x08" + struct.pack(">HH", height, width) + b"\x01\x01\x11\x00"
    return b"\xff\xd8" + table + frame + b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00" + coded + b"\xff\xd9"


def _lossy_webp(draw: Draw) -> File:
    return File(encoded(".webp", draw.grey, cv2.IMWRITE_WEBP_QUALITY, 95), SCORED, draw.grey, 4)


def bordered(draw: Draw) -> np.ndarray:
    """The picture in the corner of a wide plain field, black, grey or white, which compresses to next to nothing."""
    field = np.full((1500, 2000), int(draw.rng.choice([0, 40, 255])), np.uint8)
    field[-700:, -900:] = cv2.resize(draw.grey, (900, 700))
    return field


def _bordered(suffix: str, *options: int, tolerance: float = 1):
    def make(draw: Draw) -> File:
        field = bordered(draw)
        return File(encoded(suffix, field, *options), SCORED, field, tolerance)

    return make


def _bordered_in_haste(draw: Draw) -> File:
    """By a hasty encoder: hundreds of zero bytes on end, which are no damage."""
    field = bordered(draw)
    image = Pillow.fromarray(field).convert("RGB")
    return File(pillow(image, "WEBP", lossless=True, method=0, quality=0), SCORED, field)


def _small(draw: Draw) -> File:
    return File(encoded(".png", draw.grey[:50, :60]), Reason.TOO_SMALL)


def rle_bmp(grey: np.ndarray) -> bytes:
    """A run-length coded bitmap."""
    out = bytearray()
    for row in grey[::-1]:
        for level in row.tolist():
            out += bytes([1, level])
        out += b"\0\0"
    out += b"\0\1"
    palette, start = b"".join(bytes([n, n, n, 0]) for n in range(256)), 14 + 40 + 1024
    head = struct.pack("<IHHI", start + len(out), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, grey.shape[1], grey.shape[0], 1, 8, 1, len(out), 0, 0, 256, 0)
    return b"BM" + head + info + palette + bytes(out)


def _lying_bmp(draw: Draw) -> File:
    data = bytearray(encoded(".bmp", draw.grey))
    struct.pack_into("<H", data, 28, 1)
    return File(bytes(data), UNREADABLE)


def _upside_down(draw: Draw) -> File:
    data = bytearray(encoded(".bmp", draw.grey))
    struct.pack_into("<i", data, 22, -len(draw.grey))
    return File(bytes(data), SCORED, draw.grey[::-1])


def _webp_alpha(draw: Draw) -> File:
    alpha = np.full_like(draw.grey, 255)
    alpha[:30] = 0
    image = Pillow.fromarray(np.dstack([draw.rgb, alpha]))
    return File(pillow(image, "WEBP", lossless=True, exact=True), SCORED, np.where(alpha, draw.grey, 0))


def _animated(kind: str):
    def make(draw: Draw) -> File:
        frames = [Pillow.fromarray(draw.grey), Pillow.fromarray(draw.grey[::-1])]
        return File(pillow(frames[0], kind, save_all=True, append_images=frames[1:]), Reason.MULTI_FRAME)

    return make


def _alpha_channel(pixels: str, colours: str):
    return lambda draw: File(pillow(Pillow.fromarray(getattr(draw, pixels)).convert(colours), "PNG"), SCORED, draw.grey)


PROGRESSIVE = cv2.IMWRITE_JPEG_PROGRESSIVE
RST = cv2.IMWRITE_JPEG_RST_INTERVAL

KINDS = [
    Kind("grey.png", "PNG, 8 bits of grey", lambda d: File(encoded(".png", d.grey), SCORED, d.grey)),
    Kind("sixteen.png", "PNG, 16 bits of grey", lambda d: File(encoded(".png", d.wide), SCORED, d.grey)),
    Kind("twelve.png", "12 bits in a 16-bit PNG", lambda d: File(encoded(".png", d.twelve), SCORED, d.grey, 1)),
    Kind("ten.png", "10 bits in a 16-bit PNG", lambda d: File(encoded(".png", d.twelve >> 2), SCORED, d.grey, 1)),
    Kind("marked.png", "12 bits in 16 with a marker burned in at full white", _marker),
    Kind("rgb.png", "PNG in colours", lambda d: File(encoded(".png", d.rgb), SCORED, d.grey)),
    Kind("rgba.png", "PNG with an opaque alpha channel", _alpha_channel("rgb", "RGBA")),
    Kind("grey_alpha.png", "PNG, grey and alpha", _alpha_channel("grey", "LA")),
    Kind("transparent.png", "PNG, transparent in parts: black there", _transparent),
    Kind("palette.png", "PNG with a palette that turns black and white over", _palette),
    Kind("one_bit.png", "PNG of 1 bit", few(1, "png")),
    Kind("two_bit.png", "PNG of 2 bits", few(2, "png")),
    Kind("four_bit.png", "PNG of 4 bits", few(4, "png")),
    Kind("interlaced.png", "PNG, Adam7 interlaced", _interlaced),
    Kind("profile.png", "PNG with an ICC profile", _profile),
    Kind("turned.png", "PNG whose EXIF asks to be turned", turned("PNG")),
    Kind("animated.png", "PNG of two frames", _animated("PNG")),
    Kind("grey.jpg", "JPEG, grey", _jpeg()),
    Kind("colour.jpg", "JPEG in colours", _jpeg(pixels="rgb")),
    Kind("progressive.jpg", "JPEG, progressive", _jpeg(cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    Kind("restarts.jpg", "JPEG with restart markers", _jpeg(RST, 3)),
    Kind("optimised.jpg", "JPEG with tables of its own", _jpeg(cv2.IMWRITE_JPEG_OPTIMIZE, 1)),
    Kind("garbage_after.jpg", "JPEG with garbage after its end", _jpeg(after=b"\0garbage\xff\xd8" * 50)),
    Kind("zeros_after.jpg", "JPEG with zeros after its end", _jpeg(after=bytes(3000))),
    Kind("jpeg_named.png", "JPEG under a PNG's name", _jpeg()),
    Kind("turned.jpg", "JPEG whose EXIF asks to be turned", turned("JPEG")),
    Kind("adobe_cmyk.jpg", "JPEG of four inks, inverted as Adobe has it", lambda d: _inks(d, adobe=True)),
    Kind("plain_cmyk.jpg", "JPEG of four inks without Adobe's mark", lambda d: _inks(d, adobe=False)),
    Kind("ycck.jpg", "JPEG of four inks, the colours as YCbCr", _ycck),
    Kind("lossless.jpg", "JPEG, lossless process", lambda d: File(lossless_jpeg(d.grey), SCORED, d.grey)),
    Kind("twelve.jpg", "JPEG that says 12 bits", _frame(precision=12)),
    Kind("arithmetic.jpg", "JPEG that says arithmetic coding", _frame(marker=0xC9)),
    Kind("hierarchical.jpg", "JPEG that says hierarchical coding", _frame(marker=0xC5)),
    Kind("short_frame.jpg", "JPEG of more rows than its header says", _frame(height=80)),
    Kind(
        "tall_frame.jpg",
        "JPEG of fewer rows than its header says",
        lambda d: File(patched_frame(jpeg(d), height=400), Reason.TRUNCATED),
    ),
    Kind(
        "two_frames.jpg",
        "JPEG of two frame headers",
        lambda d: File(jpeg(d)[:2] + jpeg(d)[jpeg(d).index(b"\xff\xc0") :][:13] + jpeg(d)[2:], UNREADABLE),
    ),
    Kind("grey.bmp", "BMP, grey", lambda d: File(encoded(".bmp", d.grey), SCORED, d.grey)),
    Kind("runs.bmp", "BMP, run-length coded, whose damage nothing shows", lambda d: File(rle_bmp(d.grey), UNREADABLE)),
    Kind("upside_down.bmp", "BMP, rows from top to bottom", _upside_down),
    Kind("lying_depth.bmp", "BMP of 8 bits that says 1", _lying_bmp),
    Kind(
        "lossy.webp",
        "WebP, lossy",
        _lossy_webp,
    ),
    Kind(
        "lossless.webp",
        "WebP, lossless",
        lambda d: File(pillow(Pillow.fromarray(d.rgb), "WEBP", lossless=True), SCORED, d.grey),
    ),
    Kind("alpha.webp", "WebP, transparent in parts", _webp_alpha),
    Kind("turned.webp", "WebP whose EXIF asks to be turned", turned("WEBP")),
    Kind("animated.webp", "WebP of two frames", _animated("WEBP")),
    Kind("bordered.jpg", "JPEG of a wide plain field", _bordered(".jpg", cv2.IMWRITE_JPEG_OPTIMIZE, 1)),
    Kind(
        "bordered.progressive.jpg",
        "progressive JPEG of a wide plain field",
        _bordered(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    ),
    Kind("bordered.webp", "WebP of a wide plain field", _bordered(".webp", cv2.IMWRITE_WEBP_QUALITY, 80, tolerance=3)),
    Kind("bordered_in_haste.webp", "WebP of a wide plain field, lossless", _bordered_in_haste),
    Kind("small.png", "fewer pixels than are needed", _small),
    Kind(
        "blank.png",
        "an empty plate",
        lambda d: File(encoded(".png", np.full_like(d.grey, d.rng.integers(40, 200))), Reason.BLANK),
    ),
    Kind(
        "framed_to_nothing.png",
        "a picture that is all border but for a stamp",
        lambda d: File(encoded(".png", np.pad(d.grey[:50, :50], int(d.rng.integers(90, 140)))), Reason.TOO_SMALL),
    ),
    Kind(
        "not_inflating.png",
        "PNG whose rows are no deflate stream",
        lambda d: File(png(d.grey, body=d.rng.bytes(4000)), UNREADABLE),
    ),
    Kind(
        "two_headers.png",
        "PNG of two headers",
        lambda d: File(
            png(d.grey, extra=png_chunk(b"IHDR", struct.pack(">IIBBBBB", 99, 99, 8, 0, 0, 0, 0))), UNREADABLE
        ),
    ),
    Kind(
        "critical_chunk.png",
        "PNG with a critical chunk nobody knows",
        lambda d: File(png(d.grey, extra=png_chunk(b"ABCD", d.rng.bytes(9))), UNREADABLE),
    ),
]
