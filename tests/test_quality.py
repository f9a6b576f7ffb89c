"""The quality page: nights, agreement, the workbench, versions side by side; what it does not tell, what it costs."""

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from reading_room import Found, ReadingRoom
from sqlalchemy import event, select, update

from db.schema import Batch, Entry, Outcome
from db.store import entries, estimates, models, nights, people, quality, readers, recovery, thresholds
from db.store.connection import now
from db.store.sites import set_site
from db.words import Cause, Reason, Role, Stage, Verdict
from webui import charts

SITE, MODEL = 1, 1
AUC = {"value": 0.9, "low": 0.8, "high": 0.95}
AGO = timedelta(days=30)


def scores(*values, name="x", **fields):
    return [Found(f"{name}/{n}.png", score=value, **fields) for n, value in enumerate(values)]


def window(db, site_ids=frozenset({SITE}), model=MODEL, since=None):
    return nights.nights(db, site_ids=set(site_ids), model_id=model, since=since or now() - AGO)


def say(room, batch, path, verdict, name="dr-a", stage=Stage.VERDICT):
    scan_id, me = room.scan_id(room.keys(batch)[path]), people.user_named(room.db, name)
    entries.add_review(room.db, scan_id, me=me, stage=stage, verdict=verdict)


def submitted(room, batch, at):
    with room.db.writing() as session:
        session.execute(update(Batch).where(Batch.id == batch).values(submitted_at=at))


@pytest.fixture
def house(db):
    """A reading room on either database."""
    opened = ReadingRoom(db.config)
    opened.users("dr-a", "dr-b")
    yield opened
    opened.close()


# Nights


def test_a_night_is_counted_once_with_the_middle_and_the_ends_of_its_scores(house):
    values = [n / 20 + 0.001 for n in range(20)]
    house.night(*scores(*values), Found("r.png", reason=Reason.EMPTY), Found("f.png", cause=Cause.TIMED_OUT))

    (night,) = window(house.db)

    counted = night.counted
    assert (counted.found, counted.scored, counted.flagged) == (22, 20, 10)
    assert (counted.rejected, counted.failed, counted.waiting) == (1, 1, 0)
    assert counted.quantiles() == (0.055, 0.455, 0.855)
    assert counted.share("flagged") == 0.5
    assert counted.share("rejected") == 1 / 22


@pytest.mark.parametrize("score", [0.0, 0.004999, 0.005, 0.5, 0.99, 0.9999, 1.0])
def test_a_score_is_counted_in_its_hundredth(house, score):
    house.night(*scores(*[score] * 10))

    (night,) = window(house.db)

    low, middle, _ = night.counted.quantiles()
    assert low == middle == pytest.approx(score, abs=0.0101)


def test_few_scores_are_not_described(house):
    house.night(*scores(*[0.9] * 9))

    assert window(house.db)[0].counted.quantiles() is None


def test_a_night_goes_from_noon_to_noon_where_its_site_is(house):
    set_site(house.db, "local", by="test", values={"time_zone": "Pacific/Auckland"})
    one, two, three = (house.night(*scores(0.1, name=f"{n}"), root=f"/{n}") for n in range(3))
    day = datetime(2026, 11, 10, tzinfo=UTC)  # Auckland is 13 hours ahead
    submitted(house, one, day + timedelta(hours=9))  # 22:00 on the 10th
    submitted(house, two, day + timedelta(hours=22))  # 11:00 on the 11th
    submitted(house, three, day + timedelta(hours=24))  # 13:00 on the 11th

    found = {night.night.day: night.batches for night in window(house.db, since=day - AGO)}

    assert {day: set(batches) for day, batches in found.items()} == {10: {one, two}, 11: {three}}


def test_nights_of_other_sites_models_and_windows_are_not_there(house):
    house.night(*scores(0.1))
    elsewhere = house.site("elsewhere")
    house.night(*scores(0.1), site="elsewhere")
    old = house.night(*scores(0.1, name="old"), root="/old")
    submitted(house, old, now() - AGO - timedelta(minutes=1))
    house.newer_model()
    house.night(*scores(0.1, name="new"), root="/new")

    assert [night.batches for night in window(house.db)] == [(1,)]
    assert len(window(house.db, {SITE, elsewhere})) == 2


