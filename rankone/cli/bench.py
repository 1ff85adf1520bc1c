"""`rankone bench`: the benchmarks by name, each printing ratios against a named rival in the same run."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

import tyro
from tyro.conf import Positional

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
_WHERE_NONE_IS_NAMED: Final = tuple(name for name in BENCHMARKS if name not in ("gpu", "fine-tuning"))


class UnknownBenchmark(RankoneError, ValueError):
    """There is no benchmark of that name."""


def bench(arguments: list[str]) -> None:
    """See `command`."""

    def command(names: Positional[tuple[str, ...]] = _WHERE_NONE_IS_NAMED, bundle: Path | None = None) -> None:
        """Measures speed. Every figure is a ratio against a named rival in the same run; lost ones are printed too.

        Args:
            names: benchmarks to run: head, sketch, normalization, phase1, engines, gpu, serving, retrieval, fine-tuning;
                all but gpu and fine-tuning (an hour) if none is named.
            bundle: the one that engines, gpu and serving measure; one with random weights if not given.
        """
        for name in names:
            if name not in BENCHMARKS:
                raise UnknownBenchmark(f"there is no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
        for name in names:
            main = importlib.import_module(BENCHMARKS[name]).main
            main(bundle) if name in _OF_A_BUNDLE else main()

    tyro.cli(command, prog="rankone bench", args=arguments)
