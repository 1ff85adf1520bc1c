"""`rankone bench`: the benchmarks by name, each printing ratios against a named rival in the same run."""

from __future__ import annotations

import importlib
from typing import Final

import tyro
from tyro.conf import Positional

from model.errors import RankoneError

BENCHMARKS: Final = {
    "head": "benchmarks.head",
    "sketch": "benchmarks.sketch",
    "normalization": "benchmarks.normalization",
    "phase1": "benchmarks.phase1",
    "retrieval": "benchmarks.retrieval",
}


class UnknownBenchmark(RankoneError, ValueError):
    """There is no benchmark of that name."""


def bench(arguments: list[str]) -> None:
    """See `command`."""

    def command(names: Positional[tuple[str, ...]] = tuple(BENCHMARKS)) -> None:
        """Measures speed. Every figure is a ratio against a named rival in the same run; lost ones are printed too.

        Args:
            names: benchmarks to run, all if none is named: head, sketch, normalization, phase1, retrieval.
        """
        for name in names:
            if name not in BENCHMARKS:
                raise UnknownBenchmark(f"there is no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
        for name in names:
            importlib.import_module(BENCHMARKS[name]).main()

    tyro.cli(command, prog="rankone bench", args=arguments)
