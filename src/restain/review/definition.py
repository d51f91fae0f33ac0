"""What a study is: images, questions, readers, repeats, washout, margin, seed; typed, from YAML."""

from __future__ import annotations

import re
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from restain.errors import RestainError
from restain.her2 import Her2Level
from restain.recipe import read_mapping
from restain.review.faults import NoAnswer
from restain.slides.find import is_there


class Modality(StrEnum):
    """Where the brown of an image comes from: antibody and DAB, or a generator."""

    CHEMICAL = "chemical"
    VIRTUAL = "virtual"

    @property
    def other(self) -> Modality:
        return Modality.VIRTUAL if self is Modality.CHEMICAL else Modality.CHEMICAL


class Kind(StrEnum):
    """What is asked, and with it which values are answers."""

    HER2 = "her2"
    ORIGIN = "origin"
    QUALITY = "quality"
    TEXT = "text"


CHOICES: dict[Kind, tuple[str, ...]] = {
    Kind.HER2: tuple(level.text for level in Her2Level),
    Kind.ORIGIN: (Modality.CHEMICAL.value, Modality.VIRTUAL.value),
    Kind.QUALITY: ("1", "2", "3", "4", "5"),
    Kind.TEXT: (),
}
"""The values of each kind of question; a text has none to choose from."""

WORDS = {
    Kind.HER2: "HER2 level?",
    Kind.ORIGIN: "Real (chemical) or virtual stain?",
    Kind.QUALITY: "Quality of the staining, 1 (useless) to 5 (excellent)?",
    Kind.TEXT: "Remarks",
}
LONGEST_TEXT = 4000
"""Characters of a free text that are taken."""


def _as_level(value: object) -> object:
    if isinstance(value, Her2Level):
        return value
    try:
        return Her2Level.parse(str(value))
    except RestainError as fault:
        raise ValueError(str(fault)) from None


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Level = Annotated[Her2Level, BeforeValidator(_as_level), PlainSerializer(lambda level: level.text)]
# Commas, quotes and line ends would break iMRMC's files, which know no quoting; a leading "-" is its mark of a truth row.
Name = Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^\w[\w .@+-]*$", max_length=80)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StudyImage(_Strict):
    """One image of the study.

    ``path`` is taken from the YAML file's folder; ``case`` names the tissue, the same for its chemical and its virtual
    image; ``level`` is the case's true level where it is known.
    """

    path: Path
    case: Name
    modality: Modality
    level: Level | None = None


class Question(_Strict):
    """``name`` is what its answers are stored under, its kind where none is given; ``words`` is what a reader sees."""

    kind: Kind
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)] = ""
    words: Annotated[str, Field(max_length=300)] = ""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        given = {"kind": given} if isinstance(given, str) else given
        if isinstance(given, dict) and isinstance(kind := given.get("kind"), str) and kind in list(Kind):
            return {"name": kind, "words": WORDS[Kind(kind)], **given}
        return given

    @property
    def needed(self) -> bool:
        """Whether an item is complete only with an answer to it; a free text may stay empty."""
        return self.kind is not Kind.TEXT

    @property
    def choices(self) -> tuple[str, ...]:
        return CHOICES[self.kind]

    def check(self, value: str) -> str:
        """The value as it is stored.

        Raises:
            NoAnswer: if it is none to this question.
        """
        if self.kind is Kind.TEXT:
            # Half a surrogate pair, which JSON can spell, is no text.
            if len(value) > LONGEST_TEXT or "\x00" in value or any("\ud800" <= one <= "\udfff" for one in value):
                raise NoAnswer(f"An answer to '{self.name}' is text of at most {LONGEST_TEXT} characters.")
            return value
        if value not in self.choices:
            raise NoAnswer(f"'{value[:40]}' is no answer to '{self.name}'; answers are {', '.join(self.choices)}.")
        return value


