"""The figures after fine-tuning are those of the report, and textures that trained the network count for nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.quality import crops, pictures, short, tuned
from rankone.training import pipeline
from rankone.training.data import DataSet
from rankone.training.recipe import Phase
from tests.benchmarks.quality.test_short import rows_of
from tests.training.helpers import SMALL


@pytest.mark.slow
@pytest.mark.usefixtures("light_backbone")
def test_figures_are_those_of_the_report_of_the_same_training(
    photos: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned, "LENGTHS", (16,))
    monkeypatch.setattr(tuned, "others", lambda: [True] * 100)
    monkeypatch.setattr(short, "NUM_LEARNED", 60)
    monkeypatch.setattr(short, "LENGTHS", (16,))
    recipe = SMALL.model_copy(update={"phase2": Phase(epochs=1, learning_rate=1e-3, batch_size=8)})
    pipeline.train(photos, recipe, tmp_path / "run")
    report = pipeline.evaluate(tmp_path / "run", photos)
    assert report.short is not None
    found = tuned.measure(pipeline.trained(tmp_path / "run", photos)[1], rows_of(), recipe, photos)
    assert (found.accuracy, found.own["seen full"]) == (report.top1, report.recall_at_1)
    assert (found.interval, found.own_interval) == tuple(report.intervals[key] for key in ("top1", "recall_at_1"))
    assert found.own["seen 16"] == report.short.test[0].recall_at_1
    assert found.other["full"] == [short.recall_of(rows_of(), seed).full for seed in short.SEEDS]


def test_textures_that_train_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = next(name for name in pictures.TEXTURES if name.startswith("base/"))
    rng, folder = np.random.default_rng(0), tmp_path / "ufoai" / "textures"
    for name in crops._FOLDERS:
        (folder / f"tex_{name}").mkdir(parents=True)
    for name in (own, "base/another.png", f"misc/{Path(own).name}"):
        Image.fromarray(rng.integers(0, 255, (256, 256, 3)).astype(np.uint8)).save(folder / f"tex_{name}")
    monkeypatch.setattr(crops, "NUM_CLASSES", 3)
    assert [path.name for path in crops.pictures(tmp_path)] == ["another.png", Path(own).name, Path(own).name]
    assert tuned.others(tmp_path) == [True, False, True]


def test_crops_of_textures_that_train_are_neither_learned_from_nor_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, is_other = rows_of(), [number >= 20 for number in range(100)]
    monkeypatch.setattr(short, "NUM_LEARNED", 40)
    monkeypatch.setattr(short, "LENGTHS", (16,))
    monkeypatch.setattr(tuned, "LENGTHS", (16,))
    monkeypatch.setattr(tuned, "others", lambda: is_other)
    expected = [short.recall_of(rows[80:], seed) for seed in short.SEEDS]
    rows[:80] = 0  # what is left out changes nothing
    found = tuned.on_others(rows)
    assert found["full"] == [one.full for one in expected]
    assert found["16"] == [one.short["within-class", 16] for one in expected]


def test_the_tables_are_over_seeds_and_over_draws() -> None:
    one, two = (
        tuned.Tuned(
            accuracy=0.5 + shift,
            interval=(0.4, 0.6),
            own={"seen full": 0.7 + shift, "seen 64": 0.8, "unseen 64": 0.9},
            own_interval=(0.65, 0.75),
            other={"full": [0.1, 0.3 + shift], "64": [0.4, 0.4], "128": [0.5, 0.6]},
        )
        for shift in (0.0, 0.1)
    )
    lines = tuned.tables({"sum": {"phase 2": [one, two]}}).splitlines()
    cells = "0.550 (0.500 – 0.600) | 0.750 (0.700 – 0.800) | 0.800 (0.800 – 0.800) |  |  | 0.900 (0.900 – 0.900) |  |"
    assert f"| `sum` | phase 2 | {cells}" in lines
    cells = "0.225 (0.100 – 0.400) | 0.400 (0.400 – 0.400) | 0.550 (0.500 – 0.600) |"
    assert f"| `sum` | phase 2 | {cells}" in lines
