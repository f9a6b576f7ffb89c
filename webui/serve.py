"""The web process in service: gunicorn as a library, one process with threads."""

import logging
import sys
import traceback
from importlib.util import find_spec
from typing import Any

import click
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from db.errors import DatabaseUnreachable, Refused
from db.migrate import is_current
from db.settings import Settings
from db.store.connection import connect
from webui import create_app
from webui.guard import is_loopback

THREADS = 8
DRAIN_SECONDS = 20  # of the 30 s in which every process of ours stops


class QuietLogger(Logger):  # type: ignore[misc]
    """gunicorn's log without the words of a request, which may name a patient: it quotes request lines and headers that
    it cannot read, and addresses that failed."""

    def warning(self, msg: object, *args: object, **kwargs: Any) -> None:
        said = str(msg)
        super().warning(said.split(":")[0] if said.startswith("Invalid request") else said, *args, **kwargs)

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        kind, _, trace = sys.exc_info()
        words = msg.split("%")[0].strip() if isinstance(msg, str) else "error"
        super().error("%s: %s\n%s", words, kind.__name__ if kind else "", "".join(traceback.format_tb(trace)))


class Service(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured from our settings alone: no configuration file, no command line, no environment."""

    def __init__(self, config: Settings) -> None:
        self.config = config
        super().__init__()

    def load_config(self) -> None:
        for name, value in _options(self.config).items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Called in the worker process, so that no database connection crosses a fork."""
        return create_app(self.config)


def serve(config: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises Refused for an address that others can reach, unless
    a TLS proxy stands before it, and DatabaseUnreachable where the database is not ready."""
    refuse_open_door(config)
    insist_on_tables(config)
    insist_on_sign_on(config)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    try:
        Service(config).run()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def refuse_open_door(config: Settings) -> None:
    """Raises Refused where passwords and pictures would cross a network in the clear."""
    if not config.web_https and not is_loopback(config.web_host):
        raise Refused(
            f"{config.web_host} can be reached from other machines: put a TLS proxy before the web and set"
            " NIGHTREAD_WEB_HTTPS=1, or listen on 127.0.0.1"
        )


def insist_on_tables(config: Settings) -> None:
    """Raises DatabaseUnreachable where the database does not answer or is of another version."""
    db = connect(config)
    try:
        if not is_current(db):
            raise DatabaseUnreachable("the database was not set up by this version: run `nightread init`")
    finally:
        db.engine.dispose()  # nothing of it may cross the fork


def insist_on_sign_on(config: Settings) -> None:
    """Raises Refused where an identity provider is configured that we have no means to speak to."""
    if config.oidc_issuer and not (config.oidc_client_id and find_spec("authlib") and find_spec("requests")):
        raise Refused(
            "NIGHTREAD_OIDC_ISSUER is set: single sign-on needs NIGHTREAD_OIDC_CLIENT_ID and the extra `sso`"
            " (pip install 'nightread[sso]')"
        )


def _options(config: Settings) -> dict[str, Any]:
    host = f"[{config.web_host}]" if ":" in config.web_host else config.web_host
    return {
        "bind": f"{host}:{config.web_port}",
        "workers": 1,
        "worker_class": "gthread",
        "threads": THREADS,
        "graceful_timeout": DRAIN_SECONDS,
        "keepalive": 5,
        "accesslog": None,  # its lines would hold addresses with scans' keys; headers.py logs route templates
        "loglevel": "warning",
        "logger_class": QuietLogger,
        "control_socket_disable": True,
        "proc_name": "nightread-web",
        "when_ready": _say_where,
    }


def _say_where(arbiter: Arbiter) -> None:
    for listener in arbiter.LISTENERS:
        click.echo(f"nightread web: listening on {listener}", err=True)
