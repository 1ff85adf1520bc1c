"""What people read: the tables in Markdown and the pictures."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.markdown import spread
from benchmarks.paper.book import Book, Cost, Filled
from benchmarks.paper.page import footer, human, page
from benchmarks.paper.plan import Plan
from benchmarks.paper.plot import draw, plot
from benchmarks.paper.tables import TABLES
from rankone.training.processes import StopRequest
from tests.benchmarks.paper.conftest import SMALL, fill


def axes_of(filled: Filled) -> list[Any]:
    """Of its picture; matplotlib's types know what is drawn in them by its base class alone."""
    return list(draw(filled).axes)


def cells(text: str) -> dict[str, list[str]]:
    """The columns of the table in a page, by their heads."""
    lines = [line[1:-1].split("|") for line in text.splitlines() if line.startswith("|")]
    return {column[0].strip(): [cell.strip() for cell in column[2:]] for column in zip(*lines, strict=True)}


def test_the_paper_stands_beside_ours(filled: Filled, tmp_path: Path) -> None:
    text = page(filled)
    assert "| eta | test accuracy | recall@1 | paper: CUB |" not in text.splitlines()[2]
    header, _, first, second = text.split("\n\n")[2].splitlines()
    assert header == "| eta | test accuracy | recall@1 | paper: CUB |"
    assert first.startswith("| 0 | ")
    assert first.endswith(" | 84.1 |")
    assert second.endswith(" |  |")
    assert "few, 4 classes, 24 images to train on, 16 to test. Seeds: 0, 1." in text
    assert "32 x 32, 3 epochs of phase 1 at 1, 0 of phase 2" in text
    accuracies = [one.metrics["top1"] for one in filled.measured["0.6"]]
    assert second.startswith(f"| 0.6 | {sum(accuracies) / 2:.3f} ({min(accuracies):.3f} - {max(accuracies):.3f}) | ")
    plot(filled, tmp_path / "table-4.png")
    with Image.open(tmp_path / "table-4.png") as picture:
        assert picture.width > picture.height > 300


def test_the_picture_has_our_means_and_the_papers_figures(filled: Filled) -> None:
    ours, paper = axes_of(filled)
    (curve,) = ours.containers
    accuracies = [[one.metrics["top1"] for one in measured] for measured in filled.measured.values()]
    assert curve[0].get_ydata().tolist() == pytest.approx([sum(values) / 2 for values in accuracies])
    (lowest_to_highest,) = curve[2]
    for (low, high), values in zip(lowest_to_highest.get_segments(), accuracies, strict=True):
        assert (low[1], high[1]) == pytest.approx((min(values), max(values)))
    (line,) = [line for line in paper.lines if len(line.get_xdata())]
    assert (list(line.get_xdata()), list(line.get_ydata()), line.get_label()) == (["0"], [84.1], "CUB")


def test_a_picture_of_epochs_has_the_held_out_accuracy_of_each(filled: Filled) -> None:
    axes = axes_of(replace(filled, table=replace(SMALL, kind="curve", axis=None)))[0]
    curves = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    for row, measured in filled.measured.items():
        errors = zip(*([epoch.validation_error for epoch in one.history] for one in measured), strict=True)
        assert curves[row] == pytest.approx([1 - sum(each) / len(each) for each in errors])


