"""`rankone tables`: plans, measures, and writes every table as Markdown and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from rich.markup import escape
from tyro.conf import Positional

from benchmarks.paper.book import Book
from benchmarks.paper.page import page
from benchmarks.paper.plan import Plan, fewer
from benchmarks.paper.plot import plot
from benchmarks.paper.tables import TABLES, check_names
from benchmarks.timing import console
from rankone.training.data import load
from rankone.training.processes import check_device, stop_on_signal
from rankone.training.recipe import load_recipe

_FAST_IMAGES = 16
_FAST_ROUNDS = 3


class Tables(BaseModel):
    """Measures the paper's tables again. Every row is kept when it is done; the same command resumes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    names: Positional[tuple[str, ...]] = tuple(TABLES)
    """3 to 9, figure2 and figure4; all if none is named."""
    data: str = "photos"
    """`photos`, or a folder with train/<class>/ and test/<class>/."""
    out: Path = Path("runs/tables")
    """Directory for measurements, tables and pictures, one folder a data set."""
    recipe: str | None = None
    """`default`, `fast` or a YAML file; its pooling is replaced. `fast` with --fast, otherwise `default`."""
    fast: bool = False
    """Small images, a frozen backbone with random weights, 16 images a class: minutes on two cores."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every row is trained once for each seed."""
    images: int | None = None
    """The most images of every class, to train on and to test; all if not given, 16 with --fast."""
    batch: int = 32
    """Images in the batch that is timed."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where networks are trained and timed; refused if it is not available."""
    workers: int = 0
    """Processes that load images; 0 loads them in this one."""

    def plan(self) -> Plan:
        """The plan, with the data and the recipe loaded."""
        return Plan(
            recipe=load_recipe(self.recipe or ("fast" if self.fast else "default")),
            data=fewer(load(self.data), _FAST_IMAGES if self.fast and self.images is None else self.images),
            seeds=self.seeds,
            fast=self.fast,
            batch=self.batch,
            rounds=_FAST_ROUNDS if self.fast else Plan.rounds,
            device=self.device,
            workers=self.workers,
        )


def write_tables(options: Tables) -> None:
    """Writes the tables into a folder of `out` with the name of the data set.

    Raises:
        TableError: an unknown table, no seed, or a measurement on disk that cannot be read.
        DataError: no such data, or no images of a class.
        Interrupted: finished rows are on disk; the same call resumes.
    """
    check_names(options.names)
    check_device(options.device)
    plan = options.plan()
    home = options.out / plan.data.name
    with stop_on_signal() as stop:
        book = Book(home, plan, stop)
        for line in book.measure(options.names):
            console.print(f"[bold]measured[/bold]: {escape(line)}")
        for name in options.names:
            filled, path = book.fill(name), home / f"table-{name}.md"
            path.write_text(page(filled), encoding="utf-8")
            plot(filled, path.with_suffix(".png"))
            console.print(f"[bold]written[/bold]: {escape(str(path))} and its picture")
