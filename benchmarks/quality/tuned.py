"""`rankone bench tuned`: what short embeddings keep before and after phase 2, with learned filters.

Three poolings are trained on `textures` as `rankone bench fine-tuning` trains them, by `training.pipeline`, two seeds. Phase 1
changes only the classifier, so embeddings before phase 2 are those of an untrained network. Two tables:

own    the 320 test images of the 40 classes; the map is learned from the training images, as `rankone train` does it, and
       from half of the classes for the other half
other  four crops of the textures of `rankone bench short` that trained nothing; the map is learned on 150 of them and
       measured on the rest, for three draws
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel

from benchmarks.markdown import markdown, spread
from benchmarks.paper.measure import kept
from benchmarks.quality.crops import NUM_CROPS, embedded_by, embeddings, pictures
from benchmarks.quality.fine_tuning import setting_of
from benchmarks.quality.pictures import TEXTURES, textures
from benchmarks.quality.short import SEEDS as DRAWS
from benchmarks.quality.short import recall_of
from benchmarks.quality.sources import HOME
from benchmarks.timing import console, machine
from rankone.model.network import Network
from rankone.model.reduction import Floats
from rankone.training import pipeline, short
from rankone.training.data import DataSet
from rankone.training.metrics import intervals, retrieval_scores
from rankone.training.processes import Resources
from rankone.training.recipe import Recipe
from rankone.training.run import replace_file

SEEDS: Final = (0, 1)
SYSTEMS: Final = ("cbp-run", "cbp-ts", "sum")
LENGTHS: Final = (64, 128)


class Tuned(BaseModel):
    """One network after one phase."""

    accuracy: float
    interval: tuple[float, float]
    """Of the accuracy, 95 %."""
    own: dict[str, float]
    """Recall@1 on the test images by length: of all (`seen 64`, `seen full`), and of each half of the classes among
    themselves, by a map of the other half (`unseen 64`, `unseen full`)."""
    own_interval: tuple[float, float]
    """Of the recall@1 of full embeddings, 95 %."""
    other: dict[str, list[float]]
    """Recall@1 on textures that trained nothing, by length, one a draw."""


def main() -> None:
    """Trains and measures what is missing in data/quality/tuned, prints the tables seed by seed, and writes them there."""
    console.print(f"[bold]short embeddings after fine-tuning[/bold]: {machine()}")
    data, found = textures(), dict[str, dict[str, list[Tuned]]]()
    for seed in SEEDS:
        for name in SYSTEMS:
            for phase, one in measured(name, seed, data).items():
                found.setdefault(name, {}).setdefault(phase, []).append(one)
                console.print(f"{name}, seed {seed}, {phase}: {one}")
        text = tables(found)
        replace_file(HOME / "tuned" / "tuned.md", text.encode())
        console.print(text)


def measured(name: str, seed: int, data: DataSet) -> dict[str, Tuned]:
    """Both phases of one pooling, by phase; read if they were measured before."""
    recipe, run = setting_of(name, data, seed).recipe, HOME / "tuned" / f"{name}-seed-{seed}"
    pipeline.train(data, recipe, run)
    opened, last, _ = pipeline.trained(run, data)
    first = recipe.build_network(len(data.classes))
    opened.load_phase1(first)
    untrained = partial(embeddings, name, recipe.pooling.composition)  # computed once, for all benchmarks
    return {
        "phase 1": kept(run / "phase 1.json", Tuned, lambda: measure(first, untrained(), recipe, data)),
        "phase 2": kept(run / "phase 2.json", Tuned, lambda: measure(last, embedded_by(last), recipe, data)),
    }


def measure(network: Network, crops: Floats, recipe: Recipe, data: DataSet) -> Tuned:
    """All figures of one network, whose embeddings of all crops are given."""
    rows, logits = pipeline.outputs(network, recipe, data)
    labels = np.array(data.test.labels)
    right = (logits.argmax(axis=1) == labels).astype(np.float64)
    full = retrieval_scores(rows, labels)
    learned = short.learn(short.embedded(network, short.images_of_run(data, recipe), recipe.preprocessing, Resources()))
    report = short.measure(rows, labels, learned)
    own: dict[str, float] = {}
    for title, figures in (("seen", report.test), ("unseen", report.unseen or [])):
        own |= {f"{title} {one.length}": one.recall_at_1 for one in figures[:-1] if one.length in LENGTHS}
        own |= {f"{title} full": one.recall_at_1 for one in figures[-1:]}
    return Tuned(
        accuracy=float(right.mean()),
        interval=intervals({"accuracy": right})["accuracy"],
        own=own,
        own_interval=intervals({"recall_at_1": full["recall_at_1"]})["recall_at_1"],
        other=on_others(crops),
    )


def on_others(rows: Floats) -> dict[str, list[float]]:
    """Recall@1 of embeddings of all crops, in full and by length, on the textures that did not train the network."""
    found: dict[str, list[float]] = {}
    kept = rows[np.repeat(others(), NUM_CROPS)]
    for recall in (recall_of(kept, draw) for draw in DRAWS):
        found.setdefault("full", []).append(recall.full)
        for length in LENGTHS:
            found.setdefault(f"{length}", []).append(recall.short["within-class", length])
    return found


def others(home: Path = HOME) -> list[bool]:
    """For each texture of the crops, whether the network was not trained on it."""
    own = {f"tex_{name}" for name in TEXTURES}
    return [f"{path.parent.name}/{path.name}" not in own for path in pictures(home)]


def tables(found: Mapping[str, Mapping[str, Sequence[Tuned]]]) -> str:
    """Markdown: mean, lowest and highest over the seeds on own classes; over seeds and draws on other textures."""
    lengths = [f"{length}" for length in LENGTHS]
    keys = [f"{kind} {length}" for kind in ("seen", "unseen") for length in ("full", *lengths)]
    own, other = list[list[str]](), list[list[str]]()
    for name, phases in found.items():
        for phase, several in phases.items():
            columns = [[one.accuracy for one in several]]
            columns += [[one.own[key] for one in several if key in one.own] for key in keys]
            own.append([f"`{name}`", phase, *(spread(values, dash=" – ") for values in columns)])
            drawn = [[value for one in several for value in one.other[key]] for key in ("full", *lengths)]
            other.append([f"`{name}`", phase, *(spread(values, dash=" – ") for values in drawn)])
    first = markdown(["pooling", "after", "accuracy", *keys], own, num_names=2)
    second = markdown(["pooling", "after", "full", *lengths], other, num_names=2)
    return f"**own classes**\n\n{first}\n**other textures**\n\n{second}"
