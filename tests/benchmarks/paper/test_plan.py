"""The paper's tables and figures as they are written down here."""

from __future__ import annotations

import pytest

from benchmarks.normalization import contenders
from benchmarks.paper.plan import Setting, TableError
from benchmarks.paper.tables import TABLES, check_names
from rankone.model.catalogue import SYSTEMS
from rankone.training.data import DataSet
from rankone.training.recipe import load_recipe

TABLE_4 = TABLES["4"]


def test_tables_and_figures_of_the_paper_are_all_there() -> None:
    assert set(TABLES) == {"3", "4", "5", "6", "7", "8", "9", "figure2", "figure4"}
    assert load_recipe("fast").phase2.epochs == 0
    for name, table in TABLES.items():
        titles = [row.title for row in table.rows]
        assert len(set(titles)) == len(titles), name
        assert {row.contender for row in table.rows} <= {None, *contenders(1, "cpu", locations=4, channels=4)}
    with pytest.raises(TableError, match="there is no table '10'; there are: 3, 4"):
        check_names(["4", "10"])


@pytest.mark.parametrize(
    ("table", "row", "column", "figure"),
    [
        *(("5", k, "CUB", figure) for k, figure in (("1", "85.7"), ("2", "86.3"), ("10", "86.1"))),
        *(("6", "SVD", "ms", "6731"), ("6", "Newton-Schulz", "FLOPs", "4.03 G"), ("6", "RUN on F", "ms", "2.5")),
        *(("7", "TS 1000", "CUB", "83.8"), ("7", "TS 10000", "CUB", "85.7"), ("8", "MoNet-2", "ms", "13850")),
        *(("9", "max", "DTD", "55.1"), ("9", "sum", "MIT", "58.7"), ("9", "cbp-run", "Airplane", "91.0")),
    ],
)
def test_the_papers_figures_stand_in_their_rows(table: str, row: str, column: str, figure: str) -> None:
    (found,) = (each for each in TABLES[table].rows if each.title == row)
    assert found.paper[column] == figure


def test_the_rows_train_what_their_labels_say() -> None:
    def trained(table: str) -> list[tuple[str, str, object]]:
        return [
            (row.title, str(row.pooling.system), next(iter(row.pooling.options.values()), None))
            for row in (TABLE_4 if table == "4" else TABLES[table]).rows
        ]

    assert trained("4") == [(str(eta), "bp-run", eta) for eta in (0.0, 0.3, 0.6, 1.0, 1.5, 2.0)]
    assert [row.paper.get("MIT") for row in TABLE_4.rows] == ["79.8", None, "80.8", "80.9", None, "79.7"]
    assert trained("5") == [(str(k), "bp-run", k) for k in (1, 2, 3, 5, 10)]
    dims = (1000, 2000, 4000, 8000, 10_000)
    assert trained("7") == [
        *((f"TS {dim}", "cbp-run", dim) for dim in dims),
        *((f"RM {dim}", "cbp-run-rm", dim) for dim in dims),
    ]
    assert [label for label, _, _ in trained("9")] == [system for _, system, _ in trained("9")]
    assert {system for _, system, _ in trained("9")} == set(SYSTEMS) - {"cbp-run-mild"}


@pytest.mark.parametrize(("name", "last"), [("default", 40), ("fast", 3)])
def test_table_3_holds_the_first_epoch_against_the_last_one(photos: DataSet, name: str, last: int) -> None:
    table, recipe = TABLES["3"], load_recipe(name)
    settings = [Setting.of(table, row, recipe, photos, 0, fast=name == "fast") for row in table.rows]
    trained = [(setting.recipe.pooling.name, setting.recipe.phase2.epochs) for setting in settings]
    assert trained == [("bcnn", 1), ("bcnn", last), ("bp-run", 1), ("bp-run", last)]
    assert all(setting.singular_values for setting in settings)


def test_figure_4_holds_images_out_also_when_it_is_fast(photos: DataSet) -> None:
    table = TABLES["figure4"]
    recipe = Setting.of(table, table.rows[0], load_recipe("fast"), photos, 0, fast=True).recipe
    assert (recipe.validation, recipe.phase2.epochs) == (0.25, 3)
