"""Which training images the network is fitted to, and which images select the epoch and drive the plateau schedule."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rankone.training.data import DataSet, Split
from rankone.training.data.dataset import by_label
from rankone.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingImages:
    """The images of a training by their use; `description` says it in the report."""

    fitted: Split
    held_out: Split | None
    """None if the training images themselves select the epoch."""
    description: str

    @property
    def selecting(self) -> Split:
        """The images whose error and loss, in evaluation mode, select the network that is kept."""
        return self.fitted if self.held_out is None else self.held_out


def training_images(data: DataSet, recipe: Recipe) -> TrainingImages:
    """The images by their use under the recipe's protocol; only the paper's protocol selects on the test images."""
    if recipe.protocol == "paper":
        return TrainingImages(
            data.train,
            data.test,
            "the test images themselves, as is common practice: the figures are those of the best epoch on them, "
            "and flatter the network.",
        )
    if data.validation is not None:
        return TrainingImages(
            data.train, data.validation, f"{len(data.validation):,} validation images of the data set."
        )
    fitted, held_out = hold_out(data.train, recipe.validation, recipe.seed)
    if not held_out:
        return TrainingImages(
            data.train, None, "the training images (the epoch by their loss), as no images were held out."
        )
    share = f"{100 * recipe.validation:g} % of every class"
    description = f"{len(held_out):,} images held out of the training images ({share}, seed {recipe.seed})."
    return TrainingImages(data.train.at(fitted), data.train.at(held_out), description)


def hold_out(split: Split, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to fit on and indices held out: `share` of every class, at least one image of it but never all."""
    generator = torch.Generator().manual_seed(seed)
    held_out: set[int] = set()
    for _, members in sorted(by_label(split.labels).items()):
        count = min(max(1, round(share * len(members))), len(members) - 1) if share else 0
        held_out |= {members[i] for i in torch.randperm(len(members), generator=generator)[:count].tolist()}
    return [i for i in range(len(split)) if i not in held_out], sorted(held_out)