def test_counts_that_are_remembered_follow_a_threshold_a_retry_and_a_batch_that_goes_on(house):
    batch = house.night(*scores(0.3, 0.6), Found("f.png", cause=Cause.TIMED_OUT), Found("w.png"))
    assert window(house.db)[0].counted.waiting == 1
    house.night(Found("w.png", score=0.7), Found("f.png", score=0.7), root="/other")
    counted = window(house.db)[0].counted
    assert (counted.flagged, counted.failed, counted.waiting) == (4, 1, 0)

    thresholds.set_threshold(house.db, MODEL, 0.2, why="a test", by="test")
    assert window(house.db)[0].counted.flagged == 5

    recovery.retry_failed(house.db, batch, by="test")
    assert window(house.db)[0].counted.waiting == 1
    house.night(Found("f.png", score=0.7), root="/third")
    counted = window(house.db)[0].counted
    assert (counted.failed, counted.waiting, counted.scored) == (0, 0, 7)


def test_batches_that_are_done_are_not_counted_again(house):
    for n in range(5):
        house.night(*scores(0.1, 0.9), root=f"/nights/{n}")
    window(house.db)
    asked = []
    event.listen(house.db.engine, "before_cursor_execute", lambda *said: asked.append(said[2]))

    window(house.db)

    assert len(asked) < 10
    assert not [statement for statement in asked if "count(" in statement and "outcomes" in statement]


# Readers


def read_by_both(house, first, second, verdicts):
    house.site(readers=2)
    files = scores(*[0.9] * len(verdicts))
    batch = house.night(*files)
    for file, (one, other) in zip(files, verdicts, strict=True):
        say(house, batch, file.path, one, first)
        say(house, batch, file.path, other, second)


def test_a_pair_of_readers_has_its_kappa_from_twenty_scans_on(house):
    yes, no = Verdict.CONFIRM, Verdict.DISMISS
    read_by_both(house, "dr-a", "dr-b", [(yes, yes)] * 9 + [(no, no)] * 7 + [(yes, no)] * 3)

    (pair,) = readers.pairs(house.db, site_ids={SITE}, model_id=MODEL, since=now() - AGO)
    assert (pair.scans, pair.agreed, pair.kappa) == (19, 16, None)

    batch = house.night(*scores(0.8, name="one more"), root="/one")
    say(house, batch, "one more/0.png", no)
    say(house, batch, "one more/0.png", no, "dr-b")

    (pair,) = readers.pairs(house.db, site_ids={SITE}, model_id=MODEL, since=now() - AGO)
    # 17 of 20 alike; by chance 12/20 * 9/20 + 8/20 * 11/20
    assert pair.kappa.value == pytest.approx((0.85 - 0.49) / (1 - 0.49))
    assert pair.kappa.low < pair.kappa.value < pair.kappa.high


def test_a_drawn_scan_weighs_against_the_model_as_many_as_it_stands_for(house):
    house.site(sample_share=0.1)
    flagged, drawn = scores(*[0.9] * 10, name="f"), scores(*[0.1] * 10, name="d", share=0.1)
    batch = house.night(*flagged, *drawn)
    for n in range(10):
        say(house, batch, f"f/{n}.png", Verdict.CONFIRM if n < 8 else Verdict.DISMISS)
        say(house, batch, f"d/{n}.png", Verdict.CONFIRM if n < 1 else Verdict.DISMISS)

    (found,) = readers.against_model(house.db, site_ids={SITE}, model_id=MODEL, since=now() - AGO)

    assert (found.flagged, found.flagged_confirmed, found.drawn, found.drawn_confirmed) == (10, 8, 10, 1)
    # flagged and confirmed 8, flagged and dismissed 2, cleared and confirmed 10, cleared and dismissed 90, of 110
    by_chance = (10 / 110) * (18 / 110) + (100 / 110) * (92 / 110)
    assert found.kappa.value == pytest.approx((98 / 110 - by_chance) / (1 - by_chance))


