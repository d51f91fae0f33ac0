"""The studies that a server offers to their readers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import make_url

from restain.errors import RestainError
from restain.review import Study
from restain.review.create import MPP_TOLERANCE
from restain.review.errors import AnswerConflict, InvalidAnswer, ItemClosed, UnknownItem
from restain.slides import open_slide
from restain.web.accounts.account import Account, Role
from restain.web.accounts.store import account_key
from restain.web.errors import RequestError

_log = logging.getLogger("restain.web.review")
_REFUSALS = {
    UnknownItem: (404, "review.error_item"),
    ItemClosed: (410, "review.error_closed"),
    InvalidAnswer: (400, "review.error_answer"),
    AnswerConflict: (409, "review.error_changed"),
}


@dataclass(frozen=True)
class ServedStudy:
    """An open study; ``location`` is its folder or the URL of its database."""

    id: str
    location: str
    study: Study

    @property
    def options(self) -> list[str]:
        """The arguments of ``restain review`` for this study, without a password."""
        if "://" not in self.location:
            return [self.location]
        return [".", "--store", make_url(self.location).render_as_string(hide_password=True)]


class Studies:
    """Studies of some folders or databases; safe from many threads.

    Raises:
        RestainError: if a location holds no study, or two hold the same one.
    """

    def __init__(self, locations: Sequence[Path | str]) -> None:
        self._served: dict[str, ServedStudy] = {}
        self._mpp: dict[str, float | None] = {}
        self._lock = threading.Lock()
        try:
            for location in map(str, locations):
                study = Study.open(Path(), location) if "://" in location else Study.open(Path(location))
                served = ServedStudy(study.id, location, study)
                if (other := self._served.get(served.id)) is not None:
                    study.close()
                    raise RestainError(
                        f"{served.options[-1]} and {other.options[-1]} hold the same study; give one of them."
                    )
                self._served[served.id] = served
        except BaseException:
            self.close()
            raise

    def add(self, folder: Path) -> ServedStudy:
        """Serve a further study. Raises RestainError if the folder holds none."""
        study = Study.open(folder)
        served = ServedStudy(study.id, str(folder), study)
        with self._lock:
            self._served[served.id] = served
        return served

    def served(self, identity: str) -> ServedStudy:
        """A study for an owner. Raises RequestError 404 if there is none."""
        found = self._served.get(identity)
        if found is None:
            raise RequestError(404, "review.error_study")
        return found

    def all(self) -> list[ServedStudy]:
        return list(self._served.values())

    def read_by(self, account: Account) -> list[ServedStudy]:
        """The studies of a reader; none for an owner, who sees the library and is not blinded."""
        if account.role is not Role.READER:
            return []
        return [one for one in self._served.values() if name_in_study(one.study, account) is not None]

    def get(self, identity: str, account: Account) -> tuple[ServedStudy, str]:
        """A study for its reader, and the reader's name in it.

        Raises:
            RequestError: 404 if there is no such study or the account is not its reader; 403 for an owner.
        """
        found = self._served.get(identity)
        if found is not None and account.role is not Role.READER:
            raise RequestError(403, "review.error_owner")
        reader = None if found is None else name_in_study(found.study, account)
        if found is None or reader is None:
            raise RequestError(404, "review.error_study")
        return found, reader

    def common_mpp(self, served: ServedStudy) -> float | None:
        """µm per px of level 0 if all images share it; a scale bar on some images only would reveal which they are."""
        with self._lock:
            if served.id not in self._mpp:
                self._mpp[served.id] = _common_mpp(served.study.paths)
            return self._mpp[served.id]

    def close(self) -> None:
        for one in self._served.values():
            one.study.close()


def name_in_study(study: Study, account: Account) -> str | None:
    """The account's name among a study's readers. Neither distinguishes upper and lower case."""
    return next((name for name in study.readers if account_key(name) == account_key(account.name)), None)


@contextmanager
def reader_errors() -> Iterator[None]:
    """Turn refusals of a study into sentences for readers; all other errors go to the log only."""
    try:
        yield
    except tuple(_REFUSALS) as error:
        raise RequestError(*_REFUSALS[type(error)]) from None
    except RestainError as error:
        _log.warning("%s", error)
        raise RequestError(503, "review.error_store") from None


def _common_mpp(paths: Sequence[Path]) -> float | None:
    found = []
    for path in paths:
        try:
            with open_slide(path, header_only=True) as slide:
                if not slide.has_mpp:
                    return None
                found.append(slide.mpp)
        except (RestainError, OSError, ValueError, MemoryError):
            return None
    median = sorted(found)[len(found) // 2]
    return median if max(found) <= min(found) * (1 + MPP_TOLERANCE) else None
