"""The quality benchmarks measure what they say: the same filters, images that no other split has, and a true table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from benchmarks.paper.measure import Measured, Workshop
from benchmarks.paper.plan import Setting
from benchmarks.quality import fine_tuning, pictures, sources
from rankone.model.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from rankone.training import pipeline
from rankone.training.data import DataSet
from rankone.training.processes import StopRequest
from rankone.training.recipe import Phase
from rankone.training.run import DataRecord
from tests.training.helpers import SMALL


def test_the_first_layer_sees_what_caffes_saw() -> None:
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 3, 4), *[(3, 3, 4, 4)] * 12]
    kernels = [(rng.normal(size=shape), rng.normal(size=shape[-1])) for shape in shapes]
    found = sources.convert(kernels)
    rgb = torch.from_numpy(rng.uniform(0, 255, (1, 3, 8, 8)))
    caffe = (rgb - torch.tensor(sources.CAFFE_MEAN_RGB).view(1, 3, 1, 1)).flip(1)
    expected = F.conv2d(
        caffe, torch.from_numpy(kernels[0][0].transpose(3, 2, 0, 1).copy()), torch.from_numpy(kernels[0][1])
    )
    mean, std = (torch.tensor(values).double().view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    weight, bias = (torch.from_numpy(found[f"0.{name}"]).double() for name in ("weight", "bias"))
    assert torch.allclose(F.conv2d((rgb / 255 - mean) / std, weight, bias), expected, rtol=1e-5, atol=1e-3)
    assert np.array_equal(found["28.weight"], kernels[12][0].transpose(3, 2, 0, 1).astype(np.float32))
    assert len(found) == 26


FEW = 12


def _tint(name: str) -> int:
    return 10 + 5 * pictures.TEXTURES.index(name)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A few surfaces whose every pixel tells where it is, and animals of one colour."""
    monkeypatch.setattr(pictures, "TEXTURES", pictures.TEXTURES[:FEW])
    monkeypatch.setattr(pictures, "ANIMALS", pictures.ANIMALS[:FEW])
    rows, columns = np.mgrid[0:512, 0:512]
    for name in pictures.TEXTURES:
        path = tmp_path / "ufoai" / "textures" / f"tex_{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        tint = np.full((512, 512), _tint(name))
        Image.fromarray(np.stack([rows // 2, columns // 2, tint], 2).astype(np.uint8)).save(path, "png")
    for name in pictures.ANIMALS:
        path = tmp_path / "tuxpaint" / "usr/share/tuxpaint/stamps/animals" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        animal = Image.new("RGBA", (60, 40))
        animal.paste((255, 255, 0, 255), (10, 10, 50, 30))
        animal.save(path)
    return tmp_path


def test_textures_share_no_pixel_and_objects_no_background(home: Path) -> None:
    textures = pictures.textures(home)
    assert {len(textures.train), len(textures.test)} == {FEW * pictures.COUNT}
    label = textures.classes[0]
    tiles = {
        split: {
            np.asarray(Image.open(path))[0, 0, :2].tobytes() for path in (home / "textures" / split / label).iterdir()
        }
        for split in ("train", "test")
    }
    assert len(tiles["train"] | tiles["test"]) == 16
    objects = pictures.objects(home)
    assert {len(objects.train), len(objects.test)} == {FEW * pictures.COUNT}
    tints = {
        split: {
            int(np.bincount(np.asarray(Image.open(path))[..., 2].ravel(), minlength=256)[1:].argmax()) + 1
            for path in (home / "objects" / split).rglob("*.png")
        }
        for split in ("train", "test")
    }
    own = {split: {_tint(name) for name in pictures.TEXTURES[half::2]} for half, split in enumerate(tints)}
    assert tints == own


def test_both_data_sets_are_the_same_every_time(home: Path) -> None:
    first = [path.read_bytes() for path in pictures.objects(home).train.paths[:8]]
    (home / "objects").rename(home / "earlier")
    assert [path.read_bytes() for path in pictures.objects(home).train.paths[:8]] == first


def test_another_file_than_the_one_measured_with_is_refused(tmp_path: Path) -> None:
    (tmp_path / sources.FILTERS).write_bytes(b"another")
    with pytest.raises(
        sources.SourceError, match=r"another file than the one that was measured with: its sha256 is [0-9a-f]{64}"
    ):
        sources.learned_filters(tmp_path)
    assert not (tmp_path / "filters").exists()


def test_what_cannot_be_downloaded_says_by_which_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources._COMMANDS, sources.STAMPS, ["false", "it"])
    with pytest.raises(sources.SourceError, match=r"could not be downloaded by `false it`"):
        sources.stamp_files(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("light_backbone")
def test_a_row_has_the_figures_of_both_phases(photos: DataSet, tmp_path: Path) -> None:
    """The same as those of the report of the same training."""
    recipe = SMALL.model_copy(update={"phase2": Phase(epochs=1, learning_rate=1e-3, batch_size=8)})
    found = Workshop(tmp_path / "work", StopRequest()).measure(Setting(recipe, photos))
    pipeline.train(photos, recipe, tmp_path / "run")
    report = pipeline.evaluate(tmp_path / "run", photos)
    assert (found.metrics, found.phase1) == (report.metrics, report.phase1)
    assert found.phase1 is not None


def test_the_table_shows_means_and_gains() -> None:
    record = DataRecord(
        name="d", classes=("a",), num_train=1, num_validation=0, num_test=1, protocol="", fingerprint=""
    )

    def row(seed: int, early: float, late: float) -> Measured:
        return Measured(
            pooling="sum",
            seed=seed,
            recipe={},
            data=record,
            metrics={"top1": late, "recall_at_1": late / 2},
            phase1={"top1": early, "recall_at_1": early / 2},
            history=[],
            singular_values=None,
            seconds=1,
            machine="",
            libraries={},
        )

    text = fine_tuning.table("textures", {"sum": [row(0, 0.5, 0.6), row(1, 0.7, 0.76)]}, "pooling")
    line = text.splitlines()[-1]
    assert line.startswith("| `sum` | 2 | 0.600 (0.500 – 0.700) | 0.680 (0.600 – 0.760) | +8.0 (+6.0 – +10.0) | 0.300")


def test_the_recipe_is_the_default_one_at_the_papers_rates() -> None:
    recipe = fine_tuning.recipe_of(Path("filters.safetensors"))
    assert (recipe.phase1.learning_rate, recipe.phase2.learning_rate, recipe.clip_norm) == (1.0, 0.01, 1.0)
    assert (recipe.pooling.name, recipe.weights) == ("cbp-run", "filters.safetensors")
