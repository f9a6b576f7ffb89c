"""Draw synthetic chest X-rays: shapes, thicknesses and noise from a seed. Nothing in them comes from a patient.

An X-ray adds up what lies along each ray, so a picture here is a sum of layers: soft tissue, less the air of the
lungs, plus bones, heart and vessels, then texture, blur and noise.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Layer = NDArray[np.float32]  # H x W
Points = NDArray[np.float64]  # K x 2: x from -1 (image left, the patient's right) to 1; y from 0 (top) to 1

# Outline of a right lung (image left), from the apex round the outside; y on the diaphragm comes from its dome.
LUNG = np.array(
    [[-0.20, 0.10], [-0.32, 0.085], [-0.46, 0.14], [-0.57, 0.25], [-0.65, 0.40], [-0.70, 0.56], [-0.715, 0.70],
     [-0.70, 0.80], [-0.55, 0.745], [-0.38, 0.71], [-0.22, 0.735], [-0.17, 0.77], [-0.155, 0.62], [-0.17, 0.45],
     [-0.14, 0.30], [-0.13, 0.18]]
)  # fmt: skip
RIBS = 10


@dataclass(frozen=True)
class Chest:
    """One drawn person: `size` pixels a side; `opacities` 0 (clear lungs) to 1 (both lungs patchy)."""

    seed: int
    size: int = 512
    opacities: float = 0.0


@dataclass(frozen=True)
class Film:
    """How much of each layer a film shows and how it was developed, where this is not left to the seed: air of the
    lungs, its texture, vessels, bones, middle, muscle; coarse and fine detail; gamma, grain, zoom, white point."""

    air: float
    texture: float
    vessels: float
    bones: float
    middle: float
    muscle: float
    coarse: float
    fine: float
    gamma: float
    grain: float
    zoom: float
    white: float


def draw(chest: Chest) -> Layer:
    """Draw one chest: H x W, 0-1, bone white."""
    rng = np.random.default_rng(chest.seed)
    build = rng.uniform(0.94, 1.14), rng.uniform(0.96, 1.06)
    lungs = [_lung(chest, rng, build, side) for side in (-1, 1)]
    air = np.maximum(*lungs)
    body = _body(chest, rng, build)
    picture = 0.72 * body + rng.uniform(0.0, 0.02) * _muscle(chest, rng) * np.clip(body * 4, 0, 1)
    picture -= rng.uniform(0.46, 0.62) * air * (1 + 0.03 * _clouds(chest, rng, 2.6))
    picture += air * (rng.uniform(0.03, 0.06) * _vessels(chest, rng) + _consolidation(chest, rng))
    picture += _bones(chest, rng, build, air) + _middle(chest, rng)
    picture -= _gas(chest, rng)
    return _expose(chest, rng, picture)


def draw_on(chest: Chest, film: Film) -> Layer:
    """Draw one chest with clear lungs as this film would show it: H x W, 0-1, bone white."""
    rng = np.random.default_rng(chest.seed)
    build = rng.uniform(0.94, 1.14), rng.uniform(0.96, 1.06)
    air = np.maximum(*(_lung(chest, rng, build, side) for side in (-1, 1)))
    body = _body(chest, rng, build)
    picture = 0.72 * body + film.muscle * _muscle(chest, rng) * np.clip(body * 4, 0, 1)
    picture -= film.air * air * (1 + film.texture * _clouds(chest, rng, 2.6))
    picture += air * film.vessels * _vessels(chest, rng)
    picture += film.bones * _bones(chest, rng, build, air) + film.middle * _middle(chest, rng)
    return _developed(chest, rng, film, picture - _gas(chest, rng))


def _developed(chest: Chest, rng: Generator, film: Film, picture: Layer) -> Layer:
    """`_expose` with everything said by the film."""
    grain = _soft(rng.standard_normal(picture.shape).astype(np.float32), chest, 1.2)
    scattered = 0.9 * picture + 0.1 * _soft(picture, chest, 60)
    scattered += film.coarse * (scattered - _soft(scattered, chest, 50)) + film.fine * (
        scattered - _soft(scattered, chest, 9)
    )
    noisy = _soft(scattered, chest, 1.0) + film.grain * grain
    low, high = np.quantile(noisy, [0.01, film.white])
    shown = _layer(np.clip((noisy - low) / (high - low), 0, 1) ** film.gamma)
    width = int(chest.size / film.zoom)
    edge = (chest.size - width) // 2
    cut = shown[edge : edge + width, edge : edge + width]
    return _layer(cv2.resize(cut, (chest.size, chest.size)))


def _layer(values: NDArray[Any]) -> Layer:
    return values.astype(np.float32)


def _grid(chest: Chest) -> tuple[Layer, Layer]:
    axis = np.linspace(0, 1, chest.size, dtype=np.float32)
    x, y = np.meshgrid(axis * 2 - 1, axis)
    return x, y


def _soft(layer: Layer, chest: Chest, sigma: float) -> Layer:
    """Blur by `sigma` thousandths of the side."""
    return cv2.GaussianBlur(layer, (0, 0), sigma * chest.size / 1000).astype(np.float32)


def _pixels(chest: Chest, points: Points) -> NDArray[np.int32]:
    scaled = (points * [0.5, 1] + [0.5, 0]) * (chest.size - 1) * 16
    return scaled.round().astype(np.int32)


def _filled(chest: Chest, points: Points) -> Layer:
    layer = np.zeros((chest.size, chest.size), np.float32)
    cv2.fillPoly(layer, [_pixels(chest, points)], 1.0, cv2.LINE_AA, 4)
    return layer


def _stroke(layer: Layer, chest: Chest, points: Points, width: float, value: float) -> None:
    """Draw a line of `width` (share of the side) into a layer."""
    thickness = max(1, round(width * chest.size))
    cv2.polylines(layer, [_pixels(chest, points)], False, value, thickness, cv2.LINE_AA, 4)


def _smooth(points: Points, count: int = 200) -> Points:
    """A closed curve through about the points given."""
    closed = np.concatenate([points, points[:1]])
    steps = np.linspace(0, len(points), count)
    line = np.stack([np.interp(steps, np.arange(len(closed)), closed[:, axis]) for axis in (0, 1)], axis=1)
    kernel = np.hanning(17) / np.hanning(17).sum()
    padded = np.concatenate([line[-9:-1], line, line[1:9]])
    return np.stack([np.convolve(padded[:, axis], kernel, "valid") for axis in (0, 1)], axis=1)


def _clouds(chest: Chest, rng: Generator, slope: float) -> Layer:
    """Noise whose power falls with frequency to the `slope`; mean 0, spread 1."""
    white = np.fft.rfft2(rng.standard_normal((chest.size, chest.size)))
    across, down = np.fft.rfftfreq(chest.size), np.fft.fftfreq(chest.size)
    frequency = np.hypot(across[None], down[:, None])
    frequency[0, 0] = 1
    noise = np.fft.irfft2(white / frequency ** (slope / 2), (chest.size, chest.size))
    return _layer((noise - noise.mean()) / noise.std())


def _body(chest: Chest, rng: Generator, build: tuple[float, float]) -> Layer:
    """Soft tissue: thick in the middle, thinner at the flanks; air beside the neck."""
    x, y = _grid(chest)
    shoulder, waist = rng.uniform(0.12, 0.20), rng.uniform(0.76, 0.90)
    width = 0.24 + 0.86 * np.clip((y - 0.03) / shoulder, 0, 1) ** 0.6
    width = (width - (1.10 - waist) * np.clip((y - 0.30) / 0.22, 0, 1) ** 1.5) * build[0]
    depth = np.clip(1 - np.abs(x / width) ** 2.2, 0, 1) ** 0.5
    belly = 1 / (1 + np.exp(-(y - 0.76) * 22))
    return _soft((depth * (0.72 + 0.45 * belly)).astype(np.float32), chest, 3)


def _muscle(chest: Chest, rng: Generator) -> Layer:
    """Uneven tissue in front and behind: shoulder girdle, breast shadows."""
    x, y = _grid(chest)
    folds = np.zeros_like(x)
    for side in (-1, 1):
        centre = side * rng.uniform(0.38, 0.48), rng.uniform(0.66, 0.74)
        folds += np.clip(1 - ((x - centre[0]) / 0.36) ** 2 - ((y - centre[1]) / 0.16) ** 2, 0, 1) * rng.uniform(
            0.2, 0.9
        )
        folds += np.clip(1 - ((x - side * 0.85) / 0.30) ** 2 - ((y - 0.16) / 0.20) ** 2, 0, 1)
    return _soft(folds.astype(np.float32), chest, 12) + 0.25 * _clouds(chest, rng, 3.0)


def _lung(chest: Chest, rng: Generator, build: tuple[float, float], side: int) -> Layer:
    """Air along each ray, 0-1: nothing at the outline, most in the middle of the lung."""
    points = LUNG + rng.normal(0, 0.008, LUNG.shape)
    points = points * build + [0, rng.uniform(-0.01, 0.02)]
    if side > 0:  # the heart takes room on the patient's left, the liver lifts the right dome
        points = points * [-1, 1] + [[0, 0.02 * (y > 0.6)] for y in points[:, 1]]
        points[12:14, 0] += [0.17, 0.05]
        points[10:12, 0] += [0.17, 0.22]
    shape = (_filled(chest, _smooth(points)) > 0.5).astype(np.uint8)
    depth = cv2.distanceTransform(shape, cv2.DIST_L2, 5) / (0.10 * chest.size)
    return _soft(np.sqrt(np.clip(depth, 0, 1)).astype(np.float32), chest, 5)


def _vessels(chest: Chest, rng: Generator) -> Layer:
    """Branching vessels from both hila, thinner with each fork."""
    layer = np.zeros((chest.size, chest.size), np.float32)
    for side in (-1, 1):
        for angle in np.linspace(-1.25, 1.35, 7):
            root = np.array([side * rng.uniform(0.15, 0.20), rng.uniform(0.40, 0.47)])
            _branch(layer, chest, rng, root, (angle + rng.normal(0, 0.12), side), 0.016)
    return _soft(layer, chest, 2.2)


def _branch(
    layer: Layer, chest: Chest, rng: Generator, start: Points, heading: tuple[float, int], width: float
) -> None:
    angle, side = heading
    length = rng.uniform(0.05, 0.11)
    end = start + length * np.array([1.7 * side * np.cos(angle), np.sin(angle)])
    drawn = np.zeros_like(layer)
    _stroke(drawn, chest, np.stack([start, end]), width, min(1.0, width / 0.009))
    np.maximum(layer, drawn, out=layer)
    if width > 0.004:
        for turn in (rng.uniform(0.1, 0.45), -rng.uniform(0.1, 0.45)):
            _branch(layer, chest, rng, end, (angle + turn, side), width * rng.uniform(0.62, 0.75))


def _consolidation(chest: Chest, rng: Generator) -> Layer:
    """Hazy patches, most in the outer and lower lung: what ground glass looks like on a film."""
    x, y = _grid(chest)
    haze = np.zeros_like(x)
    for _ in range(round(26 * chest.opacities)):
        side = rng.choice([-1, 1])
        centre = side * rng.uniform(0.25, 0.66), rng.beta(3.2, 1.6) * 0.55 + 0.22
        radii = rng.uniform(0.08, 0.2), rng.uniform(0.05, 0.12)
        distance = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2
        haze += np.exp(-distance) * rng.uniform(0.3, 0.9)
    texture = np.clip(1 + 0.35 * _clouds(chest, rng, 3.8), 0, 3)
    return _layer(0.42 * np.tanh(haze * texture) * chest.opacities**0.3)


def _bones(chest: Chest, rng: Generator, build: tuple[float, float], air: Layer) -> Layer:
    """Ribs behind and in front, collar bones, shoulder blades, spine."""
    layer = np.zeros((chest.size, chest.size), np.float32)
    slope, rise = rng.uniform(0.10, 0.16), rng.uniform(0.8, 1.2)
    for side in (-1, 1):
        for number in range(RIBS):
            layer += _rib(chest, rng, build, (side, number), slope)
        layer += 0.35 * sum(_front_rib(chest, build, (side, number), rise) for number in range(6))
        layer += _collar_bone(chest, rng, side) + _shoulder_blade(chest, rng, side)
    inside = 0.4 + 0.6 * np.clip(air * 1.5, 0, 1)
    return _layer(rng.uniform(0.035, 0.075) * layer * inside + _spine(chest, rng))


def _tube(chest: Chest, points: Points, width: float) -> Layer:
    """A bone seen from the side: its hard rim is brighter than its inside."""
    outer = np.zeros((chest.size, chest.size), np.float32)
    inner = np.zeros_like(outer)
    _stroke(outer, chest, points, width, 1.0)
    _stroke(inner, chest, points, width * 0.62, 1.0)
    return _soft(outer - 0.25 * inner, chest, 2.5)


def _rib(chest: Chest, rng: Generator, build: tuple[float, float], place: tuple[int, int], slope: float) -> Layer:
    side, number = place
    reach = np.interp(number, [0, 3, RIBS], [0.36, 0.62, 0.76]) * build[0]
    along = np.linspace(0.05, 1, 40)
    start = 0.10 + number * 0.069 + rng.normal(0, 0.003)
    arch = -0.045 * np.sin(np.pi * np.clip(along * 1.1, 0, 1)) + slope * along**2.2 * (1 + number * 0.04)
    return _tube(chest, np.stack([side * reach * along, start + arch], axis=1), 0.028 + 0.001 * number)


def _front_rib(chest: Chest, build: tuple[float, float], place: tuple[int, int], rise: float) -> Layer:
    side, number = place
    reach = np.interp(number, [0, 3, 6], [0.42, 0.66, 0.74]) * build[0]
    along = np.linspace(0.40, 1, 30)
    height = 0.22 + number * 0.085 + rise * 0.16 * (1 - along) ** 1.2
    return _tube(chest, np.stack([side * reach * along, height], axis=1), 0.026)


def _collar_bone(chest: Chest, rng: Generator, side: int) -> Layer:
    along = np.linspace(0, 1, 40)
    height = 0.165 - 0.075 * along - 0.008 * np.sin(2 * np.pi * along) + rng.normal(0, 0.008)
    return 2.4 * _tube(chest, np.stack([side * (0.07 + 0.68 * along), height], axis=1), 0.03)


def _shoulder_blade(chest: Chest, rng: Generator, side: int) -> Layer:
    points = np.array([[0.62, 0.13], [0.88, 0.10], [0.86, 0.22], [0.76, 0.42], [0.70, 0.44], [0.66, 0.30]])
    return 1.3 * _soft(_filled(chest, _smooth(points + rng.normal(0, 0.012, points.shape)) * [side, 1]), chest, 6)


def _spine(chest: Chest, rng: Generator) -> Layer:
    x, y = _grid(chest)
    column = np.exp(-((x / 0.085) ** 4))
    joints = 0.75 + 0.25 * np.cos(2 * np.pi * (y * 12 + rng.uniform())) * (0.5 + 0.5 * (y > 0.1))
    return _soft((0.09 * column * joints * (0.5 + 0.4 * y)).astype(np.float32), chest, 4)


def _middle(chest: Chest, rng: Generator) -> Layer:
    """Heart, great vessels, windpipe and the organs below the diaphragm."""
    x, y = _grid(chest)
    size = rng.uniform(0.92, 1.1)
    tilt = (x - 0.12) * 0.85 + (y - 0.60) * 0.55 * 2, (y - 0.60) * 1.6 - (x - 0.12) * 0.35
    heart = np.clip(1 - (tilt[0] / (0.36 * size)) ** 2 - (tilt[1] / (0.27 * size)) ** 2, 0, 1) ** 0.35
    knob = np.clip(1 - ((x - 0.13) / 0.10) ** 2 - ((y - 0.30) / 0.06) ** 2, 0, 1) ** 0.5
    stem = np.exp(-(((x - 0.01) / 0.14) ** 4)) * (y < 0.62)
    hila = sum(np.exp(-(((x - s * 0.19) / 0.07) ** 2) - ((y - 0.44) / 0.055) ** 2) for s in (-1, 1))
    windpipe = np.exp(-(((x + 0.01) / 0.045) ** 4)) * np.clip((0.36 - y) * 12, 0, 1)
    below = np.clip((y - 0.80) * 6, 0, 1) * np.exp(-((x / 0.9) ** 6))
    total = 0.11 * heart + 0.06 * knob + 0.06 * stem + 0.07 * hila - 0.09 * windpipe + 0.14 * below
    return _soft(total.astype(np.float32), chest, 6)


def _gas(chest: Chest, rng: Generator) -> Layer:
    """The bubble of air in the stomach, under the left dome."""
    x, y = _grid(chest)
    centre = rng.uniform(0.30, 0.42), rng.uniform(0.85, 0.90)
    bubble = np.clip(1 - ((x - centre[0]) / 0.13) ** 2 - ((y - centre[1]) / 0.045) ** 2, 0, 1)
    return 0.14 * rng.uniform(0.5, 1.2) * _soft(np.sqrt(bubble).astype(np.float32), chest, 6)


def _expose(chest: Chest, rng: Generator, picture: Layer) -> Layer:
    """Scatter, focus, quantum noise, and the detail that detectors bring out before they show a picture."""
    scattered = 0.9 * picture + 0.1 * _soft(picture, chest, 60)
    coarse, fine = rng.uniform(1.0, 2.6), rng.uniform(0.5, 2.5)
    scattered += coarse * (scattered - _soft(scattered, chest, 50)) + fine * (scattered - _soft(scattered, chest, 9))
    noisy = _soft(scattered, chest, 1.0) + 0.006 * _soft(
        rng.standard_normal(picture.shape).astype(np.float32), chest, 1.2
    )
    low, high = np.quantile(noisy, [0.01, 0.96])
    curve = np.clip((noisy - low) / (high - low), 0, 1) ** rng.uniform(1.2, 1.8)
    return _layer(curve)