def test_a_second_look_of_ones_own_accord_says_nothing_against_the_model(house):
    batch = house.night(*scores(0.9, 0.1))
    say(house, batch, "x/0.png", Verdict.CONFIRM)
    say(house, batch, "x/1.png", Verdict.CONFIRM)

    (found,) = readers.against_model(house.db, site_ids={SITE}, model_id=MODEL, since=now() - AGO)

    assert (found.flagged, found.drawn, found.kappa) == (1, 0, None)


def test_changes_of_mind_are_counted_by_their_direction(house):
    house.site(blind_first=True)
    yes, no, unsure = Verdict.CONFIRM, Verdict.DISMISS, Verdict.UNSURE
    minds = [(yes, yes), (no, yes), (unsure, yes), (yes, no), (no, unsure)]
    files = scores(*[0.9] * len(minds))
    batch = house.night(*files)
    for file, (before, after) in zip(files, minds, strict=True):
        say(house, batch, file.path, before, stage=Stage.IMPRESSION)
        say(house, batch, file.path, after)

    (found,) = readers.changes(house.db, site_ids={SITE}, model_id=MODEL, since=now() - AGO)

    assert (found.scans, found.to_confirm, found.from_confirm, found.other) == (5, 2, 1, 1)


# The workbench


def bench(db, asked, *, sees_all=True, site_ids=frozenset({SITE})):
    live = estimates.live(db, site_ids=set(site_ids), model_id=MODEL, threshold=asked)[None]
    return quality.workbench(db, site_ids=set(site_ids), model_id=MODEL, asked=asked, live=live, sees_all=sees_all)


def test_the_workbench_tells_last_nights_list_at_another_threshold_and_changes_nothing(house):
    old = house.night(*scores(*[0.95] * 30, name="old"), root="/old")
    submitted(house, old, now() - timedelta(hours=25))
    house.night(*scores(*[n / 20 for n in range(20)]))
    before = _everything(house)

    found = bench(house.db, 0.75)

    assert (found.scored, found.listed, found.listed_then) == (20, 10, 5)
    assert found.by_site == [("local", 20, 10, 5)]
    assert found.curve[0] == (0.0, 20)
    assert dict(found.curve)[0.5] == 10
    assert found.curve[-1] == (1.0, 0)
    assert _everything(house) == before


def _everything(house):
    with house.db.reading() as session:
        outcomes = [(o.score, o.flagged, o.threshold) for o in session.scalars(select(Outcome).order_by(Outcome.id))]
        listed = [(e.state, e.rank) for e in session.scalars(select(Entry).order_by(Entry.id))]
        return outcomes, listed, thresholds.history(house.db, MODEL)


def test_the_workbench_agrees_with_what_setting_the_threshold_does(house):
    house.night(*scores(*[n / 20 for n in range(20)]))

    told = bench(house.db, 0.35).listed_then
    thresholds.set_threshold(house.db, MODEL, 0.35, why="a test", by="test")

    assert window(house.db)[0].counted.flagged == told


def test_who_may_not_see_all_gets_the_last_night_that_is_read(house):
    read = house.night(*scores(*[0.9] * 12), root="/read")
    submitted(house, read, now() - timedelta(days=2))
    house.site(sample_share=0.5)
    house.night(*scores(*[0.9] * 20, name="blind"), root="/blind")

    all_of_it, read_part = bench(house.db, 0.5), bench(house.db, 0.5, sees_all=False)

    assert (all_of_it.scored, all_of_it.left_out) == (20, 0)
    assert (read_part.scored, read_part.left_out) == (12, 1)


def test_too_few_scans_to_hide_one_among_them_are_not_told(house):
    house.night(*scores(*[0.9] * 9))

    assert bench(house.db, 0.5, sees_all=False).scored == 0
    assert bench(house.db, 0.5).scored == 9


def test_a_model_that_was_never_used_has_an_empty_workbench(house):
    assert bench(house.db, 0.5).scored == 0


# Versions


