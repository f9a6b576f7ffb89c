"""The links at the top of every page: a page's module asks for one with `LINK = (words, roles, order)`. A module whose
pages belong to another's link says so with `UNDER = "that module"`; one with `nav_count()` has that number in it."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from flask import Flask, g, request, url_for

from db.words import Role

Link = tuple[str, tuple[Role, ...], int]  # what it says, who has it, its place from the left


@dataclass(frozen=True)
class Shown:
    """A link as the page shows it; `current` is aria-current's word, empty for where one is not."""

    text: str
    address: str
    current: str
    count: int = 0


def install(app: Flask, pages: Iterable[ModuleType]) -> None:
    """Make `links`, those of who is signed in, available to the templates."""
    modules = list(pages)
    above = {page.bp.name: getattr(page, "UNDER", page.bp.name) for page in modules}
    counts = {page.bp.name: page.nav_count for page in modules if hasattr(page, "nav_count")}
    linked = sorted((page.LINK[2], page.bp.name, page.LINK) for page in modules if hasattr(page, "LINK"))

    @app.context_processor
    def links() -> dict[str, Any]:
        user = g.get("user")
        here = above.get(request.blueprint or "", "")
        mine = [(name, link) for _, name, link in linked if user and user.role in link[1]]
        return {"links": [_shown(name, link, here, counts[name]() if name in counts else 0) for name, link in mine]}


def _shown(name: str, link: Link, here: str, count: int) -> Shown:
    endpoint = f"{name}.index"
    current = "page" if request.endpoint == endpoint else "true" if name == here else ""
    return Shown(link[0], url_for(endpoint), current, count)
