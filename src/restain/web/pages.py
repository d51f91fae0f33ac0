"""The pages: templates, and what they are filled with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from restain import __version__
from restain.web.accounts.forms import form_token, session_cookie
from restain.web.faults import Fault
from restain.web.identity import account_of, may_open
from restain.web.library import Library
from restain.web.links import Image, Related
from restain.web.texts import COOKIE, LANGUAGES, all_texts, language_of, text
from restain.web.tiles import DAB_COLOURS, Tiles, View

PER_PAGE = 48

_environment = Environment(
    loader=PackageLoader("restain.web", "templates"),
    undefined=StrictUndefined,
    autoescape=select_autoescape(default=True),
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A template in the language of the request; a language asked for in the address is remembered."""
    language = language_of(request)

    def t(key: str, **filled: object) -> str:
        return text(language, key, **filled)

    def elsewhere(code: str) -> str:
        kept = [(k, v) for k, v in request.query_params.multi_items() if k != "lang"]
        # One slash: two would name another host.
        path = quote("/" + request.url.path.lstrip("/\\"))
        return f"{path}?{urlencode([*kept, ('lang', code)])}"

    switch = [(code, name, elsewhere(code)) for code, name in LANGUAGES.items() if code != language]
    account = account_of(request)
    rooms = [room for room in request.app.state.rooms if may_open(account, room[1])]
    html = _environment.get_template(template).render(
        t=t,
        language=language,
        switch=switch,
        version=__version__,
        account=account,
        form_of_account=form_token(request.cookies.get(session_cookie(request))) if account.name else "",
        rooms=rooms if len(rooms) > 1 else [],
        here=request.url.path,
        **values,
    )
    response = HTMLResponse(html, status, headers={"Cache-Control": "no-store", "Content-Language": language})
    if request.query_params.get("lang") in LANGUAGES:
        response.set_cookie(COOKIE, language, max_age=31_536_000, httponly=True, samesite="lax")
    return response


def fault_page(request: Request, fault: Fault) -> HTMLResponse:
    return page(request, "fault.html.j2", fault.status, fault=fault)


def library_page(request: Request, library: Library, tiles: Tiles) -> HTMLResponse:
    """The folder's images, some at a time; ``q`` in the address is looked for in their names."""
    images = library.images()
    query = request.query_params.get("q", "")[:200].strip()
    found = [image for image in images if query.lower() in image.name.lower()]
    pages = max(1, -(-len(found) // PER_PAGE))
    asked = request.query_params.get("page", "1")
    number = min(max(1, int(asked) if asked.isdecimal() and len(asked) < 8 else 1), pages)
    shown = [_card(image, library, tiles) for image in found[(number - 1) * PER_PAGE : number * PER_PAGE]]
    return page(
        request,
        "library.html.j2",
        cards=shown,
        count=len(images),
        found=len(found),
        query=query,
        number=number,
        pages=pages,
        folder=library.root.name,
        truncated=library.truncated,
        link=lambda n: "/?" + urlencode({"q": query, "page": n} if query else {"page": n}),
    )


def _card(image: Image, library: Library, tiles: Tiles) -> dict[str, Any]:
    related = library.related(image)
    card: dict[str, Any] = {"image": image, "related": related, "view": None, "fault": None}
    try:
        card["view"] = tiles.view(image)
    except Fault as fault:
        card["fault"] = fault
    return card


def viewer_page(
    request: Request, image: Image, view: View, related: Related, tiles: Tiles, labels: bool
) -> HTMLResponse:
    """The viewer of an image. What a script needs stands in the page as JSON, which browsers do not run."""
    language = language_of(request)
    others = []
    for one in related.others:
        registered = any(one.id == real.id for real, _ in related.real)
        try:
            other = tiles.view(one)
        except Fault:
            continue
        others.append(layer(one, view if registered else other, on=image if registered else None))
    density = []
    for one in related.density:
        try:
            grid = tiles.density_grid(one)
        except Fault:
            continue
        density.append(
            {"id": one.id, "stamp": one.stamp, "width": grid.size.width, "height": grid.size.height, "top": grid.top}
        )
    content: Mapping[str, Any] = {
        "image": layer(image, view),
        "mpp": view.mpp,
        "others": others,
        "density": density,
        "dabColours": [[least, list(colour)] for least, colour in DAB_COLOURS],
        "outlines": list(related.outlines),
        "texts": all_texts(language),
        "language": language,
    }
    return page(
        request,
        "viewer.html.j2",
        image=image,
        view=view,
        related=related,
        content=content,
        others=others,
        labels=view.associated if labels else (),
        density=density,
    )


def layer(image: Image, view: View, on: Image | None = None) -> dict[str, Any]:
    """What the viewer has to know of an image to show it; with ``on``, as it lies on that one's grid (``view``)."""
    return {
        "id": image.id,
        "stamp": image.stamp + ("" if on is None else on.stamp),
        "name": image.name,
        "kind": image.kind.value,
        "synthetic": image.origin.synthetic,
        "on": None if on is None else on.id,
        "width": view.size.width,
        "height": view.size.height,
        "top": view.grid.top,
    }
