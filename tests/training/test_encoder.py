from __future__ import annotations

import pytest
import torch

from rankone.model.network import Network
from rankone.training import encoder
from rankone.training.data import DataSet
from rankone.training.data.batches import batches
from rankone.training.encoder import Encoder, PrecisionError
from tests.training.helpers import SMALL

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(photos: DataSet) -> torch.Tensor:
    return next(batches(photos.train, SMALL.preprocessing, [list(range(8))]))


def network() -> Network:
    return SMALL.build_network(4).eval()


@torch.no_grad()
def test_it_is_what_the_network_computes(images: torch.Tensor) -> None:
    forward = Encoder(network(), CPU)
    assert torch.allclose(forward(images), network().represent(images), atol=2e-4)
    assert torch.allclose(forward.classify(images), network()(images)[1], atol=1e-4)


@torch.no_grad()
def test_in_bfloat16_only_the_backbone_is(images: torch.Tensor) -> None:
    """What comes out is float32 of bfloat16 features, and not of a bfloat16 head: that would be ten times further off."""
    expected = Encoder(network(), CPU)(images)
    forward = Encoder(network(), CPU, "bfloat16")
    features = forward.features(images)
    assert torch.equal(features, features.bfloat16().float())
    found = forward(images)
    assert found.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.99
    assert torch.equal(found, network().represent_features(features))
    assert "classifier in float32" in forward.description


@torch.no_grad()
def test_convolutions_run_channels_last(images: torch.Tensor) -> None:
    forward = Encoder(network(), CPU)
    seen = []
    layer = list(forward.network.backbone.convolutions.children())[2]
    layer.register_forward_hook(
        lambda _, inputs, __: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    forward(images)
    assert seen == [True]


def test_a_gpu_without_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "an old GPU")
    with pytest.raises(PrecisionError, match="an old GPU has no bfloat16: use precision float32"):
        Encoder(network(), torch.device("cuda"), "bfloat16")


@pytest.mark.parametrize(("has", "warned"), [(False, True), (True, False)])
def test_emulated_bfloat16_is_named(has: bool, warned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "has_instructions", lambda _: has)
    assert ("17 times as long: use float32" in Encoder(network(), CPU, "bfloat16").description) == warned


def test_a_compiled_backbone_is_the_backbone_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option reaches the backbone and nothing else; that the compiler itself is right is its own tests' business."""
    compiled = []

    def compile_it(module: torch.nn.Module) -> torch.nn.Module:
        compiled.append(module)
        return module

    monkeypatch.setattr(torch, "compile", compile_it)
    forward = Encoder(network(), CPU, compile=True)
    assert compiled == [forward.network.backbone]
