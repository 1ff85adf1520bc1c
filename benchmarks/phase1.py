"""Phase 1 from stored embeddings against phase 1 through the network: 50 epochs of the classifier.

Both read the same images and mirror images in the same order and end with the same classifier (there is a test). The
first is timed as a whole, embedding included; of the second one epoch is timed, as all are alike.

Target: at least 20 times faster.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from benchmarks.timing import Goal, Timing, console, faster, machine, print_goals, print_table
from rankone.model.network import Network
from rankone.training.data import DataSet, limited, load_photos
from rankone.training.data.batches import batches, mirrored, shuffled
from rankone.training.encoder import Encoder
from rankone.training.fit import fit
from rankone.training.optimize import Optimization
from rankone.training.processes import Resources
from rankone.training.recipe import Phase, Recipe
from rankone.training.run import Run

EPOCHS: Final = 50
RIVAL: Final = "through the network"
OURS: Final = "from disk"
CASES: Final = ((96, 32), (448, 2))
"""Side of the images, and images of a class."""


def main() -> None:
    """Prints seconds and ratio at both sizes."""
    console.print(f"[bold]phase1[/bold]: {machine()}")
    for size, count in CASES:
        data = load_photos()
        data = replace(data, train=limited(data.train, count))
        timings = measure(data, recipe_of(size, EPOCHS))
        print_table(f"{size} x {size}, {2 * len(data.train)} rows, {EPOCHS} epochs", timings, RIVAL, faster)
        print_goals(timings, Goal(OURS, RIVAL, 20))


def recipe_of(size: int, epochs: int) -> Recipe:
    """Phase 1 alone, the default system, nothing held out."""
    first = Phase(epochs=epochs, learning_rate=1.0, weight_decay=1e-8, batch_size=64)
    second = Phase(epochs=0, learning_rate=1)
    return Recipe(weights="random", size=size, validation=0, phase1=first, phase2=second, patience=epochs)


def measure(data: DataSet, recipe: Recipe) -> dict[str, Timing]:
    """Seconds of both, from a single run of each, as they take minutes."""
    started = time.perf_counter()
    from_disk(data, recipe)
    ours, started = time.perf_counter() - started, time.perf_counter()
    through_network(data, recipe, epochs=1)
    rival = recipe.phase1.epochs * (time.perf_counter() - started)
    return {RIVAL: Timing(rival, rival, rival), OURS: Timing(ours, ours, ours)}


def from_disk(data: DataSet, recipe: Recipe) -> Network:
    """Phase 1 as `rankone train` runs it."""
    network = recipe.build_network(len(data.classes), recipe.weights)
    with tempfile.TemporaryDirectory() as folder:
        fit(network, data, Run.start(Path(folder), recipe, data), Resources(), report_line=lambda _: None)
    return network


def through_network(data: DataSet, recipe: Recipe, epochs: int) -> Network:
    """The same steps, but every image is read and embedded in every epoch."""
    network = recipe.build_network(len(data.classes), recipe.weights).eval()
    forward, classifier = Encoder(network, torch.device("cpu")), network.classifier
    assert classifier is not None
    optimization = Optimization(classifier, recipe.phase1, recipe)
    num, labels = len(data.train), torch.tensor(data.train.labels)
    for epoch in range(epochs):
        groups = shuffled(2 * num, recipe.phase1.batch_size, recipe.seed, epoch)
        loaded = batches(data.train, recipe.preprocessing, [[i % num for i in group] for group in groups])
        for group, stored in zip(groups, loaded, strict=True):
            mirror = (torch.tensor(group) >= num).view(-1, 1, 1, 1)
            with torch.no_grad():
                rows = forward(torch.where(mirror, mirrored(stored), stored))
            loss = torch.nn.functional.cross_entropy(classifier(rows), labels[[i % num for i in group]])
            loss.backward()
            optimization.step(float(loss.detach()), f"epoch {epoch}", ())
        optimization.end_epoch(0.0)
    return network
