"""The test photographs as the network's input, and what it answers to them on the CPU in float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from model.bundle import Bundle
from model.preprocessing import preprocess
from service.engine import Engine, Outputs
from service.engine.base import Options
from service.engine.onnx import OnnxEngine

Pixels = npt.NDArray[np.float32]


@pytest.fixture(scope="package")
def pixels(images: list[bytes], bundle: Bundle) -> Pixels:
    return np.stack([preprocess(image, bundle.manifest.preprocessing) for image in images])


@pytest.fixture(scope="package")
def reference(bundle: Bundle) -> Iterator[Engine]:
    engine = OnnxEngine(bundle, Options(device="cpu", threads=2))
    yield engine
    engine.close()


@pytest.fixture(scope="package")
def expected(reference: Engine, pixels: Pixels) -> Outputs:
    return reference.run(pixels)
