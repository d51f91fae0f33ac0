"""The expression classifier and the discriminator."""

import pytest
import torch

from restain.models.discriminator import Discriminator
from restain.models.expression import ExpressionClassifier
from restain.recipe import DiscriminatorRecipe, ExpressionRecipe


@pytest.mark.parametrize("backbone", ["small", "efficientnet-lite0"])
def test_classifier_gives_four_logits_and_its_feature_map(backbone: str) -> None:
    torch.manual_seed(0)
    classifier = ExpressionClassifier(ExpressionRecipe(backbone=backbone, width=4)).eval()
    out = classifier(torch.rand(2, 3, 96, 64))
    stride = classifier.backbone.stride
    assert out.logits.shape == (2, 4)
    assert out.features.shape == (2, classifier.channels, 96 // stride, 64 // stride)


def test_pretrained_weights_are_loaded_from_the_package() -> None:
    torch.manual_seed(0)
    classifier = ExpressionClassifier(ExpressionRecipe(backbone="efficientnet-lite0"))
    before = classifier.backbone.net._conv_stem.weight.clone()
    classifier.load_pretrained()
    first = classifier.backbone.net._conv_stem.weight.clone()
    assert not torch.equal(before, first)
    classifier.load_pretrained()
    assert torch.equal(classifier.backbone.net._conv_stem.weight, first)


def test_pretrained_backbone_does_not_look_at_the_batch() -> None:
    torch.manual_seed(0)
    classifier = ExpressionClassifier(ExpressionRecipe(backbone="efficientnet-lite0")).train()
    he = torch.rand(2, 3, 64, 64)
    together = classifier(he).logits
    alone = classifier(he[:1]).logits
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=1e-4)


def test_discriminator_has_two_heads_on_one_trunk() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(DiscriminatorRecipe(width=4, layers=2))
    he, ihc = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    said = discriminator(he, ihc)
    assert said.real.shape == (2, 1, 16, 16)
    assert said.level.shape == (2, 4)
    for head in (said.real, said.level):
        discriminator.zero_grad()
        head.sum().backward(retain_graph=True)
        assert all(p.grad is not None for p in discriminator.trunk.parameters())


def test_discriminator_sees_both_images() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(DiscriminatorRecipe(width=4, layers=2)).eval()
    a, b = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    assert not torch.allclose(discriminator(a, b).real, discriminator(b, b).real)
    assert not torch.allclose(discriminator(a, b).real, discriminator(a, a).real)