def test_ratios_and_epochs_stand_in_their_columns(filled: Filled) -> None:
    one = filled.measured["0.6"][0]
    epochs = [(1, 0, 0.75), (1, 1, 0.5), (2, 0, 0.25), (2, 1, 0.125)]
    history = [
        one.history[0].model_copy(update={"phase": phase, "epoch": epoch, "validation_error": error})
        for phase, epoch, error in epochs
    ]
    values = [(6.0, 2.0, 3.0, 2.0)]
    longer = one.recipe | {"phase1": one.recipe["phase1"] | {"epochs": 9}}
    other = one.model_copy(update={"history": history, "singular_values": values, "recipe": longer})
    both = {"0": [one.model_copy(update={"singular_values": values})], "0.6": [other]}
    curve = cells(page(replace(filled, measured=both, table=replace(SMALL, kind="curve"))))
    assert curve["after phase 1"][1] == spread([0.5])
    assert (curve["after phase 2"][0], curve["after phase 2"][1]) == ("", spread([0.875]))
    text = page(replace(filled, measured=both, table=replace(SMALL, kind="scatter")))
    assert (cells(text)["sigma1 / sigma2"][1], cells(text)["after RUN"][1]) == (
        spread([3.0], "{:.2f}"),
        spread([1.5], "{:.2f}"),
    )
    assert "3 or 9 epochs of phase 1 at 1, 0 of phase 2" in text


def test_every_machine_and_version_that_a_row_was_measured_with_is_named(filled: Filled) -> None:
    """A table that was stopped goes on from its rows, also on another machine; its times may be of a third."""
    first, second = filled.measured["0"]
    moved = second.model_copy(
        update={"machine": "another", "libraries": {**second.libraries, "torch": "3.0", "new": "1"}}
    )
    sizes = {"flops": 1, "batch": 2, "locations": 784, "channels": 512, "rounds": 2, "device": "cpu"}
    cost = Cost(contender="x", low_ms=1, median_ms=1, high_ms=1, machine="a third", **sizes)
    text = footer(replace(filled, measured={"0": [first, moved], "0.6": filled.measured["0.6"]}, costs={"x": cost}))
    assert f"- Machines: {first.machine}; another.\n" in text
    assert f"torch {first.libraries['torch']} or 3.0, torchvision {first.libraries['torchvision']}, " in text
    assert text.endswith(", new 1.")
    assert "2 rounds in turn on a third. FLOPs" in text
    alone = footer(replace(filled, costs={"x": cost.model_copy(update={"machine": first.machine})}))
    assert f"- Machine: {first.machine}.\n" in alone
    assert "2 rounds in turn. FLOPs" in alone


def test_costs_stand_beside_the_papers_in_the_table_and_the_picture(filled: Filled) -> None:
    sizes = {"flops": 1, "batch": 2, "locations": 784, "channels": 512, "rounds": 2}
    costs = {
        name: Cost(contender=name, low_ms=k, median_ms=k + 1, high_ms=k + 3, device="cpu", machine="", **sizes)
        for k, name in enumerate((str(row.contender) for row in TABLES["6"].rows), start=1)
    }
    measured = {row.title: filled.measured["0.6"] for row in TABLES["6"].rows}
    costly = replace(filled, name="6", table=TABLES["6"], costs=costs, measured=measured)
    table = cells(page(costly))
    assert table["times faster"] == ["3.0", "2.0", "1.5", "1.2", "1.0"]
    assert table["ms, batch of 2 (quartiles)"][0] == "2.0 (1.0 - 4.0)"
    assert table["paper: ms"] == ["6731", "", "833", "2.5", ""]
    ours, paper = axes_of(costly)
    assert [bar.get_width() for bar in ours.patches] == [2, 3, 4, 5, 6]
    assert [bar.get_width() for bar in paper.patches] == [6731, 833, 2.5]
    assert [label.get_text() for label in paper.get_yticklabels()] == ["SVD", "Newton-Schulz", "RUN on F"]


