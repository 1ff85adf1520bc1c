"""Which images a network is fitted to, and which ones drive the learning rate and the choice of epoch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rankone.training.data import DataSet, Split
from rankone.training.recipe import Recipe


@dataclass(frozen=True)
class Steering:
    """The images of a training by their use; `words` say it for the report."""

    fitted: Split
    images: Split | None
    """Held-out images that steer; none where the training images have to do it themselves."""
    words: str

    @property
    def selecting(self) -> Split:
        """The images whose error and loss, in evaluation mode, select the network that is kept."""
        return self.fitted if self.images is None else self.images


def steering_of(data: DataSet, recipe: Recipe) -> Steering:
    """As the recipe's protocol says; the test images only steer where it is the paper's."""
    if recipe.protocol == "paper":
        return Steering(
            data.train,
            data.test,
            "The test images themselves steered, as is common practice: the figures are those of the best epoch on them, "
            "and flatter the network.",
        )
    if data.validation is not None:
        return Steering(
            data.train, data.validation, f"{len(data.validation):,} images of the data set's own for validation."
        )
    fitted, held_out = hold_out(data.train, recipe.validation, recipe.seed)
    if not held_out:
        return Steering(
            data.train,
            None,
            "No images were held out: the training images drove the learning rate, and selected the epoch by their loss.",
        )
    part = f"{100 * recipe.validation:g} % of every class"
    words = f"{len(held_out):,} images held out of the training images ({part}, seed {recipe.seed})."
    return Steering(data.train.at(fitted), data.train.at(held_out), words)


def hold_out(split: Split, part: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to fit on and indices held out: `part` of every class, at least one image of it but never all."""
    generator = torch.Generator().manual_seed(seed)
    held_out: set[int] = set()
    for label in sorted(set(split.labels)):
        members = [index for index, other in enumerate(split.labels) if other == label]
        count = min(max(1, round(part * len(members))), len(members) - 1) if part else 0
        held_out |= {members[i] for i in torch.randperm(len(members), generator=generator)[:count].tolist()}
    return [i for i in range(len(split)) if i not in held_out], sorted(held_out)
