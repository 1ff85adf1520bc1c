"""A small table in place of table 4, filled once for all that read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rankone.model.backbone
from benchmarks.paper.book import Book, Filled, Plan
from benchmarks.paper.plan import TABLES, Row, Table
from rankone.training.data import DataSet
from rankone.training.processes import StopRequest
from rankone.training.recipe import Phase, PoolingRecipe
from tests.conftest import RECIPE
from tests.light import one_layer

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
        Row(label="0", pooling=PoolingRecipe(options={"dim": 100, "eta": 0}), paper={"CUB": "84.1"}),
        Row(label="0.6", pooling=PoolingRecipe(options={"dim": 100})),
    ),
)


@pytest.fixture(autouse=True, scope="package")
def _small() -> Iterator[None]:
    """Also the backbone, of which the tables know nothing but its channels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(rankone.model.backbone.BACKBONES, "vgg16", one_layer)
        patch.setitem(TABLES, "4", SMALL)
        yield


@pytest.fixture(scope="package")
def plan(photos: DataSet) -> Plan:
    return Plan(recipe=QUICK, data=photos, seeds=(0, 1), fast=True, batch=2, rounds=2)


def fill(path: Path, plan: Plan, tell: Callable[[str], None] = lambda _: None, name: str = "4") -> Filled:
    return Book(path, plan, StopRequest()).fill([name], tell)[0]


@pytest.fixture(scope="package")
def home(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all of the small table, not to be written to."""
    path = tmp_path_factory.mktemp("tables")
    fill(path, plan)
    return path


@pytest.fixture(scope="package")
def filled(plan: Plan, home: Path) -> Filled:
    return fill(home, plan)
