"""Pictures smaller and larger than they are: every pixel counts, and none is invented past four times."""

import cv2
import numpy as np
import pytest
from viewing import noise, png


@pytest.mark.parametrize("scale", [0.9, 0.5, 1 / 3, 0.271, 0.06])
def test_a_small_view_averages_every_pixel(table, page, scale):
    samples = noise(301, 203)
    table.lay(png(samples))
    table.open(page)

    seen = resampled(page, scale, samples.shape)

    # Halved as often as leaves a pixel for each of the screen's, then the mean by area.
    level, halvings = samples.astype(float), min(int(-np.log2(scale) + 1e-9), 3)  # 3: 38 pixels are left
    for _ in range(halvings):
        level = cv2.copyMakeBorder(level, 0, len(level) % 2, 0, level.shape[1] % 2, cv2.BORDER_REPLICATE)
        level = level.reshape(len(level) // 2, 2, -1, 2).mean((1, 3))
    sizes = zip(seen.shape, level.shape, strict=True)
    down, across = (area_weights(count, size, scale * 2**halvings) for count, size in sizes)
    assert np.abs(seen - down @ level @ across.T)[:-1, :-1].max() <= 1 + halvings  # each halving rounds
    assert seen.mean() == pytest.approx(samples.mean(), rel=0.02)


@pytest.mark.parametrize(("scale", "is_blended"), [(1.7, True), (2, True), (4, False), (5.5, False)])
def test_an_enlarged_view_blends_up_to_four_times_and_then_shows_the_pixels(table, page, scale, is_blended):
    samples = noise(40, 30)
    table.lay(png(samples))
    table.open(page)

    seen = resampled(page, scale, samples.shape)

    rows, columns = ((np.arange(int(size * scale)) + 0.5) / scale for size in samples.shape)
    if is_blended:
        expected = blended(blended(samples.astype(float), rows - 0.5).T, columns - 0.5).T
    else:
        expected = samples[np.ix_(rows.astype(int), columns.astype(int))]
    assert np.abs(seen - expected).max() <= (1 if is_blended else 0)


def blended(lines, places):
    """Lines at places between whole numbers, the first and last repeated outside."""
    first = np.floor(places).astype(int)
    share = (places - first)[:, None]
    least, most = (np.clip(first + step, 0, len(lines) - 1) for step in (0, 1))
    return lines[least] * (1 - share) + lines[most] * share


def resampled(page, scale, shape):
    """What viewer_resample.js makes of the whole picture, in samples."""
    got = page.evaluate(
        """async ([scale, shape]) => {
          const { resample } = await import("/static/viewer_resample.js");
          const [rows, columns] = shape.map((size) => Math.floor(size * scale));
          const axes = [{ from: 0, to: columns }, { from: 0, to: rows }];
          return [...resample(viewer.picture, [scale, scale], ...axes, new Uint16Array(rows * columns))];
        }""",
        [scale, list(shape)],
    )
    return np.array(got).reshape([int(size * scale) for size in shape])


def area_weights(count, size, scale):
    """Share of each of `size` pixels in each of `count` screen pixels, count x size."""
    edges = np.arange(count + 1) / scale
    starts = np.arange(size)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.clip(overlap, 0, None) * scale
