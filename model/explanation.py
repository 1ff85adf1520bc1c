"""Evidence for what a network answers: the share of each location in a class's logit, or in the cosine with an item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rankone.model.bundle import WEIGHTS, Bundle
from rankone.model.evidence import Doubles, EvidenceRecord, Located, NoEvidence, Split, Tables, why_not
from rankone.model.tensors import Tensors

_POOLING: Final = "pooling."
_NINTHS: Final = (
    ("upper left", "top", "upper right"),
    ("left", "centre", "right"),
    ("lower left", "bottom", "lower right"),
)


@dataclass(frozen=True, eq=False)
class Evidence:
    """`score` is the sum of `shares` (rows, columns), one for each location, and of `rest`, which no location owns."""

    shares: Doubles
    rest: float

    @property
    def score(self) -> float:
        """The logit of the class, or the cosine with the item."""
        return float(self.shares.sum()) + self.rest


def check_evidence(bundle: Bundle) -> EvidenceRecord:
    """The shape of the map.

    Raises:
        NoEvidence: the pooling has none, or the bundle was exported before there was any.
    """
    manifest = bundle.manifest
    if (reason := why_not(manifest.pooling.parts)) is not None:
        raise NoEvidence(f"{manifest.name} {manifest.version} has no evidence: {reason}")
    if manifest.evidence is None:
        raise NoEvidence(
            f"{manifest.name} {manifest.version} was exported before there was evidence, and does not give out its local "
            "features: export it again (rankone export), and serve that"
        )
    return manifest.evidence


class Explainer:
    """Explains the answers of one network. Features (N, channels) are an image's output `features`.

    Args:
        record: the shape of the map.
        parts: of the pooling, which `why_not` has no objection to; as in `PoolingRecord.parts`.
        tensors: the network's state dict; each is read when it is first needed.
    """

    def __init__(self, record: EvidenceRecord, parts: Mapping[str, Any], tensors: Tables) -> None:
        self._record, self._parts, self._tensors = record, parts, tensors

    @classmethod
    def of(cls, bundle: Bundle) -> Explainer:
        """Of a bundle's network.

        Raises:
            NoEvidence: see `check_evidence`.
            BundleError: the bundle has no weights.
        """
        return cls(check_evidence(bundle), bundle.manifest.pooling.parts, Tensors(bundle.file(WEIGHTS)))

    def of_class(self, features_ND: npt.NDArray[np.floating], label: int) -> Evidence:
        """The shares in the logit of the class with this index; the rest is its bias."""
        located = self._split.located(features_ND)
        bias = float(self._tensors["classifier.bias"][label])
        if "classifier.positive" in self._tensors:  # the low-rank classifier reads the matrix, scaled to length 1
            for_m, against_m = (self._tensors[f"classifier.{side}"][label] for side in ("positive", "negative"))
            weights = (for_m @ for_m.T - against_m @ against_m.T).ravel()
            return self._evidence(located.shares(weights, located.unit_scale), bias)
        scale = None if located.elementwise else np.ones_like(located.pooled)
        return self._evidence(located.shares(self._tensors["classifier.weight"][label], scale), bias)

    def of_vector(self, features_ND: npt.NDArray[np.floating], vector: npt.NDArray[np.floating]) -> Evidence:
        """The shares in the cosine with an embedding: a full one (d,), whose rest is 0, or a short one of any length.

        A short embedding is `l2(A (e - |e| mu))`: the shares are those for `A^T t / ||A (e - |e| mu)||`, and the rest is the
        part of mu.
        """
        located = self._split.located(features_ND)
        if len(vector) == len(located.pooled):
            return self._evidence(located.shares(vector), 0.0)
        matrix_kd, mean_d = self._tensors["short.matrix"][: len(vector)], self._tensors["short.mean"]
        moved_d = np.linalg.norm(located.embedding) * mean_d
        length = float(np.linalg.norm(matrix_kd @ (located.embedding - moved_d)))
        target_d = vector.astype(np.float64) @ matrix_kd / (length or 1.0)
        return self._evidence(located.shares(target_d), -float(target_d @ moved_d))

    @cached_property
    def _split(self) -> Split:
        tables: dict[str, Any] = {
            name.removeprefix(_POOLING): self._tensors[name] for name in self._tensors if name.startswith(_POOLING)
        }
        return Split(self._parts, tables)

    def _evidence(self, shares_N: Doubles, rest: float) -> Evidence:
        return Evidence(shares_N.reshape(self._record.rows, self._record.columns), rest)


def ninths(shares: npt.NDArray[np.floating]) -> dict[str, float]:
    """The sums of the shares (rows, columns) in the nine parts of a map, by the parts' names: `upper left`, `top` ..."""
    rows = [np.array_split(row, 3, axis=1) for row in np.array_split(shares.astype(np.float64), 3)]
    return {_NINTHS[i][j]: float(rows[i][j].sum()) for i in range(3) for j in range(3)}


__all__ = ["Evidence", "Explainer", "Located", "check_evidence", "ninths"]
