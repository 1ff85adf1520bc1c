from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rankone.training import pipeline
from rankone.training.data import DataError, DataSet
from rankone.training.data.batches import batches
from rankone.training.embeddings import Rows, embed, stored_rows
from rankone.training.encoder import Encoder
from rankone.training.processes import Processes, Resources
from rankone.training.recipe import Phase, Recipe
from tests.training.helpers import SMALL

pytestmark = pytest.mark.usefixtures("light_backbone")

CPU = torch.device("cpu")
PHASE_1_ALONE = SMALL.model_copy(update={"phase2": Phase(epochs=0, learning_rate=1)})


def forward(recipe: Recipe = SMALL) -> Encoder:
    return Encoder(recipe.build_network(4), CPU, recipe.precision)


def test_rows_on_disk_are_those_of_the_network(photos: DataSet, tmp_path: Path) -> None:
    whole = torch.cat(list(embed(forward(), photos.train, SMALL.preprocessing, Resources(), "")))
    rows = stored_rows(forward(), photos.train, SMALL, Resources(), tmp_path, "")
    assert len(rows) == len(photos.train) == 24
    assert torch.equal(rows[range(24)], whole)
    assert torch.equal(rows[[5, 3]], whole[[5, 3]])
    mirrored = stored_rows(forward(), photos.train, SMALL, Resources(), tmp_path, "", mirror=True)
    assert not torch.equal(mirrored[range(24)], whole)
    both = rows + mirrored
    assert torch.equal(both[[2, 26]], torch.cat([whole[[2]], mirrored[[2]]]))


def test_rows_dealt_out_over_processes_come_back_in_order(photos: DataSet, tmp_path: Path) -> None:
    """Three processes, each with its share, one after the other; the first finds the files of the others."""
    for rank in (2, 1, 0):

        class Apart(Processes):
            def barrier(self) -> None:  # nobody to wait for: they have been here
                pass

        work = Resources(processes=Apart(CPU, rank=rank, size=3))
        if rank:
            with pytest.raises(FileNotFoundError):
                stored_rows(forward(), photos.train, SMALL, work, tmp_path, "")
        else:
            rows = stored_rows(forward(), photos.train, SMALL, work, tmp_path, "")
    assert torch.allclose(
        rows[range(24)], stored_rows(forward(), photos.train, SMALL, Resources(), tmp_path, "")[range(24)], atol=1e-6
    )
    uneven = Rows.interleaved(
        [np.arange(3.0, dtype=np.float32)[:, None], np.arange(10.0, 12, dtype=np.float32)[:, None]]
    )
    assert uneven[range(5)].flatten().tolist() == [0, 10, 1, 11, 2]


def test_a_file_left_half_written_is_gone_on_with(photos: DataSet, tmp_path: Path) -> None:
    """A row and a half too many after the first batch: the batch is kept, the rest is computed again."""
    expected = stored_rows(forward(), photos.train, SMALL, Resources(), tmp_path, "")[range(24)]
    (file,) = tmp_path.iterdir()
    row_bytes = file.stat().st_size // 24
    data = bytearray(file.read_bytes()[: 17 * row_bytes + row_bytes // 2])
    data[:4] = np.float32(7).tobytes()
    file.with_suffix(".partial").write_bytes(data)
    file.unlink()
    found = stored_rows(forward(), photos.train, SMALL, Resources(), tmp_path, "")[range(24)]
    assert found[0, 0] == 7
    assert torch.equal(found[1:], expected[1:])


@pytest.mark.parametrize("size", [0, 100, 10**8])
def test_a_file_of_another_size_is_not_taken_for_the_rows(photos: DataSet, tmp_path: Path, size: int) -> None:
    """Cut off by a power failure, or written by something else: it is computed again."""
    expected = stored_rows(forward(), photos.train, SMALL, Resources(), tmp_path, "")[range(24)]
    (file,) = tmp_path.iterdir()
    os.truncate(file, size)
    assert torch.equal(stored_rows(forward(), photos.train, SMALL, Resources(), tmp_path, "")[range(24)], expected)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_two_runs_with_one_cache_wait_for_one_another(photos: DataSet, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(
            pool.map(
                lambda _: stored_rows(forward(), photos.train, SMALL, Resources(), tmp_path, "")[range(24)], range(3)
            )
        )
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert [path.suffix for path in tmp_path.iterdir()] == [".f32"]
    whole = torch.cat(list(embed(forward(), photos.train, SMALL.preprocessing, Resources(), "")))
    assert torch.allclose(found[0], whole, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_in_one_sentence_whoever_loads_it(
    photos: DataSet, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "broken.png").write_text("no image")
    split = replace(photos.train.at([0, 1]), paths=(photos.train.paths[0], tmp_path / "broken.png"))
    with pytest.raises(DataError, match="^[^\n]*broken.png: not an image: this is text[^\n]*$"):
        list(batches(split, SMALL.preprocessing, [[0, 1]], workers=workers))


def test_the_key_is_all_that_decides_the_rows(photos: DataSet, tmp_path: Path) -> None:
    def files(recipe: Recipe = SMALL, data: DataSet = photos, mirror: bool = False) -> int:
        stored_rows(forward(recipe), data.train, recipe, Resources(), tmp_path, "", mirror=mirror)
        return len(list(tmp_path.iterdir()))

    def with_pooling(**options: float) -> Recipe:
        pooling = SMALL.pooling.model_copy(update={"options": {**SMALL.pooling.options, **options}})
        return SMALL.model_copy(update={"pooling": pooling})

    assert files() == files() == 1
    assert files(mirror=True) == 2
    assert files(SMALL.model_copy(update={"seed": 1})) == 3  # other weights
    assert files(SMALL.model_copy(update={"size": 48})) == 4
    assert files(with_pooling(eta=0.5)) == 5
    assert files(with_pooling(iterations=3)) == 6
    assert files(data=replace(photos, train=photos.train.at(range(1, 24)))) == 7
    assert files(SMALL.model_copy(update={"precision": "bfloat16"})) == 8
    assert files(SMALL.model_copy(update={"phase1": Phase(epochs=9, learning_rate=2), "momentum": 0.1})) == 8


def test_another_run_finds_what_the_first_one_computed(photos: DataSet, tmp_path: Path) -> None:
    """Same weights, pixels and images, another learning rate: no image is embedded again, nothing is left in the runs."""
    pipeline.train(photos, PHASE_1_ALONE, tmp_path / "first", cache=tmp_path / "cache")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(before) == 3  # fitted images, held-out ones, mirror images
    other = PHASE_1_ALONE.model_copy(update={"phase1": Phase(epochs=3, learning_rate=0.1, batch_size=8)})
    pipeline.train(photos, other, tmp_path / "second", cache=tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == before
    assert not list(tmp_path.glob("*/embeddings"))
