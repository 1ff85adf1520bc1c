"""Evidence: how much each location of an image contributes to a score, exactly, without a gradient.

The pooled vector is a sum over locations, `z = sum_i phi(f_i)` with f_i a row of F_K, and the element-wise step scales it bin
by bin, `e = D z` with `D_b = 1 / (sqrt|z_b| ||ssqrt(z)||)`, 0 where z_b = 0. So for every target vector t

    <t, e> = sum_i share_i,      share_i = <D t, phi(f_i)> = f_i^T M f_i,      M the matrix with  <D t, P(G)> = <M, G>

for a projection P that is linear in the Gram matrix G. M is one gather (Tensor Sketch) or one product, the shares are
`rowsum((F_K M) * F_K)`. RUN acts on features, `F_K = F - eta (F u) u^T`, and so keeps the sum; a normalization of the matrix
alone does not, and is refused.

Hazard: D is large in bins near 0, where locations cancel. Such a bin adds little to the score and much, of both signs, to
single shares. Everything is computed in float64, from the features on.

Nothing here needs torch. Shapes: N locations, D channels (D' with the statistic's constant one), d bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rankone.model.errors import RankoneError
from rankone.model.training_record import Record

Doubles = npt.NDArray[np.float64]
Tables = Mapping[str, npt.NDArray[Any]]
"""The buffers and parameters of a pooling, by their names in its state dict: `projection.h1`."""

FEATURES: Final = "features"
"""The last output of the exported forms of a bundle with evidence."""
_STATISTICS: Final = ("gram", "covariance", "moment", "gaussian", "sum")
_NORMALIZATIONS: Final = ("none", "rank-one-update")


class NoEvidence(RankoneError, ValueError):
    """The pooling has no split into locations, or the bundle does not give out its features; the message says why."""


class EvidenceRecord(Record):
    """The shape of the output `features` of every exported form, (rows * columns, channels) an image.

    These are the local features behind the backbone divided by sqrt(N), so that their product is the Gram matrix, row by row
    of the map from its top left.
    """

    rows: int
    columns: int
    channels: int

    @classmethod
    def of(cls, features_ND: npt.NDArray[np.floating]) -> EvidenceRecord:
        """Of one image's features; the map is a square, as the images are."""
        num, channels = features_ND.shape
        side = math.isqrt(num)
        return cls(rows=side, columns=side, channels=channels)

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        return self.rows * self.columns, self.channels


def why_not(parts: Mapping[str, Any]) -> str | None:
    """One sentence on why a pooling of these parts has no evidence; None if it has. `parts` as in `PoolingRecord.parts`."""
    statistic, normalization = (parts.get(kind, {}).get("name", "none") for kind in ("statistic", "normalization"))
    if statistic == "max":
        return (
            "max pooling keeps one location of each channel, so its vector is no sum over locations and has no evidence"
        )
    if normalization not in _NORMALIZATIONS:
        return (
            f"normalization {normalization} acts on the matrix of all locations together, so no location has a share of a "
            "score; train with rank-one-update or none to have evidence"
        )
    if statistic not in (*_STATISTICS, "none"):
        return f"statistic {statistic} is not known to be a sum over locations"
    return None


