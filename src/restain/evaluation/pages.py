"""Pages that stand beside the report, from this package's templates."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

import restain
from restain.files import write_text


@cache
def environment(package: str = "restain.evaluation") -> Environment:
    """Templates of ``package``, which may extend and include those of this one; everything but markup is escaped."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(name, ".") for name in dict.fromkeys((package, "restain.evaluation"))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_result_page(path: Path, template: str, **view: Any) -> Path:
    """Render a template of this package that extends ``page.html.j2``; everything but markup is escaped.

    Args:
        path: the page's file; its folder must exist.
        template: the template's file name.
        view: its variables; ``notice`` and ``version`` are given.

    Raises:
        RestainError: if the file cannot be written.
    """
    page = environment().get_template(template).render(notice=restain.NOTICE, version=restain.__version__, **view)
    write_text(path, page)
    return path
