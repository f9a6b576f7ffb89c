"""What people read goes through here, so that another language is a catalogue, not a hunt through the code.

Templates write `{{ _("Worklist") }}` and `{% trans n=count %}{{ n }} scan{% pluralize %}{{ n }} scans{% endtrans %}`;
Python writes `_("Worklist")`. A message of a template is ours and may hold markup; what is put into it is escaped, and
a per cent sign in it is doubled (`_("100 %% of %(site)s", site=...)`), but not in `{% trans %}`. Without a catalogue
in `webui/translations`, the words are those of the source.
"""

import gettext
from pathlib import Path

from flask import Flask

CATALOGUES = Path(__file__).parent / "translations"
_catalogue = gettext.translation("nightread", localedir=CATALOGUES, fallback=True)

_ = _catalogue.gettext
ngettext = _catalogue.ngettext


def install(app: Flask) -> None:
    """Let the templates of the application say `_`, `gettext`, `ngettext` and `{% trans %}`."""
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.install_gettext_translations(_catalogue, newstyle=True)  # type: ignore[attr-defined]
