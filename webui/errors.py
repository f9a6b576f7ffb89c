"""Friendly error pages that give nothing away."""

from flask import Flask, render_template
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from db.errors import DatabaseUnreachable, Refused, Unknown
from webui.text import _

PAGES = {
    400: (_("That did not work"), _("The request was not complete. Go back, reload the page and try again.")),
    401: (_("Please sign in"), _("Your session has ended. Sign in and open the page again.")),
    403: (_("Not for your role"), _("Your account may not do this. Ask an admin if you think that it should.")),
    404: (_("Nothing here"), _("There is no such page, or it belongs to a site that is not yours.")),
    405: (_("That did not work"), _("This address does not take that kind of request.")),
    413: (_("Too much text"), _("What was sent is larger than this page accepts. Shorten it and try again.")),
    429: (_("Too many attempts"), _("Wait 15 minutes, then try again.")),
    500: (_("Something broke here"), _("It is in the log, without patient data. Tell your admin when it was.")),
    503: (
        _("The database does not answer"),
        _("Nothing is lost. Try again in a minute; if it stays, tell your admin."),
    ),
}


def install(app: Flask) -> None:
    """Register the handlers."""
    app.register_error_handler(HTTPException, lambda error: page(error.code or 500))
    app.register_error_handler(
        CSRFError, lambda error: page(400, _("The form was too old. Go back, reload and try again."))
    )
    app.register_error_handler(Unknown, lambda error: page(404))
    app.register_error_handler(Refused, lambda error: page(403))
    app.register_error_handler(DatabaseUnreachable, lambda error: page(503))


def page(code: int, advice: str = "") -> ResponseReturnValue:
    """The page of an error code; an unknown one is told as its hundred."""
    title, usual = PAGES.get(code, PAGES[400 if code < 500 else 500])
    return render_template("error.html", code=code, title=title, advice=advice or usual), code
