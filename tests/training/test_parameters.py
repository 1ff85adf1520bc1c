"""Layers by name: which are frozen, and which learn at another rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rankone.model.backbone import Backbone
from rankone.model.catalogue import build
from rankone.model.network import Network
from rankone.training.optimize import Optimization
from rankone.training.parameters import freeze, train_mode
from rankone.training.recipe import Phase, Recipe, RecipeError

PHASE = Phase(epochs=6, learning_rate=0.5, weight_decay=0.1)


@pytest.fixture
def network() -> Network:
    block = {
        name: nn.Sequential(nn.Conv2d(wide, 4, 1), nn.BatchNorm2d(4)) for name, wide in (("layer1", 3), ("layer2", 4))
    }
    layers = nn.Sequential()
    for name, child in block.items():
        layers.add_module(name, child)
    return Network(Backbone(layers, 4, 1), build("cbp-run", channels=4, dim=16), nn.Linear(16, 2))


def trained(network: nn.Module) -> list[str]:
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad]


def test_layers_before_train_from_are_frozen_with_their_statistics(network: Network) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    freeze(network, Recipe(train_from="layer2"))
    assert all("layer2" in name or name.startswith("classifier") for name in trained(network))
    train_mode(network)
    optimization = Optimization(network, PHASE, Recipe())
    network.classifier.weight.data.normal_()  # type: ignore[union-attr, operator]
    logits = network(torch.rand(8, 3, 4, 4))[1]
    assert logits is not None
    nn.functional.cross_entropy(logits, torch.tensor([0, 1] * 4)).backward()
    optimization.step(1.0, "here", [])
    after = network.state_dict()
    moved = {
        name.removeprefix("backbone.convolutions.") for name in after if not torch.equal(after[name], before[name])
    }
    assert not any(name.startswith("layer1") for name in moved)
    assert {"layer2.0.weight", "layer2.1.running_mean", "classifier.weight"} <= moved


def test_the_classifier_alone_can_be_trained(network: Network) -> None:
    freeze(network, Recipe(train_from="classifier"))
    assert trained(network) == ["classifier.weight", "classifier.bias"]


@pytest.mark.parametrize("fields", [{"train_from": "layer9"}, {"rates": {"layer9": 0.1}}])
def test_a_layer_that_is_not_there_is_refused_with_the_names_of_those_that_are(
    network: Network, fields: dict[str, object]
) -> None:
    with pytest.raises(RecipeError, match="no layer 'layer9'; its layers: layer1, layer2, classifier"):
        freeze(network, Recipe.model_validate(fields))


def test_the_longest_name_decides_the_rate(network: Network) -> None:
    rates = {"backbone": 0.1, "layer2": 0.2, "backbone.layer2.1": 0.3, "classifier": 2.0}
    optimization = Optimization(network, PHASE, Recipe(rates=rates), rates=rates)
    found = {id(p): group["lr"] for group in optimization.optimizer.param_groups for p in group["params"]}
    names = {name.removeprefix("backbone.convolutions."): found[id(p)] for name, p in network.named_parameters()}
    expected = {"layer1.0.weight": 0.05, "layer2.0.weight": 0.1, "layer2.1.weight": 0.15, "classifier.weight": 1.0}
    assert {name: names[name] for name in expected} == pytest.approx(expected)
    assert optimization.learning_rate == pytest.approx(0.5)
    network.zero_grad()
    optimization.optimizer.step()
    optimization.end_epoch(0.5)
    assert optimization.learning_rate == pytest.approx(0.25 * (1 + float(torch.cos(torch.tensor(torch.pi / 6)))))


def test_adamw_spares_biases_and_scales_and_sgd_keeps_one_group(network: Network) -> None:
    adamw = Optimization(network, PHASE.model_copy(update={"optimizer": "adamw"}), Recipe()).optimizer
    assert isinstance(adamw, torch.optim.AdamW)
    decays = {
        parameter.dim() > 1: group["weight_decay"] for group in adamw.param_groups for parameter in group["params"]
    }
    assert decays == {True: 0.1, False: 0.0}
    (group,) = Optimization(network, PHASE, Recipe()).optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.5, 0.1, 0.9)
    assert list(map(id, group["params"])) == list(map(id, network.parameters()))


def test_vgg16_goes_by_torchvisions_names() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    network = Network(Backbone(layers, 4, 1), build("cbp-run", channels=4, dim=16), nn.Linear(16, 2))
    freeze(network, Recipe(train_from="features.2"))
    assert trained(network.backbone) == ["convolutions.2.weight", "convolutions.2.bias"]
