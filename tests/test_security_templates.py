"""What the pages of the web promise in their templates alone."""

import re
from pathlib import Path

TEMPLATES = Path(__file__).parent.parent / "webui" / "templates"
PASSWORDS = {"password", "old", "new", "again"}


def inputs():
    return [tag for page in pages() for tag in re.findall(r"<input\b[^>]*>", page.read_text())]


def test_a_password_is_masked_may_be_pasted_and_is_left_to_password_managers():
    found = [tag for tag in inputs() if PASSWORDS.intersection(re.findall(r'\bname="(\w+)"', tag))]

    assert len(found) >= 5
    for tag in found:
        assert 'type="password"' in tag
        assert re.search(r'autocomplete="(current|new)-password"', tag)
        assert "maxlength" not in tag  # nothing is cut off
    assert not any("onpaste" in page.read_text() for page in pages())


def test_signing_out_is_on_every_page_of_somebody_signed_in():
    base = (TEMPLATES / "_base.html").read_text()

    assert re.search(r'<form[^>]*method="post"[^>]*action="\{\{ url_for\(.auth\.sign_out.\) \}\}"', base)
    own = [page.name for page in pages() if not page.name.startswith("_")]
    assert [name for name in own if '{% extends "_base.html" %}' not in (TEMPLATES / name).read_text()] == []
    assert len(own) >= 6


def pages():
    return sorted(TEMPLATES.glob("*.html"))
