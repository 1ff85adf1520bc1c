"""The pooling systems by name: what the paper compares, and what a recipe or a bundle may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rankone.model.composition import Composition, Option, compose
from rankone.model.pooling import Pooling

__all__ = ["DEFAULT", "SYSTEMS", "Option", "System", "build", "composition"]


@dataclass(frozen=True, kw_only=True)
class System:
    """A row of the catalogue.

    Attributes:
        summary: what it is, in a line.
        composition: its parts, with the options of its publication.
        sibling: the system to train instead where an export is needed and this one has none.
    """

    summary: str
    composition: Composition
    sibling: str | None = None


_ROOT: Final = "matrix-power"
_RUN: Final = "rank-one-update"
_CBP: Final = 8192
"""Dimension of Compact Bilinear Pooling as it was published; the sketches' own default, 10,000, is the RUN paper's."""

SYSTEMS: Final[Mapping[str, System]] = {
    "max": System(summary="max pooling: the largest value of every channel", composition=compose("max")),
    "sum": System(summary="sum pooling: the sum of every channel", composition=compose("sum")),
    "bcnn": System(summary="B-CNN: the Gram matrix as it is", composition=compose()),
    "improved-bcnn": System(
        summary="Improved B-CNN: the square root of the Gram matrix",
        composition=compose(normalization=_ROOT),
        sibling="bcnn-ns",
    ),
    "bcnn-ns": System(
        summary="B-CNN + Newton-Schulz: its approximate square root", composition=compose(normalization="newton-schulz")
    ),
    "o2p": System(
        summary="O2P, DeepO2P: the logarithm of the Gram matrix",
        composition=compose(normalization="matrix-logarithm"),
        sibling="bcnn-ns",
    ),
    "mpn-cov": System(
        summary="MPN-COV: the square root of the covariance",
        composition=compose("covariance", _ROOT, "upper-triangle", elementwise=False),
        sibling="isqrt-cov",
    ),
    "isqrt-cov": System(
        summary="iSQRT-COV: the approximate square root of the covariance",
        composition=compose("covariance", "newton-schulz", "upper-triangle", elementwise=False),
    ),
    "g2denet": System(
        summary="G2DeNet: the square root of the embedding of a Gaussian",
        composition=compose("gaussian", {"name": _ROOT, "eps": 1e-3}, root_features=True),
        sibling="isqrt-cov",
    ),
    "cbp-ts": System(
        summary="CBP: Tensor Sketch of the Gram matrix",
        composition=compose(projection={"name": "tensor-sketch", "dim": _CBP}),
    ),
    "cbp-rm": System(
        summary="CBP: Random Maclaurin of the Gram matrix",
        composition=compose(projection={"name": "random-maclaurin", "dim": _CBP}),
    ),
    "lrbp": System(
        summary="LRBP: the Gram matrix in a learned basis of 100 directions", composition=compose(projection="low-rank")
    ),
    "monet-2": System(
        summary="MoNet-2: Tensor Sketch of the square root of the Gram matrix",
        composition=compose(normalization=_ROOT, projection="tensor-sketch"),
        sibling="cbp-run",
    ),
    "monet": System(
        summary="MoNet: Tensor Sketch of the square root of the moment matrix",
        composition=compose("moment", _ROOT, "tensor-sketch", root_features=True),
        sibling="cbp-run",
    ),
    "bp-run": System(summary="BP + RUN: the normalized Gram matrix", composition=compose(normalization=_RUN)),
    "cbp-run": System(
        summary="CBP + RUN: Tensor Sketch of the normalized Gram matrix (the default)",
        composition=compose(normalization=_RUN, projection="tensor-sketch"),
    ),
    "cbp-run-mild": System(
        summary="CBP + RUN with half of its eta: ours, for search more than for classes",
        composition=compose(normalization={"name": _RUN, "eta": 0.3}, projection="tensor-sketch"),
    ),
    "cbp-run-rm": System(
        summary="CBP + RUN: Random Maclaurin of the normalized Gram matrix",
        composition=compose(normalization=_RUN, projection="random-maclaurin"),
    ),
}


def composition(name: str, **options: Option) -> Composition:
    """The parts of the system `name`, with `options` in place of the catalogue's: `eta`, `iterations`, `dim`, `seed` …

    Raises:
        ValueError: an unknown system or option, with the known ones.
    """
    if name not in SYSTEMS:
        raise ValueError(f"unknown pooling system {name!r}; known: {', '.join(SYSTEMS)}")
    parts = SYSTEMS[name].composition
    if unknown := set(options) - set(parts.options):
        known = ", ".join(parts.options) or "none at all"
        raise ValueError(f"{name} has no option {', '.join(sorted(unknown))}; it has: {known}")
    return parts.with_options(**options)


def build(name: str, channels: int = 512, **options: Option) -> Pooling:
    """The pooling system `name`, (B, N, channels) local features -> (B, d) embeddings.

    Args:
        name: a key of `SYSTEMS`.
        channels: D of the local features.
        options: see `composition`.

    Raises:
        ValueError: an unknown system or option, or a value out of its range.
    """
    return composition(name, **options).build(channels)


DEFAULT: Final = composition("cbp-run")