def test_versions_stand_side_by_side_each_at_its_own_threshold(house):
    house.night(*scores(*[n / 20 for n in range(20)]))
    newer = house.newer_model()
    thresholds.set_threshold(house.db, newer, 0.9, why="a test", by="test")
    batch = house.night(*scores(*[n / 20 for n in range(20)], name="new"), root="/new")
    say(house, batch, "new/19.png", Verdict.CONFIRM)
    say(house, batch, "new/18.png", Verdict.DISMISS)

    new, old = quality.versions(house.db, site_ids={SITE}, since=now() - AGO)

    assert (new.model.id, new.is_active, old.model.id, old.is_active) == (newer, True, MODEL, False)
    assert (new.model.threshold, old.model.threshold) == (0.9, 0.5)
    assert (new.counted.flagged, old.counted.flagged) == (2, 10)
    assert (new.confirmed, new.decided, old.decided) == (1, 2, 0)


@pytest.mark.parametrize(
    ("report", "judged_on"),
    [
        (
            {"judged": {"auc": {"value": 0.9, "low": 0.8, "high": 0.95}}, "judged_on": "held-back images"},
            "held-back images",
        ),
        (
            {"judged": {"auc": None}, "validation": {"auc": {"value": 0.9, "low": 0.8, "high": 0.95}}},
            "validation images",
        ),
    ],
)
def test_a_reports_figures_come_with_what_they_were_judged_on(report, judged_on):
    figures, on = quality.report_figures(report)

    assert (figures["auc"].value, on) == (0.9, judged_on)


@pytest.mark.parametrize("report", [{}, {"judged": "x"}, {"judged": {"auc": {"value": "x"}}}, {"judged": {"auc": 3}}])
def test_a_report_without_figures_has_none(report):
    assert quality.report_figures(report) == ({}, "")


# Charts


class Shapes(HTMLParser):
    """Elements and attributes of a chart."""

    def __init__(self, svg):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(str(svg))

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, kind):
        return [attrs for _, attrs in self.found if attrs.get("class", "").split()[:1] == [kind]]


def test_a_line_is_broken_where_there_is_no_value():
    chart = charts.lines("t", charts.Axis(list("abcd"), 1.0), [charts.Series("x", [0.1, None, 0.3, 0.4])])

    (line,) = Shapes(chart).of("line")
    assert line["d"].count("M") == 2
    assert line["d"].count("L") == 1
    assert len(Shapes(chart).of("dot")) == 3


def test_a_value_stands_where_the_axis_says():
    axis = charts.Axis(["a", "b"], 2.0)
    (line,) = Shapes(charts.lines("t", axis, [charts.Series("x", [0.0, 2.0])])).of("line")

    left, right = charts.LEFT, charts.WIDTH - charts.RIGHT
    bottom, top = charts.HEIGHT - charts.BOTTOM, charts.TOP
    assert line["d"] == f"M{left} {bottom}L{right} {top}"


def test_titles_and_labels_are_text_whatever_they_hold():
    hostile = "</title><script>alert(1)</script>\u202e"
    chart = charts.lines(hostile, charts.Axis([hostile, hostile], 1.0), [charts.Series(hostile, [0.5, 0.6])])

    assert {tag for tag, _ in Shapes(chart).found} == {"svg", "title", "path", "text"}
    assert "\u202e" not in str(chart)
    assert "style=" not in str(chart)


def test_series_differ_by_mark_as_well():
    axis = charts.Axis(["a"], 1.0)
    series = [charts.Series(str(n), [0.5]) for n in range(charts.MOST_SERIES + 2)]

    marks = {dot["d"] for dot in Shapes(charts.lines("t", axis, series)).of("dot")}

    assert len(marks) == charts.MOST_SERIES


@pytest.mark.parametrize(("highest", "round_one"), [(0, 1), (0.07, 0.1), (0.21, 0.25), (1, 1), (37, 50), (201, 250)])
def test_an_axis_ends_at_a_round_number(highest, round_one):
    assert charts.nice(highest) == pytest.approx(round_one)


