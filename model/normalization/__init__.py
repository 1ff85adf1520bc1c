"""Normalizations of a matrix, (B, D, D) -> (B, D, D): what keeps its largest eigenvalues from drowning the rest."""

from rankone.model.normalization.newton_schulz import NewtonSchulz, newton_schulz_root
from rankone.model.normalization.rank_one import RankOneUpdate, rank_one_update, rank_one_update_features, unit
from rankone.model.normalization.spectral import MatrixLogarithm, MatrixPower, matrix_logarithm, matrix_power

__all__ = [
    "MatrixLogarithm",
    "MatrixPower",
    "NewtonSchulz",
    "RankOneUpdate",
    "matrix_logarithm",
    "matrix_power",
    "newton_schulz_root",
    "rank_one_update",
    "rank_one_update_features",
    "unit",
]
