"""How things are written on pages: scores, moments, and text that came from outside."""

from datetime import UTC, datetime
from pathlib import Path

from flask import Flask

from db.store.reading import Totals, printable
from db.words import CAUSE_MEANINGS, REASON_MEANINGS
from webui.text import _

SAMPLES = Path(__file__).parents[1] / "deploy" / "samples"
MEANINGS = {str(code): text for table in (REASON_MEANINGS, CAUSE_MEANINGS) for code, text in table.items()}


def install(app: Flask) -> None:
    """Make these available to the templates."""
    app.jinja_env.filters.update(
        clock=clock,
        count="{:,}".format,
        code=lambda code: str(code).replace("_", " "),
        folder=folder,
        meaning=meaning,
        moment=moment,
        percent=percent,
        printable=printable,
        prose=prose,
        score=score,
    )
    app.jinja_env.globals.update(is_sample=is_sample, time_left=time_left)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True


def score(value: float) -> str:
    """A probability to three places; one that is not certain is never written as 1.000 or 0.000."""
    if 0.9995 <= value < 1:
        return "> 0.999"
    return "< 0.001" if 0 < value < 0.0005 else f"{value:.3f}"


def percent(share: float) -> str:
    """A share of 1 as a percentage, small ones with a place more."""
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def moment(at: datetime) -> str:
    """A moment to the minute, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def clock(at: datetime) -> str:
    """A moment of today: the time alone, in UTC."""
    return f"{at.astimezone(UTC):%H:%M} UTC"


def estimate(seconds: float) -> str:
    """About how long the rest takes, in words."""
    minutes = seconds / 60
    if minutes < 1:
        return _("under a minute at your pace")
    if minutes < 90:
        return _("about %s min at your pace") % f"{minutes:.0f}"
    return _("about %s h at your pace") % f"{minutes / 60:.1f}"


def prose(text: str) -> str:
    """A note as it was typed, line by line; control and direction characters are shown, not obeyed."""
    return "\n".join(printable(line) for line in text.split("\n"))


def meaning(code: object) -> str:
    """What a reason or cause means, in words; empty for anything else."""
    text = MEANINGS.get(str(code), "")
    return _(text) if text else ""


def folder(root: str) -> str:
    """The last two names of a folder's path, to tell batches apart."""
    return printable("/".join(Path(root).parts[-2:]))


def is_sample(root: str) -> bool:
    """Whether a batch is of the drawn samples that ship with the project."""
    return Path(root).is_relative_to(SAMPLES)


def time_left(totals: Totals) -> str:
    """A rough guess in words, from the rate so far; empty when there is nothing to go by."""
    ended = totals.found - totals.waiting
    if not totals.waiting or not ended or not totals.seconds:
        return ""
    minutes = totals.waiting * totals.seconds / ended / 60
    if minutes < 1:
        return _("under a minute left")
    if minutes < 90:
        return _("about %s min left") % f"{minutes:.0f}"
    return _("about %s h left") % f"{minutes / 60:.1f}"
