"""What verdicts tell of the model at work: sensitivity and negative predictive value, by inverse-probability weights
(D. G. Horvitz and D. J. Thompson, JASA 47 (1952) 663-685), with the intervals of db/intervals.py.

Who stands for whom. A scan that was flagged at any time since it was scored was certain to be on the list: it stands
for itself, whatever threshold came later, and whether or not it had been drawn before. A scan that was drawn from the
cleared with probability p stands for 1 / p of them. A second look that somebody took at a cleared scan of their own
accord stands for nothing here: it was not drawn. Scans that were scored while their site drew none are left out, the
flagged ones too: of their cleared nothing is known.

What counts as true: the laboratory's newest result; else the final verdict. "Needs repeat", "unsure" and what is still
to be read are unknown. Where a site samples, the list is in random order, so those that were read stand for those that
were not; what a later threshold withdrew is weighted apart, and where none of such a band was read, the scans scored
in that time are left out and counted (`Live.left_out`)."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from db.intervals import NOTHING, Figure, Weighed, share, weighed
from db.words import LabResult, State, Verdict

LEAST_READ = 100  # drawn scans with a known truth, before there is a figure
LEAST_POSITIVES = 10  # positive scans found, before there is a sensitivity


@dataclass(frozen=True)
class Live:
    """How well the model did, as far as the verdicts tell. `why` says what is missing where a figure is None."""

    threshold: float
    sensitivity: Figure | None
    npv: Figure | None
    drawn: int  # scans drawn from the cleared
    read: int  # of these, with a known truth
    positives: int  # scans found positive, on whichever way they came to be read
    unknown: int  # entries without a known truth: not read yet, needs repeat, unsure
    left_out: int  # entries of a time whose withdrawn ones nobody read
    why: str

    def as_json(self) -> dict[str, Any]:
        """The shape in a report."""
        figures = {name: one.as_json() if (one := getattr(self, name)) else None for name in ("sensitivity", "npv")}
        counts = {name: getattr(self, name) for name in ("drawn", "read", "positives", "unknown", "left_out", "why")}
        return {"threshold": self.threshold, **figures, **counts}


@dataclass
class _Tally:
    """Entries of one kind: how many, how many of them withdrawn, and how many positive and negative."""

    entries: int = 0
    withdrawn: int = 0
    positive: int = 0
    negative: int = 0

    @property
    def known(self) -> int:
        return self.positive + self.negative


@dataclass(frozen=True)
class _Kind:
    """What entries have in common: thresholds between which they were scored (`era`) and lie (`band`), both counted
    from the oldest and the lowest; the share they were drawn with, None for those certain to be listed."""

    era: int
    band: int
    share: float | None
    above: bool  # the threshold asked about


@dataclass(frozen=True)
class Sums:
    """Weighted counts of a site, and what they come from."""

    caught: Weighed = NOTHING
    missed: Weighed = NOTHING
    cleared: Weighed = NOTHING  # rightly
    drawn: int = 0
    read: int = 0
    positives: int = 0
    unknown: int = 0
    left_out: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(**{name: getattr(self, name) + getattr(other, name) for name in Sums.__dataclass_fields__})


@dataclass(frozen=True)
class Rules:
    """A model's thresholds, and when sites drew: what ruled at which moment."""

    since: list[datetime]
    values: list[float]  # as many, in the order of time
    shares: dict[int, list[tuple[datetime, float]]] = field(default_factory=dict)  # by site, in the order of time

    def lowest(self, at: datetime) -> float:
        """The lowest threshold that ruled at that moment or later."""
        return min(self.values[max(bisect_right(self.since, at) - 1, 0) :])

    def drew(self, site_id: int, at: datetime) -> bool:
        """Whether the site drew from its cleared scans at that moment."""
        before = [value for since, value in self.shares.get(site_id, []) if since <= at]
        return bool(before and before[-1] > 0)

    def ever_drew(self, site_id: int) -> bool:
        """Whether the site drew at any time."""
        return any(value > 0 for _, value in self.shares.get(site_id, []))


@dataclass(frozen=True)
class Seen:
    """A worklist entry as it bears on the figures; `share` is None where it was not drawn."""

    site_id: int
    score: float
    share: float | None
    state: str
    verdict: str | None
    scored_at: datetime
    laboratory: str | None


def figures(
    entries: Iterable[Seen], rules: Rules, *, site_ids: Iterable[int], threshold: float
) -> dict[int | None, Live]:
    """The figures at a threshold (0 to 1) by site, and under None those of all these sites together."""
    tallies = _tallies(entries, rules, threshold)
    by_site = {site_id: _sums(tallies.get(site_id, {})) for site_id in sorted(site_ids)}
    drawing = {site_id for site_id in by_site if rules.ever_drew(site_id)}
    found: dict[int | None, Live] = {
        site_id: _live(sums, threshold, draws=site_id in drawing) for site_id, sums in by_site.items()
    }
    return found | {None: _live(sum(by_site.values(), Sums()), threshold, draws=bool(drawing))}


