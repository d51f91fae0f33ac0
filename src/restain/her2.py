"""HER2 expression levels.

Levels follow the ASCO/CAP guideline for HER2 immunohistochemistry in breast cancer (Wolff et al., *Arch Pathol Lab
Med* 2023, doi:10.5858/arpa.2023-0950-SA): 0 no staining, or faint and incomplete in at most 10 % of the tumour cells;
1+ faint, incomplete membrane staining in more than 10 %; 2+ weak to moderate complete staining in more than 10 %;
3+ complete and intense staining in more than 10 %.
"""

from __future__ import annotations

from enum import IntEnum

from restain.errors import RestainError


class Her2Level(IntEnum):
    """The expression level of a slide (not of a patch): 0, 1+, 2+ or 3+. The integer value is the class index."""

    ZERO = 0
    ONE = 1
    TWO = 2
    THREE = 3

    @property
    def text(self) -> str:
        """The level as BCI's file names write it: ``0``, ``1+``, ``2+``, ``3+``."""
        return "0" if self is Her2Level.ZERO else f"{self.value}+"

    @classmethod
    def parse(cls, text: str) -> Her2Level:
        """Read a level from its text form.

        Raises:
            RestainError: if ``text`` is none of ``0``, ``1+``, ``2+``, ``3+``.
        """
        for level in cls:
            if level.text == text:
                return level
        raise RestainError(f"'{text}' is not a HER2 level; the levels are 0, 1+, 2+ and 3+.")
