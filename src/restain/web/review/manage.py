"""An owner's pages of studies: make one from the library, add readers, see results."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from restain.errors import RestainError
from restain.review import Kind, blinding_warnings, create_study, parse_definition
from restain.review.analysis import analyse
from restain.review.definition import StudyDefinition
from restain.web.accounts.account import Role, account_of
from restain.web.accounts.forms import read_form, session_cookie
from restain.web.accounts.store import AccountStore, account_key
from restain.web.errors import RequestError
from restain.web.library import Library
from restain.web.links import Image
from restain.web.pages import page
from restain.web.review.studies import ServedStudy, Studies
from restain.web.security import root_of
from restain.web.settings import Settings

MOST_FIELDS = 2000


def manage_routes(studies: Studies, settings: Settings, library: Library, accounts: AccountStore) -> APIRouter:
    """The pages under ``/study``, which only owners may open."""
    router = APIRouter(prefix="/study")
    folder = settings.state_folder / "studies"

    @router.get("/new")
    def form(request: Request) -> Response:
        return _form_page(request, library, {})

    @router.post("/new")
    async def create(request: Request) -> Response:
        fields = await _fields(request)
        return await run_in_threadpool(make, request, fields)

    def make(request: Request, fields: dict[str, str]) -> Response:
        try:
            definition = _definition(library, fields)
            found = blinding_warnings(definition)
            if found and "confirmed" not in fields:
                return _form_page(request, library, fields, warnings=found)
            place = folder / secrets.token_hex(5)
            create_study(definition, place).close()
            served = studies.add(place)
        except RestainError as error:
            return _form_page(request, library, fields, error=str(error).removeprefix("study: "))
        return RedirectResponse(f"{root_of(request)}/study/{served.id}", 303)

    @router.get("/{identity}")
    def study(request: Request, identity: str) -> Response:
        return _study_page(request, studies.served(identity), accounts)

    @router.post("/{identity}/readers")
    async def add_reader(request: Request, identity: str) -> Response:
        fields = await _fields(request)
        served = studies.served(identity)
        try:
            await run_in_threadpool(served.study.add_reader, fields.get("reader", "").strip())
        except RestainError as error:
            return _study_page(request, served, accounts, str(error).removeprefix("study: "))
        return RedirectResponse(f"{root_of(request)}/study/{identity}", 303)

    return router


async def _fields(request: Request) -> dict[str, str]:
    # Without accounts there is no session; the origin was checked then.
    if account_of(request).name:
        return await read_form(request, request.cookies.get(session_cookie(request)), MOST_FIELDS)
    return await read_form(request, None, MOST_FIELDS, csrf=False)


def _pairs(library: Library) -> list[tuple[Image, Image, Image]]:
    """H&E, chemical and newest virtual images of one pixel grid."""
    found = []
    for image in library.images():
        related = library.related(image)
        chemical = [one.image for one in related.chemical if one.registration is None]
        if chemical and related.virtual:
            newest = max(related.virtual, key=lambda one: dict(one.provenance.facts).get("created", ""))
            found.append((image, chemical[0], newest))
    return found


def _definition(library: Library, fields: Mapping[str, str]) -> StudyDefinition:
    """The study of a submitted form. Raises RestainError if it is not valid."""
    images: list[dict[str, Any]] = []
    for he, chemical, virtual in _pairs(library):
        if f"case-{he.id}" in fields:
            level = he.provenance.level or chemical.provenance.level
            case = "".join(one if one.isalnum() or one in " .@+-_" else "_" for one in he.title)[-79:].lstrip(" .@+-")
            for modality, image in (("chemical", chemical), ("virtual", virtual)):
                images.append({"path": str(image.path), "case": case, "modality": modality, "level": level})
    questions: list[Any] = [kind.value for kind in Kind if f"ask-{kind.value}" in fields]
    readers = [line.strip() for line in fields.get("readers", "").splitlines() if line.strip()]
    values = {
        "title": fields.get("title", "").strip(),
        "images": images,
        "questions": questions,
        "readers": readers,
        "repeats": _number(fields, "repeats") / 100,
        "washout_days": _number(fields, "washout"),
        "seed": secrets.randbelow(1 << 31),
    }
    return parse_definition(values, "study")


def _number(fields: Mapping[str, str], name: str) -> float:
    try:
        return float(fields.get(name) or 0)
    except ValueError:
        raise RestainError(f"{name}: '{fields[name][:20]}' is not a number.") from None


def _form_page(
    request: Request, library: Library, fields: Mapping[str, str], *, warnings: list[str] | None = None, error: str = ""
) -> Response:
    kinds = [(kind, f"ask-{kind.value}" in fields if fields else kind is not Kind.HER2_ZERO) for kind in Kind]
    return page(
        request,
        "study_new.html.j2",
        400 if error else 200,
        pairs=_pairs(library),
        fields={"washout": "14", "repeats": "10"} | dict(fields),
        kinds=kinds,
        warnings=warnings or [],
        error=error,
    )


def _study_page(request: Request, served: ServedStudy, accounts: AccountStore, error: str = "") -> Response:
    """Readers, progress and results. An owner is not blinded and reads no study."""
    if account_of(request).role is not Role.OWNER:
        raise RequestError(403, "error.not_yours")
    known = {account_key(one.account.name) for one in accounts.entries() if one.account.role is Role.READER}
    study = served.study
    readings = study.readings()
    return page(
        request,
        "study.html.j2",
        400 if error else 200,
        study=study.definition,
        id=served.id,
        rows=[(name, study.progress(name), account_key(name) in known) for name in study.readers],
        found=analyse(study.definition, readings) if any(one.complete for one in readings) else None,
        error=error,
    )
