"""`rankone runs`: training runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional, arg

from rankone.cli import command
from rankone.cli.output import InputError
from rankone.cli.show import alarm, console, step
from rankone.model.folders import name_of
from rankone.training.run import replace_file
from rankone.training.runs import DIFFERENCES, HEAD, NOTE, RunComparison, compare_runs, difference_rows, rows

Folders = Positional[Annotated[tuple[Path, ...], arg(metavar="DIR...")]]


@command
def runs(folders: Folders, html: Path | None = None, json: bool = False) -> None:
    """Compares training runs: what each reached, and in what their recipes and images differ.

    Accuracy and recall@1 are those of the test images, from the report of each run.

    Args:
        folders: runs, or folders of runs.
        html: file to write, one page with the tables and a plot of all runs.
        json: print JSON, with every epoch.
    """
    if not folders:
        raise InputError("name the runs to compare, or a folder of them")
    comparison = compare_runs(folders)
    if html is not None:
        from rankone.training.report.runs import page

        replace_file(html, page(comparison).encode())
    if json:
        body = {
            "runs": [run.model_dump() for run in comparison.runs],
            "differences": comparison.differences,
            "remarks": comparison.remarks,
        }
        print(orjson.dumps(body, default=str).decode())
        return
    _print(comparison)
    if html is not None:
        step("page", name_of(html))


def _print(comparison: RunComparison) -> None:
    table = Table(box=None, pad_edge=False)
    for name in HEAD:
        table.add_column(name, justify="left" if name in HEAD[:5] else "right", overflow="fold")
    for row in rows(comparison.runs):
        table.add_row(*map(escape, row))
    console.print(table)
    console.print(NOTE)
    for run in comparison.runs:
        for remark in run.remarks:
            step(run.name, remark)
    for remark in comparison.remarks:
        alarm("comparison", remark)
    if comparison.differences:
        names = list(next(iter(comparison.differences.values())))
        differing = Table(DIFFERENCES, *map(escape, names), box=None, pad_edge=False)
        for row in difference_rows(comparison):
            differing.add_row(*map(escape, row))
        console.print("")
        console.print(differing)
