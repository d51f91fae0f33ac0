"""Working in strips changes nothing but memory."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from restain.models import strips
from restain.models.attention import ResidualAttentionBlock
from restain.models.blocks import channels_last, doubled
from restain.models.generator import Generator
from restain.models.strips import Strip, _by_strips, run_in_strips, strips_of
from restain.recipe import AttentionRecipe, ExpressionRecipe, GeneratorRecipe


@pytest.fixture(autouse=True)
def _thin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "STRIP_BYTES", 1)
    monkeypatch.setattr(strips, "LEAST_ROWS", 6)


def make(**changes: object) -> Generator:
    torch.manual_seed(0)
    recipe = GeneratorRecipe(width=8, depth=2, attention=AttentionRecipe(head_dim=8, features=8))
    generator = Generator(recipe.model_copy(update=changes), ExpressionRecipe(width=4))
    for block in generator.modules():
        if isinstance(block, ResidualAttentionBlock):
            torch.nn.init.ones_(block.scale)
    return channels_last(generator).eval()


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("size", [(64, 48), (50, 33), (96, 16)])
@pytest.mark.parametrize(
    "changes",
    [{}, {"output": "rgb"}, {"attention": AttentionRecipe(kind="exact", head_dim=8)}, {"label_feature": False}],
    ids=["stain", "rgb", "exact", "no label"],
)
def test_the_image_is_that_of_the_whole(images: int, size: tuple[int, int], changes: dict[str, object]) -> None:
    generator = make(**changes)
    he = torch.rand(images, 3, *size)
    with torch.no_grad():
        whole = generator(he).rgb
    stripped = run_in_strips(generator, he).rgb
    torch.testing.assert_close(stripped, whole, atol=2e-6, rtol=0)


@given(st.integers(2, 40), st.integers(1, 9), st.data())
def test_rows_of_the_upsampled_map_are_those_of_the_whole(height: int, halo: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 2 * height - 1))
    stop = data.draw(st.integers(start + 1, 2 * height))
    strip = Strip(start, stop, max(start - halo, 0), min(stop + halo, 2 * height))
    x = torch.rand(1, 2, height, 3)
    assert torch.equal(strip.kept(strip.doubled(x)), doubled(x)[:, :, start:stop])


@given(st.integers(1, 100), st.integers(0, 4))
def test_strips_share_out_the_rows(half: int, halo: int) -> None:
    x = torch.arange(2 * half, dtype=torch.float32).view(1, 1, -1, 1).expand(1, 1, -1, 4)
    found = strips_of(x, halo)
    same, half_height = _by_strips(found, lambda s: [s.kept(s.of(x)), s.kept(s.of(x))[:, :, ::2]])
    assert len(found) == -(-2 * half // 6)
    assert torch.equal(same, x)
    assert torch.equal(half_height, x[:, :, ::2])
