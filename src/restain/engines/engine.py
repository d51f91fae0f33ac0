"""What every engine is: one interface, whatever runs the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from restain.errors import RestainError
from restain.models.state_grid import State


class EngineError(RestainError):
    """An engine that this machine, or this network, cannot have; the message says why and what would help."""


class Engine(ABC):
    """A generator made ready to run. Called from one thread at a time; other threads run meanwhile.

    ``name``: what runs it and in which precision, such as ``eager-fp32`` or ``openvino-bf16``.
    """

    name: str

    @abstractmethod
    def __call__(
        self,
        he: NDArray[np.uint8],
        white: NDArray[np.float32] | None = None,
        context: Sequence[State] | None = None,
    ) -> NDArray[np.float32]:
        """Restain a batch of tiles of one size.

        Args:
            he: ``(N, H, W, 3)`` uint8 RGB, of any size.
            white: ``(3,)`` in [0, 255], the glass to render on in place of the model's own; it needs a stain head.
            context: what a survey says of the image that the tiles are of, one state per attention block, for a network
                that surveys (:class:`~restain.models.network.StainingNetwork`). Without it each tile attends to itself. States
                that depend on the place are those of the place of all tiles of the batch.

        Returns:
            ``(N, H, W, 3 or 4)``: RGB in [0, 1], then the DAB density in OD units where the model has a stain head.
        """
