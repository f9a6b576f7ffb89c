"""The report page: what it holds is shown, what it lacks is absent, and nothing in it is trusted."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from workers.training import curves, metrics, reports
from workers.training.examples import Examples

CLASSES = ("normal", "covid")
THRESHOLD = 0.4
HOSTILE = '"><script>alert(1)</script>$x^{_\u202egnp.exe\x00\udcff'


def measured(count=200, seed=0, classes=CLASSES):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(classes)
    logits = rng.standard_normal((count, len(classes))) + 2.5 * np.eye(len(classes))[labels]
    class_scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, class_scores


def full_report(classes=CLASSES):
    labels, class_scores = measured(classes=classes)
    truth, scores = curves.flags(labels, class_scores, classes, classes[1:2])
    figures = metrics.as_json(metrics.evaluate(truth, scores, THRESHOLD))
    figure = {"value": 0.9, "low": 0.8, "high": 0.95}
    epochs = [
        {"stage": 1, "epoch": n, "loss": 1 / n, "accuracy": 0.5, "val_loss": 1 / n, "val_accuracy": None}
        for n in (1, 2)
    ]
    return {
        "made_by": {
            "command": "nightread train d",
            "seed": 7,
            "versions": {"keras": "3.15.1"},
            "created": "2026-11-24",
        },
        "data": {
            "classes": list(classes),
            "flag_classes": list(classes[1:2]),
            "counts": {"training": dict.fromkeys(classes, 700), "held_back": dict.fromkeys(classes, 100)},
            "excluded": [{"path": "broken.png", "why": "truncated"}],
            "duplicates": 3,
        },
        "parameters": {"total": 25_690_625, "trainable": 1, "frozen": 2},
        "history": epochs,
        "threshold": {"value": THRESHOLD, "why": "a test"},
        "validation": figures,
        "held_back": {"images": 200, **figures},
        "calibration": curves.calibration(truth, scores**2, scores, 1.5),
        **curves.tables(labels, class_scores, classes, classes[1:2], THRESHOLD),
        "gate": {"limit": 1.7},
        "audit": {"model": figure, "frame": figure, "file": figure, "images": 200, "verdict": "Nothing was found."},
        "sources": {"elsewhere": {"images": 12, **figure}},
        "limits": ["Adults only."],
    }


class Outline(HTMLParser):
    """Elements, headings, ids and every address of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.ids, self.addresses, self.text = [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]

    def handle_data(self, data):
        self.text += data


def test_every_part_of_a_report_is_on_the_page():
    page = Outline(reports.page(full_report()))

    for words in (
        "Of 100 images with covid it flags",
        "none of them trained the model or chose its threshold",
        "20 of 1,000 people screened",
        "Choosing a threshold",
        "Shortcut audit",
        "probe: the outer frame alone",
        "broken.png",
        "nightread train d",
        "25,690,625",
        "elsewhere",
        "Adults only.",
    ):
        assert words in page.text
    assert page.tags.count("svg") > 5
    assert page.text.count("ROC curve") >= 2


def test_the_page_asks_nothing_of_any_network():
    html = reports.page(full_report())
    page = Outline(html)

    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import", html)
    assert "default-src 'none'" in html
    assert not {"script", "iframe", "link", "object", "form"} & set(page.tags)


def test_the_ids_of_the_page_are_unique_and_every_reference_has_one():
    page = Outline(reports.page(full_report()))

    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


def test_every_plot_has_words_for_those_who_cannot_see_it():
    html = reports.page(full_report())

    plots = re.findall(r'<svg class="plot"[^>]*>.{0,20}', html)
    assert len(plots) == 5
    assert all('role="img"' in plot and "<title>" in plot for plot in plots)


def test_hostile_names_stay_text(tmp_path):
    report = full_report(classes=("normal", HOSTILE))
    report["data"]["excluded"] = [{"path": HOSTILE, "why": HOSTILE}]
    report["made_by"]["command"] = HOSTILE
    report[HOSTILE] = {HOSTILE: HOSTILE}
    picture = reports.Mistake(HOSTILE, HOSTILE, 0.1, np.zeros((32, 32), np.uint8))

    reports.write(tmp_path / "report.html", report, mistakes=[picture])

    html = (tmp_path / "report.html").read_text("utf-8")
    assert "script" not in Outline(html).tags
    assert "\u202e" not in html
    assert "\x00" not in html
    assert html.count("&lt;script&gt;") > 5


@pytest.mark.parametrize("key", sorted(full_report()))
def test_a_report_without_one_of_its_parts_is_still_a_page(key):
    report = full_report()
    del report[key]

    page = Outline(reports.page(report))

    assert page.tags.count("section") >= 5


def test_an_empty_report_is_a_page_that_claims_nothing():
    page = Outline(reports.page({}))

    assert "Of 100 images" not in page.text
    assert "a physician decides" in page.text


def test_figures_of_validation_alone_say_so():
    report = full_report()
    del report["held_back"]

    assert "also chose the best epoch and the threshold" in Outline(reports.page(report)).text


def test_few_images_are_called_few():
    report = full_report()
    report["confusion"]["counts"] = [[280, 20], [2, 10]]

    assert "12 of class covid" in Outline(reports.page(report)).text


def test_more_than_two_classes_are_told_apart_on_the_page():
    page = Outline(reports.page(full_report(classes=("normal", "covid", "other"))))

    assert "The likeliest class" in page.text
    assert "mean recall" in page.text


def test_the_worst_mistakes_come_first_whichever_side_they_are_on():
    examples = Examples(np.zeros((4, 32, 32), np.uint8), np.array([0, 1, 1, 0]), tuple(map(Path, "abcd")))
    truth, scores = examples.labels == 1, np.array([0.9, 0.02, 0.3, 0.1])

    found = reports.worst(examples, truth, scores, 0.4, CLASSES)

    assert [(one.path, one.label) for one in found] == [("b", "covid"), ("a", "normal"), ("c", "covid")]


def test_pictures_are_on_the_page_only_where_they_were_given():
    report = full_report()
    picture = reports.Mistake("a.png", "covid", 0.1, np.zeros((32, 32), np.uint8))

    assert "data:image/png" not in reports.page(report)
    assert 'alt="Chest image of class covid with score 0.100"' in reports.page(report, mistakes=[picture])


def test_the_report_of_an_earlier_release_is_still_a_page():
    old = {"made_by": "the commands in workers/training", "images": {"training": {"normal": 5, "covid": 6}}}

    page = Outline(reports.page(old))

    assert "the commands in workers/training" in page.text
    assert "training" in page.text


@pytest.mark.parametrize("history", [[{"epoch": 1}], {"stages": [{"epoch": 1}]}, [[{"epoch": 1}]]])
def test_epochs_are_found_in_lists_of_epochs_and_of_stages(history):
    assert reports.epochs(history) == [{"epoch": 1}]


def test_the_images_that_judge_come_first_and_are_named():
    report = full_report() | {"judged_on": "held-back and validation images together", "judged": {"images": 400}}
    report["judged"]["auc"] = {"value": 0.5, "low": 0.4, "high": 0.6}

    page = Outline(reports.page(report))

    assert "Measured on 400 held-back and validation images together." in page.text
    assert "held-back and validation images together (400)" in page.text
