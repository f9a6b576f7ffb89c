"""English with its strings in one place: everything that people read on a page goes through `webui/text.py`, and the
catalogue `webui/strings.pot` holds all of it (`python tests/renew_strings.py` writes it anew)."""

import ast
import re
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest
import renew_strings
from jinja2 import nodes

import webui

HERE = Path(webui.__file__).parent
TEMPLATES = sorted((HERE / "templates").glob("*.html"))
SCRIPTS = sorted((HERE / "static").glob("*.js"))
# What these say goes to a terminal or a log, is a rule for browsers, or a list of easy passwords: never to a page.
NO_PAGES = {"cli", "serve", "headers", "easy"}
MODULES = sorted(path for path in HERE.glob("*.py") if path.stem not in NO_PAGES)

READ = {"aria-label", "aria-description", "aria-roledescription", "title", "placeholder", "alt", "label"}
NOT_READ = {"code", "kbd", "script", "style", "samp"}  # commands, keys
THE_NAME = {"nightread"}
GETTEXT = {"_", "gettext", "ngettext"}
ENVIRONMENT = jinja2.Environment(extensions=["jinja2.ext.i18n"], autoescape=True)


def wordy(text: str) -> bool:
    """Whether there is a word in it, besides the project's name and directives of a format."""
    bare = re.sub(r"%\(\w+\)\w|%[-.0-9]*[a-z]|\{[^}]*\}", "", text)
    return any(word.lower() not in THE_NAME for word in re.findall(r"[^\W\d_]+", bare))


# Templates


