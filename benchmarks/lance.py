"""Published versions in Lance beside compact indexes in files: speed, recall and room, in one run.

Recall is measured as `rankone index check` measures it, which also chooses how many candidates a search in Lance reads.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

import torch

from benchmarks.gallery import QUERIES, K, filled, noisy, one_by_one, photographs, shortened
from benchmarks.timing import console, machine, print_comparison
from rankone.index import Index, Vectors, compiled
from rankone.index.offline import measure_recall
from rankone.index.source import Remote, lance, open_lance
from rankone.index.transfer import export

ROWS: Final = 20_000
ROUNDS: Final = 7
_SINGLE: Final = 16
_LOCAL: Final = "in a file"
_LANCE: Final = "in Lance"
_NAME: Final = "bench"
_FILTERS: Final = {
    "": None,
    ", a filter that 200 items match": compiled({"n": {"$lt": 200}}),
    ", one that half of them match": compiled({"even": True}),
}


def main() -> None:
    """Prints a table for each length; five minutes."""
    console.print(f"[bold]lance[/bold]: {machine()}; files on this machine")
    long = photographs()
    for real in (shortened(long), long):
        against_files(real, ROWS, ROUNDS)


def against_files(real: Vectors, rows: int, rounds: int) -> None:
    """Prints one length in both places, with the same rows and queries."""
    queries = next(noisy(real, QUERIES, seed=1))
    console.print(f"\ncompact, {rows:,} rows of {real.shape[1]:,} numbers")
    with tempfile.TemporaryDirectory() as name:
        file, exported, published = (Path(name) / end for end in (f"{_NAME}.sqlite", f"{_NAME}.parquet", "published"))
        made, seconds = filled(file, real, rows, "compact")
        made.close()
        console.print(f"{_LOCAL}: {rows / seconds:,.0f} durable adds a second")
        export(file, exported, lambda _: None)
        started = time.perf_counter()
        lance("publish").publish([exported], str(published), _NAME, lambda _: None)
        speed = rows / (time.perf_counter() - started)
        console.print(f"{_LANCE}: {speed:,.0f} items published a second, indexes included")
        for place, source in ((_LOCAL, file), (_LANCE, Remote(f"lance:{published}", _NAME))):
            console.print(f"{place}: recall@{K} {measure_recall(source, QUERIES, K, lambda _: None):.4f}")
        with closing(Index(file, torch.get_num_threads())) as here, closing(open_lance(f"lance:{published}")) as there:
            found = there.open(_NAME)
            console.print(f"{_LANCE}: {found.published.depth} candidates are read")
            for what, where in _FILTERS.items():
                calls = {
                    place: partial(one_by_one, index, queries[:_SINGLE], where)
                    for place, index in ((_LOCAL, here), (_LANCE, found))
                }
                print_comparison(f"{_SINGLE} queries one by one{what}", calls, _LOCAL, rounds)
        data, indexes = (_bytes(published / f"{_NAME}.lance" / part) / rows for part in ("data", "_indices"))
        console.print(f"{_LOCAL}: {file.stat().st_size / rows:,.0f} bytes a row on disk")
        console.print(f"{_LANCE}: {data + indexes:,.0f} bytes a row on disk, {indexes:,.0f} of them of indexes")


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
