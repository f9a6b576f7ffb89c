"""What every response carries, and the log of requests: route templates, never keys, patients or users."""

import logging
import time
import traceback
from types import TracebackType

from flask import Flask, g, request
from flask.typing import ResponseReturnValue
from werkzeug.wrappers import Response

from webui.guard import STATIC

logger = logging.getLogger("nightread.web")

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "img-src 'self'",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), usb=(), payment=(), browsing-topics=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
A_YEAR = 365 * 24 * 3600

Exc = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class QuietFlask(Flask):
    """Flask, but a logged exception names the route, not the address (which holds a scan's key), and leaves out
    the error's message (which may quote a row)."""

    def log_exception(self, exc_info: Exc) -> None:
        kind, _, trace = exc_info
        frames = "".join(traceback.format_tb(trace))
        logger.error("%s in %s\n%s", kind.__name__ if kind else "error", route(), frames)


def install(app: Flask, *, https: bool) -> None:
    """Add the headers to every response and a line to the log for every request but those for static files."""

    @app.before_request
    def start_clock() -> ResponseReturnValue | None:
        g.started = time.perf_counter()
        return None

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers.update(HEADERS)
        if https:
            response.headers["Strict-Transport-Security"] = f"max-age={A_YEAR}"
        if request.endpoint != STATIC:
            response.headers["Cache-Control"] = "no-store"
            milliseconds = 1000 * (time.perf_counter() - g.get("started", time.perf_counter()))
            logger.info("%s %s %d %.0f ms", request.method, route(), response.status_code, milliseconds)
        return response


def route() -> str:
    """The template of the address asked for: /scan/<key>, not the key."""
    return request.url_rule.rule if request.url_rule else "(no route)"
