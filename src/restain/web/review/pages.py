"""The pages of reviews: the list of studies, and the review itself."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from restain.review import Kind, Question
from restain.review.definition import LONGEST_TEXT, WORDS
from restain.web.accounts.account import Role, account_of
from restain.web.grid import Grid
from restain.web.pages import page
from restain.web.review.studies import ServedStudy, Studies, name_in_study, reader_errors
from restain.web.settings import Settings
from restain.web.texts import all_texts, language_of, text

QUESTION_TEXTS = {
    Kind.HER2: "review.ask_level",
    Kind.HER2_ZERO: "review.ask_zero",
    Kind.MODALITY: "review.ask_modality",
    Kind.QUALITY: "review.ask_quality",
    Kind.TEXT: "review.ask_text",
}
"""Texts of questions that a study leaves to restain."""
CHOICE_TEXTS = {
    "chemical": "review.choose_chemical",
    "virtual": "review.choose_virtual",
    "null": "review.choose_null",
    "ultralow": "review.choose_ultralow",
    "above": "review.choose_above",
}
"""Texts of choices that are translated; all others are numbers."""


def page_routes(studies: Studies, settings: Settings) -> APIRouter:
    """The pages under ``/review``."""
    router = APIRouter()

    @router.get("/review")
    def study_list(request: Request) -> Response:
        return _list_page(request, studies, settings)

    @router.get("/review/{identity}")
    def review(request: Request, identity: str) -> Response:
        return _review_page(request, studies, identity)

    return router


def _list_page(request: Request, studies: Studies, settings: Settings) -> HTMLResponse:
    """A reader's own studies; for an owner, all studies with the progress of their readers, never answers."""
    account = account_of(request)
    owner = account.role is Role.OWNER
    cards = []
    for served in studies.all() if owner else studies.read_by(account):
        name = name_in_study(served.study, account)
        cards.append(_card(served, served.study.readers if owner or name is None else (name,)))
    # Quoted, since a folder's name may begin with a dash or hold a space.
    state = [] if settings.state is None else ["--state", str(settings.state.absolute())]
    account_command = shlex.join(
        ["restain", "accounts", "add", str(settings.folder), "NAME", "--role", "reader", *state]
    )
    return page(request, "review.html.j2", cards=cards, owner=owner, account_command=account_command)


def _review_page(request: Request, studies: Studies, identity: str) -> HTMLResponse:
    """Instructions, and the review. The page holds the data of its scripts as JSON, but nothing of any image."""
    served, reader = studies.get(identity, account_of(request))
    language = language_of(request)
    definition, size = served.study.definition, served.study.size
    with reader_errors():
        progress = served.study.progress(reader)
        # The score comes before the origin, so that the guess does not prime it.
        ordered = sorted(definition.questions, key=lambda question: question.kind not in (Kind.HER2, Kind.HER2_ZERO))
        questions = [_question(question, language) for question in ordered]
    content = {
        "study": served.id,
        "reader": reader,
        **Grid(size, 1.0).layout(),
        "mpp": studies.common_mpp(served),
        "texts": {key: entry for key, entry in all_texts(language).items() if key.startswith("review.")},
        "questions": questions,
    }
    return page(
        request,
        "review_study.html.j2",
        study=definition,
        progress=progress,
        opens=_time(progress.next_at),
        questions=questions,
        longest=LONGEST_TEXT,
        content=content,
        washout=definition.washout_days,
    )


def _card(served: ServedStudy, readers: tuple[str, ...]) -> dict[str, Any]:
    with reader_errors():
        progress = {reader: served.study.progress(reader) for reader in readers}
    return {
        "id": served.id,
        "title": served.study.definition.title,
        "rows": [{"reader": name, "progress": one, "opens": _time(one.next_at)} for name, one in progress.items()],
        "command": f"restain review results {shlex.join(served.options)} -o results",
    }


def _question(question: Question, language: str) -> dict[str, Any]:
    """A question for the page; restain's own texts are in the reader's language."""
    custom = question.words != WORDS[question.kind]
    choices = []
    for place, value in enumerate(question.choices):
        # The key of a number is its digit, so that 3+ is never on the key 4.
        key = value[0] if value[0].isdigit() else str(place + 1)
        label = text(language, CHOICE_TEXTS[value]) if value in CHOICE_TEXTS else value
        choices.append({"value": value, "label": label, "key": key})
    return {
        "name": question.name,
        "kind": question.kind.value,
        "label": question.words if custom else text(language, QUESTION_TEXTS[question.kind]),
        "needed": question.needed,
        "choices": choices,
    }


def _time(time: datetime | None) -> tuple[str, str] | None:
    """A time for scripts, and for browsers without scripts, whose time zone is unknown."""
    return None if time is None else (time.isoformat(timespec="seconds"), f"{time:%Y-%m-%d %H:%M} UTC")
