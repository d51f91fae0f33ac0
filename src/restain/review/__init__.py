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
        parse_definition,
        read_definition,
    )
    from restain.review.study import Item, Reading, Study

__all__ = [
    "Item",
    "Kind",
    "Modality",
    "Question",
    "Reading",
    "Study",
    "StudyDefinition",
    "blinding_warnings",
    "create_study",
    "parse_definition",
    "read_definition",
]
