"""Backbones beside VGG16: shapes, weights and the bottleneck."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from rankone.model.backbone import BACKBONES, Backbone, WeightsError, build_backbone, colors_of, facts_of
from rankone.model.backbone.from_timm import TimmBackbone

QUICK = ["vgg16", "resnet18", "timm/test_vit", "timm/test_convnext"]
SLOW = [name for name in [*BACKBONES, "timm/swin_tiny_patch4_window7_224"] if name not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.families) for name in SLOW)])
def test_channels_and_stride_are_those_of_its_local_features(name: str) -> None:
    facts = facts_of(name, 64)
    with torch.device("meta"):
        backbone = build_backbone(name, "random", size=64, reduce=None)
    assert facts.channels == backbone.channels
    assert facts.locations == (64 // facts.stride) ** 2


def test_the_facts_of_vgg16() -> None:
    facts = facts_of("vgg16", 448)
    assert (facts.channels, facts.stride, facts.locations, facts.parameters) == (512, 16, 784, 14_714_688)
    assert facts.gflop == pytest.approx(122.77, abs=0.01)


def test_a_network_of_torchvision_is_cut_before_its_head() -> None:
    backbone = build_backbone("resnet18", "random", seed=3).eval()
    whole = torchvision.models.resnet18().eval()
    whole.load_state_dict(backbone.convolutions.state_dict(), strict=False)
    whole.avgpool = whole.fc = torch.nn.Identity()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = backbone(images)
        assert torch.equal(features.transpose(1, 2).flatten(1), whole(images))
    assert backbone.bottleneck is None


def test_a_transformer_gives_its_patch_tokens() -> None:
    backbone = build_backbone("timm/test_vit", "random", size=64).eval()
    assert isinstance(backbone, TimmBackbone)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        tokens = backbone.convolutions.forward_features(images)  # type: ignore[operator]
        assert torch.equal(backbone(images), tokens[:, 1:])
    assert (tokens.shape[1], backbone.stride) == (17, 16)


def test_random_weights_follow_the_seed_and_leave_the_global_one_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    drawn = [build_backbone("timm/test_resnet", "random", seed, reduce=8).state_dict() for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(1), expected)
    for key in ("convolutions.conv1.0.weight", "bottleneck.0.weight"):
        first, second, third = (state[key] for state in drawn)
        assert torch.equal(first, second)
        assert not torch.equal(first, third)


def test_the_bottleneck_reduces_locations_one_by_one() -> None:
    backbone = Backbone(torch.nn.Conv2d(3, 12, 4, stride=4), 12, 4)
    backbone.reduce_to(12, torch.Generator())
    assert backbone.channels == 12
    backbone.reduce_to(5, torch.Generator().manual_seed(0))
    images = torch.rand(2, 3, 8, 8)
    features = backbone.eval()(images)
    assert features.shape == (2, 4, backbone.channels) == (2, 4, 5)
    assert backbone.bottleneck is not None
    weight = backbone.bottleneck.state_dict()["0.weight"][:, :, 0]
    scale = (1 + 1e-5) ** -0.5  # of a batch norm that has seen nothing
    assert torch.allclose(features, (backbone.locations(images) @ weight.T).relu() * scale, atol=1e-6)


def test_weights_from_a_file_and_positions_of_another_size(tmp_path: Path) -> None:
    larger = build_backbone("timm/test_vit", "random", seed=4, size=96)
    save_file(larger.convolutions.state_dict(), tmp_path / "vit.safetensors")
    same = build_backbone("timm/test_vit", str(tmp_path / "vit.safetensors"), size=96)
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), larger.parameters(), strict=True))
    smaller = build_backbone("timm/test_vit", str(tmp_path / "vit.safetensors"), size=64)
    found, before = (network.convolutions.state_dict()["pos_embed"] for network in (smaller, larger))
    assert found.shape == (1, 17, 64)
    assert torch.equal(found[:, 0], before[:, 0])
    save_file({"pos_embed": torch.zeros(1, 17, 64)}, tmp_path / "few.safetensors")
    with pytest.raises(WeightsError, match="lack .* tensors"):
        build_backbone("timm/test_vit", str(tmp_path / "few.safetensors"), size=64)


def test_what_timm_does_not_have_is_refused_with_what_is_similar() -> None:
    with pytest.raises(WeightsError, match="timm has no network 'test_vitt'; similar: timm/test_vit"):
        build_backbone("timm/test_vitt", "random")
    with pytest.raises(WeightsError, match="unknown backbone 'vgg99'; known: vgg16, .*timm/NAME"):
        build_backbone("vgg99", "random")


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(WeightsError, match=r"pip install 'rankone\[timm\]'"):
        build_backbone("timm/test_vit", "random")


def test_colors_that_weights_expect() -> None:
    assert colors_of("timm/test_vit") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert colors_of("vgg16") is None
