"""The test photographs as the network's input, and what it answers to them on the CPU in float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from rankone.model.bundle import ONNX, Bundle
from rankone.model.engine import Engine, Outputs
from rankone.model.engine.base import Options
from rankone.model.engine.onnx import OnnxEngine
from rankone.model.preprocessing import preprocess

Pixels = npt.NDArray[np.float32]


@pytest.fixture(scope="package")
def pixels(images: list[bytes], bundle: Bundle) -> Pixels:
    return np.stack([preprocess(image, bundle.manifest.preprocessing) for image in images])


@pytest.fixture(scope="package")
def reference(bundle: Bundle) -> Iterator[Engine]:
    engine = OnnxEngine(bundle.file(ONNX), Options(device="cpu", threads=2))
    yield engine
    engine.close()


@pytest.fixture(scope="package")
def expected(reference: Engine, pixels: Pixels) -> Outputs:
    return reference.run(pixels)