class StudyDefinition(_Strict):
    """A study.

    Args:
        repeats: images that every reader sees twice, unknowingly: a share in [0, 1] drawn per reader, or a list of paths.
        washout_days: least time between a reader's two readings of a case, chemical and virtual.
        margin: the virtual stain is non-inferior if its agreement (kappa) is worse by less than this.
        positive: from which level on a case counts as positive in the export for iMRMC, which knows two truths.
        seed: of the order and of every figure that draws at random.
    """

    title: Annotated[str, Field(min_length=1, max_length=200)]
    images: Annotated[tuple[StudyImage, ...], Field(min_length=1)]
    questions: Annotated[tuple[Question, ...], Field(min_length=1)]
    readers: Annotated[tuple[Name, ...], Field(min_length=1)]
    repeats: Annotated[float, Field(ge=0, le=1)] | tuple[Path, ...] = 0.0
    washout_days: Annotated[float, Field(ge=0, le=3650)] = 14.0
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.1
    positive: Level = Her2Level.THREE
    seed: Annotated[int, Field(ge=0)] = 0
    format: Literal[1] = 1

    @model_validator(mode="after")
    def _whole(self) -> StudyDefinition:
        _once("reader", self.readers)
        _once("reader", [reader.casefold() for reader in self.readers])
        _once("path", [image.path.as_posix() for image in self.images])
        _once("question", [question.name for question in self.questions])
        _once("kind of question", [one.kind.value for one in self.questions if one.kind is not Kind.TEXT])
        if not any(question.needed for question in self.questions):
            raise ValueError("questions: one at least must be other than text, or no item is ever complete.")
        for name in (*self.readers, *self.cases):
            if name.casefold() == "truth":
                raise ValueError("'truth' cannot be the name of a reader or case: iMRMC keeps it for the true levels.")
        for case, images in self.cases.items():
            if len({image.modality for image in images}) < len(images):
                raise ValueError(f"case '{case}' has two {_doubled(images)} images; a case has one of each modality.")
            if len({image.level for image in images if image.level is not None}) > 1:
                raise ValueError(f"case '{case}' has two different levels.")
        if not isinstance(self.repeats, float):
            _once("repeat", [path.as_posix() for path in self.repeats])
            known = {image.path for image in self.images}
            if missing := [path for path in self.repeats if path not in known]:
                raise ValueError(f"repeats: '{missing[0]}' is none of the images.")
        return self

    @property
    def cases(self) -> dict[str, list[StudyImage]]:
        """The images of each case, in the order in which they are given."""
        found: dict[str, list[StudyImage]] = {}
        for image in self.images:
            found.setdefault(image.case, []).append(image)
        return found

    @property
    def levels(self) -> dict[str, Her2Level]:
        """The true level of each case whose level is known."""
        return {image.case: image.level for image in self.images if image.level is not None}

    def question(self, name: str) -> Question:
        """Raises NoAnswer if there is no such question."""
        for question in self.questions:
            if question.name == name:
                return question
        raise NoAnswer(f"The study does not ask '{name[:40]}'.")

    def named(self, kind: Kind) -> str | None:
        """The name of the question of this kind, if it is asked."""
        return next((question.name for question in self.questions if question.kind is kind), None)


def read_definition(path: Path) -> StudyDefinition:
    """Read a study from a YAML file; paths of images come out absolute.

    Raises:
        RestainError: if the file cannot be read, is no YAML, is at fault, or names an image that is not there.
    """
    study = parse_definition(read_mapping(path, "study"), str(path))
    folder = path.resolve().parent
    for image in study.images:
        if not is_there(folder / image.path):
            raise RestainError(f"{path}: image {image.path} is not there.")
    images = tuple(image.model_copy(update={"path": folder / image.path}) for image in study.images)
    repeats = study.repeats
    if not isinstance(repeats, float):
        repeats = tuple(folder / one for one in repeats)
    return study.model_copy(update={"images": images, "repeats": repeats})


def parse_definition(values: dict[str, Any], source: str) -> StudyDefinition:
    """A study from plain values; ``source`` is what a fault names.

    Raises:
        RestainError: the first fault, in one sentence.
    """
    try:
        return StudyDefinition.model_validate(values)
    except ValidationError as fault:
        first = fault.errors()[0]
        # pydantic names the branch of a union among the keys; a user knows only their own keys.
        keys = [str(key) for key in first["loc"] if isinstance(key, int) or re.fullmatch(r"[a-z_0-9]+", str(key))]
        keys = [key for key in keys if key != "float"]
        words = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
        if first["type"] == "string_pattern_mismatch":
            words = f"'{str(first['input'])[:40]}' is no name (letters, digits, spaces and . _ @ + - are)"
        where = f"{'.'.join(keys)}: " if keys else ""
        raise RestainError(f"{source}: {where}{words}.") from None


def _once(what: str, names: list[str] | tuple[str, ...]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{what} '{name}' is given {count} times")


def _doubled(images: list[StudyImage]) -> str:
    return Counter(image.modality.value for image in images).most_common(1)[0][0]