@dataclass(frozen=True, eq=False)
class AdditivePooling:
    """A pooling whose vector is a sum over locations.

    Args:
        parts: as in `PoolingRecord.parts`.
        tables: of the pooling.

    Raises:
        NoEvidence: it is no such sum.
    """

    parts: Mapping[str, Any]
    tables: Tables

    def __post_init__(self) -> None:
        if (reason := why_not(self.parts)) is not None:
            raise NoEvidence(reason)

    def located(self, features_ND: npt.NDArray[np.floating]) -> Located:
        """The terms of one image, whose `features` are as `EvidenceRecord` says."""
        num = len(features_ND)
        raw_ND = features_ND.astype(np.float64) * num**0.5
        if self.parts["root_features"]:
            raw_ND = np.sign(raw_ND) * np.sqrt(np.abs(raw_ND))
        statistic, normalization = self.parts["statistic"]["name"], self.parts["normalization"]
        if statistic == "sum":
            return Located(raw_ND, None, self.parts["elementwise"])
        rows_ND = _rows(statistic, raw_ND) * num**-0.5
        if normalization["name"] == "rank-one-update":
            rows_ND = run(rows_ND, self.tables["normalization.v0"], normalization["eta"], normalization["iterations"])
        return Located(rows_ND, self, self.parts["elementwise"])

    def project(self, gram_DD: Doubles) -> Doubles:
        """The projection, (D', D') -> (d,)."""
        name = self.parts["projection"]["name"]
        if name == "tensor-sketch":
            signed = (gram_DD * self._signs).ravel()
            return np.asarray(np.bincount(self._bins.ravel(), signed, self.parts["projection"]["dim"]), np.float64)
        if name == "random-maclaurin":
            w1_dD, w2_dD = self._maclaurin
            return np.asarray(np.einsum("bj,bj->b", w1_dD @ gram_DD, w2_dD) * len(w1_dD) ** -0.5)
        if name == "low-rank":
            weight_Dm = self._table("weight")
            return np.asarray(weight_Dm.T @ gram_DD @ weight_Dm).ravel()
        return gram_DD[np.triu_indices(len(gram_DD))] if name == "upper-triangle" else gram_DD.ravel()

    def matrix(self, target_d: Doubles, dim: int) -> Doubles:
        """M with `<target, project(G)> = <M, G>` for every G: the projection's transpose, (d,) -> (dim, dim), dim = D'."""
        name = self.parts["projection"]["name"]
        if name == "tensor-sketch":
            return target_d[self._bins] * self._signs
        if name == "random-maclaurin":
            w1_dD, w2_dD = self._maclaurin
            return np.asarray((w1_dD * target_d[:, None]).T @ w2_dD * len(w1_dD) ** -0.5)
        if name == "low-rank":
            weight_Dm = self._table("weight")
            rank = weight_Dm.shape[1]
            return np.asarray(weight_Dm @ target_d.reshape(rank, rank) @ weight_Dm.T)
        if name == "flatten":
            return target_d.reshape(dim, dim)
        upper_DD = np.zeros((dim, dim))
        upper_DD[np.triu_indices(dim)] = target_d
        return upper_DD

    @cached_property
    def _bins(self) -> npt.NDArray[np.int64]:
        h1_D, h2_D = self.tables["projection.h1"], self.tables["projection.h2"]
        return np.asarray((h1_D[:, None] + h2_D[None, :]) % self.parts["projection"]["dim"], np.int64)

    @cached_property
    def _signs(self) -> Doubles:
        return self._table("s1")[:, None] * self._table("s2")[None, :]

    @property
    def _maclaurin(self) -> tuple[Doubles, Doubles]:
        return self._table("w1"), self._table("w2")

    def _table(self, name: str) -> Doubles:
        return self.tables[f"projection.{name}"].astype(np.float64)


@dataclass(frozen=True, eq=False)
class Located:
    """The terms of one image's pooled vector: `rows` (N, D') are F_K.

    `split` is None for a first-order statistic, whose vector is the sum of the rows themselves.
    """

    rows: Doubles
    split: AdditivePooling | None
    elementwise: bool

    @cached_property
    def pooled(self) -> Doubles:
        """The projected vector z (d,), before the element-wise step."""
        return self.rows.sum(axis=0) if self.split is None else self.split.project(self.rows.T @ self.rows)

    @cached_property
    def scale(self) -> Doubles:
        """D (d,), with `embedding = D pooled`."""
        if not self.elementwise:
            return self.unit_scale
        roots_d = np.sqrt(np.abs(self.pooled))
        return np.asarray(_inverse(roots_d * np.linalg.norm(roots_d)))

    @property
    def unit_scale(self) -> Doubles:
        """The D of the vector that is only divided by its length."""
        return np.full_like(self.pooled, _inverse(np.linalg.norm(self.pooled)))

    @property
    def embedding(self) -> Doubles:
        """The embedding e (d,)."""
        return self.scale * self.pooled

    def shares(self, target_d: npt.NDArray[np.floating], scale_d: Doubles | None = None) -> Doubles:
        """The share (N,) of each location in `<target, scale * pooled>`; in `<target, embedding>` without a scale."""
        weights_d = (self.scale if scale_d is None else scale_d) * target_d
        if self.split is None:
            return np.asarray(self.rows @ weights_d)
        matrix_DD = self.split.matrix(weights_d, self.rows.shape[1])
        return np.asarray(np.einsum("nd,nd->n", self.rows @ matrix_DD, self.rows))


def run(rows_ND: Doubles, v0_D: npt.NDArray[Any], eta: float, iterations: int) -> Doubles:
    """RUN on local features, (N, D) -> (N, D): see `normalization.rank_one`. Zero features stay zero."""
    v_D = v0_D.astype(np.float64)
    for _ in range(iterations):
        v_D = rows_ND.T @ (rows_ND @ v_D)
        v_D = v_D * _inverse(np.linalg.norm(v_D))
    return np.asarray(rows_ND - eta * np.outer(rows_ND @ v_D, v_D))


def _rows(statistic: str, raw_ND: Doubles) -> Doubles:
    """The rows whose Gram matrix, divided by N, is the statistic."""
    ones_N1 = np.ones((len(raw_ND), 1))
    if statistic == "covariance":
        return np.asarray(raw_ND - raw_ND.mean(axis=0))
    if statistic == "moment":
        return np.hstack([ones_N1, raw_ND])
    return np.hstack([raw_ND, ones_N1]) if statistic == "gaussian" else raw_ND


def _inverse(values: Any) -> Any:
    """`1 / values`, 0 where they are 0."""
    return np.divide(1.0, values, out=np.zeros_like(np.asarray(values, np.float64)), where=np.asarray(values) > 0)
