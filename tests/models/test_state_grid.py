"""States on a grid: what is interpolated depends on the place alone."""

from functools import reduce
from operator import add

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.geometry import Point, Region, Size
from restain.models.attention import FavorAttention, ResidualAttentionBlock
from restain.models.generator import Generator
from restain.models.network import batch_of
from restain.models.state_grid import Lattice, LocalState, StateGrid, is_local
from restain.models.streamed import AttentionState
from restain.models.survey import Survey, grid_of
from restain.recipe import AttentionRecipe, ExpressionRecipe, GeneratorRecipe

CHANNELS = 8


def attention(chunk: int = 4096) -> FavorAttention:
    torch.manual_seed(0)
    made = FavorAttention(CHANNELS, heads=2, features=6, chunk=chunk).double()
    with torch.no_grad():
        for projection in (made.to_q, made.to_k, made.to_v):
            projection.weight.mul_(1.5)
    return made


def random_states(count: int, seed: int = 0, spread: float = 3.0) -> AttentionState:
    generator = torch.Generator().manual_seed(seed)
    log_mass = spread * torch.randn(count, 12, generator=generator, dtype=torch.float64)
    return AttentionState(log_mass, torch.randn(count, 12, CHANNELS, generator=generator, dtype=torch.float64))


def numbered(rows: int, columns: int) -> np.ndarray:
    return np.arange(rows * columns).reshape(rows, columns)


def tokens(height: int, width: int, images: int = 1) -> torch.Tensor:
    return torch.randn(images, height, width, CHANNELS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def softmax_over_nodes_and_features(
    made: FavorAttention, x: torch.Tensor, states: AttentionState, weights: torch.Tensor
) -> torch.Tensor:
    """The formula of the module's docstring for one token ``(C,)``: weights ``(K,)``."""
    dim = CHANNELS // made.heads
    query = made.to_q(x).view(made.heads, dim) / dim**0.25
    logits = torch.einsum("hd,hfd->hf", query, made.projection)
    logits = logits + states.log_mass.view(-1, made.heads, 6) + weights.log().view(-1, 1, 1)
    by_head = logits.transpose(0, 1).flatten(1).softmax(-1)
    values = states.mean.view(-1, made.heads, 6, CHANNELS).transpose(0, 1).flatten(1, 2)
    mean = torch.einsum("hk,hkc->hc", by_head, values)
    value = torch.stack([made.to_v.weight.view(made.heads, dim, CHANNELS)[h] @ mean[h] for h in range(made.heads)])
    return made.to_out(value.flatten())


@pytest.mark.parametrize("spread", [0.0, 3.0, 200.0])
def test_it_is_one_softmax_over_nodes_and_features(spread: float) -> None:
    made, states, x = attention(), random_states(4, spread=spread), tokens(2, 3)
    got = made.read_around(x, LocalState(states, numbered(2, 2), (0.5, 0.5), (0.3, 0.2)))
    for row in range(2):
        for column in range(3):
            down, across = (row + 0.5) * 0.3, (column + 0.5) * 0.2
            weights = torch.tensor([(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across])
            expected = softmax_over_nodes_and_features(made, x[0, row, column], states, weights.double())
            torch.testing.assert_close(got[0, row, column], expected, atol=1e-6, rtol=1e-6)


def test_nodes_that_are_alike_give_what_one_gives() -> None:
    made, one, x = attention(), random_states(1), tokens(12, 15, images=2)
    many = AttentionState(one.log_mass.expand(6, -1), one.mean.expand(6, -1, -1))
    expected = made.read(x.flatten(1, 2), one.for_each(2)).view_as(x)
    for states, index in ((many, numbered(3, 2)), (one, np.zeros((3, 2), int))):
        got = made.read_around(x, LocalState(states, index, (0.1, 0.2), (0.2, 0.1)))
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2), st.integers(1, 60), st.data())
def test_a_pixel_does_not_know_the_tile(
    rows: int, columns: int, halvings: int, chunk: int, data: st.DataObject
) -> None:
    height, width = data.draw(st.integers(8, 24)), data.draw(st.integers(8, 24))
    step = 2**halvings
    lattice = Lattice(Size(width * step, height * step), rows, columns)
    index = np.random.default_rng(height).integers(0, 3, (rows, columns))
    grid = StateGrid(lattice, index, (random_states(3),))
    made, x = attention(chunk), tokens(height, width)

    def read(top: int, left: int, bottom: int, right: int) -> torch.Tensor:
        region = Region(Point(left * step, top * step), Size((right - left) * step, (bottom - top) * step))
        part = x[:, top:bottom, left:right]
        (state,) = grid.around(region)
        if not isinstance(state, LocalState):
            return made.read(part.flatten(1, 2), state).view_as(part)
        return made.read_around(part, state.halved(halvings))

    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    whole = read(0, 0, height, width)
    torch.testing.assert_close(read(top, left, bottom, right), whole[:, top:bottom, left:right], atol=1e-6, rtol=0)


