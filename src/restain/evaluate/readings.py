"""The readings of one evaluation: what a reader says of every answer and of the real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from restain.data import Pair
from restain.evaluate.reading import DEFAULT, ReadingRow, agreement, load_reader
from restain.evaluate.reference import Reference, with_dab
from restain.prediction import Prediction


class Readings:
    """Reads HER2 levels image by image and tells how well they agree with the known ones.

    Args:
        path: the reader; None for the shipped one, and where none was shipped, nothing is read.

    Raises:
        RestainError: if ``path`` is no reader.
    """

    def __init__(self, path: Path | None) -> None:
        self.reader = None if path is None and not DEFAULT.is_dir() else load_reader(path)
        self.rows: list[ReadingRow] = []

    def read(self, pair: Pair, method: str, answer: Prediction, reference: Reference, mpp: float) -> tuple[str, str]:
        """The levels that classifier and rule read, as text; two empty texts without a reader."""
        if self.reader is None:
            return "", ""
        whole = with_dab(answer, reference)
        assert whole.dab is not None
        read = self.reader.read(whole.rgb, whole.dab, mpp)
        self.rows.append(ReadingRow(pair.name, pair.slide, pair.level, method, read.classifier, read.rule))
        return read.classifier.text, read.rule.text

    def agreement(self, seed: int = 0) -> dict[str, Any] | None:
        """:func:`restain.evaluate.agreement.agreement` by method and the reader's label; None without a reader."""
        return None if self.reader is None else agreement(self.rows, seed) | {"label": self.reader.label}
