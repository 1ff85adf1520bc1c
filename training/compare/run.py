"""A comparison in its folder: features and rows are kept when they are done, and the document is written at the end.

features/<digest>.f32    local features of all images, by backbone; may be removed, and is computed again when it is needed
rows/<name>.json         one backbone with one pooling, measured
compare.md, .html, .json, report/*.png, recipe.yaml
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from pydantic import ValidationError

from rankone.training.compare.document import advice, document_of
from rankone.training.compare.features import Images, features, network_of
from rankone.training.compare.measure import Row, measure
from rankone.training.compare.plan import RANDOM, CompareError, Plan
from rankone.training.compare.ranking import By, Ranking, ranked, recommended
from rankone.training.logistic import MAX_ITERATIONS
from rankone.training.processes import Processes, Resources, check_device, stop_on_signal
from rankone.training.progress import print_line
from rankone.training.recipe import Recipe
from rankone.training.report.document import write_document
from rankone.training.run import replace_file
from rankone.training.usable import usable

NAME: Final = "compare"
RECIPE: Final = "recipe.yaml"


def compare(
    plan: Plan,
    home: Path,
    *,
    by: By = "mean",
    cache: Path | None = None,
    device: str = "cpu",
    workers: int = 0,
    skip_bad: bool = False,
) -> Ranking:
    """Measures what is missing in `home`, ranks all rows of the plan, and writes the document and the recommended recipe.

    Args:
        plan: what is compared.
        home: directory.
        by: what ranks.
        cache: folder for the local features, kept for other comparisons; in `home` if not given.
        device: `cpu` or `cuda`.
        workers: processes that load images.
        skip_bad: leave out images that cannot be decoded; without it, they are named and nothing starts.

    Raises:
        DataError: images that cannot be used, all of them.
        CompareError: a pooling that was named does not fit, or a row on disk that cannot be read.
        WeightsError: the weights are not available.
        Interrupted: stopped by a signal; what is finished is kept.
    """
    check_device(device)
    rows, recipes, notes = [], {}, []
    with stop_on_signal() as stop:
        resources = Resources(workers=workers, stop=stop, processes=Processes(torch.device(device)))
        data, skipped = usable(plan.data, plan.recipes[0].preprocessing, resources, skip_bad=skip_bad)
        notes += [f"skipped: {sentence}" for sentence in skipped]
        whole = Plan(data, plan.recipes, plan.systems)
        for row, recipe in _rows(whole, home, cache or home / "features", resources, notes):
            rows.append(row)
            recipes[row.title] = recipe
    places = ranked(rows, by)
    chosen = recommended(places)
    comparison = Ranking(
        data=data.name,
        num_classes=len(data.classes),
        num_train=len(data.train),
        num_validation=len(data.validation or ()),
        num_test=len(data.test),
        size=plan.recipes[0].size,
        by=by,
        places=places,
        recommended=chosen,
        notes=(*_doubts(rows), *notes),
        machine=f"{platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores, {device}",
    )
    text = None
    if chosen is not None:
        heading = f"# rankone compare, {' '.join(data.name.split())}: {advice(comparison)}"
        text = f"{heading}\n{recipes[places[chosen].row.title].yaml()}"
    _write(comparison, text, home)
    return comparison


def _rows(plan: Plan, home: Path, cache: Path, resources: Resources, notes: list[str]) -> Iterator[tuple[Row, Recipe]]:
    """Every row with its recipe, measured if it is missing; `notes` gets a sentence for each pooling that does not fit."""
    images, work = Images(plan.data), home / "work"
    for own in plan.recipes:
        network = network_of(own, plan.data, resources)
        poolings, unfit = plan.poolings(own, network.backbone)
        notes += unfit
        found = features(network, own, images, cache, resources)
        for name, recipe in poolings.items():
            key = hashlib.sha256(f"{found.name} {recipe.pooling.composition} {recipe.seed}".encode()).hexdigest()[:10]
            path = home / "rows" / f"{own.backbone.replace('/', '-')}-{name}-{key}.json"
            if not path.exists():
                for folder in (path.parent, work):
                    folder.mkdir(parents=True, exist_ok=True)
                row = measure(recipe, network, found, images, work, resources)
                replace_file(path, row.model_dump_json().encode())
                print_line(f"measured: {_line(row)}")
            yield _read(path), recipe
    if work.exists():
        work.rmdir()


def _read(path: Path) -> Row:
    try:
        return Row.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise CompareError(f"{path} cannot be read; remove it and run again: {error}") from error


def _line(row: Row) -> str:
    short = "" if row.short is None else f", {row.short.mean:.3f} with {row.short_dim} numbers"
    return f"{row.title}: accuracy {row.accuracy.mean:.3f}, recall@1 {row.full.mean:.3f}{short}"


def _doubts(rows: list[Row]) -> Iterator[str]:
    """What makes the ranking doubtful, a sentence each."""
    if drawn := sorted({row.backbone for row in rows if row.weights == RANDOM}):
        yield (
            f"{', '.join(drawn)}: the weights are random. The ranking says little about trained networks; give --weights "
            "imagenet or a file."
        )
    if not all(row.is_disjoint for row in rows):
        yield "There are too few classes to learn short embeddings from some and measure them on others: all served for both."
    for row in rows:
        if not row.fit.final.converged:
            yield f"{row.title}: the classifier did not converge in {MAX_ITERATIONS} iterations."


def _write(comparison: Ranking, recipe: str | None, home: Path) -> None:
    write_document(document_of(comparison, recipe), home, NAME)
    if recipe is None:
        (home / RECIPE).unlink(missing_ok=True)
    else:
        replace_file(home / RECIPE, recipe.encode())
    replace_file(home / f"{NAME}.json", f"{comparison.model_dump_json()}\n".encode())
