"""The benchmark of short embeddings draws crops that share no pixel, and keeps queries, gallery and classes apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.quality import crops, short
from rankone.model.reduction import Floats
from rankone.training.short import Examples, Learned, learn

NUM_CLASSES = 100


def rows_of(seed: int = 0) -> Floats:
    """Embeddings of four crops of each class: equal within a class in ten directions, and noisy in fifty."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(NUM_CLASSES, 10)), 4, axis=0)
    rows = np.concatenate([centres, 3 * rng.normal(size=(len(centres), 50))], axis=1)
    unit: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def test_first_crops_search_the_last_two_of_all_classes() -> None:
    labels = np.repeat([0, 1], 4)
    near, far = np.eye(4, dtype=np.float32)[:2]
    rows = np.stack([near, near, far, far, near, near, near, far])
    assert short.recall_at_1(rows, labels) == 0.5  # those of class 0 find the third crop of class 1


def test_maps_are_measured_on_classes_that_they_did_not_learn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short, "NUM_LEARNED", 60)
    monkeypatch.setattr(short, "LENGTHS", (16,))
    monkeypatch.setattr(short, "learn", partial(_learned, learn=learn))
    _SEEN.clear()
    found = short.recall_of(rows_of(), seed=0)
    assert found.short["within-class", 16] > found.full + 0.1
    assert _SEEN == [240, 240]  # four crops of 60 classes, without labels and with them


_SEEN: list[int] = []


def _learned(examples: Examples, learn: Callable[[Examples], Learned]) -> Learned:
    _SEEN.append(len(examples.embeddings))
    return learn(examples)


def test_crops_are_the_quadrants_of_pictures_that_have_no_flat_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ufoai" / "textures"
    for name in ("base", "buildings", "ctp1", "dirt", "material", "mattn", "misc", "nature", "streets", "terrain"):
        (folder / f"tex_{name}").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3)).astype(np.uint8)
    flat = noise.copy()
    flat[:128, :128] = 100
    for name, pixels in {"a": noise, "same": noise, "flat": flat, "small": noise[:100], "a_nm": 255 - noise}.items():
        Image.fromarray(pixels).save(folder / "tex_base" / f"{name}.png")
    monkeypatch.setattr(crops, "NUM_CLASSES", 1)
    assert [path.stem for path in crops.pictures(tmp_path)] == ["a"]
    found = [np.asarray(crop) for crop in crops.crops_of(tmp_path)]
    assert np.array_equal(np.concatenate([np.concatenate(found[:2], 1), np.concatenate(found[2:], 1)]), noise)
