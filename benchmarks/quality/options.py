"""`rankone bench options`: what augmentation, AdamW and balanced sampling gain over the paper's way of fine-tuning.

`cbp-run` with learned filters, trained as `rankone bench fine-tuning` trains it, but at 64 x 64. The uneven sets keep all
eight training images of every second class and two of each other class; their test images stay as they are, so accuracy
is the mean over the classes. Each network is a JSON file in data/quality/options/ when it is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from benchmarks.paper.plan import Setting, seeded
from benchmarks.quality.fine_tuning import measure, recipe_of
from benchmarks.quality.pictures import objects, textures
from benchmarks.quality.sources import HOME, learned_filters
from benchmarks.timing import console, machine
from rankone.training.data import DataSet, limited
from rankone.training.recipe import PoolingRecipe

SEEDS: Final = (0, 1)
SIZE: Final = 64
FEW: Final = 2
"""Training images of a rare class in an uneven set."""
_ADAMW: Final = {"optimizer": "adamw", "weight_decay": 0.05}
OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "SGD 0.01, flip": {},
    "SGD 0.01, crop": {"augment": "crop"},
    "SGD 0.01, strong": {"augment": "strong"},
    "AdamW 1e-4, flip": {"phase2": {**_ADAMW, "learning_rate": 1e-4}},
    "AdamW 1e-3, backbone 1e-4, flip": {"phase2": {**_ADAMW, "learning_rate": 1e-3}, "rates": {"backbone": 0.1}},
}
"""By name, the fields of the recipe that differ; the first is the paper's way."""
UNEVEN: Final[Mapping[str, Mapping[str, Any]]] = {"shuffled": {}, "balanced": {"sampling": "balanced"}}
"""The same for uneven sets."""


def main() -> None:
    """Measures what is missing, prints the tables seed by seed, and writes them to data/quality/options/."""
    console.print(f"[bold]options of fine-tuning[/bold]: {machine()}")
    measure(plan(), HOME / "options", HOME / "options" / "options.md", "phase 2")


def plan() -> Iterator[tuple[str, Setting]]:
    """What is trained, seed by seed: the option's name, and the setting."""
    sets = (textures(), objects())
    for seed in SEEDS:
        for data in sets:
            yield from ((name, setting_of(data, seed, changes)) for name, changes in OPTIONS.items())
        for data in map(uneven, sets):
            yield from ((name, setting_of(data, seed, changes)) for name, changes in UNEVEN.items())


def setting_of(data: DataSet, seed: int, changes: Mapping[str, Any]) -> Setting:
    """`cbp-run` on `data`, with `changes` to the fields of the recipe."""
    recipe = seeded(recipe_of(learned_filters()), PoolingRecipe(system="cbp-run"), seed, {"size": SIZE, **changes})
    return Setting(recipe, data)


def uneven(data: DataSet) -> DataSet:
    """`data` with only the first `FEW` training images of every second class."""
    few = set(limited(data.train, FEW).paths)
    kept = [i for i, path in enumerate(data.train.paths) if data.train.labels[i] % 2 == 0 or path in few]
    return replace(data, name=f"{data.name}, uneven", train=data.train.at(kept))
