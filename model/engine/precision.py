"""How far an engine may be from the network in float32 on a CPU, and the check of it at every start.

Only the backbone is ever lowered. Its 784 local features are squared and summed behind it: in 8 or 11 bits that would lose what
distinguishes two images, and past 65,504 float16 ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from rankone.model.engine.base import Engine, EngineError, Images, Precision

MIN_COSINE: Final[Mapping[Precision, float]] = {"float32": 0.9999, "bfloat16": 0.999, "float16": 0.999}
"""Of an embedding with that of float32 on the CPU. Between two engines in float32 on one CPU it is 0.99999."""

_NUM_PROBES: Final = 3
_LOW, _HIGH = -2.1, 2.6
"""Black and white, preprocessed."""


def probe(size: int) -> Images:
    """Images that are nobody's, (3, 3, size, size) preprocessed: noise that falls off with its frequency, as photographs do.

    Their amplitude at f is about 1/f (Field, Relations between the statistics of natural images and the response properties of
    cortical cells, 1987), and their colours go together.
    """
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    white = rng.standard_normal((_NUM_PROBES, 1, size, size)) + 0.3 * rng.standard_normal((_NUM_PROBES, 3, size, size))
    pink = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(size, size))
    images: Images = (pink / pink.std(axis=(1, 2, 3), keepdims=True)).clip(_LOW, _HIGH).astype(np.float32)
    return images


def check_precision(engine: Engine, reference: Engine, size: int) -> float:
    """The lowest cosine of `engine` with `reference` on the probes.

    Raises:
        EngineError: it is under what the precision allows.
    """
    images = probe(size)
    cosine = lowest_cosine(engine.run(images).embedding, reference.run(images).embedding)
    if not cosine >= MIN_COSINE[engine.precision]:
        raise EngineError(
            f"the {engine.name} engine in {engine.precision} on {engine.provider} differs from float32 on the CPU: "
            f"cosine {cosine:.6f}, at least {MIN_COSINE[engine.precision]} is asked for. Set RANKONE_PRECISION=float32, "
            "or another engine"
        )
    return cosine


def lowest_cosine(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """Of the rows of two matrices (n, dim); NaN where one is not a number or has no length."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        return float(((found * expected).sum(axis=1) / lengths).min())
