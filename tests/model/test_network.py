from __future__ import annotations

import pytest
import torch
from torch import nn

from rankone.model.backbone import Backbone
from rankone.model.catalogue import SYSTEMS, composition
from rankone.model.classifier import LowRankClassifier
from rankone.model.composition import Composition
from rankone.model.network import Network, build_classifier, build_network
from tests.tolerances import EMBEDDING, relative_error


@pytest.mark.parametrize("size", [96, pytest.param(448, marks=pytest.mark.slow)])
def test_the_default_network(size: int) -> None:
    """512 channels, 10,000 dimensions, at 448 x 448 784 locations; float32 against float64; a batch against its images."""
    network = build_network(weights="random", num_classes=5).eval()
    torch.nn.init.normal_(network.classifier.weight)  # type: ignore[union-attr,arg-type]
    images = torch.randn(2, 3, size, size)
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
    network = build_network(weights="random", pooling=composition("cbp-ts", dim=64), num_classes=3)
    with torch.no_grad():
        embedding, logits = network(torch.randn(1, 3, 32, 32))
    assert embedding.shape == (1, 64)
    assert torch.equal(logits, torch.zeros(1, 3))


def test_gradients_reach_every_layer() -> None:
    network = build_network(weights="random", pooling=composition("cbp-run", dim=128), num_classes=3).train()
    torch.nn.init.normal_(network.classifier.weight)  # type: ignore[union-attr,arg-type]
    network(torch.randn(2, 3, 32, 32))[1].square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def behind_one_layer(
    pooling: Composition, num_classes: int | None = 3, rank: int | None = None, channels: int = 16
) -> Network:
    """A network of a single convolution, quick enough for every system."""
    backbone = Backbone(nn.Sequential(nn.Conv2d(3, channels, 4, stride=4), nn.ReLU()), channels, stride=4)
    pool = pooling.build(channels)
    network = Network(backbone, pool, build_classifier(pool, num_classes, rank, seed=0) if num_classes else None)
    for parameter in network.classifier.parameters() if network.classifier else ():
        nn.init.normal_(parameter)
    return network.eval()


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_embedding_has_length_1(system: str) -> None:
    """Those of systems without an element-wise step too, whose classifier reads the vector as it is."""
    sizes = {"dim": 40, "rank": 3}
    options = {name: size for name, size in sizes.items() if name in SYSTEMS[system].composition.options}
    network = behind_one_layer(composition(system, **options))
    images = torch.randn(2, 3, 24, 24)
    embedding, logits = network(images)
    assert torch.allclose(embedding.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.equal(network.embed(images), embedding)
    vector = network.pooling(network.backbone(images))
    assert torch.allclose(embedding, vector / vector.norm(dim=1, keepdim=True), atol=1e-6)
    assert isinstance(network.classifier, nn.Linear)
    assert torch.equal(logits, network.classifier(vector))


@pytest.mark.parametrize("rank", [None, 2])
def test_behind_a_backbone_in_bfloat16_the_embedding_and_lrbps_scores_are_float32(rank: int | None) -> None:
    network, images = behind_one_layer(composition("lrbp", rank=4), rank=rank), torch.randn(2, 3, 24, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = network.backbone(images)
        embedding, logits = network(images)
    assert features.dtype == torch.bfloat16
    pooling = network.double().pooling
    pooled = pooling.pool(features.double())
    assert embedding.dtype == torch.float32
    assert relative_error(embedding, pooling.finish(pooled)) < EMBEDDING[torch.float32]
    if rank is not None:
        assert network.classifier is not None
        expected = network.classifier(pooled / pooled.norm(dim=1, keepdim=True))
        assert relative_error(logits, expected) < EMBEDDING[torch.float32]


def test_lrbps_classifier_reads_the_matrix_and_leaves_the_embedding_as_it_is() -> None:
    linear = behind_one_layer(composition("lrbp", rank=4))
    low_rank = behind_one_layer(composition("lrbp", rank=4), rank=2)
    low_rank.load_state_dict(linear.state_dict() | low_rank.classifier.state_dict(prefix="classifier."), strict=False)  # type: ignore[union-attr]
    images = torch.randn(2, 3, 24, 24)
    embedding, logits = low_rank(images)
    assert relative_error(embedding, linear(images)[0]) < 1e-5
    pooled = low_rank.pooling.pool(low_rank.backbone(images))
    assert isinstance(low_rank.classifier, LowRankClassifier)
    expected = low_rank.classifier(pooled / pooled.norm(dim=1, keepdim=True))
    assert relative_error(logits, expected) < 1e-5
    low_rank(5 * images)[1].square().sum().backward()
    for name, parameter in low_rank.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_a_low_rank_classifier_needs_a_low_rank_projection() -> None:
    with pytest.raises(ValueError, match="a low-rank classifier reads a low-rank projection: use system lrbp"):
        behind_one_layer(composition("bcnn"), rank=2)


def test_without_classes_any_system_only_embeds() -> None:
    embedding, logits = behind_one_layer(composition("isqrt-cov"), num_classes=None)(torch.randn(2, 3, 24, 24))
    assert logits is None
    assert torch.allclose(embedding.norm(dim=1), torch.ones(2), atol=1e-5)
