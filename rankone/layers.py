"""The layers by themselves, for networks of other people: torch is all they need. See docs/layers.md."""

from __future__ import annotations

from rankone.model.catalogue import SYSTEMS, build
from rankone.model.normalization import MatrixLogarithm, MatrixPower, NewtonSchulz, RankOneUpdate
from rankone.model.pooling import Pooling, l2_normalize, signed_sqrt
from rankone.model.projection import Flatten, LowRank, RandomMaclaurin, TensorSketch, UpperTriangle
from rankone.model.statistics import Covariance, Gaussian, Gram, LocalFeatures, Maximum, Moment, Sum, local_features

__all__ = [
    "SYSTEMS",
    "Covariance",
    "Flatten",
    "Gaussian",
    "Gram",
    "LocalFeatures",
    "LowRank",
    "MatrixLogarithm",
    "MatrixPower",
    "Maximum",
    "Moment",
    "NewtonSchulz",
    "Pooling",
    "RandomMaclaurin",
    "RankOneUpdate",
    "Sum",
    "TensorSketch",
    "UpperTriangle",
    "build",
    "l2_normalize",
    "local_features",
    "signed_sqrt",
]
