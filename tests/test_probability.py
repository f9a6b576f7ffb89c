"""A score as a probability at a site: by Bayes' rule where it can be worked out, and against what is drawn."""

import copy
import itertools
import json
import math

import numpy as np
import pytest

from db.probability import at_prevalence, trained_at
from workers import trained_models

SHIPPED = json.loads((trained_models.SHIPPED / "report.json").read_text())


def density(x, mean):
    return np.exp(-((x - mean) ** 2) / 2)


def bayes(x, prior):
    """The true probability of the second of two normal distributions, mixed with that prior."""
    second, first = prior * density(x, 1.0), (1 - prior) * density(x, -0.5)
    return second / (first + second)


@pytest.mark.parametrize("trained", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("here", [0.001, 0.02, 0.3, 0.7])
def test_a_true_probability_becomes_the_true_probability_at_another_prevalence(trained, here):
    xs = np.linspace(-4, 4, 41)

    found = [at_prevalence(float(score), trained, here) for score in bayes(xs, trained)]

    np.testing.assert_allclose(found, bayes(xs, here), rtol=1e-9)


def test_where_few_are_ill_the_shifted_scores_come_true_as_often_as_they_say_and_the_raw_ones_do_not():
    rng = np.random.default_rng(5)
    trained, here = 0.5, 0.03
    ill = rng.random(200_000) < here
    scores = bayes(rng.normal(np.where(ill, 1.0, -0.5)), trained)

    shifted = np.array([at_prevalence(score, trained, here) for score in scores.tolist()])

    edges = np.quantile(shifted, np.linspace(0, 1, 9))
    for low, high in itertools.pairwise(edges):
        inside = (shifted >= low) & (shifted <= high)
        spread = 4 * math.sqrt(shifted[inside].mean() * (1 - shifted[inside].mean()) / inside.sum())
        assert ill[inside].mean() == pytest.approx(shifted[inside].mean(), abs=spread)
    assert scores.mean() > 5 * here  # what an unshifted score would have promised


def test_the_prevalence_of_training_changes_nothing_and_the_order_never_changes():
    scores = np.linspace(0, 1, 101).tolist()

    assert [at_prevalence(score, 0.4, 0.4) for score in scores] == pytest.approx(scores)
    shifted = [at_prevalence(score, 0.4, 0.01) for score in scores]
    assert shifted == sorted(shifted)
    assert (shifted[0], shifted[-1]) == (0, 1)


@pytest.mark.parametrize(("trained", "here"), [(None, 0.1), (0.5, None), (0, 0.1), (1, 0.1), (0.5, 0), (0.5, 1)])
def test_without_a_calibration_or_a_prevalence_there_is_no_probability(trained, here):
    assert at_prevalence(0.7, trained, here) is None


def test_the_shipped_model_says_what_it_was_calibrated_on():
    assert trained_at(SHIPPED, ["covid"]) == 299 / (279 + 299)
    assert trained_at(SHIPPED, ["normal", "covid"]) is None  # all of them: no odds


def changed(**parts):
    report = copy.deepcopy(SHIPPED)
    for key, value in parts.items():
        place = report
        *way, last = key.split("__")
        for step in way:
            place = place[step]
        place[last] = value
    return report


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"data": [], "calibration": 3},
        changed(calibration={}),
        changed(calibration__ece_after=0.2),
        changed(calibration__ece_after=None),
        changed(calibration__ece_after=True),
        changed(data__counts={}),
        changed(data__counts__validation={"normal": 279, "covid": 0}),
        changed(data__counts__validation={"normal": "279", "covid": 299}),
        changed(data__counts__validation={"normal": -1, "covid": 299}),
        changed(data__counts__validation=[279, 299]),
        changed(made_by__recipe__class_weights="balanced"),
    ],
    ids=range(12),
)
def test_a_model_that_does_not_say_so_is_uncalibrated(report):
    assert trained_at(report, ["covid"]) is None


def test_the_words_of_an_early_report_do_not_stand_in_the_way():
    assert trained_at(changed(made_by="nightread train"), ["covid"]) == 299 / 578
