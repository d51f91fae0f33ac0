"""The definition of a study, typed, from YAML."""

from __future__ import annotations

import re
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from restain.errors import RestainError
from restain.her2 import Her2Level, Her2Zero
from restain.recipe import read_mapping
from restain.review.errors import InvalidAnswer
from restain.slides.find import is_there


class Modality(StrEnum):
    """Source of the stain: antibody and chromogen, or a generator."""

    CHEMICAL = "chemical"
    VIRTUAL = "virtual"


class Kind(StrEnum):
    """Kind of a question; it determines the answers."""

    HER2 = "her2"
    HER2_ZERO = "her2_zero"
    MODALITY = "modality"
    QUALITY = "quality"
    TEXT = "text"


CHOICES: dict[Kind, tuple[str, ...]] = {
    Kind.HER2: tuple(level.text for level in Her2Level),
    Kind.HER2_ZERO: (Her2Zero.NULL.value, Her2Zero.ULTRALOW.value, "above"),
    Kind.MODALITY: (Modality.CHEMICAL.value, Modality.VIRTUAL.value),
    Kind.QUALITY: ("1", "2", "3", "4", "5"),
    Kind.TEXT: (),
}
"""The answers to each kind of question; a text has no fixed ones."""

WORDS = {
    Kind.HER2: "HER2 IHC score?",
    Kind.HER2_ZERO: (
        "Any membrane staining? null: none; ultralow: faint and incomplete, in at most 10 % of the tumour cells; above: 1+ or more."
    ),
    Kind.MODALITY: "Chemical IHC or virtual stain?",
    Kind.QUALITY: "Quality of the stain, 1 (useless) to 5 (excellent)?",
    Kind.TEXT: "Remarks",
}
LONGEST_TEXT = 4000
"""Largest number of characters of a free text."""


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
# Commas, double quotes and line ends would break iMRMC's files, which know no quoting; a leading "-" marks a truth row.
Name = Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^\w[\w .@+'’-]*$", max_length=80)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StudyImage(_Strict):
    """One image. ``path`` is relative to the YAML file; ``case`` names the tissue, which both modalities share."""

    path: Path
    case: Name
    modality: Modality
    level: Level | None = None
    """True level of the case, if known."""


class Question(_Strict):
    """A question. ``name`` is the key of its answers (default: the kind), ``words`` the text for readers."""

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
        """Whether an item is complete only with an answer; a free text may stay empty."""
        return self.kind is not Kind.TEXT

    @property
    def choices(self) -> tuple[str, ...]:
        return CHOICES[self.kind]

    def check(self, value: str) -> str:
        """The value to store. Raises InvalidAnswer if it is not an answer to this question."""
        if self.kind is Kind.TEXT:
            # JSON may contain lone surrogates, which are not text.
            if len(value) > LONGEST_TEXT or "\x00" in value or any("\ud800" <= one <= "\udfff" for one in value):
                raise InvalidAnswer(f"An answer to '{self.name}' is text of at most {LONGEST_TEXT} characters.")
            return value
        if value not in self.choices:
            raise InvalidAnswer(f"'{value[:40]}' is no answer to '{self.name}'; choose from {', '.join(self.choices)}.")
        return value


class StudyDefinition(_Strict):
    """A study.

    Args:
        repeats: images that every reader sees twice without notice: a share in [0, 1] drawn per reader, or paths.
        washout_days: least time between a reader's readings of a case in the two modalities.
        margin: non-inferiority margin of the agreement (kappa).
        positive: least level of a positive case in the export for iMRMC, which knows two true states.
        seed: of the reading order and of all random figures.
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
    def _consistent(self) -> StudyDefinition:
        _once("reader", self.readers)
        _once("reader", [reader.casefold() for reader in self.readers])
        _once("path", [image.path.as_posix() for image in self.images])
        _once("question", [question.name for question in self.questions])
        _once("kind of question", [one.kind.value for one in self.questions if one.kind is not Kind.TEXT])
        if not any(question.needed for question in self.questions):
            raise ValueError("questions: at least one must be of another kind than text, or no item is ever complete.")
        for name in (*self.readers, *self.cases):
            if name.casefold() == "truth":
                raise ValueError(
                    "'truth' cannot be the name of a reader or case: iMRMC reserves it for the true levels."
                )
        for case, images in self.cases.items():
            if len({image.modality for image in images}) < len(images):
                raise ValueError(f"case '{case}' has two {_doubled(images)} images; a case has one of each modality.")
            if len({image.level for image in images if image.level is not None}) > 1:
                raise ValueError(f"case '{case}' has two different levels.")
        if not isinstance(self.repeats, float):
            _once("repeat", [path.as_posix() for path in self.repeats])
            known = {image.path for image in self.images}
            if missing := [path for path in self.repeats if path not in known]:
                raise ValueError(f"repeats: '{missing[0]}' is not one of the images.")
        return self

    @property
    def cases(self) -> dict[str, list[StudyImage]]:
        """The images of each case, in the order of the file."""
        found: dict[str, list[StudyImage]] = {}
        for image in self.images:
            found.setdefault(image.case, []).append(image)
        return found

    @property
    def levels(self) -> dict[str, Her2Level]:
        """The known true levels by case."""
        return {image.case: image.level for image in self.images if image.level is not None}

    def question(self, name: str) -> Question:
        """Raises InvalidAnswer if there is none of this name."""
        for question in self.questions:
            if question.name == name:
                return question
        raise InvalidAnswer(f"The study has no question '{name[:40]}'.")

    def named(self, kind: Kind) -> str | None:
        """The name of the question of this kind, if there is one."""
        return next((question.name for question in self.questions if question.kind is kind), None)


def read_definition(path: Path) -> StudyDefinition:
    """Read a study from a YAML file; paths become absolute.

    Raises:
        RestainError: if the file cannot be read, is invalid, or names an image that does not exist.
    """
    study = parse_definition(read_mapping(path, "study"), str(path))
    folder = path.resolve().parent
    for image in study.images:
        if not is_there(folder / image.path):
            raise RestainError(f"{path}: image {image.path} does not exist.")
    images = tuple(image.model_copy(update={"path": folder / image.path}) for image in study.images)
    repeats = study.repeats
    if not isinstance(repeats, float):
        repeats = tuple(folder / one for one in repeats)
    return study.model_copy(update={"images": images, "repeats": repeats})


def parse_definition(values: dict[str, Any], source: str) -> StudyDefinition:
    """A study from plain values. Raises RestainError with the first error, prefixed by ``source``."""
    try:
        return StudyDefinition.model_validate(values)
    except ValidationError as fault:
        first = fault.errors()[0]
        # pydantic lists the branch of a union among the keys, which is not a key of the file.
        keys = [str(key) for key in first["loc"] if isinstance(key, int) or re.fullmatch(r"[a-z_0-9]+", str(key))]
        keys = [key for key in keys if key != "float"]
        words = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
        if first["type"] == "string_pattern_mismatch":
            words = f"'{str(first['input'])[:40]}' is not a valid name (letters, digits, spaces and . _ @ + - ')"
        where = f"{'.'.join(keys)}: " if keys else ""
        raise RestainError(f"{source}: {where}{words}.") from None


def _once(what: str, names: list[str] | tuple[str, ...]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{what} '{name}' is given {count} times")


def _doubled(images: list[StudyImage]) -> str:
    return Counter(image.modality.value for image in images).most_common(1)[0][0]
