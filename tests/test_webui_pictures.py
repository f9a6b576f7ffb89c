"""Pictures are addressed by opaque keys alone, whatever is put in place of one, and served without metadata."""

import hashlib
import io
import random
import re
import struct
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import numpy as np
import pytest
from builders import CHEST, dicom, encoded, pillow, png_chunk
from packaging.version import Version
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo
from werkzeug.test import EnvironBuilder, run_wsgi_app

from db.files import derived_path
from workers import derived
from workers.decoding import DecoderPool, Source
from workers.heat import heatmap_png
from workers.images import Limits
from workers.preprocessing import prepare

PAYLOADS = 10_000
CANARY = b"what lies outside"
ROUTES = ("/scan/{}/image.png", "/scan/{}/heat.png", "/scan/{}", "/static/{}")


# Ten thousand ways out


def payloads(key: str, folder: Path, count: int = PAYLOADS) -> list[bytes]:
    """Request targets in place of a key, made from a seed: steps up and absolute paths to real files, plain, encoded
    once or twice or over-long, with backslashes, NUL, look-alikes of dots and slashes, other cases and lengths."""
    dice = random.Random(20261124)
    targets = [f"{key}.png", f"{key[:2]}/{key}.png", "web.secret", "nightread.db", "outside.png", "etc/passwd", key, ""]
    targets += [str(folder / "outside.png"), str(folder / "web.secret"), "/etc/passwd", "file:///etc/passwd"]
    ups = ["../", "..\\", "..//", "....//", "./", ".%00/", "..;/", "/", "//", "\\\\"]
    ups += ["．．／", "‥/", "..\u2215", "..\u2044"]
    tails = ["", "\0", "\0.png", ".png", "?", "#", "/", "/.", "/..", " ", "\n", "%", "::$DATA", "\u202e", "\ufeff"]
    made: set[bytes] = set()
    while len(made) < count:
        text = "".join(dice.choices(ups, k=dice.randint(0, 9))) + dice.choice(targets) + dice.choice(tails)
        payload = dice.choice([_plain, _encoded, _twice, _overlong, _mixed, _bent])(text, dice)
        if _path(payload) != key.encode():
            made.add(payload)
    return sorted(made)


def _path(target: bytes) -> bytes:
    """The path of a request target as gunicorn reads it: no query, no fragment, its percent signs taken off once."""
    return unquote_to_bytes(target.split(b"?")[0].split(b"#")[0])


def _plain(text: str, dice: random.Random) -> bytes:
    return text.encode()


def _encoded(text: str, dice: random.Random) -> bytes:
    return "".join(f"%{byte:02{dice.choice('xX')}}" for byte in text.encode()).encode()


def _twice(text: str, dice: random.Random) -> bytes:
    return quote(quote(text, safe=""), safe="").replace(".", "%252e").encode()


def _overlong(text: str, dice: random.Random) -> bytes:
    return text.encode().replace(b".", b"%c0%ae").replace(b"/", b"%c0%af")


def _mixed(text: str, dice: random.Random) -> bytes:
    return "".join(quote(c, safe="") if dice.random() < 0.5 else c for c in text).encode()


def _bent(text: str, dice: random.Random) -> bytes:
    """A key that is nearly one."""
    letters = list("0123456789abcdef" * 2)
    dice.shuffle(letters)
    odds = ["A", "g", "/", ".", "%00", "%2e", "é", "-", "", "0" * dice.randint(1, 500)]
    at, odd = dice.randrange(33), dice.choice(odds)
    letters[at : at + 1] = [odd]
    return "".join(letters).encode()


def ask(app, target: bytes, cookie: str):
    """Status, headers and body of the answer to a request target."""
    path = _path(target).decode("latin-1")
    environ = EnvironBuilder(headers={"Cookie": f"nightread={cookie}"}).get_environ() | {"PATH_INFO": path}
    body, status, headers = run_wsgi_app(app.wsgi_app, environ, buffered=True)
    return int(status.split()[0]), headers, b"".join(body)


def test_ten_thousand_ways_out_of_the_folder_of_pictures_lead_nowhere(room):
    room.user()
    key = room.one()
    (room.config.home / "outside.png").write_bytes(b"\x89PNG\r\n\x1a\n" + CANARY)
    secrets = [CANARY, (room.config.home / "audit.key").read_bytes(), b"root:x:0", b"SQLite format 3"]
    cookie = room.inside().cookie()
    assert ask(room.app, f"/scan/{key}/image.png".encode(), cookie)[0] == 200  # so that 404 means what it says

    tried = payloads(key, room.config.home)
    for n, payload in enumerate(tried):
        target = ROUTES[n % len(ROUTES)].encode().replace(b"{}", payload)
        status, headers, body = ask(room.app, target, cookie)

        assert status in (400, 404), target
        assert headers["Content-Type"].startswith("text/html"), target
        assert not any(secret in body for secret in secrets), target
    assert len(tried) == PAYLOADS


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "A" * 32, "0" * 31, "0" * 33, "0" * 31 + "/", "0" * 32 + "\0"])
@pytest.mark.parametrize("kind", ["image", "input", "heat"])
def test_the_store_of_pictures_itself_takes_nothing_but_keys(tmp_path, key, kind):
    with pytest.raises(ValueError, match="not a scan's key"):
        derived_path(tmp_path, key, kind)


