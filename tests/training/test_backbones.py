"""Every family of backbones from images to a served bundle, at a small size and from random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rankone.model.engine import load_engine
from rankone.model.network import open_network
from rankone.training import pipeline
from rankone.training.data import DataSet
from rankone.training.data.batches import batches
from rankone.training.recipe import Phase, PoolingRecipe, Recipe

SMALL = Recipe(
    weights="random",
    size=64,
    reduce=48,
    validation=0,
    pooling=PoolingRecipe(options={"dim": 128}),
    phase1=Phase(epochs=2, learning_rate=1.0, batch_size=8),
    phase2=Phase(epochs=1, learning_rate=1e-3, batch_size=8),
)
CHEAP = [pytest.param("timm/test_vit", marks=pytest.mark.slow), "timm/test_resnet"]
OTHERS = ["vgg16_bn", "resnet18", "convnext_tiny", "efficientnet_v2_s", "mobilenet_v3_large", "swin_t"]
OTHERS += ["timm/test_convnext", "timm/test_efficientnet", "timm/vit_small_patch14_reg4_dinov2"]


@pytest.mark.parametrize("name", [*CHEAP, *(pytest.param(name, marks=pytest.mark.families) for name in OTHERS)])
def test_a_family_is_trained_exported_and_served(name: str, photos: DataSet, tmp_path: Path) -> None:
    recipe = SMALL.model_copy(update={"backbone": name})
    state = pipeline.train(photos, recipe, tmp_path / "run")
    assert [record.phase for record in state.history] == [1, 1, 2]
    bundle = pipeline.export(tmp_path / "run", photos, tmp_path / "bundle")
    images = next(batches(photos.test, recipe.preprocessing, [[0, 5, 9]]))
    with torch.no_grad():
        embedding, logits = open_network(bundle)(images)
    assert embedding.shape == (3, 128)
    assert logits is not None
    for engine in ("onnx", "torchscript", "export"):
        found = load_engine(bundle, engine, "cpu", threads=1).run(images.numpy())
        assert np.allclose(found.embedding, embedding.numpy(), atol=1e-3)
        assert found.logits is not None
        assert np.allclose(found.logits, logits.numpy(), atol=1e-3)
