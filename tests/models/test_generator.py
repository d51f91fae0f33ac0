import pytest
import torch

from restain.models.attention import ResidualAttentionBlock
from restain.models.generator import Generator
from restain.models.heads import project
from restain.recipe import AttentionRecipe, ExpressionRecipe, GeneratorRecipe, load_recipe, shipped_recipes

SMALL = ExpressionRecipe(width=4)


def make(**changes: object) -> Generator:
    torch.manual_seed(0)
    recipe = GeneratorRecipe(width=8, depth=2, attention=AttentionRecipe(head_dim=8, features=8))
    return Generator(recipe.model_copy(update=changes), SMALL).eval()


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (3, 5), (1, 1), (130, 16)])
@pytest.mark.parametrize("output", ["stain", "rgb"])
def test_any_size_gives_an_image_of_that_size_in_range(size: tuple[int, int], output: str) -> None:
    he = torch.rand(2, 3, *size)
    stained = make(output=output)(he)
    assert stained.rgb.shape == he.shape
    assert stained.rgb.min() >= 0
    assert stained.rgb.max() <= 1
    if output == "stain":
        assert stained.dab is not None
        assert stained.dab.shape == (2, 1, *size)
        assert stained.dab.min() >= 0
    else:
        assert stained.dab is None


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_there_is_an_attention_block_at_every_skip_and_it_matters(depth: int) -> None:
    generator = make(depth=depth)
    blocks = [m for m in generator.modules() if isinstance(m, ResidualAttentionBlock)]
    assert len(blocks) == depth
    he = torch.rand(1, 3, 32, 32)
    before = generator(he).rgb
    for block in blocks:
        kept = {k: v.clone() for k, v in block.state_dict().items()}
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.add_(torch.randn_like(parameter))
        assert not torch.allclose(generator(he).rgb, before, atol=1e-6)
        block.load_state_dict(kept)
    torch.testing.assert_close(generator(he).rgb, before)


def test_attention_can_be_switched_off() -> None:
    assert not any(
        isinstance(m, ResidualAttentionBlock) for m in make(attention=AttentionRecipe(kind="none")).modules()
    )


def test_only_the_deepest_skips_attend_where_the_recipe_says_so() -> None:
    recipe = GeneratorRecipe(width=8, depth=3, label_feature=False, attention=AttentionRecipe(head_dim=8, deepest=2))
    generator = Generator(recipe, ExpressionRecipe())
    attending = [isinstance(level.attend, ResidualAttentionBlock) for level in generator.decode]
    assert attending == [True, True, False]


def test_favor_with_many_features_comes_near_to_exact_attention_in_the_whole_network() -> None:
    torch.manual_seed(0)
    shape = {"width": 8, "depth": 2, "label_feature": False}
    exact = Generator(GeneratorRecipe(**shape, attention=AttentionRecipe(kind="exact", head_dim=8)), ExpressionRecipe())
    for module in exact.modules():
        if isinstance(module, ResidualAttentionBlock):
            torch.nn.init.ones_(module.scale)
    he = torch.rand(1, 3, 32, 32)

    def distance(features: int) -> float:
        attention = AttentionRecipe(head_dim=8, features=features)
        favor = Generator(GeneratorRecipe(**shape, attention=attention), ExpressionRecipe())
        favor.load_state_dict(exact.state_dict(), strict=False)
        with torch.no_grad():
            return float((favor(he).rgb - exact(he).rgb).abs().max())

    exact.redraw_features(torch.Generator())
    assert distance(2048) < 0.3 * distance(2) + 1e-4


def test_the_label_feature_reaches_the_image_and_its_classifier_is_frozen() -> None:
    generator = make()
    he = torch.rand(1, 3, 32, 32)
    before = generator(he).rgb
    assert generator.expression is not None
    assert not any(p.requires_grad for p in generator.expression.parameters())
    generator(he).rgb.mean().backward()
    assert all(p.grad is None for p in generator.expression.parameters())
    with torch.no_grad():
        generator.expression.backbone[0].weight.mul_(-3)
    assert not torch.allclose(generator(he).rgb, before, atol=1e-6)
    assert make(label_feature=False).expression is None


def test_every_trained_parameter_gets_a_gradient() -> None:
    generator = make().train()
    stained = generator(torch.rand(2, 3, 32, 32))
    assert stained.dab is not None
    (stained.rgb.square().mean() + stained.dab.mean()).backward()
    without = [n for n, p in generator.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_no_statistic_depends_on_the_tile_without_attention() -> None:
    generator = make(attention=AttentionRecipe(kind="none"), white="fixed")
    torch.manual_seed(1)
    he = torch.rand(1, 3, 640, 640)
    with torch.no_grad():
        whole = generator(he).rgb[..., 304:336, 304:336]
        part = generator(he[..., 128:512, 128:512]).rgb[..., 176:208, 176:208]
    torch.testing.assert_close(part, whole, atol=1e-5, rtol=0)


def test_zero_stain_is_exactly_the_white_field() -> None:
    generator = make(white="fixed")
    with torch.no_grad():
        generator.head.densities.weight.zero_()
        generator.head.densities.bias.fill_(-60.0)
    stained = generator(torch.rand(1, 3, 16, 16))
    white = torch.sigmoid(generator.head.white.colour)
    torch.testing.assert_close(stained.rgb, white.expand(1, 3, 16, 16))


def test_density_at_zero_can_still_be_raised_and_is_not_pushed_below() -> None:
    x = torch.tensor([-0.2, 0.0, 0.3], requires_grad=True)
    y = project(x)
    assert torch.equal(y, torch.tensor([0.0, 0.0, 0.3]))
    (-y).sum().backward()
    assert torch.equal(x.grad, torch.tensor([-1.0, -1.0, -1.0]))
    x.grad = None
    project(x).sum().backward()
    assert torch.equal(x.grad, torch.tensor([0.0, 0.0, 1.0]))


def test_the_white_field_is_smooth() -> None:
    generator = make()
    torch.manual_seed(2)
    with torch.no_grad():
        generator.head.white.predict.weight.normal_(std=3.0)
    head = generator.head.white
    field = head(torch.randn(1, 32, 16, 16), (64, 64))
    step = (field[..., 1:] - field[..., :-1]).abs().max()
    assert field.std() > 1e-3
    window = 5 * 4
    assert step <= 2 * head.SPREAD / window + 1e-6


def test_redrawn_features_change_with_the_seed_only() -> None:
    generator = make()
    projections = [m for n, m in generator.named_buffers() if "projection" in n]
    assert projections
    generator.redraw_features(torch.Generator().manual_seed(5))
    first = [p.clone() for p in projections]
    generator.redraw_features(torch.Generator().manual_seed(6))
    assert all(not torch.equal(a, b) for a, b in zip(first, projections, strict=True))
    generator.redraw_features(torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(first, projections, strict=True))


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_builds_a_generator_that_runs(name: str) -> None:
    recipe = load_recipe(shipped_recipes()[name])
    generator = Generator(recipe.generator, recipe.expression).eval()
    with torch.no_grad():
        assert generator(torch.rand(1, 3, 64, 64)).rgb.shape == (1, 3, 64, 64)
