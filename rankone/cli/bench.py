"""`rankone bench` and `rankone tables`: what is measured, and how. The work is done by `benchmarks`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Final

import tyro
from tyro.conf import Positional, arg

from rankone.cli.train import Machine
from rankone.model.errors import RankoneError

BENCHMARKS: Final = {
    "head": "benchmarks.head",
    "sketch": "benchmarks.sketch",
    "normalization": "benchmarks.normalization",
    "phase1": "benchmarks.phase1",
    "engines": "benchmarks.engines",
    "gpu": "benchmarks.gpu",
    "serving": "benchmarks.serving.report",
    "retrieval": "benchmarks.retrieval",
    "fine-tuning": "benchmarks.quality.fine_tuning",
}
_OF_A_BUNDLE: Final = frozenset({"engines", "gpu", "serving"})
_HERE: Final = Machine()
_DEFAULT: Final = tuple(name for name in BENCHMARKS if name not in ("gpu", "fine-tuning"))


class UnknownBenchmark(RankoneError, ValueError):
    """There is no benchmark of that name."""


def bench(arguments: list[str]) -> None:
    """See `command`."""

    def command(names: Positional[tuple[str, ...]] = _DEFAULT, bundle: Path | None = None) -> None:
        """Measures speed. Every figure is a ratio against a named rival in the same run; lost ones are printed too.

        Args:
            names: benchmarks to run: head, sketch, normalization, phase1, engines, gpu, serving, retrieval, fine-tuning;
                all but gpu and fine-tuning (an hour) if none is named.
            bundle: the bundle that engines, gpu and serving measure; one with random weights if not given.
        """
        for name in names:
            if name not in BENCHMARKS:
                raise UnknownBenchmark(f"there is no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
        for name in names:
            main = importlib.import_module(BENCHMARKS[name]).main
            main(bundle) if name in _OF_A_BUNDLE else main()

    tyro.cli(command, prog="rankone bench", args=arguments)


def tables(arguments: list[str]) -> None:
    """See `command`."""
    from benchmarks.paper.tables import TABLES
    from benchmarks.paper.write import write_tables

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
        """Measures the paper's tables again. Every row is kept when it is done; the same command resumes.

        Args:
            names: 3 to 9, figure2 and figure4; all if none is named.
            data: `photos`, or a folder with train/<class>/ and test/<class>/.
            out: directory for measurements, tables and pictures, one folder a data set.
            recipe: `default`, `fast` or a YAML file; its pooling is replaced. `fast` with --fast, otherwise `default`.
            fast: small images, a frozen backbone with random weights, 16 images a class: minutes on two cores.
            seeds: every row is trained once for each seed.
            images: the most images of every class, to train on and to test; all if not given, 16 with --fast.
            batch: images in the batch that is timed.
            machine: where it runs.
        """
        write_tables(
            names,
            out,
            data=data,
            recipe=recipe,
            fast=fast,
            seeds=seeds,
            images=images,
            batch=batch,
            device=machine.device,
            workers=machine.workers,
        )

    tyro.cli(command, prog="rankone tables", args=arguments)
