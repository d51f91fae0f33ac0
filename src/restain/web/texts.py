"""All texts of the pages, in two languages: ``catalogue/*.json``, one file per section."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from starlette.requests import Request

LANGUAGES = {"en": "English", "zh": "简体中文"}
"""Code and own name; the first is the default."""
COOKIE = "language"


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """Texts by key, each by language."""
    content: dict[str, dict[str, str]] = {}
    for file in sorted(resources.files("restain.web").joinpath("catalogue").iterdir(), key=lambda file: file.name):
        texts = json.loads(file.read_text(encoding="utf-8"))
        if both := content.keys() & texts.keys():
            raise ValueError(f"{file.name} repeats {min(both)}")
        content |= texts
    return content


def text(language: str, key: str, **values: object) -> str:
    """The text ``key`` with its placeholders filled in. Raises KeyError if the catalogue has no such text."""
    return catalogue()[key][language].format(**values)


def all_texts(language: str) -> dict[str, str]:
    """The whole catalogue in one language, for the scripts."""
    return {key: entry[language] for key, entry in catalogue().items()}


def language_of(request: Request) -> str:
    """The language in the address, else that of the cookie, else the best for the browser."""
    for code in (request.query_params.get("lang"), request.cookies.get(COOKIE)):
        if code in LANGUAGES:
            return code
    return preferred_language(request.headers.get("accept-language", ""))


def preferred_language(header: str) -> str:
    """The best of :data:`LANGUAGES` for an ``Accept-Language`` header (RFC 9110); zh stands for zh-TW too."""
    wanted = []
    for place, part in enumerate(header[:1000].split(",")):
        tag, _, quality = part.strip().partition(";")
        try:
            weight = float(quality.strip().removeprefix("q=")) if quality else 1.0
        except ValueError:
            weight = 0.0
        code = tag.strip().lower().split("-")[0]
        if code in LANGUAGES and weight > 0:
            wanted.append((-weight, place, code))
    return min(wanted)[2] if wanted else next(iter(LANGUAGES))