def test_rows_of_a_map_know_where_they_are() -> None:
    made, x = attention(), tokens(20, 9)
    state = LocalState(random_states(6), numbered(3, 2), (0.2, 0.1), (0.13, 0.2))
    torch.testing.assert_close(made.read_around(x[:, 7:16], state, 7), made.read_around(x, state)[:, 7:16])


def test_it_is_continuous_where_cells_meet() -> None:
    made, states = attention(), random_states(9, spread=1.0)

    def greatest_step(count: int) -> float:
        """Of neighbours among ``count`` x 3 pixels that are all alike, over three cells."""
        x = tokens(1, 1).expand(1, count, 3, CHANNELS)
        got = made.read_around(x, LocalState(states, numbered(3, 3), (0.0, 0.0), (3 / count, 1.0)))
        assert (got[:, -1] - got[:, 0]).abs().max() > 0.1
        return float((got[:, 1:] - got[:, :-1]).abs().max())

    assert greatest_step(2000) < 0.15 * greatest_step(200)


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(600, 3000), st.data())
def test_shares_of_a_window_sum_to_one_and_are_within_reach(
    height: int, width: int, spacing: int, data: st.DataObject
) -> None:
    lattice = Lattice.spaced(Size(width, height), spacing)
    assert all(
        0.6 * spacing < side or count == 1
        for side, count in zip(lattice.cell, (lattice.rows, lattice.columns), strict=True)
    )
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    window = Region(Point(x, y), Size(data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))))
    shares = lattice.shares(window)
    assert sum(shares.values()) == pytest.approx(1)
    rows, columns = lattice.reach(window)
    assert all(rows.start <= r < rows.stop and columns.start <= c < columns.stop for r, c in shares)
    r, c = lattice.cell_of(window)
    assert rows.start <= r < rows.stop
    assert columns.start <= c < columns.stop


# --- in the network


def make() -> Generator:
    torch.manual_seed(0)
    recipe = GeneratorRecipe(
        width=8, depth=2, label_feature=False, white="fixed", attention=AttentionRecipe(head_dim=8, features=8)
    )
    generator = Generator(recipe, ExpressionRecipe())
    for block in generator.modules():
        if isinstance(block, ResidualAttentionBlock):
            torch.nn.init.ones_(block.scale)
    return generator.eval()


