from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model.bundle import Bundle
from model.preprocessing import preprocess
from service.engine import EngineError, load_engine


@pytest.fixture(scope="module")
def pixels(images: list[bytes], bundle: Bundle) -> npt.NDArray[np.float32]:
    return np.stack([preprocess(image, bundle.manifest.preprocessing) for image in images])


def test_engines_answer_alike(bundle: Bundle, pixels: npt.NDArray[np.float32]) -> None:
    onnx = load_engine(bundle, "onnx", "cpu", 2)
    torchscript = load_engine(bundle, "torchscript", "cpu", 2)
    assert (onnx.name, onnx.provider) == ("onnx", "CPUExecutionProvider")
    assert (torchscript.name, torchscript.provider) == ("torchscript", "cpu")
    ours, theirs = onnx.run(pixels), torchscript.run(pixels)
    assert ours.embedding.dtype == theirs.embedding.dtype == np.float32
    assert ours.embedding.shape == theirs.embedding.shape == (16, 10_000)
    assert ((ours.embedding * theirs.embedding).sum(1) >= 0.99999).all()
    assert ours.logits is not None
    assert theirs.logits is not None
    assert np.abs(ours.logits - theirs.logits).max() < 1e-3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here; see the gpu tests")
@pytest.mark.parametrize("name", ["onnx", "torchscript"])
def test_a_gpu_that_is_not_there_is_refused_not_replaced(bundle: Bundle, name: str) -> None:
    with pytest.raises(EngineError, match=r"'cuda' was asked for.*RANKONE_DEVICE=cpu"):
        load_engine(bundle, name, "cuda", 1)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["onnx", "torchscript"])
def test_the_gpu_agrees_with_the_cpu(bundle: Bundle, pixels: npt.NDArray[np.float32], name: str) -> None:
    expected = load_engine(bundle, "onnx", "cpu", 2).run(pixels)
    engine = load_engine(bundle, name, "cuda", 2)  # type: ignore[arg-type]
    assert "CUDA" in engine.provider or "NVIDIA" in engine.provider
    assert ((engine.run(pixels).embedding * expected.embedding).sum(1) >= 0.9999).all()
