"""The pages of a review: what there is to read, and the reading itself; for an owner, how far everybody is."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse

from restain.review import Kind, Question
from restain.review.definition import LONGEST_TEXT, WORDS
from restain.web.grid import Grid
from restain.web.identity import Role, account_of
from restain.web.pages import page
from restain.web.reading.studies import Open, Studies, name_in, told_to_readers
from restain.web.texts import all_texts, language_of, text

ASKED = {
    Kind.HER2: "review.ask_level",
    Kind.HER2_ZERO: "review.ask_zero",
    Kind.MODALITY: "review.ask_modality",
    Kind.QUALITY: "review.ask_quality",
    Kind.TEXT: "review.ask_text",
}
"""Texts of the questions that a study asks in restain's own words."""
CHOSEN = {
    "chemical": "review.choose_chemical",
    "virtual": "review.choose_virtual",
    "null": "review.choose_null",
    "ultralow": "review.choose_ultralow",
    "above": "review.choose_above",
}
"""Texts of the choices that are words; all others are figures and mean the same in every language."""


def review_page(request: Request, studies: Studies, folder: Path) -> HTMLResponse:
    """The reader's own studies; for an owner, every study and how far its readers are, never what they answered."""
    account = account_of(request)
    owner = account.role is Role.OWNER
    shown = studies.all() if owner else studies.read_by(account)
    cards = []
    for one in shown:
        own = name_in(one.study, account)
        cards.append(_card(one, one.study.readers if owner or own is None else (own,)))
    # A folder's name may begin with a dash or hold a space; the command is there to be copied.
    account_command = f"restain accounts add {shlex.quote(str(folder))} NAME --role reader"
    return page(request, "review.html.j2", cards=cards, owner=owner, account_command=account_command)


def reading_page(request: Request, studies: Studies, identity: str) -> HTMLResponse:
    """What to do, and then the reading. What a script needs stands in the page as JSON; of images it knows nothing yet."""
    one, reader = studies.get(identity, account_of(request))
    language = language_of(request)
    definition, size = one.study.definition, one.study.size
    with told_to_readers():
        progress = one.study.progress(reader)
        questions = [_asked(question, language) for question in definition.questions]
    content = {
        "study": one.id,
        "reader": reader,
        "width": size.width,
        "height": size.height,
        "top": Grid(size, 1.0).top,
        "mpp": studies.scale(one),
        "texts": {key: words for key, words in all_texts(language).items() if key.startswith("review.")},
        "questions": questions,
    }
    return page(
        request,
        "review_study.html.j2",
        study=definition,
        progress=progress,
        opens=None if progress.next_at is None else _written(progress.next_at),
        questions=questions,
        longest=LONGEST_TEXT,
        content=content,
        washout=definition.washout_days,
    )


def _card(one: Open, readers: tuple[str, ...]) -> dict[str, Any]:
    rows = []
    with told_to_readers():
        for reader in readers:
            progress = one.study.progress(reader)
            opens = None if progress.next_at is None else _written(progress.next_at)
            rows.append({"reader": reader, "progress": progress, "opens": opens})
    return {
        "id": one.id,
        "title": one.study.definition.title,
        "rows": rows,
        "command": f"restain review results {shlex.join(one.options)} -o results",
    }


def _asked(question: Question, language: str) -> dict[str, Any]:
    """A question as it is shown, its built-in words in the reader's language."""
    own = question.words != WORDS[question.kind]
    choices = []
    for place, value in enumerate(question.choices):
        words = text(language, CHOSEN[value]) if value in CHOSEN else value
        # The key of a figure is the figure, so that 3+ is never under 4.
        choices.append({"value": value, "words": words, "key": value[0] if value[0].isdigit() else str(place + 1)})
    return {
        "name": question.name,
        "kind": question.kind.value,
        "words": question.words if own else text(language, ASKED[question.kind]),
        "needed": question.needed,
        "choices": choices,
    }


def _written(time: datetime) -> tuple[str, str]:
    """A time for machines, and for people whose browser does not say where they live."""
    return time.isoformat(timespec="seconds"), f"{time:%Y-%m-%d %H:%M} UTC"
