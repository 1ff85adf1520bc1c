from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from model.backbone import build_backbone
from model.errors import Interrupted
from tests.conftest import RECIPE
from training.datasets import DataSet
from training.datasets.dataset import DataError, limited
from training.features import RememberedFeatures
from training.interrupt import StopRequest
from training.pooling import Pooling
from training.recipe import Phase, load_recipe
from training.tables.book import Book, Filled, Plan, TableError, check_names
from training.tables.markdown import human, markdown, spread
from training.tables.measure import Setting, Workshop
from training.tables.plan import TABLES, Row, Table
from training.tables.plot import plot

QUICK = RECIPE.model_copy(
    update={
        "size": 32,
        "flip": False,
        "phase1": Phase(epochs=3, learning_rate=1, batch_size=8),
        "phase2": Phase(epochs=0, learning_rate=1e-5),
    }
)
SMALL = Table(
    title="Two small poolings",
    axis="eta",
    rows=(
        Row(label="0", pooling=Pooling(options={"dim": 100, "eta": 0}), paper={"CUB": "84.1"}),
        Row(label="0.6", pooling=Pooling(options={"dim": 100})),
    ),
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLES, "4", SMALL)


@pytest.fixture
def plan(photos: DataSet) -> Plan:
    return Plan(recipe=QUICK, data=photos, seeds=(0, 1), fast=True, batch=2, rounds=2)


def fill(path: Path, plan: Plan, tell: Callable[[str], None] = lambda _: None, name: str = "4") -> Filled:
    return Book(path, plan, StopRequest()).fill([name], tell)[0]


def test_every_row_and_seed_is_a_file_and_nothing_is_measured_twice(plan: Plan, tmp_path: Path) -> None:
    first = fill(tmp_path, plan)
    files = sorted((tmp_path / "rows").iterdir())
    assert len(files) == 4
    assert not list((tmp_path / "work").iterdir())
    times = [path.stat().st_mtime_ns for path in files]
    again = fill(tmp_path, plan)
    assert [path.stat().st_mtime_ns for path in files] == times
    assert again.measured == first.measured
    assert [one.seed for one in first.measured["0.6"]] == [0, 1]


def test_a_run_that_was_stopped_goes_on_to_the_same_figures(plan: Plan, tmp_path: Path) -> None:
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
    resumed, whole = fill(tmp_path / "a", plan), fill(tmp_path / "b", plan)
    for title, measured in whole.measured.items():
        assert [one.metrics for one in resumed.measured[title]] == [one.metrics for one in measured]


def test_a_frozen_backbone_that_is_remembered_changes_no_figure(photos: DataSet, tmp_path: Path) -> None:
    """With a phase 2 of a learning rate so small that it changes nothing the backbone is run anew for every batch."""
    frozen = Setting.of(SMALL, SMALL.rows[1], QUICK, photos, 0, fast=False)
    phases = {"phase2": Phase(epochs=1, learning_rate=1e-30), "momentum": 0.0}
    moving = replace(frozen, recipe=frozen.recipe.model_copy(update=phases))
    workshop = Workshop(tmp_path, StopRequest())
    metrics = [workshop.measure(setting, "", {}).metrics for setting in (frozen, moving, frozen)]
    assert metrics[0] == metrics[1] == metrics[2]


