"""The readings of one evaluation: what a classifier says of every answer and of the real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from restain.data import Pair
from restain.evaluation.her2_classifier import DEFAULT, ReadingRow, agreement, load_her2_classifier
from restain.evaluation.reference import Reference, with_dab
from restain.prediction import Prediction


class Readings:
    """Reads HER2 levels image by image and tells how well they agree with the known ones.

    Args:
        path: the classifier; None for the shipped one, and where none was shipped, nothing is read.

    Raises:
        RestainError: if ``path`` is no classifier.
    """

    def __init__(self, path: Path | None) -> None:
        self.classifier = None if path is None and not DEFAULT.is_dir() else load_her2_classifier(path)
        self.rows: list[ReadingRow] = []

    def read(self, pair: Pair, method: str, answer: Prediction, reference: Reference, mpp: float) -> tuple[str, str]:
        """The levels that classifier and rule read, as text; two empty texts without a classifier."""
        if self.classifier is None:
            return "", ""
        whole = with_dab(answer, reference)
        assert whole.dab is not None
        read = self.classifier.read(whole.rgb, whole.dab, mpp)
        self.rows.append(ReadingRow(pair.name, pair.slide, pair.level, method, read.classifier, read.rule))
        return read.classifier.text, read.rule.text

    def agreement(self, seed: int = 0) -> dict[str, Any] | None:
        """:func:`restain.evaluation.agreement.agreement` by method and the classifier's label; None without a classifier."""
        return None if self.classifier is None else agreement(self.rows, seed) | {"label": self.classifier.label}