def test_a_key_says_nothing_of_its_scan(room):
    keys = [room.one(path=f"{n}.png", patient="the same") for n in range(20)]

    assert len(set(keys)) == 20
    assert len({key[:6] for key in keys}) == 20  # random from the first digit on, not counted


# What is served holds the picture and nothing else

NAME = "Canary^Patient"


def tagged_files() -> dict[str, bytes]:
    """Files that name their patient wherever their format can hold a text."""
    grey, exif, info = Pillow.fromarray(CHEST), Pillow.Exif(), PngInfo()
    exif[0x010E] = exif[0x9286] = exif[0x013B] = NAME
    info.add_text("Patient", NAME)
    info.add_itxt("XML:com.adobe.xmp", f"<x>{NAME}</x>")
    xmp = f"<x:xmpmeta>{NAME}</x:xmpmeta>".encode()
    tags = {"PatientName": NAME, "PatientID": NAME, "ImageComments": NAME, "InstitutionName": NAME}
    return {
        "text.png": pillow(grey, "PNG", pnginfo=info, exif=exif),
        "exif.jpg": pillow(grey, "JPEG", exif=exif, xmp=xmp, comment=NAME, quality=100),
        "tags.tif": pillow(grey, "TIFF", description=NAME, artist=NAME),
        "exif.webp": pillow(grey.convert("RGB"), "WEBP", exif=exif, xmp=xmp, lossless=True),
        "header.dcm": dicom(**tags),
        "appended.png": encoded(".png", CHEST) + NAME.encode(),
    }


def chunks(png: bytes) -> list[bytes]:
    """The kinds of a PNG's chunks, checksums checked, to the last byte."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    kinds, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert png[at : at + 12 + length] == png_chunk(kind, body)
        kinds.append(kind)
        at += 12 + length
    return kinds


@pytest.fixture(scope="module")
def decoders():
    with DecoderPool(1, Limits(), memory_bytes=2**31, seconds=120) as pool:
        yield pool


@pytest.mark.parametrize("name", tagged_files())
def test_a_picture_is_served_re_encoded_and_without_a_word_of_its_file(room, decoders, tmp_path, name):
    room.user()
    content = tagged_files()[name]
    (tmp_path / name).write_bytes(content)
    key = room.one()
    source = Source(str(tmp_path), name, hashlib.sha256(content).hexdigest())

    derived.keep_copy(room.config.derived, decoders, source, key)  # as scoring keeps it
    served = room.inside().get(f"/scan/{key}/image.png")

    assert NAME.encode() in content  # so that its absence below means something
    assert served.content_type == "image/png"
    assert {*chunks(served.data)} == {b"IHDR", b"IDAT", b"IEND"}
    assert chunks(served.data)[-1] == b"IEND"
    picture = Pillow.open(io.BytesIO(served.data))
    assert (dict(picture.getexif()), picture.info) == ({}, {})
    shown = np.asarray(picture)
    assert shown.shape == CHEST.shape
    assert np.abs(shown.astype(int) - CHEST).mean() < 3  # the picture itself is there


def test_a_heat_map_is_served_without_a_word_either(room):
    room.user()
    key = room.one()
    _, evidence = prepare(CHEST, 64)
    path = derived_path(room.config.derived, key, "heat")
    path.write_bytes(heatmap_png(np.ones((7, 7), np.float32), evidence))

    served = room.inside().get(f"/scan/{key}/heat.png")

    assert {*chunks(served.data)} == {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}


def test_a_pictures_suggested_name_is_its_opaque_key_and_it_is_no_attachment(room):
    room.user()
    key = room.one(path='a "quoted"\r\nname; filename=evil.exe', patient="P7")

    for kind in ("image", "heat"):
        said = room.inside().get(f"/scan/{key}/{kind}.png").headers["Content-Disposition"]
        assert re.fullmatch(rf"inline; filename={key}(\.heat)?\.png", said)


# The libraries that serve


@pytest.mark.parametrize(("library", "least"), [("flask", "3.1.3"), ("werkzeug", "3.1.6")])
def test_the_libraries_that_serve_are_at_least_those_with_their_known_holes_closed(library, least):
    """CVE-2026-27205 (Flask), CVE-2026-27199 (Werkzeug)."""
    assert Version(version(library)) >= Version(least)
