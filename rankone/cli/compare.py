"""`rankone compare`: which pooling and backbone suit the user's images, in minutes and without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.table import Table
from tyro.conf import Positional, UseAppendAction

from rankone.cli import command, show
from rankone.model.folders import name_of
from rankone.training import compare as comparing
from rankone.training.compare import By, Ranking
from rankone.training.compare.document import advice, percent
from rankone.training.data import load
from rankone.training.processes import DeviceChoice, choose_device
from rankone.training.recipe import load_recipe

Several = Annotated[tuple[str, ...], UseAppendAction]


@command
def compare(
    data: Positional[str],
    out: Path | None = None,
    backbone: Several = (),
    weights: Several = (),
    system: Several = (),
    recipe: str = "default",
    size: int | None = None,
    images: int = 20,
    rank_by: By = "mean",
    cache: Path | None = None,
    device: DeviceChoice = "auto",
    workers: int = 0,
    skip_bad: bool = False,
) -> None:
    """Compares poolings and backbones on your images without training, and writes a recipe for `rankone train`.

    Local features are computed once. For every pooling: accuracy of a converged linear classifier, recall@1 of whole
    and of short embeddings on classes that they were not learned from, bytes and milliseconds. Finished rows are kept;
    the same command resumes.

    Args:
        data: photos, cub, aircraft, mit67, dtd, the folder of one, or one with train/<class>/ and test/<class>/.
        out: directory to write; runs/compare-<data set> if not given.
        backbone: as `rankone backbones` lists them; the recipe's if none is given.
        weights: imagenet, random or a file: one for all backbones, or one for each in their order.
        system: pooling systems, by name; all that fit if none is given.
        recipe: default, modern or a YAML file: all that the recommended recipe has besides backbone and pooling.
        size: side of the images in pixels; the recipe's if not given.
        images: the most images of every class in each split; 0 for all.
        rank_by: accuracy, full (recall@1 of whole embeddings), short (of short ones) or the mean of all three.
        cache: folder for local features, kept for other comparisons; in the output directory if not given.
        device: the GPU if there is one (auto); a device that is not available is an error.
        workers: processes that load images; 0 loads them in this one.
        skip_bad: leave out images that cannot be decoded; without it, they are named and nothing starts.
    """
    base = load_recipe(recipe)
    found = load(data, base.reader)
    show.left_out(found.left_out)
    chosen, reason = choose_device(device)
    show.step("device", f"{chosen} ({reason})")
    plan = comparing.plan_of(
        found, base, backbones=backbone, weights=weights, systems=system, size=size, images=images or None
    )
    home = out or Path("runs") / f"compare-{found.name}"
    result = comparing.compare(plan, home, by=rank_by, cache=cache, device=chosen, workers=workers, skip_bad=skip_bad)
    _show(result, home)


def _show(found: Ranking, home: Path) -> None:
    """The ranking, what to take, and where the rest is."""
    for note in found.notes:
        show.alarm("comparison", note)
    table = Table(
        "", "backbone", "pooling", "accuracy", "recall@1, whole", "short", "bytes", "ms", box=None, pad_edge=False
    )
    for number, place in enumerate(found.places):
        row, mark = place.row, "*" if number == found.recommended else "=" if place.is_as_good else ""
        short = "" if row.short is None else percent(row.short)
        cells = [row.backbone, row.pooling, percent(row.accuracy), percent(row.full), short, f"{row.bytes:,}"]
        table.add_row(f"{number + 1}{mark}", *cells, f"{row.ms:.0f}")
    show.console.print(table)
    show.step("recommended", advice(found))
    show.step("written", f"{name_of(home)}/compare.html" + ("" if found.recommended is None else " and recipe.yaml"))
