"""A batch as people read it and as programs do: totals that add up, then what needs an eye."""

import json
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import click

from db.live import Live
from db.store import cases, certificate, estimates, exports, reading
from db.store.cases import Turnaround
from db.store.certificate import Certificate
from db.store.connection import Database
from db.store.reading import ScanLine, Totals, printable
from db.words import CAUSE_MEANINGS, REASON_MEANINGS, Exit, Kind

FLAGGED_SHOWN = 20
REFUSED_SHOWN = 50
EXAMPLES_SHOWN = 5
SCAN_FIELDS = (
    "path",
    "outcome",
    "reason",
    "score",
    "threshold",
    "flagged",
    "model",
    "engine",
    "precision",
    "seconds",
)
MEANINGS = {str(code): said for said_of in (REASON_MEANINGS, CAUSE_MEANINGS) for code, said in said_of.items()}


def exit_code(totals: Totals) -> Exit:
    """0 when every file is accounted for (scored or rejected), 1 while some failed or still wait."""
    return Exit.PARTIAL if totals.failed or totals.waiting or not totals.adds_up else Exit.DONE


def as_json(db: Database, batch_id: int) -> dict[str, Any]:
    """The report in the shape that the design promises, with the time from submission to verdict, the live figures of
    its site and model, and the certificate of this moment."""
    scans = [_scan_json(line) for line in reading.report_lines(db, batch_id)]
    certified = certificate.certify(db, batch_id).as_json()
    return {
        **reading.totals(db, batch_id).as_json(),
        "to_verdict": asdict(cases.turnaround(db, batch_id=batch_id)),
        "live": {"days": estimates.PERIOD.days, **estimates.of_batch(db, batch_id).as_json()},
        "certificate": certified,
        "scans": scans,
    }


def write_csv(db: Database, batch_id: int, file: Path) -> int:
    """One line a scan, for a spreadsheet; how many. Cells that a spreadsheet would run are defused."""
    count = -1  # the names of the columns
    with file.open("w", newline="", encoding="utf-8") as out:
        for line in exports.as_csv(db, batch_id, me=None):
            out.write(line)
            count += 1
    return count


def print_totals(totals: Totals) -> None:
    """The numbers of a batch in three lines."""
    click.echo(f"Batch {totals.batch} · site {totals.site} · model {totals.model}")
    click.echo(sum_line(totals))
    pace = f"; {totals.seconds:,.0f} s, {totals.images_per_second:,.1f} scans a second" if totals.scored else ""
    click.echo(f"{totals.flagged:,} flagged for a physician{pace}")


def sum_line(counts: Totals | Certificate) -> str:
    """What was found, and what that is the sum of; it says so where it is not."""
    parts = (counts.scored, counts.rejected, counts.failed, counts.waiting)
    sign = "=" if counts.found == sum(parts) else "IS NOT"
    waiting = f" + {counts.waiting:,} waiting" if counts.waiting else ""
    scored, rejected, failed, _ = parts
    return f"{counts.found:,} found {sign} {scored:,} scored + {rejected:,} rejected + {failed:,} failed{waiting}"


def print_certificate(made: Certificate) -> None:
    """Digest, moment and version; the certificate on record; what does not add up."""
    click.echo(f"sha256 {made.digest} ({made.at:%Y-%m-%d %H:%M} UTC, nightread {made.version})")
    if made.earlier is not None:
        same = "the same digest" if made.earlier.digest == made.digest else f"sha256 {made.earlier.digest}"
        click.echo(f"certified before, {made.earlier.at:%Y-%m-%d %H:%M} UTC: {same}")
    if made.holds:
        click.echo("It adds up: each file that was found has exactly one outcome.")
        return
    click.echo("It does NOT add up:")
    for problem in made.problems:
        click.echo(f"  {problem.count:>6,}  {problem.what:<24} {problem.said}")
        for example in problem.examples[:EXAMPLES_SHOWN]:
            click.echo(f"  {'':>6}  {'':<24} {example}")


