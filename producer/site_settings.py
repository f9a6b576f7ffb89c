"""Command `nightread site set`: how a site's scans are read."""

import getpass
from typing import Any

import click

from db.store import sites
from db.store.connection import database
from db.store.sites import Change, SiteView
from producer import reports

SHOWN = ("readers", "blind_first", "sample_share", "prevalence", "time_zone")


class Share(click.ParamType[float | str]):
    """A number from 0 to 1, also as per cent ("2%"); with a `word`, also that word, for None."""

    name = "share"

    def __init__(self, word: str = "") -> None:
        self.word = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str) or (self.word and value.lower() == self.word):
            return value
        try:
            number = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:
            self.fail(f"{value!r} is no share: write 0.02 or 2%{f', or {self.word}' if self.word else ''}", param, ctx)
        return number


@click.command("set")
@click.argument("name")
@click.option("--readers", type=click.IntRange(1, 2), default=None, help="How many must read each scan: 1 or 2.")
@click.option("--blind-first/--no-blind-first", default=None, help="Score and heat map only after a first impression.")
@click.option("--sample", "sample_share", type=Share(), default=None, help="Share of the cleared to be read, unmarked.")
@click.option(
    "--prevalence", type=Share("unknown"), default=None, help="Of the disease among the screened, or unknown."
)
@click.option("--time-zone", default=None, help="Zone of the site's clocks, as in Europe/Berlin.")
@click.option("--json", "is_json", is_flag=True, default=False, help="Data on stdout as JSON.")
def set_site(name: str, is_json: bool, **given: Any) -> None:
    """Change how the scans of site NAME are read, from the next one on; on record."""
    values = {option: value for option, value in given.items() if value is not None}
    if values.get("prevalence") == "unknown":
        values["prevalence"] = None
    change = sites.set_site(database(), name, values, by=f"cli:{getpass.getuser()}")
    if is_json:
        kept = {"changed": sorted(change.changed), "keep_what_they_had": change.keep}
        reports.print_json(as_json(change.site) | kept)
    else:
        _print(change)


def as_json(site: SiteView) -> dict[str, Any]:
    """A site for those who build on the command."""
    return {"site": site.name} | {name: getattr(site, name) for name in SHOWN}


def told(site: SiteView) -> str:
    """How a site's scans are read, in words."""
    parts = ["two readers" if site.readers == 2 else "one reader"]
    if site.blind_first:
        parts.append("blind first")
    parts.append(f"{site.sample_share:.2%} of the cleared sampled" if site.sample_share else "no sample of the cleared")
    parts.append("prevalence unknown" if site.prevalence is None else f"prevalence {site.prevalence:.3%}")
    return ", ".join(parts)


def _print(change: Change) -> None:
    site = change.site
    click.echo(f"site {site.name!r} ({site.time_zone}): {told(site)}" + ("" if change.changed else "; nothing changed"))
    if change.changed.keys() & {"readers", "blind_first", "sample_share"}:
        click.echo(
            f"This holds for scans that come onto the worklist from now on; {change.keep:,} that are on it and still"
            " to be read keep the readers and the blindness that they came with."
        )
    if change.changed.get("sample_share"):
        click.echo(
            "While a site samples, its scans come in random order, and score and heat map stay hidden until the first"
            " impression: nothing tells a drawn scan from a flagged one."
        )
