"""What is measured stays measured: stopped, cut off, damaged or done before."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.paper.book import Book, Filled, Plan, TableError
from rankone.cli.tables import tables
from rankone.model.errors import Interrupted
from rankone.training.data import DataSet
from rankone.training.data.dataset import DataError, limited
from rankone.training.processes import StopRequest
from tests.benchmarks.paper.conftest import QUICK, fill


def test_every_row_and_seed_is_a_file_and_nothing_is_measured_twice(plan: Plan, home: Path, filled: Filled) -> None:
    files = sorted((home / "rows").iterdir())
    assert len(files) == 4
    assert not list((home / "work").iterdir())
    times = [path.stat().st_mtime_ns for path in files]
    again = fill(home, plan)
    assert [path.stat().st_mtime_ns for path in files] == times
    assert again.measured == filled.measured
    assert [one.seed for one in filled.measured["0.6"]] == [0, 1]


def test_a_run_that_was_stopped_goes_on_to_the_same_figures(plan: Plan, tmp_path: Path, filled: Filled) -> None:
    """Stopped once between two rows, and once within a row."""
    told: list[str] = []

    def fall_over(text: str) -> None:
        told.append(text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "a", plan, fall_over)
    assert len(told) == len(list((tmp_path / "a/rows").iterdir())) == 1
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(Interrupted):
        Book(tmp_path / "a", plan, stop).fill(["4"], told.append)
    assert list((tmp_path / "a/work").iterdir())
    resumed = fill(tmp_path / "a", plan)
    for title, measured in filled.measured.items():
        assert [one.metrics for one in resumed.measured[title]] == [one.metrics for one in measured]


def test_a_plan_without_seeds_or_images_is_refused(plan: Plan) -> None:
    with pytest.raises(TableError, match="at least one seed is needed"):
        replace(plan, seeds=())
    with pytest.raises(TableError, match="has at least one image, not 0"):
        replace(plan, batch=0)


def test_a_measurement_that_was_cut_off_while_it_was_written_does_not_count(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def cut_off(path: Path, text: str, encoding: str) -> None:
        if "rows" not in path.parts:
            write(path, text, encoding)
            return
        path.write_bytes(text[: len(text) // 2].encode())
        raise OSError("no space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(Path, "write_text", cut_off)
        with pytest.raises(OSError, match="no space left"):
            fill(tmp_path, replace(plan, seeds=(0,)))
    assert not list((tmp_path / "rows").glob("*.json"))


def test_a_damaged_measurement_is_named(plan: Plan, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    path = min((tmp_path / "rows").iterdir())
    path.write_text('{"metrics": ')
    with pytest.raises(TableError, match=f"{path} cannot be read; remove it and run again"):
        fill(tmp_path, plan)


def test_a_table_that_is_not_there_is_refused_before_anything_is_measured(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="there is no table '10'"):
        Book(tmp_path, plan, StopRequest()).fill(["4", "10"], lambda _: None)
    assert not list(tmp_path.iterdir())


def test_images_are_limited_class_by_class(photos: DataSet) -> None:
    few = limited(photos.train, 2)
    assert few.labels == (0, 0, 1, 1, 2, 2, 3, 3)
    assert few.paths == tuple(path for path in photos.train.paths if path in few.paths)
    assert len(limited(photos.train, 100)) == len(photos.train)
    with pytest.raises(DataError, match="at least one image of every class is needed, not 0"):
        limited(photos.train, 0)


def test_the_command_writes_tables_and_pictures(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(QUICK.yaml())
    root = plan.data.test.paths[0].parents[2]
    flags = ["--data", str(root), "--out", str(tmp_path), "--recipe", str(tmp_path / "recipe.yaml"), "--seeds", "0"]
    tables(["4", *flags, "--images", "2"])
    home = tmp_path / plan.data.name
    assert "4 classes, 8 images to train on, 8 to test. Seeds: 0." in (home / "table-4.md").read_text(encoding="utf-8")
    assert (home / "table-4.png").stat().st_size > 5_000
    with pytest.raises(DataError, match="at least one image of every class is needed, not 0"):
        tables(["4", *flags, "--fast", "--images", "0"])
