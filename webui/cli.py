"""Commands: `nightread web`, `nightread user`, `nightread audit`."""

import getpass
import json
from typing import Any

import click

from db.errors import NightreadError, Refused
from db.settings import settings
from db.store import audit as record
from db.store import codes, links, people
from db.store.chain import Head
from db.store.connection import database
from db.store.sites import every_site, site_named
from db.words import Role
from webui import passwords
from webui.serve import serve

as_json_option = click.option("--json/--no-json", "as_json", default=False, help="Data on stdout as JSON.")
ask_option = click.option("--ask/--no-ask", default=False, help="Type the password instead of having one made.")


@click.command()
@click.option("--host", default=None, help="Address to listen on (setting NIGHTREAD_WEB_HOST).")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Port (setting NIGHTREAD_WEB_PORT).")
def web(host: str | None, port: int | None) -> int:
    """Serve the reading room until SIGTERM."""
    given = {name: value for name, value in (("web_host", host), ("web_port", port)) if value is not None}
    return serve(settings().model_copy(update=given))


@click.group()
def user() -> None:
    """Who may sign in: add, list, grant, link, reset, disable."""


@user.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), default=Role.READER.value, show_default=True)
@click.option("--site", "sites", multiple=True, help="A site whose scans they work with; may be repeated.")
@ask_option
@as_json_option
def add(name: str, role: str, sites: tuple[str, ...], ask: bool, as_json: bool) -> None:
    """Register somebody; a made password is printed once."""
    db, name = database(), _fit(name)
    site_ids = {site_named(db, site).id for site in sites}
    password = _password(name, ask=ask)
    hashed = passwords.hash_password(password)
    people.add_user(db, name, role=Role(role), password_hash=hashed, site_ids=site_ids, by=_operator())
    told = {"user": name, "role": role, "sites": list(sites), "password": None if ask else password}
    _tell(told, as_json, f"{role} {name} may sign in{_with(password, ask)}")
    if role != Role.ADMIN and not sites:
        click.echo(f"{name} has no site yet: `nightread user grant {name} --site NAME`", err=True)


@user.command("list")
@as_json_option
def list_users(as_json: bool) -> None:
    """Everybody, with role, sites, whether they may sign in and with what."""
    db = database()
    names = {site.id: site.name for site in every_site(db)}
    rows: list[dict[str, Any]] = [
        {
            "user": each.name,
            "role": each.role.value,
            "sites": sorted(names[site_id] for site_id in each.site_ids),
            "disabled": each.disabled_at.isoformat() if each.disabled_at else None,
            "codes": each.has_codes,
            "subject": each.subject,
        }
        for each in people.users(db)
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        state = "disabled" if row["disabled"] else "active"
        door = ("password and code" if row["codes"] else "password") + (", sso" if row["subject"] else "")
        click.echo(f"{row['user']:20} {row['role']:8} {state:10} {door:22} {', '.join(row['sites']) or '(no site)'}")


@user.command("grant")
@click.argument("name")
@click.option("--site", "sites", multiple=True, required=True, help="A site; may be repeated.")
@as_json_option
def grant(name: str, sites: tuple[str, ...], as_json: bool) -> None:
    """Give a reader, arbiter or centre the scans of more sites."""
    db = database()
    known, found = people.user_named(db, name), [site_named(db, site) for site in sites]
    for site in found:
        people.give_site(db, known.id, site.id, by=_operator())
    _tell({"user": name, "sites": list(sites)}, as_json, f"{name} may open the scans of {', '.join(sites)}")


@user.command("link")
@click.argument("name")
@click.option("--subject", default=None, metavar="SUB", help="As whom the identity provider knows them (claim `sub`).")
@click.option("--none", "is_none", is_flag=True, default=False, help="Nobody comes in as them by single sign-on.")
@as_json_option
def link(name: str, subject: str | None, is_none: bool, as_json: bool) -> None:
    """Let somebody in by single sign-on, or no longer; sessions of theirs end. Their password stays good."""
    if (subject is None) != is_none:
        raise click.UsageError("give --subject SUB, or --none")
    db = database()
    issuer = db.config.oidc_issuer
    links.link(db, people.user_named(db, name).id, issuer=issuer, subject=subject, by=_operator())
    told = f"{name} comes in as {subject!r} of {issuer}" if subject else f"nobody comes in as {name} by single sign-on"
    _tell({"user": name, "issuer": issuer if subject else None, "subject": subject}, as_json, told)


@user.command("disable")
@click.argument("name")
@as_json_option
def disable(name: str, as_json: bool) -> None:
    """Keep somebody out from now on; their sessions end."""
    db = database()
    people.disable_user(db, people.user_named(db, name).id, by=_operator())
    _tell({"user": name, "disabled": True}, as_json, f"{name} is kept out; `nightread user reset {name}` undoes it")


@user.command("reset")
@click.argument("name")
@ask_option
@as_json_option
def reset(name: str, ask: bool, as_json: bool) -> None:
    """Give a new password, also to somebody who was disabled, guessed too often or lost their app; sessions end, and
    an app for one-time passwords is taken off."""
    db = database()
    known = people.user_named(db, name)
    password = _password(name, ask=ask)
    people.set_password(db, known.id, passwords.hash_password(password), by=_operator())
    if known.disabled_at:
        people.enable_user(db, known.id, by=_operator())
    had_app = codes.remove_all(db, known.id, by=_operator())
    told = {"user": name, "password": None if ask else password, "codes_removed": had_app}
    also = "; one-time passwords are off" if had_app else ""
    _tell(told, as_json, f"{name} has a new password{also}{_with(password, ask)}")


@click.group()
def audit() -> None:
    """The record of who did or saw what."""


@audit.command("verify")
@click.option(
    "--head", "heads", multiple=True, metavar='"COUNT HASH"', help="An earlier head, kept elsewhere; may repeat."
)
@as_json_option
def verify(heads: tuple[str, ...], as_json: bool) -> None:
    """Walk the chain of hashes; ends with code 1 where an event was altered, removed or cut off. Prints the head that
    the log ends with: keep it on another machine, and give it back with --head."""
    try:
        newest = record.verified_head(database(), elsewhere=[_head(head) for head in heads])
    except ValueError as broken:
        if as_json:
            click.echo(json.dumps({"intact": False, "problem": str(broken)}))
        raise NightreadError(str(broken)) from broken
    told = {"intact": True, "events": newest.number, "head": str(newest)}
    _tell(told, as_json, f"{newest.number:,} events, none altered, none missing; head: {newest}")


def _head(text: str) -> Head:
    try:
        return Head.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no head: a count and a hash", param_hint="--head") from error


@audit.command("export")
@as_json_option
def export(as_json: bool) -> None:
    """Every event in order on stdout, one JSON object a line (with --json, the same)."""
    for event in record.events(database()):
        click.echo(json.dumps(event))


def _fit(name: str) -> str:
    """A name that can be typed at the door. Raises Refused."""
    name = name.strip()
    if not name or len(name) > 100 or not name.isprintable():
        raise Refused("a user's name has 1 to 100 characters, all of them printable")
    return name


def _password(name: str, *, ask: bool) -> str:
    if not ask:
        return passwords.generate()
    password: str = click.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
    passwords.check_choice(password, name)
    return password


def _with(password: str, asked: bool) -> str:
    return "" if asked else f"; the password, shown only now: {password}"


def _operator() -> str:
    return f"{getpass.getuser()} at the command line"


def _tell(told: dict[str, Any], as_json: bool, sentence: str) -> None:
    click.echo(json.dumps(told) if as_json else sentence)
