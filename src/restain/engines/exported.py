"""A generator as one graph of plain operations on tensors of fixed size, for those who compile such graphs.

What differs between slides, the white and the states that attention reads from, is an input of the graph, so that one
graph serves every slide.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram

from restain.engines.eager import EagerEngine
from restain.engines.engine import Engine, EngineError
from restain.models.attention import ResidualAttentionBlock
from restain.models.heads import StainHead
from restain.models.network import StainingNetwork
from restain.models.state_grid import State, is_local
from restain.models.streamed import AttentionState


class Graph(nn.Module):
    """A generator with flat inputs: uint8 ``(1, H, W, 3)``, then white and states where it takes them.

    Gives ``(1, H, W, 3 or 4)`` float32, as an engine does. White is ``(1, 3)`` in [0, 1]; states are ``log_mass`` and
    ``mean`` of each attention block by turns.
    """

    def __init__(self, generator: StainingNetwork) -> None:
        super().__init__()
        self.generator = generator
        self.takes_white = isinstance(getattr(generator, "head", None), StainHead)
        self.takes_context = generator.surveys

    def forward(self, he: Tensor, *inputs: Tensor) -> Tensor:
        options: dict[str, object] = {}
        if self.takes_white:
            options["white"], *inputs = inputs  # type: ignore[assignment]
        if self.takes_context:
            options["context"] = [AttentionState(*pair) for pair in zip(inputs[::2], inputs[1::2], strict=True)]
        stained = self.generator(he.permute(0, 3, 1, 2).float() / 255, **options)
        planes = stained.rgb if stained.dab is None else torch.cat([stained.rgb, stained.dab], dim=1)
        return planes.permute(0, 2, 3, 1)

    def inputs(
        self,
        he: NDArray[np.uint8],
        white: NDArray[np.float32] | None,
        context: Sequence[State] | None,
    ) -> list[Tensor]:
        """The graph's inputs for one tile ``(1, H, W, 3)`` and what an engine is given beside it."""
        found = [torch.from_numpy(np.ascontiguousarray(he))]
        if self.takes_white:
            found.append(self._own_white() if white is None else torch.from_numpy(white)[None] / 255)
        for state in context or ():
            assert isinstance(state, AttentionState)
            found += [state.log_mass.contiguous(), state.mean.contiguous()]
        return found

    def example(self, side: int) -> list[Tensor]:
        """Inputs for a tile of ``side`` px; only their shapes mean something."""
        states = []
        for block in self.generator.modules():
            if self.takes_context and isinstance(block, ResidualAttentionBlock):
                heads, features, dim = block.attention.projection.shape
                states.append(
                    AttentionState(torch.zeros(1, heads * features), torch.zeros(1, heads * features, heads * dim))
                )
        return self.inputs(np.zeros((1, side, side, 3), np.uint8), None, states)

    def serves(
        self, side: int, he: NDArray[np.uint8], white: NDArray[np.float32] | None, context: object | None
    ) -> bool:
        """Whether a graph for tiles of ``side`` px can answer such a call."""
        own_field = self.takes_white and white is None and not self._own_white_is_one_colour()
        return (
            he.shape[1:3] == (side, side)
            and (context is not None) == self.takes_context
            and not (own_field or is_local(context))
        )

    def _own_white_is_one_colour(self) -> bool:
        head = self.generator.head
        return isinstance(head, StainHead) and head.white.predict is None

    @torch.no_grad()
    def _own_white(self) -> Tensor:
        head = self.generator.head
        assert isinstance(head, StainHead)
        return torch.sigmoid(head.white.colour).view(1, 3)


def export(graph: Graph, side: int) -> ExportedProgram:
    """The graph for tiles of ``side`` px.

    Raises:
        EngineError: if the network does what a graph cannot hold.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(graph, tuple(graph.example(side)), strict=False)
    except Exception as fault:  # torch.export raises whatever it stumbles over
        first = str(fault).strip().splitlines()[:1]
        raise EngineError(
            f"{type(graph.generator).__name__}: the network cannot be exported as one graph ({' '.join(first)})."
        ) from None


class ExportedEngine(Engine):
    """An engine with a graph for square tiles of one size; all else goes to PyTorch.

    That is: tiles of another size, calls without the context that the network takes (small images that are one tile),
    contexts that depend on the place, and a white field that the model predicts.
    """

    def __init__(self, generator: StainingNetwork, side: int, threads: int | None) -> None:
        self.side = side
        self.eager = EagerEngine(generator, torch.device("cpu"), "fp32", threads)
        self.graph = Graph(generator).eval()

    def __call__(
        self,
        he: NDArray[np.uint8],
        white: NDArray[np.float32] | None = None,
        context: Sequence[State] | None = None,
    ) -> NDArray[np.float32]:
        if not self.graph.serves(self.side, he, white, context):
            return self.eager(he, white, context)
        return np.concatenate([self.run(self.graph.inputs(tile[None], white, context)) for tile in he])

    @abstractmethod
    def run(self, inputs: list[Tensor]) -> NDArray[np.float32]:
        """The graph's output, in memory of its own, for its inputs."""
