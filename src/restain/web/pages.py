"""The pages of library and viewer, and what all pages share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from restain import __version__
from restain.web.accounts.account import account_of, may_open
from restain.web.accounts.forms import csrf_token, session_cookie
from restain.web.cases import Cases, folder_tree, in_order
from restain.web.errors import RequestError
from restain.web.library import Library
from restain.web.links import Image, Overlays
from restain.web.measure import BINS
from restain.web.provenance import WHOLE, ImageKind
from restain.web.security import path_of, root_of
from restain.web.texts import COOKIE, LANGUAGES, all_texts, language_of, text
from restain.web.tiles import DAB_COLOURS, ImageFacts, Tiles

PER_PAGE = 48
FILTERS = ("kind", "patient", "block", "folder", "sort")
"""Parameters of the library's address besides ``q`` and ``page``."""

_environment = Environment(
    loader=PackageLoader("restain.web", "templates"),
    undefined=StrictUndefined,
    autoescape=select_autoescape(default=True),
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A template in the language of the request; a language in the address is remembered."""
    language, root = language_of(request), root_of(request)
    # Two slashes would name another host.
    path = quote("/" + path_of(request).lstrip("/\\"))

    def t(key: str, **filled: object) -> str:
        return text(language, key, **filled)

    def in_language(code: str) -> str:
        kept = [(k, v) for k, v in request.query_params.multi_items() if k != "lang"]
        return f"{root}{path}?{urlencode([*kept, ('lang', code)])}"

    account = account_of(request)
    sections = [section for section in request.app.state.sections if may_open(account, section[1])]
    html = _environment.get_template(template).render(
        t=t,
        language=language,
        other_languages=[(code, name, in_language(code)) for code, name in LANGUAGES.items() if code != language],
        version=__version__,
        account=account,
        csrf_token=csrf_token(request.cookies.get(session_cookie(request))) if account.name else "",
        sections=sections if len(sections) > 1 else [],
        root=root,
        path=path,
        **values,
    )
    response = HTMLResponse(html, status, headers={"Cache-Control": "no-store", "Content-Language": language})
    if request.query_params.get("lang") in LANGUAGES:
        response.set_cookie(COOKIE, language, max_age=31_536_000, httponly=True, samesite="lax")
    return response


def error_page(request: Request, error: RequestError) -> HTMLResponse:
    return page(request, "error.html.j2", error.status, error=error)


@dataclass(frozen=True)
class ImageList:
    """One page of the images whose name contains a text: page ``number`` of ``pages``."""

    path: str
    query: str
    images: Sequence[Image]
    found: int
    number: int
    pages: int
    kept: tuple[tuple[str, str], ...] = ()
    """Further parameters of the address."""

    def link(self, number: int, **other: str) -> str:
        """The address of another page, or of the first one with other parameters; an empty one is left out."""
        query = dict(self.kept) | {"q": self.query} | ({} if number == 1 else {"page": str(number)}) | other
        return f"{self.path}?{urlencode({key: value for key, value in query.items() if value})}"


def list_images(request: Request, images: Sequence[Image], per_page: int) -> ImageList:
    """The page of ``images`` that ``q`` and ``page`` in the address select."""
    query = request.query_params.get("q", "")[:200].strip()
    found = [image for image in images if query.lower() in image.name.lower()]
    pages = max(1, -(-len(found) // per_page))
    wanted = request.query_params.get("page", "1")
    number = min(max(1, int(wanted) if wanted.isdecimal() and len(wanted) < 8 else 1), pages)
    shown = found[(number - 1) * per_page : number * per_page]
    kept = tuple((key, request.query_params[key][:200]) for key in FILTERS if request.query_params.get(key))
    return ImageList(path_of(request)[1:] or ".", query, shown, len(found), number, pages, kept)


def library_page(request: Request, library: Library, tiles: Tiles, cases: Cases) -> HTMLResponse:
    """Images of the library that the filters of the address select, :data:`PER_PAGE` on a page."""
    images, chosen = library.images(), {key: request.query_params.get(key, "")[:200] for key in FILTERS}
    case_of = cases.of_all(images, library.source)

    def unreadable(image: Image) -> bool:
        try:
            tiles.facts(image)
        except RequestError:
            return True
        return False

    def selected(image: Image) -> bool:
        case, kind = case_of[image.id], chosen["kind"]
        if chosen["patient"] not in ("", case.patient) or chosen["block"] not in ("", case.block):
            return False
        if chosen["folder"] and not image.title.startswith(f"{chosen['folder']}/"):
            return False
        return not kind or (unreadable(image) if kind == "unreadable" else image.kind.value == kind)

    ordered = in_order([one for one in images if selected(one)], case_of, chosen["sort"])
    listed = list_images(request, ordered, PER_PAGE)
    cards = []
    for image in listed.images:
        facts, error = None, None
        try:
            facts = tiles.facts(image)
        except RequestError as refusal:
            error = refusal
        about = {"case": case_of[image.id], "made": made_by(image, language_of(request))}
        cards.append({"image": image, "related": library.related(image), "facts": facts, "error": error} | about)
    by_case = chosen["sort"] == "case"
    groups = [
        {"case": case, "report": cases.report(case.patient) if case else "", "cards": list(own)}
        for case, own in groupby(cards, key=lambda card: card["case"] if by_case else None)
    ]
    return page(
        request,
        "library.html.j2",
        groups=groups,
        count=len(images),
        listed=listed,
        folder=library.root.name,
        chosen=chosen,
        filtered=any(chosen[key] for key in FILTERS if key != "sort"),
        patients=_counted(case.patient for case in case_of.values()),
        blocks=_counted(case.block for case in case_of.values() if case.patient == chosen["patient"]),
        tree=folder_tree(images, chosen["folder"]),
        table_fault=cases.fault,
        report=cases.report(chosen["patient"]),
        truncated=library.truncated,
    )


def _counted(names: Iterable[str]) -> list[tuple[str, int]]:
    """Each name that is not empty with its number, by name."""
    return sorted((name, count) for name, count in Counter(names).items() if name)


def viewer_page(request: Request, image: Image, library: Library, tiles: Tiles, labels: bool) -> HTMLResponse:
    """The viewer of an image. The page holds the data of its scripts as JSON."""
    facts, related, language = tiles.facts(image), library.related(image), language_of(request)
    others, unchecked = [], related.chemical_images(checked=False)
    for one in related.others:
        with suppress(RequestError):
            own = tiles.facts(one)
            layer = image_layer(one, own) if one in related.virtual else image_layer(one, facts, image)
            others.append(layer | {"byName": one in unchecked, "made": made_by(one, language)})
    overlays = {stain: _overlays(found, tiles) for stain, found in related.overlays.items()}
    content = {
        "image": image_layer(image, facts),
        "mpp": facts.mpp,
        "others": others,
        "overlays": overlays,
        "dabColours": [[lowest, list(colour)] for lowest, colour in DAB_COLOURS],
        "texts": all_texts(language),
        "language": language,
    }
    return page(
        request,
        "viewer.html.j2",
        image=image,
        facts=facts,
        related=related,
        content=content,
        bins=BINS,
        others=others,
        labels=facts.associated if labels else (),
        has_density=any(one["density"] for one in overlays.values()),
        outlines={which for one in overlays.values() for which in one["outlines"]},
    )


def made_by(image: Image, language: str) -> str:
    """Model, time, region and option of a virtual stain in one line; empty for other images."""
    if image.kind is not ImageKind.VIRTUAL:
        return ""
    stated, region = dict(image.provenance.facts), ""
    if image.provenance.region:
        x, y, width, height = image.provenance.region
        region = text(language, "made.region", x=x, y=y, width=width, height=height)
    elif stated.get("region", WHOLE) != WHOLE:
        region = text(language, "made.part")
    everywhere = text(language, "made.everywhere") if stated.get("tissue") == "everywhere" else ""
    parts = (stated.get("bundle", ""), stated.get("created", "")[:16].replace("T", " "), region, everywhere)
    return " · ".join(part for part in parts if part)


def image_layer(image: Image, facts: ImageFacts, fixed: Image | None = None) -> dict[str, Any]:
    """The data of an image for the scripts; with ``fixed``, as aligned with that image, whose ``facts`` are given."""
    return {
        "id": image.id,
        "stamp": image.stamp + ("" if fixed is None else fixed.stamp),
        "name": image.title,
        "kind": image.kind.value,
        "synthetic": image.provenance.synthetic,
        "fixed": None if fixed is None else fixed.id,
        **facts.grid.layout(),
    }


def _overlays(overlays: Overlays, tiles: Tiles) -> dict[str, Any]:
    density = None
    if overlays.density is not None:
        # An unreadable density is not offered.
        with suppress(RequestError):
            layout = tiles.density_grid(overlays.density).layout()
            density = {"id": overlays.density.id, "stamp": overlays.density.stamp, **layout}
    return {"density": density, "outlines": list(overlays.outlines)}
