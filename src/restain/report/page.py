"""Pages: Jinja templates of any package in one frame, ``page.html.j2``. Nothing comes from elsewhere.

Pages have no script but an evaluation's, a few lines that move its curtains; without it they are plain pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

import restain
from restain.files import write_text


@cache
def environment(package: str = "restain.report") -> Environment:
    """Templates of ``package``, which may extend and include those of this one; text is escaped."""
    packages = dict.fromkeys((package, "restain.report"))
    found = Environment(
        loader=ChoiceLoader([PackageLoader(name, ".") for name in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["quoted"] = quote
    return found


def render_page(
    template: str,
    package: str = "restain.report",
    *,
    facts: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    **view: Any,
) -> str:
    """The HTML of a ``template`` of ``package`` that extends ``page.html.j2``, with the variables ``view``.

    ``facts`` are name and text of each line on the page's provenance; empty texts are left out. ``notice`` and
    ``version`` have defaults.
    """
    pairs = facts.items() if isinstance(facts, Mapping) else facts
    given = {"notice": restain.NOTICE, "version": restain.__version__, "facts": [p for p in pairs if p[1]]}
    return environment(package).get_template(template).render(given | view)


def write_page(path: Path, template: str, package: str = "restain.report", **view: Any) -> Path:
    """Write :func:`render_page` to ``path``, whose folder exists, and return it.

    Raises RestainError if the file cannot be written.
    """
    write_text(path, render_page(template, package, **view))
    return path


def relative_link(path: Path, folder: Path) -> str:
    """The link to ``path`` from a page in ``folder``, percent-encoded."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())