class Reading(HTMLParser):
    """What a template gives people to read outside of gettext. Expressions are numbered marks, asked for by `said`."""

    def __init__(self, said) -> None:
        super().__init__(convert_charrefs=True)
        self.said, self.bare, self.inside = said, [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("input", "br", "img", "meta", "link", "hr"):
            self.inside.append(tag)
        for name, value in attrs:
            is_words = name in READ or (name == "value" and tag == "button")
            if is_words and (wordy(value or "") or self.said(value or "")):
                self.bare.append(f"{tag} {name}={value!r} {self.said(value or '')}")
            elif name.startswith("data-") and re.search(r"[A-Za-z]{2,} [a-z]{2,}", value or ""):
                self.bare.append(f"{tag} {name}={value!r}")

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not NOT_READ & set(self.inside) and (wordy(data) or self.said(data)):
            self.bare.append(f"text {data.strip()!r} {self.said(data)}")


def bare_words(source: str) -> list[str]:
    """What of a template people read that is not in gettext."""
    page, expressions = flattened(source)

    def said(text: str) -> list[str]:
        numbers = [int(number) for number in re.findall("\ue000(\\d+)\ue001", text)]
        return [word for number in numbers for word in literals(expressions[number]) if wordy(word)]

    reading = Reading(said)
    reading.feed(page)
    reading.close()
    return reading.bare + assigned(source)


def flattened(source: str) -> tuple[str, list[str]]:
    """The template as HTML with a mark for each expression; what stands in `{% trans %}` is left out."""
    page, expressions, in_trans = [], [], False
    begun: list[str] | None = None
    for _, kind, value in ENVIRONMENT.lex(source):
        if kind == "data" and not in_trans:
            page.append(value)
        elif kind in ("variable_begin", "block_begin"):
            begun = []
        elif kind == "variable_end":
            if not in_trans:
                page.append(f"\ue000{len(expressions)}\ue001")
                expressions.append("".join(begun or []))
        elif kind == "block_end":
            words = "".join(begun or []).split()
            begins = words[:1] == ["trans"] or words == ["block", "body_class"]  # the latter is a name for the styles
            in_trans = begins or (in_trans and words[:1] not in (["endtrans"], ["endblock"]))
        elif begun is not None:
            begun.append(value)
    return "".join(page), expressions


def literals(expression: str) -> list[str]:
    """The texts that an expression may show as they stand in the template."""
    output = ENVIRONMENT.parse("{{" + expression + "}}").body[0]
    assert isinstance(output, nodes.Output)
    return [text for node in output.nodes for text in shown(node)]


def shown(node: nodes.Node) -> list[str]:
    if isinstance(node, nodes.Const | nodes.TemplateData):
        value = node.value if isinstance(node, nodes.Const) else node.data
        return [value] if isinstance(value, str) else []
    if isinstance(node, nodes.CondExpr):
        return [text for part in (node.expr1, node.expr2) if part for text in shown(part)]
    if isinstance(node, nodes.Concat):
        return [text for part in node.nodes for text in shown(part)]
    if isinstance(node, nodes.Add | nodes.Or | nodes.And):
        return shown(node.left) + shown(node.right)
    if isinstance(node, nodes.Filter) and node.node is not None:
        return shown(node.node)
    if isinstance(node, nodes.Call) and not is_gettext(node):
        given = [*node.args, *(each.value for each in node.kwargs)]
        return [text for part in given for text in shown(part) if re.search(r"[A-Za-z]{2,} [a-z]{2,}", text)]
    return []


def is_gettext(node: nodes.Call) -> bool:
    return isinstance(node.node, nodes.Name) and node.node.name in GETTEXT


def assigned(source: str) -> list[str]:
    """Sentences that a template keeps in a variable without gettext."""
    kept = ENVIRONMENT.parse(source).find_all(nodes.Assign)
    return [f"set {text!r}" for node in kept for text in sentences_in(node.node)]


def sentences_in(node: nodes.Node) -> list[str]:
    if isinstance(node, nodes.Call) and is_gettext(node):
        return []
    if isinstance(node, nodes.Const):
        return [node.value] if isinstance(node.value, str) and re.search(r"[A-Za-z]{2,} [a-z]{2,}", node.value) else []
    return [text for child in node.iter_child_nodes() for text in sentences_in(child)]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_everything_that_a_template_says_goes_through_gettext(template):
    assert bare_words(template.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "flaw",
    [
        "<p>Bare words</p>",
        '<a title="Bare words" href="x">{{ _("Fine") }}</a>',
        '<button aria-label="{{ "Bare" if a else _("fine") }}">×</button>',
        "<p>{{ 'On: it asks' if a else 'Off' }}</p>",
        '<p>{{ ("none" if a) | upper }}</p>',
        '<input placeholder="Name">',
        '<p data-lost="Your session has ended">{{ x }}</p>',
        '{% set words = {"lost": "Your session has ended"} %}',
        "<p>{% trans %}Fine{% endtrans %} bare</p>",
    ],
)
def test_a_word_outside_of_gettext_is_found(flaw):
    assert bare_words(flaw) != []


@pytest.mark.parametrize(
    "fine",
    [
        '<p>{{ _("Fine") }} · {{ n }} × <code>nightread up</code> <kbd>C</kbd></p>',
        "<p>{% trans n=n %}{{ n }} scan{% pluralize %}{{ n }} scans{% endtrans %}</p>",
        '<a class="a b" href="{{ url_for("a.b", c="d") }}" aria-current="{{ "page" if x }}">{{ x }}</a>',
        '<p>{{ "%.1f" % x }} {{ "{:,}".format(x) }}</p>',
    ],
)
def test_what_nobody_reads_as_words_may_stand_as_it_is(fine):
    assert bare_words(fine) == []


# Python and scripts


def spoken(tree: ast.AST) -> list[str]:
    """Texts of two words or more in a module, but for docstrings, types, and what is given to gettext."""
    silent = {id(node) for body in ast.walk(tree) for node in not_spoken(body)}
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return [f"line {node.lineno}: {node.value!r}" for node in texts if id(node) not in silent and is_said(node.value)]


def is_said(text: str) -> bool:
    if text.startswith("<"):  # elements: what stands between them, or in an attribute that is read
        return bare_words(text.replace("{}", "")) != []
    return re.search(r"[A-Za-z]{2,},? [a-z]{2,}", text) is not None


# Calls whose texts reach no page as they are: gettext; a page of ours takes abort's place; SQL, salts, the log.
SILENT = {*GETTEXT, "abort", "text", "URLSafeTimedSerializer", "error", "warning", "TypeVar"}


def not_spoken(node: ast.AST) -> list[ast.AST]:
    """The constants below a node that reach no page as they are."""
    silent: list[ast.AST] = []
    if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
        silent.append(node.body[0])
    if isinstance(node, ast.Call) and name_of(node.func) in SILENT:
        silent += [*node.args, *(each.value for each in node.keywords)]
    if isinstance(node, ast.FunctionDef) and node.returns is not None:
        silent.append(node.returns)
    if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
        silent.append(node.annotation)
    return [each for part in silent for each in ast.walk(part)]


def name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_every_sentence_that_a_page_module_says_goes_through_gettext(module):
    assert spoken(ast.parse(module.read_text("utf-8"))) == []


def test_a_sentence_outside_of_gettext_is_found():
    flaws = 'flash("Not saved yet")', 'Refused(f"That {x} is no verdict.")', 'page(problem="Too many of them")'

    assert all(spoken(ast.parse(flaw)) for flaw in flaws)
    assert spoken(ast.parse('"""A docstring of ours."""\nflash(_("Not saved yet"))\n')) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_take_their_words_from_the_page(script):
    code = re.sub(r"^\s*//.*$|/\*.*?\*/", "", script.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)

    sentences = re.findall(r"""(?:"[^"\n]*"|'[^'\n]*'|`[^`]*`)""", code)

    assert [
        text for text in sentences if re.search(r"[A-Z][a-z]+ [a-z]{2,}|[a-z]{3,}: [a-z]{3,} [a-z]{3,}", text)
    ] == []


# The catalogue


def test_the_catalogue_is_up_to_date():
    assert renew_strings.CATALOGUE.read_text("utf-8") == renew_strings.drawn_up(), "run: python tests/renew_strings.py"


def test_the_catalogue_holds_what_templates_and_modules_say():
    ids = {message.id for message in renew_strings.extracted() if message.id}

    assert {"Worklist", "Sign in", "Confirm"} <= ids
    assert any(isinstance(one, tuple) for one in ids)  # some have a plural
    assert len(ids) > 300
