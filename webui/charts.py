"""Charts as SVG, drawn here: no script, no style attribute, no library. Colours, widths and dashes are classes of
static/quality.css, so that they follow light and dark; series also differ by dash and by mark, never by colour alone.
Each is one image with a title for those who cannot see it; a page puts a table with the same numbers beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from db.store.reading import printable

WIDTH, HEIGHT = 520, 190  # in the chart's own units; a page may show it at any size
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 26  # around the plot
MOST_SERIES = 6  # as many marks and dashes as there are
X_LABELS = 6


@dataclass(frozen=True)
class Series:
    """A line: a value for each place along the axis, None where there is none."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Axis:
    """What stands below the plot, place by place, and how high it is; `unit` is % for shares of 1."""

    labels: Sequence[str]
    highest: float
    unit: str = ""


def lines(title: str, axis: Axis, series: Sequence[Series], *, level: float | None = None) -> Markup:
    """Lines over the same places, at most MOST_SERIES; `level` is drawn across (a threshold)."""
    drawn = [_line(axis, one.values, number) for number, one in enumerate(series[:MOST_SERIES], start=1)]
    return _svg(title, [_frame(axis), *drawn, _level(axis, level)])


def band(
    title: str,
    axis: Axis,
    middle: Sequence[float | None],
    low: Sequence[float | None],
    high: Sequence[float | None],
    *,
    level: float | None = None,
) -> Markup:
    """A line with a band around it; `level` is drawn across."""
    area = [_area(axis, run, low, high) for run in _runs(middle)]
    return _svg(title, [_frame(axis), *area, _line(axis, middle, 1), _level(axis, level)])


def curve(title: str, axis: Axis, values: Sequence[float], marks: Sequence[tuple[float, str]]) -> Markup:
    """A line over a continuous axis from 0 to 1, with upright marks (place from 0 to 1, which kind: now or asked)."""
    upright = [
        Markup('<path class="mark-{}" d="M{} {}V{}"/>').format(kind, _n(_across(place)), TOP, HEIGHT - BOTTOM)
        for place, kind in marks
    ]
    return _svg(title, [_frame(axis), _line(axis, values, 1, has_marks=False), *upright])


def swatch(number: int) -> Markup:
    """A piece of the line of series `number` (1 to MOST_SERIES), for a legend."""
    return Markup(
        '<svg class="swatch" viewBox="0 0 34 12" aria-hidden="true" focusable="false">'
        '<path class="line s{}" d="M1 6H33"/>{}</svg>'
    ).format(number, _mark(17, 6, number))


def nice(highest: float) -> float:
    """A round number at or above the highest value: 1, 2, 2.5 or 5 times a power of ten."""
    if highest <= 0 or not math.isfinite(highest):
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= highest * (1 - 1e-9))


def _svg(title: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img"><title>{}</title>{}</svg>').format(
        WIDTH, HEIGHT, printable(title), Markup("").join(parts)
    )


def _frame(axis: Axis) -> Markup:
    """The plot's ground: lines across with their numbers, labels below."""
    across = [
        Markup('<path class="grid" d="M{} {}H{}"/><text class="tick right" x="{}" y="{}">{}</text>').format(
            LEFT, _n(_up(axis, part * axis.highest)), WIDTH - RIGHT, LEFT - 6, _n(_up(axis, part * axis.highest) + 4),
            _said(part * axis.highest, axis.unit),
        )
        for part in (0, 0.5, 1)
    ]  # fmt: skip
    count = len(axis.labels)
    shown = sorted({round(step * (count - 1) / (X_LABELS - 1)) for step in range(X_LABELS)}) if count else []
    below = [
        Markup('<text class="tick {}" x="{}" y="{}">{}</text>').format(
            _anchor(place, count), _n(_along(place, count)), HEIGHT - 8, printable(axis.labels[place])
        )
        for place in shown
    ]
    return Markup("").join([*across, *below])


def _anchor(place: int, count: int) -> str:
    return "middle" if 0 < place < count - 1 or count == 1 else "left" if place == 0 else "right"


def _line(axis: Axis, values: Sequence[float | None], number: int, *, has_marks: bool = True) -> Markup:
    """One line, broken where there is no value; a mark at each value where there is room."""
    count = len(values)
    points = {n: (_along(n, count), _up(axis, value)) for n, value in enumerate(values) if value is not None}
    runs = ["M" + "L".join(f"{_n(points[n][0])} {_n(points[n][1])}" for n in run) for run in _runs(values)]
    parts = [Markup('<path class="line s{}" d="{}"/>').format(number, "".join(runs))] if runs else []
    if has_marks and count <= 31:
        parts += [_mark(x, y, number) for x, y in points.values()]
    return Markup("").join(parts)


def _area(axis: Axis, run: Sequence[int], low: Sequence[float | None], high: Sequence[float | None]) -> Markup:
    count = len(low)
    upper = [(_along(n, count), _up(axis, high[n] or 0.0)) for n in run]
    lower = [(_along(n, count), _up(axis, low[n] or 0.0)) for n in reversed(run)]
    outline = "L".join(f"{_n(x)} {_n(y)}" for x, y in [*upper, *lower])
    return Markup('<path class="band" d="M{}Z"/>').format(outline)


def _level(axis: Axis, level: float | None) -> Markup:
    if level is None:
        return Markup("")
    return Markup('<path class="level" d="M{} {}H{}"/>').format(LEFT, _n(_up(axis, level)), WIDTH - RIGHT)


def _mark(x: float, y: float, number: int) -> Markup:
    """A dot, square, diamond, triangle, cross or ring: one for each series."""
    shapes = {
        1: f"M{_n(x - 2.6)} {_n(y)}a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0 -5.2 0Z",
        2: f"M{_n(x - 2.6)} {_n(y - 2.6)}h5.2v5.2h-5.2Z",
        3: f"M{_n(x)} {_n(y - 3.6)}l3.6 3.6l-3.6 3.6l-3.6 -3.6Z",
        4: f"M{_n(x)} {_n(y - 3.6)}l3.4 6h-6.8Z",
        5: f"M{_n(x - 3)} {_n(y - 3)}l6 6M{_n(x + 3)} {_n(y - 3)}l-6 6",
        6: f"M{_n(x - 3)} {_n(y)}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0Z",
    }
    return Markup('<path class="dot s{}" d="{}"/>').format(number, shapes[number])


def _runs(values: Sequence[float | None]) -> list[list[int]]:
    """The places of values that follow one another."""
    runs: list[list[int]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(place)
    return [run for run in runs if run]


def _along(place: int, count: int) -> float:
    return _across(place / (count - 1)) if count > 1 else _across(0.5)


def _across(part: float) -> float:
    return LEFT + part * (WIDTH - LEFT - RIGHT)


def _up(axis: Axis, value: float) -> float:
    part = min(max(value / axis.highest, 0.0), 1.0)
    return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)


def _said(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.3g} %"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
