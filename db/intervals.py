"""Intervals for figures that weighted counts give: a share of two weighted totals, and Cohen's kappa. Plain Python.

Shares. Each weighted total is a sum of Poisson counts, as in M. P. Fay and E. J. Feuer, "Confidence intervals for
directly standardized rates", Statistics in Medicine 16 (1997) 791-801: its lower limit takes it as it is, its upper one
adds a count of the largest weight. For the ratio of two such totals the gammas become an F distribution: M. P. Fay,
"Approximate confidence intervals for rate ratios from directly standardized rates with sparse data", Communications in
Statistics, Theory and Methods 28 (1999) 2141-2160. Where all weights are 1 this is the exact interval of C. J. Clopper
and E. S. Pearson (Biometrika 26 (1934) 404-413); it covers at least what it states there, and more than that where
counts are few.

Kappa. The variance is the delta method's of J. L. Fleiss, J. Cohen and B. S. Everitt, "Large sample standard errors of
kappa and weighted kappa", Psychological Bulletin 72 (1969) 323-327, with squared weights in place of counts. It is
zero where all agree, and too small where few do not; so the table gets one further, evenly spread pair first (as A.
Agresti and B. Caffo add pseudo-observations, The American Statistician 54 (2000) 280-288), and the interval is taken
on Fisher's z."""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

CONFIDENCE = 0.95
NORMAL = 1.959963984540054  # of the standard normal distribution, at 0.975


@dataclass(frozen=True)
class Figure:
    """An estimate with the limits of its 95 % interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        return {name: round(getattr(self, name), 4) for name in ("value", "low", "high")}


@dataclass(frozen=True)
class Weighed:
    """A weighted count: the sum of weights, of their squares, and the largest weight that one more could have."""

    total: float
    squares: float
    largest: float

    def __add__(self, other: "Weighed") -> "Weighed":
        largest = max(self.largest, other.largest)
        return Weighed(self.total + other.total, self.squares + other.squares, largest)


NOTHING = Weighed(0.0, 0.0, 0.0)


def weighed(parts: Iterable[tuple[int, float]]) -> Weighed:
    """The sum of (count, weight of each); a part whose count is 0 still says that its weight could have been."""
    listed = list(parts)
    return Weighed(
        sum(count * weight for count, weight in listed),
        sum(count * weight**2 for count, weight in listed),
        max((weight for _, weight in listed), default=0.0),
    )


def share(part: Weighed, rest: Weighed) -> Figure | None:
    """`part / (part + rest)` with its interval; None where there is neither."""
    if part.total + rest.total <= 0:
        return None
    low, high = 1 / (1 + _greatest_ratio(rest, part)), 1 - 1 / (1 + _greatest_ratio(part, rest))
    return Figure(part.total / (part.total + rest.total), low, high)


def _greatest_ratio(over: Weighed, under: Weighed) -> float:
    """The upper limit of over / under (Fay 1999); infinite where nothing is under."""
    if under.total <= 0:
        return math.inf
    top, top_squares = over.total + over.largest, over.squares + over.largest**2
    if top <= 0:
        return 0.0
    first, second = top**2 / top_squares, under.total**2 / under.squares  # counts that would be as sure
    quantile = beta_quantile((1 + CONFIDENCE) / 2, first, second)
    if quantile >= 1:
        return math.inf
    return top * second / (first * under.total) * quantile / (1 - quantile)


def kappa(table: Mapping[tuple[Hashable, Hashable], tuple[float, float]]) -> Figure | None:
    """Cohen's kappa of two raters. `table` has for (what one said, what the other said) the sum of weights and the sum
    of their squares (unweighted: the count twice). None where chance alone would make them agree always."""
    value = _kappa(table)[0]
    said = sorted({one for pair in table for one in pair}, key=str)
    if value is None or len(said) < 2:
        return None
    total, squares = (sum(sums[n] for sums in table.values()) for n in (0, 1))
    one = total / (total**2 / squares)  # the weight of one pair among as many as would be as sure
    more = one / len(said) ** 2
    spread = {
        (a, b): (table.get((a, b), (0.0, 0.0))[0] + more, table.get((a, b), (0.0, 0.0))[1] + more * one)
        for a in said
        for b in said
    }
    centre, error = _kappa(spread)
    if centre is None:
        return None
    reach = NORMAL * error / (1 - centre**2)
    low, high = math.tanh(math.atanh(centre) - reach), math.tanh(math.atanh(centre) + reach)
    return Figure(value, min(low, value), max(high, value))


def _kappa(table: Mapping[tuple[Any, Any], tuple[float, float]]) -> tuple[float | None, float]:
    """Kappa and its standard error (Fleiss, Cohen, Everitt 1969, formula 13, by the value that each pair lends it)."""
    total = sum(weight for weight, _ in table.values())
    if total <= 0:
        return None, 0.0
    rows: dict[Any, float] = {}
    columns: dict[Any, float] = {}
    for (one, other), (weight, _) in table.items():
        rows[one] = rows.get(one, 0.0) + weight / total
        columns[other] = columns.get(other, 0.0) + weight / total
    agreed = sum(weight for (one, other), (weight, _) in table.items() if one == other) / total
    chance = sum(part * columns.get(said, 0.0) for said, part in rows.items())
    if chance >= 1 - 1e-12:
        return None, 0.0
    value = (agreed - chance) / (1 - chance)
    variance = 0.0
    for (one, other), (_, squares) in table.items():
        by_chance = columns.get(one, 0.0) + rows.get(other, 0.0)
        lent = ((one == other) - (1 - value) * by_chance) / (1 - chance) - _mean_lent(value, chance)
        variance += squares / total**2 * lent**2
    return value, math.sqrt(variance)


def _mean_lent(value: float, chance: float) -> float:
    """What a pair lends kappa on average: taken off, so that the rest is spread around 0."""
    return (value - chance * (1 - value)) / (1 - chance)


def beta_quantile(probability: float, a: float, b: float) -> float:
    """The quantile of a beta distribution, by bisection; 0 where `a` is 0, and 1 where `b` is."""
    if a <= 0 or b <= 0:
        return 0.0 if a <= 0 else 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_cdf(middle, a, b) < probability else (low, middle)
    return (low + high) / 2


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function I_x(a, b), for a, b > 0 (DLMF 8.17: the continued fraction 8.17.22)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_cdf(1 - x, b, a)
    front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(front) / (a * _fraction(x, a, b))


def _fraction(x: float, a: float, b: float) -> float:
    """1 + d1 / (1 + d2 / (1 + ...)), evaluated forwards (W. J. Lentz 1976)."""
    value, c, d = 1.0, 1.0, 0.0
    for n in range(1, 2000):
        m = n // 2
        if n % 2:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / _not_zero(1 + step * d)
        c = _not_zero(1 + step / c)
        value *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > 1e-300 else 1e-300
