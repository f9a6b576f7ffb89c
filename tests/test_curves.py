"""Curves and tables of a report: small, right at the ends, and in agreement with the figures beside them."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from workers.training import curves, metrics

CLASSES = ("normal", "covid")


def scored(count=1000, apart=2.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 3 == 0
    return truth, 1 / (1 + np.exp(-(rng.standard_normal(count) + apart * truth - apart / 2)))


def pair(scores):
    """Class scores (N, 2) of scores (N,)."""
    return np.stack([1 - scores, scores], axis=1)


def test_the_roc_curve_runs_from_no_flag_to_all_and_holds_the_area():
    truth, scores = scored(5000)

    curve = curves.roc(truth, scores)

    across, up = np.array(curve["false_alarms"]), np.array(curve["sensitivity"])
    assert (across[0], up[0], across[-1], up[-1]) == (0, 0, 1, 1)
    assert len(across) == len(curve["thresholds"]) <= 200
    assert np.trapezoid(up, across) == pytest.approx(metrics.auc(truth, scores).value, abs=0.002)


def test_equal_scores_are_one_step_of_the_curve():
    curve = curves.roc(np.array([True, False, True, False]), np.array([0.5, 0.5, 0.5, 0.5]))

    assert curve["false_alarms"] == [0, 1]
    assert curve["sensitivity"] == [0, 1]


def test_average_precision_is_the_usual_one():
    truth, scores = scored(700, apart=1.0)
    scores = np.round(scores, 2)  # with ties

    curve = curves.precision_recall(truth, scores)

    assert curve["average_precision"] == pytest.approx(average_precision_score(truth, scores))
    assert curve["recall"][-1] == 1
    assert curve["positives"] == pytest.approx(truth.mean())


def test_scores_that_mean_what_they_say_have_a_small_calibration_error():
    rng = np.random.default_rng(3)
    log_odds = rng.normal(0, 1.5, 20_000)
    meant = 1 / (1 + np.exp(-log_odds))
    truth = rng.random(20_000) < meant
    boastful = 1 / (1 + np.exp(-3 * log_odds))

    drawn = curves.calibration(truth, boastful, meant, 3.0)

    assert drawn["ece_after"] < 0.02 < 0.1 < drawn["ece_before"]
    assert sum(one["images"] for one in drawn["before"]) == 20_000
    assert all(
        one["positives"]["low"] <= one["positives"]["value"] <= one["positives"]["high"] for one in drawn["after"]
    )


def test_the_histogram_counts_every_image_once_also_a_score_of_one():
    labels = np.array([0, 0, 1])

    drawn = curves.histogram(labels, CLASSES, np.array([0.0, 1.0, 1.0]))

    assert [sum(row["images"]) for row in drawn["counts"]] == [2, 1]
    assert len(drawn["edges"]) == len(drawn["counts"][0]["images"]) + 1


def test_the_threshold_table_keeps_what_its_rows_promise():
    truth, scores = scored()

    rows = curves.thresholds(truth, scores, 0.3)

    said = {why: row for row in rows for why in row["why"].split("; ")}
    assert said["in use"]["threshold"] == 0.3
    assert [row["in_use"] for row in rows].count(True) == 1
    assert said["sensitivity at least 0.95 here"]["sensitivity"]["value"] >= 0.95
    assert said["specificity at least 0.9 here"]["specificity"]["value"] >= 0.90
    assert [row["threshold"] for row in rows] == sorted(row["threshold"] for row in rows)


def test_flags_in_a_thousand_follow_from_the_prevalence():
    truth = np.array([True] * 10 + [False] * 10)
    scores = np.array([0.9] * 9 + [0.1] + [0.9] * 2 + [0.1] * 8)

    (row,) = [row for row in curves.thresholds(truth, scores, 0.5, prevalence=0.1) if row["in_use"]]

    assert row["flagged_per_1000"] == pytest.approx(100 * 0.9 + 900 * 0.2)
    assert row["missed_per_1000"] == pytest.approx(10)


def test_all_tables_are_json_and_agree():
    truth, scores = scored(300)

    found = curves.tables(truth.astype(int), pair(scores), CLASSES, ("covid",), 0.5)

    assert json.loads(json.dumps(found)) == found
    assert np.sum(found["confusion"]["counts"]) == 300
    assert found["confusion"]["counts"][1][1] == np.sum(truth & (scores >= 0.5))
    assert "per_class" not in found


def test_of_one_class_alone_there_are_no_curves_and_no_crash():
    found = curves.tables(np.zeros(5, int), pair(np.linspace(0, 1, 5)), CLASSES, ("covid",), 0.5)

    assert found["confusion"]["counts"] == [[2, 3], [0, 0]]
    assert "roc" not in found


def test_more_than_two_classes_are_flagged_against_the_rest_and_told_apart_beside_it():
    rng = np.random.default_rng(1)
    classes = ("normal", "covid", "other")
    labels = np.arange(300) % 3
    class_scores = rng.dirichlet([1, 1, 1], 300) * 0.5 + 0.5 * np.eye(3)[labels]

    truth, scores = curves.flags(labels, class_scores, classes, ("covid", "other"))
    found = curves.tables(labels, class_scores, classes, ("covid", "other"), 0.5)

    np.testing.assert_array_equal(truth, labels > 0)
    np.testing.assert_allclose(scores, 1 - class_scores[:, 0])
    assert np.sum(found["per_class"]["confusion"]["counts"]) == 300
    assert set(found["per_class"]["recall"]) == set(classes)