@pytest.mark.parametrize("kind", ["ratio", "scatter", "curve", "cost"])
def test_every_kind_is_written_and_drawn(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    contenders = ("RUN on F", "RUN on G") if kind == "cost" else (None, None)
    rows = tuple(replace(row, contender=name) for row, name in zip(SMALL.rows, contenders, strict=True))
    shorter = {"phase1": {"epochs": 2}}
    monkeypatch.setitem(TABLES, "6", replace(SMALL, kind=kind, rows=rows, axis=None, fast=shorter))
    filled = fill(tmp_path, replace(plan, seeds=(0,)), name="6")
    assert [one.recipe["phase1"]["epochs"] for (one,) in filled.measured.values()] == [2, 2]
    plot(filled, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5_000
    columns = {
        "ratio": "sigma1 / sigma2",
        "scatter": "after RUN",
        "curve": "after phase 1",
        "cost": "FLOPs | ms, batch of 2 (quartiles) | times faster",
    }
    assert columns[kind] in page(filled)
    if kind == "cost":
        steps, update = 2 * 2 * 2 * 784 * 512, 2 * 2 * 784 * 512
        assert filled.costs["RUN on F"].flops == steps + update
        assert filled.costs["RUN on G"].flops == 3 * 2 * 512**2
        assert "| 4.8 M | " in page(filled)
        (path,) = (tmp_path / "costs").iterdir()
        measured = path.stat().st_mtime_ns
        assert fill(tmp_path, replace(plan, seeds=(0,)), name="6").costs == filled.costs
        assert path.stat().st_mtime_ns == measured
        more = fill(tmp_path, replace(plan, seeds=(0,), rounds=3), name="6").costs
        assert [cost.rounds for cost in more.values()] == [3, 3]
    if kind == "curve":
        shown = page(filled).splitlines()[6].split(" | ")[1]
        assert shown == spread([1 - (filled.measured["0"][0].history[-1].validation_error or 0)])
    if kind == "ratio":
        widths = [bar.get_width() for bar in axes_of(filled)[0].patches]
        assert widths == pytest.approx([measured[0].mean_ratio for measured in filled.measured.values()])
    if kind == "scatter":
        values = [v for measured in filled.measured.values() for v in measured[0].singular_values or ()]
        before, after = (points.get_offsets().tolist() for points in axes_of(filled)[0].collections)
        assert (before, after) == ([[*v[:2]] for v in values], [[*v[2:]] for v in values])
        for before1, before2, after1, after2 in filled.measured["0"][0].singular_values or ():
            assert before1 > before2 > 0
            assert before1 > after1 > after2


def test_figures_are_written_for_people() -> None:
    assert human(1_887_436_800) == "1.89 G"
    assert human(3_211_264) == "3.2 M"
    assert spread([0.5, 0.7, 0.6]) == "0.600 (0.500 - 0.700)"
    assert spread([0.5]) == "0.500"  # one seed says nothing of the spread


def test_both_solvers_of_phase_1_stand_beside_each_other(
    plan: Plan, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradient descent is measured as before: its files are found again."""
    monkeypatch.setitem(TABLES, "5", replace(SMALL, solvers=TABLES["9"].solvers))
    shutil.copytree(home / "rows", tmp_path / "rows")
    before = set((tmp_path / "rows").iterdir())
    lines = list(Book(tmp_path, plan, StopRequest()).measure(["5"]))
    assert lines[1].startswith("table 5, 0, seed 0, lbfgs: accuracy ")
    assert len(set((tmp_path / "rows").iterdir()) - before) == 4
    filled = fill(tmp_path, plan, name="5")
    table = cells(page(filled))
    assert list(table) == ["eta", "test accuracy, SGD", "test accuracy, L-BFGS", "recall@1", "paper: CUB"]
    for column, found in (("SGD", filled.measured), ("L-BFGS", filled.solved)):
        values = [[one.metrics["top1"] for one in found[title]] for title in ("0", "0.6")]
        assert table[f"test accuracy, {column}"] == [spread(value) for value in values]
    assert {one.recipe["phase1"].get("solver") for several in filled.solved.values() for one in several} == {"lbfgs"}
    descent, solved = axes_of(filled)[0].containers
    assert (descent.get_label(), solved.get_label()) == ("SGD", "L-BFGS")
    assert "a penalty that held-out images" in page(filled)
    bars = axes_of(replace(filled, table=replace(filled.table, axis=None)))[0]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["0", "0.6"]
    assert len(bars.patches) == 4


def test_the_tables_of_accuracies_have_both_solvers() -> None:
    assert {name for name, table in TABLES.items() if table.solvers} == {"5", "7", "9"}  # 4 is replaced in these tests
