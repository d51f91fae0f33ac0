"""Networks of the peers: the same interface as the method's own, and each does what its paper says."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from restain.models.build import build_generator
from restain.models.peers.bridge import BrownianBridge
from restain.models.peers.nce import PatchProjector, adaptive_weights, draw_places, patch_nce
from restain.models.peers.patchgan import PatchGan
from restain.models.peers.resnet9 import ResNet9
from restain.models.peers.unet256 import UNet256
from restain.recipe import parse_recipe

PEERS = {
    "unet256": {"kind": "pix2pix", "network": "unet256", "width": 4},
    "resnet9": {"kind": "pix2pix", "network": "resnet9", "width": 4},
    "cyclegan": {"kind": "cyclegan", "width": 4},
    "asp": {"kind": "asp", "width": 4},
    "bridge": {"kind": "bridge", "width": 8, "sample_steps": 2},
}


@pytest.mark.parametrize("peer", PEERS)
def test_every_peer_restains_any_size_and_the_same_way_twice(peer: str) -> None:
    torch.manual_seed(0)
    network = build_generator(parse_recipe({"peer": PEERS[peer]}, "test")).eval()
    he = torch.rand(1, 3, 50, 67)
    with torch.inference_mode():
        first, second = network(he), network(he)
    assert first.rgb.shape == he.shape
    assert first.dab is None
    assert first.rgb.min() >= 0
    assert first.rgb.max() <= 1
    assert torch.equal(first.rgb, second.rgb)
    assert network.expression is None


def test_unet256_has_the_parameters_of_the_paper() -> None:
    # 54.4 million: pix2pix's own count for its U-Net 256 at width 64.
    assert sum(p.numel() for p in UNet256(64).parameters()) == pytest.approx(54.41e6, rel=1e-3)


def test_resnet9_has_the_parameters_of_cyclegan() -> None:
    # 11.378 million at width 64, as CycleGAN's authors print it.
    assert sum(p.numel() for p in ResNet9(64).parameters()) == pytest.approx(11.378e6, rel=1e-3)


def test_patchgan_sees_patches_of_70_px() -> None:
    torch.manual_seed(0)
    judge = PatchGan(3, 4)
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    said = judge(image)
    assert said.shape == (1, 1, 30, 30)
    # Instance normalisation looks at the whole image; without it a logit's support is the field of view.
    for layer in judge.layers:
        if isinstance(layer, torch.nn.InstanceNorm2d):
            layer.forward = lambda x: x  # type: ignore[method-assign]
    judge(image)[0, 0, 15, 15].backward()
    rows = image.grad[0].abs().sum(dim=(0, 2)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 70


def test_unets_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    network = UNet256(4)
    he = torch.rand(2, 3, 256, 256)
    assert not torch.equal(network(he).rgb, network(he).rgb)


def test_nce_features_are_those_of_the_forward_pass() -> None:
    torch.manual_seed(0)
    network = ResNet9(4)
    maps = network.features(torch.rand(2, 3, 32, 32))
    assert [m.shape[1] for m in maps] == list(network.nce_channels)
    assert [m.shape[2] for m in maps] == [32, 16, 8, 8, 8]


def test_patch_nce_is_least_where_places_agree() -> None:
    torch.manual_seed(0)
    vectors = F.normalize(torch.randn(2, 50, 16), dim=2)
    shuffled = vectors[:, torch.randperm(50)]
    same, other = patch_nce(vectors, vectors, 0.07).mean(), patch_nce(vectors, shuffled, 0.07).mean()
    assert same < 0.2 < other
    # Against the definition, place by place.
    logits = vectors[0] @ shuffled[0].T / 0.07
    by_hand = -(logits.diagonal() - logits.logsumexp(1))
    torch.testing.assert_close(patch_nce(vectors, shuffled, 0.07)[0], by_hand)


def test_adaptive_weights_trust_all_at_first_and_the_alike_in_the_end() -> None:
    torch.manual_seed(0)
    query = F.normalize(torch.randn(1, 4, 8), dim=2)
    key = torch.cat([query[:, :2], -query[:, 2:]], dim=1)
    torch.testing.assert_close(adaptive_weights(query, key, 0.0), torch.ones(1, 4))
    torch.testing.assert_close(adaptive_weights(query, key, 1.0), torch.tensor([[2.0, 2.0, 0.0, 0.0]]))


def test_places_are_the_same_for_the_same_seed_and_without_repeats() -> None:
    maps = [torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4, 4)]
    one, two = (draw_places(maps, 20, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert [len(set(places.tolist())) for places in one] == [20, 16]
    vectors = PatchProjector([3, 3], dim=5)(maps, one)
    assert [tuple(v.shape) for v in vectors] == [(1, 20, 5), (1, 16, 5)]


def test_the_bridge_ends_at_both_images_and_a_perfect_network_finds_the_way_back() -> None:
    torch.manual_seed(0)
    bridge = BrownianBridge(8, 1.0, 4)
    ihc, he, noise = torch.rand(2, 3, 16, 16) * 2 - 1, torch.rand(2, 3, 16, 16) * 2 - 1, torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(bridge.noised(ihc, he, torch.zeros(2), noise), ihc)
    torch.testing.assert_close(bridge.noised(ihc, he, torch.ones(2), noise), he)
    half = bridge.noised(ihc, he, torch.full((2,), 0.5), noise)
    torch.testing.assert_close(half, (ihc + he) / 2 + 0.5**0.5 * noise)
    bridge.step_back = lambda x, he, m: x - ihc  # type: ignore[method-assign]
    torch.testing.assert_close(bridge((he + 1) / 2).rgb, (ihc + 1) / 2)
