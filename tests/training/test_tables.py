from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.normalization import contenders
from model.backbone import build_backbone
from model.catalogue import SYSTEMS
from model.errors import Interrupted
from model.network import build_network
from model.normalization import RankOneUpdate
from rankone.tables import tables
from tests.conftest import RECIPE
from tests.oracles import run_on_features
from training.datasets import DataSet
from training.datasets.dataset import DataError, limited
from training.features import RememberedFeatures
from training.images import batches
from training.interrupt import StopRequest
from training.pooling import Pooling
from training.recipe import Phase, load_recipe
from training.tables.book import Book, Filled, Plan, TableError, check_names
from training.tables.cost import Cost
from training.tables.markdown import human, markdown, spread
from training.tables.measure import Setting, Workshop, singular_values
from training.tables.plan import TABLES, Row, Table
from training.tables.plot import draw, plot

QUICK = RECIPE.model_copy(
    update={
        "size": 32,
        "flip": False,
        "phase1": Phase(epochs=3, learning_rate=1, batch_size=8),
        "phase2": Phase(epochs=0, learning_rate=1e-5),
    }
)
TABLE_4 = TABLES["4"]
SMALL = Table(
    title="Two small poolings",
    axis="eta",
    rows=(
        Row(label="0", pooling=Pooling(options={"dim": 100, "eta": 0}), paper={"CUB": "84.1"}),
        Row(label="0.6", pooling=Pooling(options={"dim": 100})),
    ),
)


@pytest.fixture(autouse=True, scope="module")
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TABLES, "4", SMALL)
        yield


@pytest.fixture(scope="module")
def plan(photos: DataSet) -> Plan:
    return Plan(recipe=QUICK, data=photos, seeds=(0, 1), fast=True, batch=2, rounds=2)


def axes_of(filled: Filled) -> list[Any]:
    """Of its picture; matplotlib's types know what is drawn in them by its base class alone."""
    return list(draw(filled).axes)


def fill(path: Path, plan: Plan, tell: Callable[[str], None] = lambda _: None, name: str = "4") -> Filled:
    return Book(path, plan, StopRequest()).fill([name], tell)[0]


