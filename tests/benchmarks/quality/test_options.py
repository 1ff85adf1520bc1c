"""Every option trains with a recipe of its own, and an uneven set loses training images alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.quality import options
from rankone.training.data import DataSet


def test_every_option_is_a_setting_of_its_own(photos: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "learned_filters", lambda: Path("filters.safetensors"))
    monkeypatch.setattr(options, "textures", lambda: photos)
    monkeypatch.setattr(options, "objects", lambda: replace(photos, name="objects"))
    plan = list(options.plan())
    assert len({setting.key for _, setting in plan}) == len(plan) == 2 * 2 * (5 + 2)
    recipes = {name: setting.recipe for name, setting in plan}
    assert (recipes["SGD 0.01, flip"].augment, recipes["SGD 0.01, strong"].augment) == ("flip", "strong")
    assert recipes["AdamW 1e-4, flip"].phase2.model_dump() == {
        **recipes["SGD 0.01, flip"].phase2.model_dump(),
        "optimizer": "adamw",
        "learning_rate": 1e-4,
        "weight_decay": 0.05,
    }
    assert recipes["balanced"].sampling == "balanced"


def test_an_uneven_set_has_few_images_of_every_second_class(photos: DataSet) -> None:
    found = options.uneven(photos)
    before, after = Counter(photos.train.labels), Counter(found.train.labels)
    assert after == {label: count if label % 2 == 0 else options.FEW for label, count in before.items()}
    assert (found.test, found.name) == (photos.test, f"{photos.name}, uneven")