def _tallies(entries: Iterable[Seen], rules: Rules, threshold: float) -> dict[int, dict[_Kind, _Tally]]:
    bands = sorted(rules.values)
    tallies: dict[int, dict[_Kind, _Tally]] = defaultdict(lambda: defaultdict(_Tally))
    for seen in entries:
        is_certain = seen.score >= rules.lowest(seen.scored_at)
        if not rules.drew(seen.site_id, seen.scored_at) or not (is_certain or seen.share):
            continue
        kind = _Kind(
            era=bisect_right(rules.since, seen.scored_at),
            band=bisect_right(bands, seen.score),
            share=None if is_certain else seen.share,
            above=seen.score >= threshold,
        )
        tally, truth = tallies[seen.site_id][kind], _truth(seen.state, seen.verdict, seen.laboratory)
        tally.entries += 1
        tally.withdrawn += seen.state == State.WITHDRAWN
        tally.positive += truth is True
        tally.negative += truth is False
    return tallies


def _truth(state: str, verdict: str | None, laboratory: str | None) -> bool | None:
    """Whether a scan that was read is positive; the laboratory outranks the readers. None while nobody knows."""
    if state != State.DONE:
        return None
    if laboratory in (LabResult.POSITIVE, LabResult.NEGATIVE):
        return laboratory == LabResult.POSITIVE
    return {Verdict.CONFIRM: True, Verdict.DISMISS: False}.get(Verdict(verdict)) if verdict else None


def _sums(tallies: dict[_Kind, _Tally]) -> Sums:
    """The weighted counts: each known entry stands for those of its kind that are unknown, and 1 / share times that."""
    lost = {kind.era for kind, tally in tallies.items() if tally.withdrawn and not tally.known}
    kept = {kind: tally for kind, tally in tallies.items() if kind.era not in lost}
    more = _adjustments(kept)
    caught: list[tuple[int, float]] = []
    missed: list[tuple[int, float]] = []
    cleared: list[tuple[int, float]] = []
    for kind, tally in kept.items():
        weight = (1 / (kind.share or 1.0)) * more[_group(kind, tally)]
        (caught if kind.above else missed).append((tally.positive, weight))
        if not kind.above:
            cleared.append((tally.negative, weight))
    drawn = [tally for kind, tally in kept.items() if kind.share]
    return Sums(
        weighed(caught),
        weighed(missed),
        weighed(cleared),
        drawn=sum(tally.entries for tally in drawn),
        read=sum(tally.known for tally in drawn),
        positives=sum(tally.positive for tally in kept.values()),
        unknown=sum(tally.entries - tally.known for tally in kept.values()),
        left_out=sum(tally.entries for kind, tally in tallies.items() if kind.era in lost),
    )


def _group(kind: _Kind, tally: _Tally) -> tuple[object, ...]:
    """Entries of which any may be read next: the drawn ones, the certain ones, and each band that was withdrawn."""
    if kind.share:
        return ("drawn",)
    return (kind.era, kind.band) if tally.withdrawn else ("certain",)


def _adjustments(tallies: dict[_Kind, _Tally]) -> dict[tuple[object, ...], float]:
    """What to multiply the weights of a group by, so that its known entries stand for the others as well."""
    entries: dict[tuple[object, ...], float] = defaultdict(float)
    known: dict[tuple[object, ...], float] = defaultdict(float)
    for kind, tally in tallies.items():
        weight = 1 / (kind.share or 1.0)
        entries[_group(kind, tally)] += weight * tally.entries
        known[_group(kind, tally)] += weight * tally.known
    return {group: entries[group] / known[group] if known[group] else 0.0 for group in entries}


def _live(sums: Sums, threshold: float, *, draws: bool) -> Live:
    enough = sums.read >= LEAST_READ
    has_positives = sums.positives >= LEAST_POSITIVES
    return Live(
        threshold,
        share(sums.caught, sums.missed) if enough and has_positives else None,
        share(sums.cleared, sums.missed) if enough else None,
        sums.drawn,
        sums.read,
        sums.positives,
        sums.unknown,
        sums.left_out,
        _missing(sums, draws=draws),
    )


def _missing(sums: Sums, *, draws: bool) -> str:
    if not draws:
        return "no sample of the cleared is drawn here: what was missed is not known"
    short = []
    if sums.read < LEAST_READ:
        short.append(f"{sums.read} drawn scans read, at least {LEAST_READ} needed")
    if sums.positives < LEAST_POSITIVES:
        short.append(f"{sums.positives} positive scans found, at least {LEAST_POSITIVES} needed")
    return f"not enough yet: {'; '.join(short)}" if short else ""
