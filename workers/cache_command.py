"""`nightread cache`: what lies in the prepared cache, and emptying it."""

import json
from dataclasses import asdict

import click

from db.errors import Refused
from db.settings import settings
from db.words import Exit
from workers.prepared_cache import Kept, PreparedCache
from workers.provisions import limits

JSON = click.option("--json", "is_json", is_flag=True, default=False, help="Data on stdout as JSON.")


@click.group(invoke_without_command=True)
@JSON
@click.pass_context
def cache(context: click.Context, is_json: bool) -> int:
    """What lies in the prepared cache (setting PREPARED_CACHE): patients' pictures, ready to be scored again."""
    if context.invoked_subcommand is None:
        there = _cache()
        _tell(there, there.kept(), "in", is_json=is_json)
    return Exit.DONE


@cache.command()
@click.option("--days", type=click.FloatRange(min=0), default=0.0, help="Only what was written longer ago than that.")
@JSON
def clear(days: float, is_json: bool) -> int:
    """Empty it. Scans are decoded from their files again; nothing else changes."""
    emptied = _cache()
    _tell(emptied, emptied.clear(older_than=days * 86_400), "removed from", is_json=is_json)
    return Exit.DONE


def _cache() -> PreparedCache:
    config = settings()
    if config.prepared is None:
        raise Refused("there is no prepared cache: NIGHTREAD_PREPARED_CACHE names its folder, such as prepared")
    return PreparedCache(config.prepared, limits(config))


def _tell(where: PreparedCache, what: Kept, how: str, *, is_json: bool) -> None:
    if is_json:
        click.echo(json.dumps({"folder": str(where.folder), **asdict(what)}, indent=2))
    else:
        click.echo(f"{what.files:,} files, {what.bytes / 1e6:,.1f} MB, {how} {where.folder}")
