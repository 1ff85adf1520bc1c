from __future__ import annotations

import torch

from model.network import build_network
from tests.tolerances import EMBEDDING, relative_error


def test_the_default_network_at_full_size() -> None:
    """448 x 448, 784 locations of 512 channels, 10,000 dimensions; float32 against float64; a batch against its images."""
    network = build_network(weights="random", num_classes=5).eval()
    torch.nn.init.normal_(network.classifier.weight)  # type: ignore[union-attr]
    images = torch.randn(2, 3, 448, 448)
    images[1] = 0
    with torch.no_grad():
        embedding, logits = network(images)
        alone = torch.cat([network(image[None])[0] for image in images])
        expected = network.double()(images[:1].double())[0]
    assert embedding.shape == (2, 10_000)
    assert logits.shape == (2, 5)
    assert torch.allclose(embedding.norm(dim=1), torch.tensor([1.0, 0.0]), atol=1e-5)
    assert relative_error(embedding, alone) < EMBEDDING[torch.float32]
    assert relative_error(embedding[:1], expected) < EMBEDDING[torch.float32]


def test_without_classes_it_only_embeds() -> None:
    network = build_network(weights="random").eval()
    with torch.no_grad():
        embedding, logits = network(torch.randn(1, 3, 32, 32))
    assert embedding.shape == (1, 10_000)
    assert logits is None


def test_options_reach_the_pooling_and_every_class_starts_alike() -> None:
    network = build_network(weights="random", system="cbp-ts", options={"dim": 64}, num_classes=3)
    with torch.no_grad():
        embedding, logits = network(torch.randn(1, 3, 32, 32))
    assert embedding.shape == (1, 64)
    assert torch.equal(logits, torch.zeros(1, 3))


def test_gradients_reach_every_layer() -> None:
    network = build_network(weights="random", options={"dim": 128}, num_classes=3).train()
    torch.nn.init.normal_(network.classifier.weight)  # type: ignore[union-attr]
    network(torch.randn(2, 3, 32, 32))[1].square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
