"""`rankone bench` and `rankone tables`: what is measured, and how. The work is done by `benchmarks`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

import tyro
from tyro.conf import Positional

from rankone.cli import command
from rankone.model.errors import RankoneError

BENCHMARKS: Final = {
    "head": "benchmarks.head",
    "sketch": "benchmarks.sketch",
    "normalization": "benchmarks.normalization",
    "phase1": "benchmarks.phase1",
    "engines": "benchmarks.engines",
    "gpu": "benchmarks.gpu",
    "jpeg": "benchmarks.jpeg",
    "serving": "benchmarks.serving.report",
    "cluster": "benchmarks.serving.cluster",
    "retrieval": "benchmarks.retrieval",
    "postgres": "benchmarks.postgres",
    "lance": "benchmarks.lance",
    "fine-tuning": "benchmarks.quality.fine_tuning",
    "short": "benchmarks.quality.short",
    "tuned": "benchmarks.quality.tuned",
    "options": "benchmarks.quality.options",
    "hiding": "benchmarks.quality.hiding",
    "reduced": "benchmarks.quality.reduced",
    "variants": "benchmarks.quality.variants",
    "int8": "benchmarks.quality.int8",
    "scale": "benchmarks.scale",
    "simulation": "benchmarks.simulation.report",
}
_OF_A_BUNDLE: Final = frozenset({"engines", "gpu", "serving", "cluster"})
_DEFAULT: Final = ("head", "sketch", "normalization", "phase1", "engines", "jpeg", "serving", "retrieval")
"""What needs no download, no other program and no hour."""


class UnknownBenchmark(RankoneError, ValueError):
    """There is no benchmark of that name."""


@command
def bench(names: Positional[tuple[str, ...]] = _DEFAULT, bundle: Path | None = None) -> None:
    """Measures speed. Every figure is a ratio against a named rival in the same run; lost ones are printed too.

    Args:
        names: benchmarks to run; also gpu, cluster, postgres, lance, and with learned filters, which take up to two hours,
            fine-tuning, short, tuned, options, hiding, reduced, variants, int8. scale and simulation compute from
            measured figures.
        bundle: the bundle that engines, gpu, serving and cluster measure; one with random weights if not given.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise UnknownBenchmark(f"there is no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
    for name in names:
        main = importlib.import_module(BENCHMARKS[name]).main
        main(bundle) if name in _OF_A_BUNDLE else main()


def tables(arguments: list[str]) -> None:
    """Measures the paper's tables; the options are the fields of `Tables`."""
    from benchmarks.paper.write import Tables, write_tables

    write_tables(tyro.cli(Tables, prog="rankone tables", args=arguments))
