"""Normalizations of a matrix, (B, D, D) -> (B, D, D): what keeps its largest eigenvalues from drowning the rest."""

from rankone.model.normalization.newton_schulz import NewtonSchulz
from rankone.model.normalization.rank_one import RankOneUpdate
from rankone.model.normalization.spectral import MatrixLogarithm, MatrixPower

__all__ = ["MatrixLogarithm", "MatrixPower", "NewtonSchulz", "RankOneUpdate"]
