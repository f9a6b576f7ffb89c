"""Live sensitivity and negative predictive value: right on average, as sure as they say, silent where they must be."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from db import live
from db.live import LEAST_READ, Rules, Seen, figures
from db.words import LabResult, State, Verdict

SITE = 1
MONDAY = datetime(2026, 11, 2, tzinfo=UTC)
TUESDAY, SUNDAY = MONDAY + timedelta(days=1), MONDAY - timedelta(days=1)
THRESHOLD = 0.5


def rules(*thresholds, shares=((SUNDAY, 0.05),)):
    """What ruled: thresholds as (since, value), by default one; the shares that SITE drew with."""
    listed = thresholds or ((SUNDAY, THRESHOLD),)
    return Rules([at for at, _ in listed], [value for _, value in listed], {SITE: list(shares)})


class Screening:
    """Drawn scans of a population: scores in [0, 1], which are positive, who is read."""

    def __init__(self, seed, scans=6000, prevalence=0.04, missed=0.12):
        self.random = np.random.default_rng(seed)
        self.positive = self.random.random(scans) < prevalence
        hits = self.random.random(scans) >= missed
        high, low = self.random.uniform(0.35, 1, scans), self.random.uniform(0, 0.6, scans)
        self.scores = np.where(self.positive & hits, high, low)

    def sensitivity(self, threshold):
        return np.mean(self.scores[self.positive] >= threshold)

    def npv(self, threshold):
        return np.mean(~self.positive[self.scores < threshold])

    def list(self, *, threshold=THRESHOLD, share=0.05, at=MONDAY, later=None, unread=0.0):
        """The entries: flagged or drawn at `threshold`; what a `later` one withdrew or added; a part is not read, but
        with a higher one later only of what that withdrew: the rest was read on."""
        flagged = self.scores >= threshold
        drawn = ~flagged & (self.random.random(len(self.scores)) < share)
        listed = flagged | drawn | (self.scores >= (later or threshold))
        read = self.random.random(len(self.scores)) >= unread
        withdrawn = flagged & ~read & (self.scores < (later or threshold))
        read |= (later or 0) > threshold and ~withdrawn
        return [
            self._entry(n, share if drawn[n] else None, at, is_read=read[n], is_withdrawn=withdrawn[n])
            for n in np.flatnonzero(listed)
        ]

    def _entry(self, n, share, at, *, is_read, is_withdrawn):
        state = State.DONE if is_read else State.WITHDRAWN if is_withdrawn else State.UNREAD
        verdict = (Verdict.CONFIRM if self.positive[n] else Verdict.DISMISS) if is_read else None
        return Seen(SITE, float(self.scores[n]), share, state, verdict, at, None)


def estimated(entries, ruled=None, *, threshold=THRESHOLD):
    return figures(entries, ruled or rules(), site_ids=[SITE], threshold=threshold)[SITE]


def repeated(times, prepare):
    """(true value, estimate) of both figures over `times` screenings, as `prepare` lists each."""
    found = {"sensitivity": [], "npv": []}
    for seed in range(times):
        screening = Screening(seed)
        entries, ruled, threshold = prepare(screening)
        one = estimated(entries, ruled, threshold=threshold)
        found["sensitivity"].append((screening.sensitivity(threshold), one.sensitivity))
        found["npv"].append((screening.npv(threshold), one.npv))
    return found


LOWER, HIGHER = 0.4, 0.6
WAYS = {
    "one threshold": lambda s: (s.list(), rules(), THRESHOLD),
    "a third still unread": lambda s: (s.list(unread=0.3), rules(), THRESHOLD),
    "a lower threshold later": lambda s: (
        s.list(later=LOWER),
        rules((SUNDAY, THRESHOLD), (TUESDAY, LOWER)),
        LOWER,
    ),
    "a higher threshold later": lambda s: (
        s.list(later=HIGHER, unread=0.4),
        rules((SUNDAY, THRESHOLD), (TUESDAY, HIGHER)),
        HIGHER,
    ),
    "another threshold asked about": lambda s: (s.list(share=0.1), rules(shares=[(SUNDAY, 0.1)]), 0.3),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_intervals_hold_the_truth_as_often_as_they_say(way):
    found = repeated(200, WAYS[way])

    for name, pairs in found.items():
        held = [figure.low <= truth <= figure.high for truth, figure in pairs]
        assert np.mean(held) >= 0.93, name


@pytest.mark.parametrize("way", WAYS)
def test_the_estimates_are_right_on_average(way):
    """The weighted count of what was missed is unbiased, which a share of it is not quite; so that is averaged."""
    missed, counted = [], []
    for seed in range(100):
        screening = Screening(seed)
        entries, ruled, threshold = WAYS[way](screening)
        sums = live._sums(live._tallies(entries, ruled, threshold)[SITE])
        missed.append(np.sum(screening.positive & (screening.scores < threshold)))
        counted.append(sums.missed.total)

    error = np.std(np.subtract(counted, missed)) / np.sqrt(len(missed))
    assert np.mean(counted) == pytest.approx(np.mean(missed), abs=3.5 * error)


def test_two_shares_in_one_period_weigh_each_scan_by_its_own():
    held = []
    for seed in range(120):
        first, then = Screening(seed), Screening(1000 + seed)
        entries = first.list(share=0.03) + then.list(share=0.2, at=TUESDAY)
        one = estimated(entries, rules(shares=[(SUNDAY, 0.03), (TUESDAY, 0.2)]))
        positive = np.concatenate([first.positive, then.positive])
        scores = np.concatenate([first.scores, then.scores])
        truth = np.mean(scores[positive] >= THRESHOLD)
        held.append(one.sensitivity.low <= truth <= one.sensitivity.high)

    assert np.mean(held) >= 0.93


def test_scans_of_a_time_without_a_sample_are_left_out():
    before = Screening(1).list(share=0, at=SUNDAY - timedelta(days=1))
    during = Screening(2).list(at=MONDAY)

    assert estimated(before + during) == estimated(during)


def test_a_second_look_of_somebodys_own_accord_changes_nothing():
    entries = Screening(3).list()
    looked = [Seen(SITE, 0.2, None, State.DONE, Verdict.CONFIRM, MONDAY, None)] * 30

    assert estimated(entries + looked) == estimated(entries)


def test_a_drawn_scan_that_a_later_threshold_flags_stands_for_itself_alone():
    ruled = rules((SUNDAY, THRESHOLD), (TUESDAY, LOWER))
    entries = Screening(4).list(later=LOWER)

    drawn = [replace(one, share=0.05) if LOWER <= one.score < THRESHOLD else one for one in entries]

    assert estimated(drawn, ruled, threshold=LOWER) == estimated(entries, ruled, threshold=LOWER)


def test_the_laboratory_outranks_the_readers():
    entries = Screening(5).list()
    assert estimated(entries).sensitivity.value < 1

    cleared = [replace(one, laboratory=LabResult.NEGATIVE) if one.score < THRESHOLD else one for one in entries]
    unclear = [replace(one, laboratory=LabResult.INDETERMINATE) for one in entries]

    assert estimated(cleared).sensitivity.value == estimated(cleared).npv.value == 1
    assert estimated(unclear) == estimated(entries)


def test_what_is_to_be_repeated_or_unsure_is_unknown():
    entries = Screening(6).list()

    repeated = [replace(one, verdict=Verdict.REPEAT) if n % 4 == 0 else one for n, one in enumerate(entries)]

    found = estimated(repeated)
    assert found.unknown == -(-len(entries) // 4)
    assert found.positives + found.unknown <= len(entries)


def test_a_band_that_was_withdrawn_unread_is_not_guessed_at():
    entries = Screening(7).list()
    withdrawn = [
        replace(one, state=State.WITHDRAWN, verdict=None) if THRESHOLD <= one.score < HIGHER else one for one in entries
    ]
    later = Screening(8).list(threshold=HIGHER, at=TUESDAY + timedelta(hours=1))

    found = estimated(withdrawn + later, rules((SUNDAY, THRESHOLD), (TUESDAY, HIGHER)), threshold=HIGHER)

    assert found.left_out == len(entries)
    assert found.npv == estimated(later, rules((SUNDAY, HIGHER)), threshold=HIGHER).npv


def test_below_the_minimum_there_is_a_sentence_instead_of_a_number():
    few = [Seen(SITE, 0.1, 0.5, State.DONE, Verdict.DISMISS, MONDAY, None)] * (LEAST_READ - 1)

    short, enough = estimated(few), estimated(few + few[:1])

    assert (short.sensitivity, short.npv) == (None, None)
    assert "99 drawn scans read, at least 100 needed; 0 positive scans found, at least 10 needed" in short.why
    assert enough.sensitivity is None
    assert enough.why == "not enough yet: 0 positive scans found, at least 10 needed"
    assert enough.npv.value == 1
    assert enough.npv.low == pytest.approx(0.964, abs=0.001)  # Clopper and Pearson: 0 of 100


def test_a_site_that_never_drew_is_told_so():
    found = estimated(Screening(9).list(share=0), rules(shares=()))

    assert (found.sensitivity, found.npv) == (None, None)
    assert "no sample of the cleared is drawn here" in found.why


def test_sites_are_told_apart_and_summed():
    one, other = Screening(10).list(), [replace(seen, site_id=2) for seen in Screening(11).list(share=0.2)]
    ruled = replace(rules(), shares={1: [(SUNDAY, 0.05)], 2: [(SUNDAY, 0.2)]})

    found = figures(one + other, ruled, site_ids=[1, 2], threshold=THRESHOLD)

    assert found[1] == estimated(one)
    assert found[None].positives == found[1].positives + found[2].positives
    assert found[1].npv != found[2].npv
    assert (
        min(found[1].npv.value, found[2].npv.value)
        < found[None].npv.value
        < max(found[1].npv.value, found[2].npv.value)
    )


def test_the_json_says_what_is_known_and_why_the_rest_is_not():
    known, unknown = estimated(Screening(12).list()).as_json(), estimated([]).as_json()

    assert known["sensitivity"].keys() == {"value", "low", "high"}
    assert unknown["sensitivity"] is unknown["npv"] is None
    assert known.keys() == unknown.keys()
    assert known["why"] == ""