@pytest.mark.parametrize("values", [[], [None], [None, None], [0.5]])
def test_a_chart_of_next_to_nothing_is_still_a_chart(values):
    axis = charts.Axis([str(n) for n in range(len(values))], 1.0)

    for chart in (
        charts.lines("t", axis, [charts.Series("x", values)], level=0.5),
        charts.band("t", axis, values, values, values),
    ):
        assert Shapes(chart).found[0][0] == "svg"


# The page


@pytest.fixture
def ward(room):
    room.users("dr-a", "dr-b")
    room.user("arbiter", role=Role.ARBITER)
    room.user("boss", role=Role.ADMIN)
    return room


def test_the_page_shows_every_part_with_a_table_beside_each_chart(ward):
    batch = ward.night(*scores(*[n / 20 for n in range(20)], patient="PATIENT-CANARY"))
    say(ward, batch, "x/19.png", Verdict.CONFIRM)

    page = ward.inside("arbiter").get("/quality").text

    for words in (
        "Live figures",
        "Scores over nights",
        "Threshold workbench",
        "Agreement",
        "Trained models side by side",
    ):
        assert words in page
    assert page.count('<svg class="chart"') == 4
    assert page.count("<title>") == 5  # the page's and each chart's
    assert "no sample of the cleared is drawn here" in page
    assert "CANARY" not in page
    assert "x/19" not in page
    assert "style=" not in page
    assert [said.object for said in ward.events("viewed_quality")] == ["model 1"]


def test_the_workbench_answers_by_its_form(ward):
    ward.night(*scores(*[n / 20 for n in range(20)]))

    page = ward.inside("boss").get("/quality?threshold=0.75&model=1&nights=7").text

    assert re.search(
        r'<td class="number right">20</td><td class="number right">10</td><td class="number right">5</td>', page
    )
    assert models.threshold(ward.db, 1) == 0.5


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("threshold=x", 400),
        ("threshold=2", 400),
        ("threshold=nan", 400),
        ("threshold=-0.1", 400),
        ("nights=31", 400),
        ("nights=x", 400),
        ("model=99", 404),
        ("model=x", 400),
        ("site=99", 404),
        ("site=x", 400),
        ("site=&model=&nights=&threshold=", 200),
    ],
)
def test_what_the_page_cannot_show_is_said(ward, query, status):
    ward.night(*scores(0.1))

    assert ward.inside("arbiter").get(f"/quality?{query}").status_code == status


def test_an_arbiter_sees_the_nights_of_their_own_sites_alone(ward):
    ward.night(*scores(*[0.1] * 12))
    theirs = ward.site("<elsewhere>")
    ward.night(*scores(*[0.1] * 12), site="<elsewhere>")

    mine, all_of_them = (ward.inside(who).get("/quality").text for who in ("arbiter", "boss"))

    assert "elsewhere" not in mine
    assert "&lt;elsewhere&gt;" in all_of_them
    assert "<elsewhere>" not in all_of_them
    assert ward.inside("arbiter").get(f"/quality?site={theirs}").status_code == 404


def test_nothing_on_the_page_tells_how_many_were_flagged_while_scans_are_read_blind(ward):
    ward.site(sample_share=0.5)
    files = [*scores(*[0.9] * 7, name="f"), *scores(*[0.1] * 13, name="c"), *scores(0.2, 0.2, name="d", share=0.5)]
    batch = ward.night(*files)
    told = r'<td class="number right">7 <span class="muted">32 %</span></td>'

    arbiter, admin = (ward.inside(who).get("/quality?threshold=0.4").text for who in ("arbiter", "boss"))

    assert re.search(told, admin)
    assert not re.search(told, arbiter)
    assert "1 later or smaller batch is left out" in arbiter
    assert "hidden while read blind" in arbiter
    assert "32 %" not in arbiter

    for file in files:
        if not file.path.startswith("c"):
            say(ward, batch, file.path, Verdict.DISMISS)
    assert re.search(told, ward.inside("arbiter").get("/quality").text)


def test_a_house_without_a_batch_has_a_page_that_says_so(ward):
    page = ward.inside("arbiter").get("/quality")

    assert page.status_code == 200
    assert "No batch in this window" in page.text
