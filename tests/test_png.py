"""The PNG that we write: any reader gets back what was given, and nothing else is in it."""

import cv2
import numpy as np
import pytest

from workers.images import png


def read_back(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (64, 65), (511, 97)])
def test_grey_samples_come_back_as_they_were(kind, shape):
    samples = np.random.default_rng(1).integers(0, np.iinfo(kind).max + 1, shape).astype(kind)
    for given in (samples, samples[::-1], samples.T):  # whatever their order in memory
        found = read_back(png.encode(given))
        assert found.dtype == kind
        assert (found == given).all()


def test_shades_come_back_in_their_colours_and_opacities():
    shades = np.arange(6, dtype=np.uint8).reshape(2, 3)
    colours, opacities = bytes(range(18)), bytes([0, 50, 100, 150, 200, 255])
    found = read_back(png.encode(shades, palette=(colours, opacities)))
    for number in range(6):
        red, green, blue = colours[3 * number : 3 * number + 3]
        assert found[number // 3, number % 3].tolist() == [blue, green, red, opacities[number]]


def test_plain_areas_take_little_room():
    assert len(png.encode(np.full((2000, 2000), 40, np.uint8))) < 2000 * 2000 / 100


def test_nothing_but_the_picture_is_in_it():
    data, kinds, at = png.encode(np.zeros((8, 8), np.uint8)), [], len(png.SIGNATURE)
    while at < len(data):
        kinds.append(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4])
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


def test_a_picture_that_is_written_in_several_parts_comes_back_too():
    samples = np.random.default_rng(2).integers(0, 2**16, (1500, 1200)).astype(np.uint16)
    assert samples.nbytes > 3 * png.AT_ONCE
    assert (read_back(png.encode(samples)) == samples).all()