@pytest.fixture(scope="module")
def he() -> np.ndarray:
    """Another colour in each quarter."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 80, (192, 256, 3))
    image[:96, :128] += [150, 20, 90]
    image[96:, 128:] += [20, 160, 160]
    return image.astype(np.uint8)


def grid(generator: Generator, he: np.ndarray, survey: Survey) -> StateGrid:
    size = Size(he.shape[1], he.shape[0])
    found = grid_of(generator, survey.lattice(size), ((w, he[w.slices]) for w in survey.windows(size)))
    assert found is not None
    return found


SURVEY = Survey(window=32, spacing=64)


def test_one_node_is_the_state_of_the_whole_image_bit_for_bit(he: np.ndarray) -> None:
    generator, size = make(), Size(256, 192)
    windows = Survey(window=32).windows(size)
    with torch.inference_mode():
        each = [generator.survey(batch_of(he[w.slices])) for w in windows]
        expected = [reduce(add, block) for block in zip(*each, strict=True)]
    for spacing in (None, 200):
        context = grid(generator, he, Survey(window=32, spacing=spacing)).around(Region(Point(64, 0), Size(96, 96)))
        assert not is_local(context)
        for state, other in zip(context, expected, strict=True):
            assert torch.equal(state.log_mass, other.log_mass)
            assert torch.equal(state.mean, other.mean)


@pytest.mark.parametrize(("x", "y", "width", "height"), [(0, 0, 160, 160), (40, 12, 128, 176), (100, 60, 156, 132)])
def test_a_tile_of_the_network_is_a_part_of_the_whole(he: np.ndarray, x: int, y: int, width: int, height: int) -> None:
    generator = make()
    states = grid(generator, he, SURVEY)
    tile, whole = Region(Point(x, y), Size(width, height)), Region(Point(0, 0), Size(256, 192))

    def run(region: Region) -> torch.Tensor:
        with torch.inference_mode():
            return generator(batch_of(he[region.slices]), context=states.around(region)).rgb

    reach = 60  # of the convolutions of a network this deep
    inside = (slice(None), slice(None), slice(reach, height - reach), slice(reach, width - reach))
    torch.testing.assert_close(run(tile)[inside], run(whole)[:, :, *tile.slices][inside], atol=1e-5, rtol=0)


def test_strips_read_at_their_own_place(he: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = make()
    context = grid(generator, he, SURVEY).around(Region(Point(0, 0), Size(256, 192)))
    with torch.no_grad():
        whole = generator(batch_of(he), context=context).rgb
    monkeypatch.setattr("restain.models.strips.STRIP_BYTES", 1)
    monkeypatch.setattr("restain.models.strips.LEAST_ROWS", 6)
    with torch.inference_mode():
        torch.testing.assert_close(generator(batch_of(he), context=context).rgb, whole, atol=1e-5, rtol=0)


def test_quarters_of_another_colour_are_told_apart_by_their_nodes(he: np.ndarray) -> None:
    generator = make()
    whole, local = (grid(generator, he, Survey(window=32, spacing=s)) for s in (None, 96))
    region = Region(Point(8, 8), Size(32, 32))
    own = generator.survey(batch_of(he[region.slices]))[-1].mean
    far, near = (g.around(region)[-1] for g in (whole, local))
    assert isinstance(near, AttentionState)
    assert (near.mean - own).abs().mean() < 0.5 * (far.mean - own).abs().mean()


def test_nodes_weigh_alike_however_many_windows_they_have(he: np.ndarray) -> None:
    generator, lattice = make(), Lattice(Size(256, 64), 1, 2)
    left = [Region(Point(x, y), Size(32, 32)) for x in (0, 32) for y in (0, 32)]
    piece = he[:32, :32]
    found = grid_of(generator, lattice, ((w, piece) for w in [*left, Region(Point(224, 0), Size(32, 32))]))
    assert found is not None
    for state in found.states:
        torch.testing.assert_close(state.log_mass[0], state.log_mass[1])


def test_nodes_without_tissue_have_the_nearest_others(he: np.ndarray) -> None:
    generator, lattice = make(), Lattice(Size(256, 192), 3, 4)
    corner = Region(Point(0, 0), Size(32, 32)), Region(Point(224, 160), Size(32, 32))
    found = grid_of(generator, lattice, ((w, he[w.slices]) for w in corner))
    assert found is not None
    assert found.index.tolist() == [[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]]
    assert not is_local(found.around(Region(Point(0, 0), Size(64, 64))))
    assert is_local(found.around(Region(Point(0, 0), Size(256, 192))))
    assert grid_of(generator, lattice, ()) is None
