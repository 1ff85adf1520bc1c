"""What is compared: images, and a recipe for every backbone with every pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pydantic import ValidationError

from rankone.model.backbone import Backbone, colors_of
from rankone.model.catalogue import SYSTEMS
from rankone.model.errors import RankoneError
from rankone.training.data import DataSet, limited
from rankone.training.recipe import PoolingRecipe, Recipe, explain

MAX_NUMBERS: Final = 1 << 19
"""Of an embedding: with 512 channels, a flattened matrix has half as many. A longer one is compared only if it is named."""
RANDOM: Final = "random"


class CompareError(RankoneError, ValueError):
    """A comparison that makes no sense; the message says what to change."""


@dataclass(frozen=True)
class Plan:
    """The data set, a recipe for every backbone, and the names of the poolings; none stands for all that fit."""

    data: DataSet
    recipes: tuple[Recipe, ...]
    systems: tuple[str, ...] = ()

    def poolings(self, recipe: Recipe, backbone: Backbone) -> tuple[dict[str, Recipe], tuple[str, ...]]:
        """The recipe with each pooling that fits the backbone, by name; and a sentence for each that does not.

        Raises:
            CompareError: a pooling that was named does not fit.
        """
        chosen, unfit = {}, []
        for name in self.systems or SYSTEMS:
            pooling = PoolingRecipe(system=name)
            try:
                numbers = pooling.composition.build(backbone.channels).out_dim
            except ValueError as error:
                if self.systems:
                    raise CompareError(f"{name} does not fit {recipe.backbone}: {error}") from error
                unfit.append(f"{name} does not fit {recipe.backbone}: {error}")
                continue
            if numbers > MAX_NUMBERS and not self.systems:
                unfit.append(f"{name} on {recipe.backbone} has {numbers:,} numbers; name it to compare it all the same")
            else:
                chosen[name] = recipe.model_copy(update={"pooling": pooling})
        return chosen, tuple(unfit)


def plan_of(
    data: DataSet,
    recipe: Recipe,
    *,
    backbones: Sequence[str] = (),
    weights: Sequence[str] = (),
    systems: Sequence[str] = (),
    size: int | None = None,
    images: int | None = None,
) -> Plan:
    """The plan: what is not given is as the recipe has it.

    Args:
        data: its splits.
        recipe: the preprocessing, and what the recommended recipe has besides backbone and pooling.
        backbones: their names.
        weights: one for all backbones, or one for each in their order.
        systems: names of poolings; all that fit if none is given.
        size: side of the images in pixels.
        images: the most images of every class in each split; all if not given.

    Raises:
        CompareError: unknown poolings, other numbers of weights and backbones, a size that is too small, or a single class.
        DataError: `images` is not positive.
    """
    if unknown := [name for name in systems if name not in SYSTEMS]:
        raise CompareError(f"there is no pooling {', '.join(unknown)}; there are: {', '.join(SYSTEMS)}")
    names = tuple(dict.fromkeys(backbones)) or (recipe.backbone,)
    given = tuple(weights) or (recipe.weights,)
    if len(given) not in (1, len(names)):
        raise CompareError(
            f"{len(given)} weights do not go together with {len(names)} backbones; give one for all, or one for each"
        )
    if len(data.classes) < 2:
        raise CompareError(f"{data.name} has a single class: there is nothing to tell apart")
    if images is not None:
        validation = data.validation and limited(data.validation, images)
        data = replace(data, train=limited(data.train, images), validation=validation, test=limited(data.test, images))
    if size is not None:
        try:
            recipe = Recipe.model_validate({**recipe.model_dump(), "size": size})
        except ValidationError as error:
            raise CompareError(explain(error)) from error
    each = given if len(given) == len(names) else given * len(names)
    return Plan(
        data, tuple(_for(recipe, *pair) for pair in zip(names, each, strict=True)), tuple(dict.fromkeys(systems))
    )


def _for(recipe: Recipe, backbone: str, weights: str) -> Recipe:
    """The recipe for a backbone, with the colours that its published weights expect; its layers' names are others."""
    changes: dict[str, object] = {"backbone": backbone, "weights": weights}
    if backbone != recipe.backbone:
        changes |= {"train_from": None, "rates": {}}
    colors = colors_of(backbone) if weights == "imagenet" else None
    if colors is not None:
        changes |= {"mean": colors[0], "std": colors[1]}
    return Recipe.model_validate({**recipe.model_dump(), **changes, "classifier_rank": None})
