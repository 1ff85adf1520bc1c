"""Which parameters phase 2 trains and at which rates, by the names of their layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from rankone.model.network import Network
from rankone.training.recipe import Phase, Recipe, RecipeError

_FEATURES = "features."


def freeze(network: Network, recipe: Recipe) -> None:
    """Fixes the parameters before the layer `train_from`.

    Raises:
        RecipeError: the network has no layer of a name that `train_from` or `rates` gives.
    """
    names = [name for name, _ in network.named_parameters()]
    for layer in filter(None, [recipe.train_from, *recipe.rates]):
        if not any(_belongs(name, layer) for name in names):
            raise RecipeError(f"{recipe.backbone} has no layer {layer!r}; its layers: {', '.join(_layers(network))}")
    if recipe.train_from is None:
        return
    first = next(i for i, name in enumerate(names) if _belongs(name, recipe.train_from))
    for parameter in list(network.parameters())[:first]:
        parameter.requires_grad = False


def train_mode(network: nn.Module) -> None:
    """Training mode, but evaluation mode for frozen layers: their batch statistics stay, and nothing is dropped in them."""
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def groups(module: nn.Module, phase: Phase, rates: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """The trained parameters in groups of equal rate and weight decay, as an optimizer of torch takes them.

    AdamW's decay spares what has one dimension: biases and the scales of normalizations.
    """
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            spared = phase.optimizer == "adamw" and parameter.dim() < 2
            key = (_factor(name, rates), 0.0 if spared else phase.weight_decay)
            found.setdefault(key, []).append(parameter)
    for (factor, decay), parameters in found.items():
        yield {"params": parameters, "lr": phase.learning_rate * factor, "weight_decay": decay, "factor": factor}


def _factor(parameter: str, rates: Mapping[str, float]) -> float:
    """That of the longest name of a layer which the parameter belongs to."""
    matching = [layer for layer in rates if _belongs(parameter, layer)]
    return rates[max(matching, key=lambda layer: len(layer.removeprefix("backbone")))] if matching else 1.0


def _belongs(parameter: str, layer: str) -> bool:
    """Whether the parameter is in `layer`; the layers of the backbone go by their library's names, `features.28` of VGG16."""
    bare = layer.removeprefix("backbone.")
    within = [layer, f"backbone.{layer}"]
    within += [f"backbone.convolutions.{name}" for name in (bare, bare.removeprefix(_FEATURES))]
    return any(f"{parameter}.".startswith(f"{name}.") for name in within)


def _layers(network: Network) -> list[str]:
    """Names to choose from: the children of the backbone, and of its only child."""
    layers: nn.Module = network.backbone.convolutions
    prefix = ""
    while len(children := list(layers.named_children())) == 1:
        prefix, layers = f"{prefix}{children[0][0]}.", children[0][1]
    own = [f"{prefix}{name}" for name, child in children if list(child.parameters())]
    return [*own, *(["bottleneck"] if network.backbone.bottleneck else []), "classifier"]
