"""`rankone tables`: the paper's tables and figures, measured again on any data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import tyro
from tyro.conf import Positional, arg

from benchmarks.paper.book import Book, Plan, check_names
from benchmarks.paper.markdown import markdown
from benchmarks.paper.plan import TABLES
from benchmarks.paper.plot import plot
from rankone.cli import show
from rankone.cli.train import Machine
from rankone.training.data import DataSet, limited, load
from rankone.training.processes import check_device, stop_on_signal
from rankone.training.recipe import load_recipe

_HERE: Final = Machine()
_FAST_IMAGES: Final = 16
_FAST_ROUNDS: Final = 3


def tables(arguments: list[str]) -> None:
    """See `command`."""

    def command(
        names: Positional[tuple[str, ...]] = tuple(TABLES),
        data: str = "photos",
        out: Path = Path("runs/tables"),
        recipe: str | None = None,
        fast: bool = False,
        seeds: tuple[int, ...] = (0, 1, 2),
        images: int | None = None,
        batch: int = 32,
        machine: Annotated[Machine, arg(name="")] = _HERE,
    ) -> None:
        """Measures the paper's tables again. Every row is kept as it is done; the same command goes on from there.

        Args:
            names: 3 to 9, figure2 and figure4; all if none is named.
            data: `photos`, or a folder with train/<class>/ and test/<class>/.
            out: directory for measurements, tables and pictures, one folder a data set.
            recipe: `default`, `fast` or a YAML file; the pooling is the row's. `fast` with --fast, otherwise `default`.
            fast: small images, a frozen backbone with random weights, 16 images a class: minutes on two cores.
            seeds: every row is trained once a seed.
            images: at most so many of every class, to train on and to test; all if not given, 16 with --fast.
            batch: images a batch whose time is measured.
            machine: where it runs.
        """
        check_names(names)
        check_device(machine.device)
        plan = Plan(
            recipe=load_recipe(recipe or ("fast" if fast else "default")),
            data=_data(data, _FAST_IMAGES if fast and images is None else images),
            seeds=seeds,
            fast=fast,
            batch=batch,
            rounds=_FAST_ROUNDS if fast else Plan.rounds,
            device=machine.device,
            workers=machine.workers,
        )
        write(names, plan, out / plan.data.name)

    tyro.cli(command, prog="rankone tables", args=arguments)


def write(names: tuple[str, ...], plan: Plan, home: Path) -> None:
    """Measures, and writes Markdown and pictures into `home`."""
    with stop_on_signal() as stop:
        for filled in Book(home, plan, stop).fill(names, lambda text: show.step("measured", text)):
            path = home / f"table-{filled.name}.md"
            path.write_text(markdown(filled), encoding="utf-8")
            plot(filled, path.with_suffix(".png"))
            show.step("written", f"{path} and its picture")


def _data(name: str, images: int | None) -> DataSet:
    data = load(name)
    return data if images is None else replace(data, train=limited(data.train, images), test=limited(data.test, images))
