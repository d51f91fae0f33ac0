from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.geometry import Point, Region, Size
from restain.models.attention import ResidualAttentionBlock
from restain.models.generator import Generator
from restain.models.network import batch_of
from restain.models.survey import Survey, look_around
from restain.recipe import ExpressionRecipe, GeneratorRecipe


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 40))
def test_a_survey_spreads_windows_over_the_image(width: int, height: int, most: int) -> None:
    windows = Survey(window=256, most=most).windows(Size(width, height))
    columns, rows = -(-width // 256), -(-height // 256)
    assert len(windows) == min(most, columns * rows)
    assert len({(w.origin.x, w.origin.y) for w in windows}) == len(windows)
    assert all(w.right <= width and w.bottom <= height for w in windows)
    if most >= columns * rows:
        assert sum(w.size.width * w.size.height for w in windows) == width * height


@settings(deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(256, 2000), st.integers(1, 5))
def test_each_cell_has_its_windows(width: int, height: int, spacing: int, per_cell: int) -> None:
    survey, size = Survey(window=256, spacing=spacing, per_cell=per_cell), Size(width, height)
    lattice, windows = survey.lattice(size), survey.windows(size)
    by_cell = Counter(lattice.cell_of(window) for window in windows)
    if lattice.rows * lattice.columns == 1:
        assert windows == Survey(window=256).windows(size)
    else:
        assert max(by_cell.values()) <= per_cell
        every = Survey(window=256, most=10**6).windows(size)
        assert set(by_cell) == {lattice.cell_of(window) for window in every}
    assert len({(w.origin.x, w.origin.y) for w in windows}) == len(windows)


def test_nodes_are_not_nearer_than_a_window() -> None:
    with pytest.raises(ValueError, match="nearer to one another than a window of 512 px"):
        Survey(spacing=511)


def test_block_after_block_windows_read_what_the_whole_image_reads() -> None:
    torch.manual_seed(0)
    generator = Generator(GeneratorRecipe(width=8, depth=2, label_feature=False), ExpressionRecipe(width=4)).eval()
    for block in generator.modules():
        if isinstance(block, ResidualAttentionBlock):
            block.scale.data.fill_(3.0)
        if isinstance(block, torch.nn.Conv2d) and block.kernel_size != (1, 1):
            tap = torch.zeros_like(block.weight.data[0, 0])
            tap[1, 1] = 3.0  # one tap alone: windows have no borders, so that attention is all that they lack
            block.weight.data *= tap
    he = np.random.default_rng(0).integers(60, 250, (128, 256, 3), dtype=np.uint8)
    he[:, 128:] //= 3
    with torch.inference_mode():
        whole = generator(batch_of(he)).rgb
        off = []
        for exact in (False, True):
            survey = Survey(window=64, exact=exact)
            size = Size(256, 128)
            grid = look_around(
                generator, survey, size, lambda _, s=survey, z=size: ((w, he[w.slices]) for w in s.windows(z))
            )
            assert grid is not None
            context = grid.around(Region(Point(0, 0), size))
            off.append(float((generator(batch_of(he), context=context).rgb - whole).abs().mean()))
    assert off[1] < 0.1 * off[0], off
