"""Projections of a normalized matrix to the vector that becomes the embedding, (B, D, D) -> (B, d)."""

from rankone.model.projection.matrix import Flatten, LowRank, UpperTriangle
from rankone.model.projection.sketch import RandomMaclaurin, TensorSketch

__all__ = ["Flatten", "LowRank", "RandomMaclaurin", "TensorSketch", "UpperTriangle"]