@pytest.fixture(scope="module")
def home(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all of the small table, not to be written to."""
    path = tmp_path_factory.mktemp("tables")
    fill(path, plan)
    return path


@pytest.fixture(scope="module")
def filled(plan: Plan, home: Path) -> Filled:
    return fill(home, plan)


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


def test_a_frozen_backbone_that_is_remembered_changes_no_figure(photos: DataSet, tmp_path: Path) -> None:
    """With a phase 2 of a learning rate so small that it changes nothing the backbone is run anew for every batch."""
    frozen = Setting.of(SMALL, SMALL.rows[1], QUICK, photos, 0, fast=False)
    phases = {"phase2": Phase(epochs=1, learning_rate=1e-30)}
    moving = replace(frozen, recipe=frozen.recipe.model_copy(update=phases))
    workshop = Workshop(tmp_path, StopRequest())
    metrics = [workshop.measure(setting, "", {}).metrics for setting in (frozen, moving, frozen)]
    assert metrics[0] == metrics[1] == metrics[2]


def test_a_backbone_that_is_trained_is_not_remembered(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, StopRequest())
    moving = QUICK.model_copy(update={"phase2": Phase(epochs=1, learning_rate=1e-3)})
    assert not isinstance(workshop._network(moving, 4).backbone, RememberedFeatures)
    remembered = workshop._network(QUICK, 4).backbone
    assert isinstance(remembered, RememberedFeatures)
    assert workshop._network(QUICK, 4).backbone is remembered


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


def test_nothing_of_the_recipes_own_pooling_is_left_in_a_row(photos: DataSet) -> None:
    recipe = QUICK.model_copy(update={"pooling": Pooling(system="bcnn-ns", options={"iterations": 7})})
    pooling = Setting.of(SMALL, SMALL.rows[0], recipe, photos, 0, fast=False).recipe.pooling
    assert pooling == Pooling(options={"dim": 100, "eta": 0, "seed": 0})


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


def test_singular_values_are_those_of_the_scaled_features_before_and_after_run(photos: DataSet) -> None:
    few = replace(photos, test=limited(photos.test, 1))
    network = build_network(weights="random")
    found = singular_values(network, QUICK, few)
    assert len(found) == len(few.test)
    images = next(batches(few.test, QUICK.preprocessing, [list(range(len(few.test)))]))
    v0 = RankOneUpdate(512, seed=QUICK.seed).v0
    for values, features in zip(found, network.backbone(images).detach().double(), strict=True):
        scaled = features / len(features) ** 0.5
        for pair, matrix in ((values[:2], scaled), (values[2:], run_on_features(scaled, v0, 0.6, 2))):
            expected = torch.linalg.eigvalsh(matrix @ matrix.T).flip(0)[:2].clamp_min(0).sqrt()
            assert torch.allclose(torch.tensor(pair, dtype=torch.float64), expected, rtol=1e-5)


def test_a_mean_ratio_leaves_out_images_without_a_second_singular_value(filled: Filled) -> None:
    one = filled.measured["0"][0]
    values = [(6.0, 3.0, 3.0, 3.0), (8.0, 2.0, 4.0, 2.0), (5.0, 0.0, 2.0, 0.0)]
    several = one.model_copy(update={"singular_values": values})
    assert (several.mean_ratio, several.mean_ratio_after) == (3.0, 1.5)
    none = one.model_copy(update={"singular_values": values[2:]})
    assert math.isnan(none.mean_ratio)
    assert math.isnan(none.mean_ratio_after)


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


def test_every_seed_has_a_backbone_of_its_own(photos: DataSet, tmp_path: Path, filled: Filled) -> None:
    """Also where the one of the seed before is remembered."""
    setting = Setting.of(SMALL, SMALL.rows[1], QUICK, photos, 1, fast=False)
    alone = Workshop(tmp_path, StopRequest()).measure(setting, "", {})
    assert alone.metrics == filled.measured["0.6"][1].metrics
    assert alone.history == filled.measured["0.6"][1].history


def test_a_damaged_measurement_is_named(plan: Plan, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    path = min((tmp_path / "rows").iterdir())
    path.write_text('{"metrics": ')
    with pytest.raises(TableError, match=f"{path} cannot be read; remove it and run again"):
        fill(tmp_path, plan)


def test_the_paper_stands_beside_ours(filled: Filled, tmp_path: Path) -> None:
    text = markdown(filled)
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


def cells(text: str) -> dict[str, list[str]]:
    """The columns of the table in a page, by their heads."""
    lines = [line[1:-1].split("|") for line in text.splitlines() if line.startswith("|")]
    return {column[0].strip(): [cell.strip() for cell in column[2:]] for column in zip(*lines, strict=True)}


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
    curve = cells(markdown(replace(filled, measured=both, table=replace(SMALL, kind="curve"))))
    assert curve["after phase 1"][1] == spread([0.5])
    assert (curve["after phase 2"][0], curve["after phase 2"][1]) == ("", spread([0.875]))
    text = markdown(replace(filled, measured=both, table=replace(SMALL, kind="scatter")))
    assert (cells(text)["sigma1 / sigma2"][1], cells(text)["after RUN"][1]) == (
        spread([3.0], "{:.2f}"),
        spread([1.5], "{:.2f}"),
    )
    assert "3 or 9 epochs of phase 1 at 1, 0 of phase 2" in text


def test_costs_stand_beside_the_papers_in_the_table_and_the_picture(filled: Filled) -> None:
    sizes = {"flops": 1, "batch": 2, "locations": 784, "channels": 512, "rounds": 2}
    costs = {
        name: Cost(contender=name, low_ms=k, median_ms=k + 1, high_ms=k + 3, device="cpu", machine="", **sizes)
        for k, name in enumerate((str(row.contender) for row in TABLES["6"].rows), start=1)
    }
    measured = {row.title: filled.measured["0.6"] for row in TABLES["6"].rows}
    costly = replace(filled, name="6", table=TABLES["6"], costs=costs, measured=measured)
    table = cells(markdown(costly))
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
    assert columns[kind] in markdown(filled)
    if kind == "cost":
        steps, update = 2 * 2 * 2 * 784 * 512, 2 * 2 * 784 * 512
        assert filled.costs["RUN on F"].flops == steps + update
        assert filled.costs["RUN on G"].flops == 3 * 2 * 512**2
        assert "| 4.8 M | " in markdown(filled)
        (path,) = (tmp_path / "costs").iterdir()
        measured = path.stat().st_mtime_ns
        assert fill(tmp_path, replace(plan, seeds=(0,)), name="6").costs == filled.costs
        assert path.stat().st_mtime_ns == measured
    if kind == "curve":
        shown = markdown(filled).splitlines()[6].split(" | ")[1]
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
            assert after1 / after2 < before1 / before2


def test_tables_and_figures_of_the_paper_are_all_there() -> None:
    assert set(TABLES) == {"3", "4", "5", "6", "7", "8", "9", "figure2", "figure4"}
    assert load_recipe("fast").phase2.epochs == 0
    for name, table in TABLES.items():
        titles = [row.title for row in table.rows]
        assert len(set(titles)) == len(titles), name
        assert {row.contender for row in table.rows} <= {None, *contenders(1, "cpu", locations=4, channels=4)}
    with pytest.raises(TableError, match="there is no table '10'; there are: 3, 4"):
        check_names(["4", "10"])


def test_a_table_that_is_not_there_is_refused_before_anything_is_measured(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="there is no table '10'"):
        Book(tmp_path, plan, StopRequest()).fill(["4", "10"], lambda _: None)
    assert not list(tmp_path.iterdir())


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
    assert {system for _, system, _ in trained("9")} == set(SYSTEMS)


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


@pytest.mark.gpu
def test_singular_values_of_a_remembered_backbone_on_a_gpu(plan: Plan, tmp_path: Path) -> None:
    """Its features stay where they were computed."""
    filled = fill(tmp_path, replace(plan, device="cuda", seeds=(0,)), name="figure2")
    assert filled.measured["BP + RUN"][0].mean_ratio > 1


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
