"""Figures with honest intervals: exact for shares, DeLong's for AUC, a bootstrap for the rest."""

import numpy as np
import pytest

from workers.training import metrics


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (95, 100, 0.8872, 0.9836), (1, 2, 0.0126, 0.9874)],
)
def test_intervals_of_shares_are_clopper_and_pearsons(part, whole, low, high):
    figure = metrics.share(part, whole)

    assert figure.value == part / whole
    assert figure.low == pytest.approx(low, abs=1e-4)
    assert figure.high == pytest.approx(high, abs=1e-4)


def test_auc_counts_pairs_and_halves_ties():
    truth = np.array([True, True, False, False])

    assert metrics.auc(truth, np.array([0.9, 0.5, 0.5, 0.1])).value == pytest.approx(3.5 / 4)
    assert metrics.auc(truth, np.array([0.9, 0.8, 0.2, 0.1])).value == 1.0


def test_auc_holds_the_true_area_in_its_interval_about_19_times_of_20():
    rng = np.random.default_rng(0)
    truth = np.arange(120) < 60
    area = 0.9214  # of two normals 2 apart: Phi(2 / sqrt 2)
    figures = [metrics.auc(truth, rng.standard_normal(120) + 2 * truth) for _ in range(300)]

    held = np.mean([figure.low <= area <= figure.high for figure in figures])

    assert 0.91 <= held <= 0.99


def test_figures_follow_from_the_four_counts():
    truth = np.array([True] * 10 + [False] * 10)
    scores = np.array([0.9] * 8 + [0.1] * 2 + [0.9] * 1 + [0.1] * 9)

    figures = metrics.evaluate(truth, scores, 0.5)

    assert {name: round(figure.value, 4) for name, figure in figures.items()} == {
        "sensitivity": 0.8,
        "specificity": 0.9,
        "accuracy": 0.85,
        "precision": 0.8889,
        "f1": 0.8421,
        "auc": 0.85,
    }
    assert all(figure.low < figure.value < figure.high for figure in figures.values())


def test_figures_that_the_data_cannot_give_are_left_out():
    figures = metrics.evaluate(np.array([False, False]), np.array([0.1, 0.2]), 0.5)

    assert "sensitivity" not in figures
    assert "auc" not in figures
    assert figures["specificity"].value == 1.0


def test_the_threshold_keeps_the_lower_bound_of_sensitivity():
    rng = np.random.default_rng(2)
    truth = np.arange(600) < 300
    scores = 1 / (1 + np.exp(-(rng.standard_normal(600) + 4 * truth - 2)))

    threshold = metrics.sensitive_threshold(truth, scores)

    kept = int((truth & (scores >= threshold)).sum())
    assert metrics.lower_bound(kept, 300) >= 0.95
    assert metrics.lower_bound(kept - 1, 300) < 0.95


@pytest.mark.parametrize(("part", "whole", "bound"), [(0, 10, 0.0), (10, 10, 0.7411), (291, 299, 0.9522)])
def test_a_lower_bound_is_clopper_and_pearsons_one_sided(part, whole, bound):
    assert metrics.lower_bound(part, whole) == pytest.approx(bound, abs=1e-4)


def test_too_few_positives_give_no_threshold():
    with pytest.raises(ValueError, match="20 positives"):
        metrics.sensitive_threshold(np.array([True] * 20 + [False]), np.linspace(0, 1, 21))


def test_each_class_has_its_recall_and_precision():
    labels = np.array([0] * 10 + [1] * 10 + [2] * 20)
    said = np.array([0] * 8 + [1] * 2 + [1] * 10 + [2] * 15 + [0] * 5)

    figures = metrics.by_class(labels, said, ("normal", "covid", "other"))

    assert figures["recall"]["normal"] == metrics.share(8, 10)
    assert figures["precision"]["normal"] == metrics.share(8, 13)
    assert figures["mean"]["accuracy"] == metrics.share(33, 40)
    assert figures["mean"]["recall"].value == pytest.approx((0.8 + 1 + 0.75) / 3)
    assert all(figure.low < figure.value < figure.high for figure in figures["mean"].values())


def test_a_class_without_images_takes_no_part_in_the_means():
    figures = metrics.by_class(np.array([0, 0, 2]), np.array([0, 1, 2]), ("normal", "covid", "other"))

    assert set(figures["recall"]) == {"normal", "other"}
    assert figures["mean"]["recall"].value == pytest.approx(0.75)
    assert figures["precision"]["covid"].value == 0
