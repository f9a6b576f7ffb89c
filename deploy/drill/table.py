"""Results for people: a line a run, a summary, a Markdown table."""

import os
import platform
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median

from deploy.drill.nemesis import Met, Result
from deploy.drill.schedule import ALWAYS

# Seconds within which 99 of 100 faults are over, and the queue's loss is.
PROMISED = {"recovery": 90.0, "recovery_wiped": 60.0}
BOUND = 3.0  # zero failures in n trials bound the rate at about 3/n (95 %)


def line(result: Result) -> str:
    """One run in one line."""
    kinds = Counter(met.name for met in result.faults if not met.missed)
    told = ", ".join(f"{name} {count}" if count > 1 else name for name, count in sorted(kinds.items()))
    return (
        f"seed {result.seed:>4} {result.database:<10} {result.scans:>6,} scans {result.seconds:>4.0f} s "
        f"{sum(kinds.values()):>3} faults, recovery {recovery(result.faults)},"
        f" {len(result.violations)} violations: {told}"
    )


def recovery(faults: Sequence[Met]) -> str:
    """p50/p99/max of the seconds from a heal to the next completed chunk."""
    seconds = sorted(met.recovery for met in faults if met.recovery is not None)
    if not seconds:
        return "not measured"
    return f"{median(seconds):.1f}/{percentile(seconds, 0.99):.1f}/{seconds[-1]:.1f} s"


def percentile(ascending: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not pass."""
    return ascending[max(0, -int(-share * len(ascending) // 1) - 1)]


def figures(results: Sequence[Result]) -> dict[str, object]:
    """The totals, ready for JSON."""
    met = [one for result in results for one in result.faults]
    done = [one for one in met if not one.missed]
    seconds = sorted(one.recovery for one in done if one.recovery is not None)
    wiped = sorted(one.recovery for one in done if one.recovery is not None and one.name == ALWAYS)
    return {
        "scans": sum(result.scans for result in results),
        "faults": len(done),
        "missed": len(met) - len(done),
        "violations": sum(len(result.violations) for result in results),
        "recovery": _spread(seconds),
        "recovery_wiped": _spread(wiped),
    }


def late(results: Sequence[Result]) -> list[str]:
    """Which promise about recovery was not kept, in words."""
    told = figures(results)
    spreads = {name: told[name] for name in PROMISED}
    return [
        f"{name.replace('_', ', ')}: p99 {spread['p99']:.0f} s, promised are {PROMISED[name]:.0f} s"
        for name, spread in spreads.items()
        if isinstance(spread, dict) and spread["p99"] > PROMISED[name]
    ]


def summary(results: Sequence[Result]) -> str:
    """The totals in words."""
    told = figures(results)
    done = [one for result in results for one in result.faults if not one.missed]
    wiped = [one for one in done if one.name == ALWAYS]
    return (
        f"{len(results)} runs, {told['scans']:,} scans, {told['faults']} faults ({told['missed']} could not be done):"
        f" {told['violations']} violations; recovery p50/p99/max {recovery(done)}, queue wiped {recovery(wiped)}"
    )


def markdown(results: Sequence[Result]) -> str:
    """The whole table, as it is committed."""
    done = [one for result in results for one in result.faults if not one.missed]
    seeds = f"{results[0].seed}-{results[-1].seed}" if results else "none"
    lines = [
        "# `nightread drill`",
        "",
        f"Seeds {seeds}. {summary(results)}.",
        "",
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}."
        " Recovery: seconds from the heal of a fault to the next chunk that was completed; faults overlap, so that"
        " another one may be in the way. With 0 violations the rate of failure is below"
        f" {BOUND / max(len(done), 1):.2%} a fault (95 %).",
        "",
        "| fault | done | measured | p50 s | p99 s | max s |",
        "|---|---|---|---|---|---|",
        *_by_kind(done),
        "",
        "| seed | database | scans | seconds | faults | parts that died | recovery p50/p99/max | violations |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(result) for result in results),
        "",
        *_missed(results),
        *_violations(results),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _spread(ascending: Sequence[float]) -> dict[str, float] | None:
    if not ascending:
        return None
    named = {"p50": median(ascending), "p99": percentile(ascending, 0.99), "max": ascending[-1]}
    return {name: round(value, 2) for name, value in named.items()}


def _by_kind(done: Sequence[Met]) -> list[str]:
    kinds: dict[str, list[Met]] = defaultdict(list)
    for one in done:
        kinds[one.name].append(one)
    return [_kind(name, kinds[name]) for name in sorted(kinds)]


def _kind(name: str, several: Sequence[Met]) -> str:
    seconds = sorted(one.recovery for one in several if one.recovery is not None)
    spread = _spread(seconds) or {}
    told = " | ".join(f"{spread[part]:.1f}" if spread else "" for part in ("p50", "p99", "max"))
    return f"| {name} | {len(several)} | {len(seconds)} | {told} |"


def _row(result: Result) -> str:
    done = [one for one in result.faults if not one.missed]
    return (
        f"| {result.seed} | {result.database} | {result.scans:,} | {result.seconds:.0f} | {len(done)}"
        f" | {result.crashes} | {recovery(done)} | {len(result.violations)} |"
    )


def _missed(results: Sequence[Result]) -> list[str]:
    missed = Counter(f"{one.name}: {one.missed}" for result in results for one in result.faults if one.missed)
    if not missed:
        return []
    return ["What could not be done:", "", *(f"- {why} ({count})" for why, count in sorted(missed.items())), ""]


def _violations(results: Sequence[Result]) -> list[str]:
    return [f"- seed {one.seed}, {broken.check}: {broken.said}" for one in results for broken in one.violations]
