"""Write `webui/strings.pot` anew, the catalogue of all that pages say: `python tests/renew_strings.py`. A translation
is made from it with Babel or any editor of catalogues, and laid into `webui/translations` (see webui/text.py)."""

import io
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import write_po

import webui
from db.words import CAUSE_MEANINGS, REASON_MEANINGS

HERE = Path(webui.__file__).parent
CATALOGUE = HERE / "strings.pot"
METHODS = [("**.py", "python"), ("templates/**.html", "jinja2")]
HEADER = "# What the pages of nightread say. Made by tests/renew_strings.py."


def extracted() -> Catalog:
    """Everything given to gettext in webui, and the meanings of reasons and causes, which pages translate as they show
    them."""
    catalogue = Catalog(project="nightread", charset="utf-8", header_comment=HEADER)
    found = extract_from_dir(str(HERE), method_map=METHODS, keywords={"_": None, "gettext": None, "ngettext": (1, 2)})
    for file, _, message, comments, context in sorted(found, key=lambda each: (each[0], each[1])):
        catalogue.add(message, locations=[(f"webui/{file}", 0)], auto_comments=comments, context=context)
    for meaning in (*REASON_MEANINGS.values(), *CAUSE_MEANINGS.values()):
        catalogue.add(meaning, locations=[("db/words.py", 0)])
    return catalogue


def drawn_up() -> str:
    """The catalogue as a file, without dates and line numbers, which would change with every edit."""
    out = io.BytesIO()
    write_po(out, extracted(), width=120, sort_output=True, include_lineno=False)
    lines = out.getvalue().decode().splitlines()
    dated = ('"POT-Creation-Date', '"PO-Revision-Date', '"Generated-By')
    return "\n".join(line for line in lines if not line.startswith(dated)) + "\n"


if __name__ == "__main__":
    CATALOGUE.write_text(drawn_up(), "utf-8")
