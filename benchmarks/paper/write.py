"""`rankone tables`: plans, measures, and writes every table as Markdown and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.markup import escape

from benchmarks.paper.book import Book
from benchmarks.paper.markdown import markdown
from benchmarks.paper.plan import Plan
from benchmarks.paper.plot import plot
from benchmarks.paper.tables import check_names
from benchmarks.timing import console
from rankone.training.data import DataSet, limited, load
from rankone.training.processes import check_device, stop_on_signal
from rankone.training.recipe import load_recipe

_FAST_IMAGES = 16
_FAST_ROUNDS = 3


def write_tables(
    names: Sequence[str],
    out: Path,
    *,
    data: str,
    recipe: str | None,
    fast: bool,
    seeds: Sequence[int],
    images: int | None,
    batch: int,
    device: str,
    workers: int,
) -> None:
    """Writes the tables into a folder of `out` with the name of the data set; `rankone tables --help` has the options.

    Raises:
        TableError: an unknown table, no seed, or a measurement on disk that cannot be read.
        DataError: no such data, or no images of a class.
        Interrupted: finished rows are on disk; the same call resumes.
    """
    check_names(names)
    check_device(device)
    plan = Plan(
        recipe=load_recipe(recipe or ("fast" if fast else "default")),
        data=_limited(load(data), _FAST_IMAGES if fast and images is None else images),
        seeds=seeds,
        fast=fast,
        batch=batch,
        rounds=_FAST_ROUNDS if fast else Plan.rounds,
        device=device,
        workers=workers,
    )
    home = out / plan.data.name
    with stop_on_signal() as stop:
        book = Book(home, plan, stop)
        for line in book.measure(names):
            console.print(f"[bold]measured[/bold]: {escape(line)}")
        for name in names:
            filled, path = book.fill(name), home / f"table-{name}.md"
            path.write_text(markdown(filled), encoding="utf-8")
            plot(filled, path.with_suffix(".png"))
            console.print(f"[bold]written[/bold]: {escape(str(path))} and its picture")


def _limited(data: DataSet, images: int | None) -> DataSet:
    """At most so many images of every class in each split."""
    return data if images is None else replace(data, train=limited(data.train, images), test=limited(data.test, images))
