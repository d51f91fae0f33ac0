"""The output of a model for one H&E image, and the interface of everything that is scored as a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Prediction:
    """A virtual IHC image and, from a model with a stain output, its DAB map."""

    rgb: NDArray[np.uint8]
    """``(H, W, 3)`` RGB in [0, 255]."""
    dab: NDArray[np.float32] | None = None
    """``(H, W)`` DAB density in OD units, not negative; ``None`` from an RGB output."""


class Predictor(Protocol):
    """Anything that stains one image: a :class:`restain.stain.Model`, or a class in a test."""

    @property
    def label(self) -> str:
        """Name of the model in reports, for example its recipe and hash."""
        ...

    def predict(self, he: NDArray[np.uint8]) -> Prediction:
        """Stain ``he``, ``(H, W, 3)`` RGB, as an image of the same size."""
        ...