def print_report(db: Database, batch_id: int) -> Exit:
    """The morning report on stdout."""
    totals = reading.totals(db, batch_id)
    print_totals(totals)
    if totals.waiting:
        click.echo(
            f"{totals.waiting:,} still wait: `nightread up` runs the workers, `nightread status` tells how it goes"
        )
    _print_refused(db, totals)
    _print_flagged(db, totals)
    _print_read(cases.turnaround(db, batch_id=batch_id), estimates.of_batch(db, batch_id), totals)
    if totals.is_done:
        _print_certificate(certificate.certify(db, batch_id))
    click.echo("\nResearch software, not for diagnosis: the machine flags, only a physician says positive.")
    return exit_code(totals)


def _print_refused(db: Database, totals: Totals) -> None:
    if not totals.rejected and not totals.failed:
        return
    click.echo("\nNot screened:")
    for reason, count in sorted(totals.reasons.items(), key=lambda item: -item[1]):
        click.echo(f"  {count:>6,}  {reason:<28} {MEANINGS[reason]}")
    refused = (line for line in reading.report_lines(db, totals.batch) if line.outcome in (Kind.REJECTED, Kind.FAILED))
    click.echo("")
    for line in islice(refused, REFUSED_SHOWN):
        click.echo(f"  {line.reason:<28} {printable(line.path)}" + (f"  ({line.detail})" if line.detail else ""))
    _print_more(totals.rejected + totals.failed - REFUSED_SHOWN, totals.batch)


def _print_flagged(db: Database, totals: Totals) -> None:
    if not totals.flagged:
        return
    click.echo("\nFlagged, worst first (score >= threshold):")
    for line in reading.flagged_lines(db, totals.batch, limit=FLAGGED_SHOWN):
        click.echo(f"  {line.score:.3f} >= {line.threshold:.3f}  {printable(line.path)}")
    _print_more(totals.flagged - FLAGGED_SHOWN, totals.batch)


def _print_read(taken: Turnaround, live: Live, totals: Totals) -> None:
    """How long the verdicts took, and what they tell of the model at this site."""
    if taken.median_seconds is not None and taken.p90_seconds is not None:
        median, most = taken.median_seconds / 3600, taken.p90_seconds / 3600
        click.echo(f"\nRead: {taken.n:,}; submission to verdict: median {median:.1f} h, 90th percentile {most:.1f} h")
    if not live.drawn and not taken.n:
        return
    click.echo(f"\nLive, {totals.site}, {totals.model}, last {estimates.PERIOD.days} days, at {live.threshold:.3f}:")
    for name, figure in (("sensitivity", live.sensitivity), ("negative predictive value", live.npv)):
        if figure is not None:
            click.echo(f"  {name:<26} {figure.value:.3f} (95 % interval {figure.low:.3f} to {figure.high:.3f})")
    if live.why:
        click.echo(f"  {live.why}")
    click.echo(f"  from {live.positives:,} positive scans and {live.read:,} of {live.drawn:,} drawn from the cleared")


def _print_certificate(made: Certificate) -> None:
    click.echo("\nCertificate, over all outcomes:")
    print_certificate(made)
    if made.earlier is None:
        click.echo(f"(`nightread certify {made.batch}` reads the files again as well, and puts it on record)")


def _print_more(count: int, batch_id: int) -> None:
    if count > 0:
        click.echo(f"  … and {count:,} more: `nightread report {batch_id} --csv FILE` lists every scan")


def _scan_json(line: ScanLine) -> dict[str, Any]:
    values = asdict(line)
    return {name: values[name] for name in SCAN_FIELDS}


def print_json(value: Any) -> None:
    """Data on stdout; names that are no text keep their bytes as surrogate escapes."""
    click.echo(json.dumps(value, indent=2, default=str))
