"""Intervals: known values, and how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats

from db.intervals import beta_cdf, beta_quantile, kappa, share, weighed


def pairs(table):
    """A table of counts as `kappa` takes it."""
    return {(i, j): (float(n), float(n)) for i, row in enumerate(table) for j, n in enumerate(row) if n}


@pytest.mark.parametrize("a", [0.5, 1, 30, 5000])
@pytest.mark.parametrize("b", [0.5, 3, 200, 40_000])
@pytest.mark.parametrize("probability", [0.001, 0.025, 0.5, 0.975])
def test_the_beta_distribution_is_scipys(a, b, probability):
    quantile = stats.beta.ppf(probability, a, b)

    assert beta_quantile(probability, a, b) == pytest.approx(quantile, rel=1e-9)
    assert beta_cdf(quantile, a, b) == pytest.approx(probability, rel=1e-8)


@pytest.mark.parametrize(("hits", "misses"), [(8, 2), (0, 10), (10, 0), (270, 3), (1, 999)])
def test_without_weights_the_interval_is_clopper_and_pearsons(hits, misses):
    exact = stats.binomtest(hits, hits + misses).proportion_ci(method="exact")

    found = share(weighed([(hits, 1.0)]), weighed([(misses, 1.0)]))

    assert (found.low, found.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert found.value == hits / (hits + misses)


def test_nothing_counted_has_no_share():
    assert share(weighed([(0, 1.0)]), weighed([(0, 20.0)])) is None


def test_a_missed_scan_that_none_was_seen_of_still_widens_the_interval_by_its_weight():
    rare, common = (share(weighed([(100, 1.0)]), weighed([(0, weight)])) for weight in (20.0, 2.0))

    assert rare.value == common.value == rare.high == 1
    assert rare.low < common.low < 1


def test_kappa_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    one, other = np.random.default_rng(5).integers(0, 3, (2, 400))
    other[::2] = one[::2]
    table = np.zeros((3, 3), int)
    np.add.at(table, (one, other), 1)

    assert kappa(pairs(table)).value == pytest.approx(metrics.cohen_kappa_score(one, other))


def test_readers_who_always_agree_are_not_sure_to():
    found = kappa(pairs([[20, 0], [0, 20]]))

    assert found.value == found.high == 1
    assert found.low < 0.95


def test_readers_who_only_ever_say_one_thing_have_no_kappa():
    assert kappa(pairs([[40, 0], [0, 0]])) is None
    assert kappa({}) is None


def test_weights_that_are_all_alike_change_nothing():
    table = pairs([[40, 5], [8, 30]])
    heavy = {said: (7 * n, 49 * n) for said, (n, _) in table.items()}

    assert kappa(heavy).low == pytest.approx(kappa(table).low)
    assert kappa(heavy).value == pytest.approx(kappa(table).value)


@pytest.mark.parametrize("truth", [0.4, 0.7, 0.9])
@pytest.mark.parametrize("parts", [(0.5, 0.5), (0.8, 0.2), (0.7, 0.2, 0.06, 0.04)])
def test_the_interval_of_kappa_holds_it_as_often_as_it_says(truth, parts):
    random = np.random.default_rng(1)
    parts = np.array(parts)
    cells = (1 - truth) * np.outer(parts, parts) + truth * np.diag(parts)
    drawn = random.multinomial(100, cells.ravel(), size=1000).reshape(-1, *cells.shape)

    held = [found.low <= truth <= found.high for table in drawn if (found := kappa(pairs(table)))]

    assert len(held) > 990
    assert np.mean(held) >= 0.93
