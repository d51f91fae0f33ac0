"""Every word that a page shows, in two languages, from one catalogue: ``catalogue/*.json``, a file for each room."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from string import Formatter

from starlette.requests import Request

LANGUAGES = {"en": "English", "zh": "简体中文"}
"""Code and own name; the first is spoken where a browser wants none of them."""
COOKIE = "language"


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """Texts by key, each by language."""
    content: dict[str, dict[str, str]] = {}
    for room in sorted(resources.files("restain.web").joinpath("catalogue").iterdir(), key=lambda file: file.name):
        texts = json.loads(room.read_text(encoding="utf-8"))
        if both := content.keys() & texts.keys():
            raise ValueError(f"{room.name} repeats {min(both)}")
        content |= texts
    return content


def text(language: str, key: str, **values: object) -> str:
    """The text ``key`` in ``language``, its places in braces filled in.

    Raises:
        KeyError: if the catalogue has no such text.
    """
    return catalogue()[key][language].format(**values)


def all_texts(language: str) -> dict[str, str]:
    """The whole catalogue in one language, for the scripts."""
    return {key: entry[language] for key, entry in catalogue().items()}


def places(template: str) -> set[str]:
    """The names in braces of a text."""
    return {name for _, name, _, _ in Formatter().parse(template) if name}


def language_of(request: Request) -> str:
    """The language of a request: asked for in the address, chosen before (cookie), or the browser's first that is spoken."""
    for asked in (request.query_params.get("lang"), request.cookies.get(COOKIE)):
        if asked in LANGUAGES:
            return asked
    return preferred(request.headers.get("accept-language", ""))


def preferred(header: str) -> str:
    """The best of :data:`LANGUAGES` for an ``Accept-Language`` header (RFC 9110); zh-TW readers get zh as well."""
    wanted = []
    for place, part in enumerate(header[:1000].split(",")):
        code, _, quality = part.strip().partition(";")
        try:
            weight = float(quality.strip().removeprefix("q=")) if quality else 1.0
        except ValueError:
            weight = 0.0
        spoken = code.strip().lower().split("-")[0]
        if spoken in LANGUAGES and weight > 0:
            wanted.append((-weight, place, spoken))
    return min(wanted)[2] if wanted else next(iter(LANGUAGES))
