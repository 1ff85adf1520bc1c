"""Whatever stands behind the backbone begins with a cast to float32, and an exported graph keeps it."""

from __future__ import annotations

import pytest
import torch

import rankone.model.backbone
from rankone.model.catalogue import SYSTEMS, composition
from rankone.model.engine.check import lowest_cosine
from rankone.model.engine.export import module_of
from rankone.model.engine.torch_engine import lower
from rankone.model.network import build_network
from tests.light import one_layer

EXPORTED = sorted(name for name, system in SYSTEMS.items() if not system.composition.needs_eigendecomposition)


@pytest.mark.parametrize("name", EXPORTED)
def test_only_the_backbone_of_every_system_is_lowered(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against the same system on features that were rounded, and computed with in float64 from there on."""
    monkeypatch.setitem(rankone.model.backbone.BACKBONES, "vgg16", one_layer)
    network = build_network(weights="random", pooling=composition(name), num_classes=3).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        module = module_of(torch.export.export(network, (images,)))
        lower(module, torch.bfloat16)
        found, logits = module(images.bfloat16())
        rounded = network.backbone.bfloat16()(images.bfloat16()).double()
        expected = network.double().embedding_of(network.represent_features(rounded))
    assert found.dtype == logits.dtype == torch.float32
    assert lowest_cosine(found.numpy(), expected.numpy()) >= 0.99999
