"""The studies that are open to their readers, by a name that tells no path."""

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
from restain.review.errors import AnswerConflict, InvalidAnswer, ItemClosed, UnknownItem
from restain.slides import open_slide
from restain.web.accounts.roster import key_of
from restain.web.faults import Fault
from restain.web.identity import Account, Role

ONE_SCALE = 0.01
"""Images whose mpp differ by a smaller share than this are of one scale."""
_log = logging.getLogger("restain.web.reading")


@dataclass(frozen=True)
class Open:
    """A study that is served; ``place`` as it was given, a folder or the URL of a database."""

    id: str
    place: str
    study: Study

    @property
    def options(self) -> list[str]:
        """What names the study to ``restain review``, without a password."""
        if "://" not in self.place:
            return [self.place]
        return [".", "--store", make_url(self.place).render_as_string(hide_password=True)]


class Studies:
    """Opens the studies of some folders or databases; safe from many threads.

    Raises:
        RestainError: if one holds no study, or two hold the same one.
    """

    def __init__(self, places: Sequence[Path | str]) -> None:
        self._open: dict[str, Open] = {}
        self._scales: dict[str, float | None] = {}
        self._lock = threading.Lock()
        try:
            for place in map(str, places):
                study = Study.open(Path(), place) if "://" in place else Study.open(Path(place))
                one = Open(study.id, place, study)
                if (other := self._open.get(one.id)) is not None:
                    study.close()
                    raise RestainError(
                        f"{one.options[-1]} holds the study that {other.options[-1]} holds; give one of them."
                    )
                self._open[one.id] = one
        except BaseException:
            self.close()
            raise

    def all(self) -> list[Open]:
        return list(self._open.values())

    def read_by(self, account: Account) -> list[Open]:
        """The studies of a reader; none for an owner, who has the library and so is not blinded."""
        if account.role is not Role.READER:
            return []
        return [one for one in self._open.values() if name_in(one.study, account) is not None]

    def get(self, identity: str, account: Account) -> tuple[Open, str]:
        """A study for its reader, and the reader's name in it.

        Raises:
            Fault: 404, if there is none or the account is not one of its readers, the same for both; 403 for an owner.
        """
        found = self._open.get(identity)
        if found is not None and account.role is not Role.READER:
            raise Fault(403, "review.fault_owner")
        reader = None if found is None else name_in(found.study, account)
        if found is None or reader is None:
            raise Fault(404, "review.fault_study")
        return found, reader

    def scale(self, one: Open) -> float | None:
        """µm per px of level 0, where all images of the study have the same: a scale bar that only some could have would tell them apart."""
        with self._lock:
            if one.id not in self._scales:
                self._scales[one.id] = _one_scale(one.study.paths)
            return self._scales[one.id]

    def close(self) -> None:
        for one in self._open.values():
            one.study.close()


def name_in(study: Study, account: Account) -> str | None:
    """The name that an account has among a study's readers; neither knows two that differ in capitals alone."""
    return next((name for name in study.readers if key_of(name) == key_of(account.name)), None)


@contextmanager
def told_to_readers() -> Iterator[None]:
    """What a study refuses becomes a sentence that readers may see; what else is wrong with it is told to the log alone."""
    try:
        yield
    except UnknownItem:
        raise Fault(404, "review.fault_item") from None
    except ItemClosed:
        raise Fault(410, "review.fault_closed") from None
    except InvalidAnswer:
        raise Fault(400, "review.fault_answer") from None
    except AnswerConflict:
        raise Fault(409, "review.fault_changed") from None
    except RestainError as fault:
        _log.warning("%s", fault)
        raise Fault(503, "review.fault_store") from None


def _one_scale(paths: Sequence[Path]) -> float | None:
    scales = []
    for path in paths:
        try:
            with open_slide(path) as slide:
                if not slide.has_mpp:
                    return None
                scales.append(slide.mpp)
        except (RestainError, OSError, ValueError, MemoryError):
            return None
    middle = sorted(scales)[len(scales) // 2]
    return middle if all(abs(scale / middle - 1) < ONE_SCALE for scale in scales) else None
