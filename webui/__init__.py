"""The reading room: a Flask application over the store. It scores nothing and publishes nothing."""

import importlib

from flask import Flask
from flask.typing import ResponseReturnValue
from flask_wtf import CSRFProtect
from sqlalchemy import text as sql
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter

from db.settings import Settings, settings
from db.store.audit import secret_file
from db.store.connection import connect
from webui import display, errors, guard, headers, navigation, text

# A page is one module with a `bp`, one template and one name here.
PAGES = ("auth", "worklist", "review", "batches", "unscreened", "quality", "cases", "account", "codes", "sso")

MOST_BYTES = 256 * 1024  # of a form: a note of 10,000 characters in any script


class Key(BaseConverter):
    """A scan's key in an address: 32 hexadecimal digits and nothing else."""

    regex = "[0-9a-f]{32}"


def create_app(config: Settings | None = None) -> Flask:
    """The application for these settings (by default, those of the environment)."""
    config = config or settings()
    app = headers.QuietFlask(__name__)
    app.config.from_mapping(_flask_settings(config))
    app.extensions["nightread"] = connect(config)
    app.url_map.converters["key"] = Key
    app.url_map.merge_slashes = False  # an odd address is no page, not a redirection to one
    headers.install(app, https=config.web_https)
    guard.install(app)
    CSRFProtect(app)
    text.install(app)
    display.install(app)
    errors.install(app)
    app.add_url_rule("/health", view_func=health)
    pages = [importlib.import_module(f"webui.{name}") for name in PAGES]
    for page in pages:
        app.register_blueprint(page.bp)
    navigation.install(app, pages)
    if config.web_https:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)  # type: ignore[method-assign]
    return app


@guard.public
def health() -> ResponseReturnValue:
    """Whether the web process reaches its database; 503 when it does not."""
    with guard.database().reading() as session:
        session.execute(sql("SELECT 1"))
    return "ok\n", {"Content-Type": "text/plain"}


def _flask_settings(config: Settings) -> dict[str, object]:
    return {
        "SECRET_KEY": config.web_secret.get_secret_value() or secret_file(config.home / "web.secret"),
        "SESSION_COOKIE_NAME": "__Host-nightread_form" if config.web_https else "nightread_form",
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SECURE": config.web_https,
        "SESSION_COOKIE_SAMESITE": "Strict",
        "MAX_CONTENT_LENGTH": MOST_BYTES,
        "MAX_FORM_MEMORY_SIZE": MOST_BYTES,
        # A form stays good as long as its session; no Referer is sent, guard.py looks at Origin instead.
        "WTF_CSRF_TIME_LIMIT": None,
        "WTF_CSRF_SSL_STRICT": False,
    }