def test_remembered_features_are_those_of_the_backbone_within_their_limit() -> None:
    backbone = build_backbone(weights="random").eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = backbone(images)
    one_image = expected[0].numel() * 4
    for limit in (0, 2 * one_image, 1 << 30):
        remembered = RememberedFeatures(backbone, max_bytes=limit)
        assert torch.allclose(remembered(images), expected, atol=1e-4)
        assert torch.allclose(remembered(images.flip(0)), expected.flip(0), atol=1e-4)
        assert len(remembered._kept) == min(limit // one_image, 4)
    assert remembered.state_dict().keys() == backbone.state_dict().keys()


def test_settings_differ_by_everything_that_changes_a_figure(photos: DataSet) -> None:
    def key(row: int = 0, seed: int = 0, fast: bool = False, table: Table = SMALL, data: DataSet = photos) -> str:
        return Setting.of(table, table.rows[row], QUICK, data, seed, fast=fast).key

    longer = replace(SMALL, fast={"phase1": {"epochs": 4}})
    fewer = replace(photos, train=limited(photos.train, 2))
    keys = [
        key(),
        key(row=1),
        key(seed=1),
        key(table=longer, fast=True),
        key(data=fewer),
        key(table=replace(SMALL, kind="ratio")),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == key(fast=True) == key(table=longer)
    assert key(row=1).startswith("cbp-run-dim-100-seed-0-")


def test_a_seed_draws_the_weights_and_the_tables_of_the_pooling(photos: DataSet) -> None:
    recipe = Setting.of(SMALL, SMALL.rows[0], QUICK, photos, 7, fast=False).recipe
    assert recipe.seed == recipe.pooling.composition.options["seed"] == 7
    plain = Table(title="", rows=(Row(label="", pooling=Pooling(system="bcnn")),))
    assert Setting.of(plain, plain.rows[0], QUICK, photos, 7, fast=False).recipe.pooling.options == {}


def test_a_damaged_measurement_is_named(plan: Plan, tmp_path: Path) -> None:
    fill(tmp_path, plan)
    path = min((tmp_path / "rows").iterdir())
    path.write_text('{"metrics": ')
    with pytest.raises(TableError, match=f"{path} cannot be read; remove it and run again"):
        fill(tmp_path, plan)


def test_the_paper_stands_beside_ours(plan: Plan, tmp_path: Path) -> None:
    filled = fill(tmp_path, plan)
    text = markdown(filled)
    assert "| eta | test accuracy | recall@1 | paper: CUB |" not in text.splitlines()[2]
    header, _, first, second = text.split("\n\n")[2].splitlines()
    assert header == "| eta | test accuracy | recall@1 | paper: CUB |"
    assert first.startswith("| 0 | ")
    assert first.endswith(" | 84.1 |")
    assert second.endswith(" |  |")
    assert "few, 4 classes, 24 images to train on, 16 to test. Seeds: 0, 1." in text
    assert "32 x 32, 3 epochs of phase 1 at 1, 0 of phase 2" in text
    plot(filled, tmp_path / "table-4.png")
    with Image.open(tmp_path / "table-4.png") as picture:
        assert picture.width > picture.height > 300


@pytest.mark.parametrize("kind", ["ratio", "scatter", "curve", "cost"])
def test_every_kind_is_written_and_drawn(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    contenders = ("RUN on F", "RUN on G") if kind == "cost" else (None, None)
    rows = tuple(replace(row, contender=name) for row, name in zip(SMALL.rows, contenders, strict=True))
    monkeypatch.setitem(TABLES, "6", replace(SMALL, kind=kind, rows=rows, axis=None))
    filled = fill(tmp_path, replace(plan, seeds=(0,)), name="6")
    plot(filled, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5_000
    columns = {
        "ratio": "sigma1 / sigma2",
        "scatter": "after RUN",
        "curve": "after phase 1",
        "cost": "FLOPs | ms, batch of 2 (quartiles) | times faster",
    }
    assert columns[kind] in markdown(filled)
    if kind == "scatter":
        for before1, before2, after1, after2 in filled.measured["0"][0].singular_values or ():
            assert before1 > before2 > 0
            assert after1 / after2 < before1 / before2


def test_tables_and_figures_of_the_paper_are_all_there() -> None:
    assert set(TABLES) == {"3", "4", "5", "6", "7", "8", "9", "figure2", "figure4"}
    recipe = load_recipe("fast")
    for name, table in TABLES.items():
        titles = [row.title for row in table.rows]
        assert len(set(titles)) == len(titles), name
        for row in table.rows:
            assert row.pooling.composition
        assert ("paper" in name) or recipe.phase2.epochs == 0
    with pytest.raises(TableError, match="there is no table '10'; there are: 3, 4"):
        check_names(["4", "10"])


def test_figures_are_written_for_people() -> None:
    assert human(1_887_436_800) == "1.89 G"
    assert human(3_211_264) == "3.2 M"
    assert spread([0.5, 0.7, 0.6]) == "0.600 (0.500 - 0.700)"


def test_images_are_limited_class_by_class(photos: DataSet) -> None:
    few = limited(photos.train, 2)
    assert few.labels == (0, 0, 1, 1, 2, 2, 3, 3)
    assert few.paths == tuple(path for path in photos.train.paths if path in few.paths)
    assert len(limited(photos.train, 100)) == len(photos.train)
    with pytest.raises(DataError, match="at least one image of every class is needed, not 0"):
        limited(photos.train, 0)
