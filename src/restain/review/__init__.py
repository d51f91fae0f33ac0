"""Blinded review: readers score chemical and virtual stains without knowing the modality; agreement is analysed.

Needs the extra ``review``.
"""

from restain.errors import needs

with needs("review", "A blinded review"):
    from restain.review.create import blinding_warnings, create_study
    from restain.review.definition import (
        Kind,
        Modality,
        Question,
        StudyDefinition,
        StudyImage,
        parse_definition,
        read_definition,
    )
    from restain.review.study import Answer, Item, Progress, Reading, Study

__all__ = [
    "Answer",
    "Item",
    "Kind",
    "Modality",
    "Progress",
    "Question",
    "Reading",
    "Study",
    "StudyDefinition",
    "StudyImage",
    "blinding_warnings",
    "create_study",
    "parse_definition",
    "read_definition",
]
