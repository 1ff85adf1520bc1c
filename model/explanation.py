"""Evidence for what a network answers: the share of each location in a class's logit, or in the cosine with an item.

The weights are read with NumPy, as the service has neither torch nor the library safetensors. The format of such a file: 8
bytes, the length of a header; the header, JSON of name -> `dtype`, `shape` and `data_offsets`; the values in little-endian
order, one tensor after the other. Source: https://github.com/huggingface/safetensors, README.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rankone.model.bundle import WEIGHTS, Bundle, BundleError
from rankone.model.evidence import AdditivePooling, Doubles, EvidenceRecord, NoEvidence, Tables, why_not

_POOLING: Final = "pooling."
_NINTHS: Final = (
    ("upper left", "top", "upper right"),
    ("left", "centre", "right"),
    ("lower left", "bottom", "lower right"),
)
_TYPES: Final = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
_MAX_HEADER: Final = 100_000_000


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
    def _split(self) -> AdditivePooling:
        tables: dict[str, Any] = {
            name.removeprefix(_POOLING): self._tensors[name] for name in self._tensors if name.startswith(_POOLING)
        }
        return AdditivePooling(self._parts, tables)

    def _evidence(self, shares_N: Doubles, rest: float) -> Evidence:
        return Evidence(shares_N.reshape(self._record.rows, self._record.columns), rest)


def ninths(shares: npt.NDArray[np.floating]) -> dict[str, float]:
    """The sums of the shares (rows, columns) in the nine parts of a map, by the parts' names: `upper left`, `top` ..."""
    rows = [np.array_split(row, 3, axis=1) for row in np.array_split(shares.astype(np.float64), 3)]
    return {_NINTHS[i][j]: float(rows[i][j].sum()) for i in range(3) for j in range(3)}


class Tensors(Mapping[str, npt.NDArray[Any]]):
    """The tensors of a file by their names. Each is mapped, not read: only what is used comes from the disk.

    Raises:
        BundleError: the file has no such header.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if length <= _MAX_HEADER else b""
        self._begin = 8 + length
        try:
            entries = json.loads(header)
        except ValueError as error:
            raise BundleError(f"{path} is not a .safetensors file") from error
        self._entries: dict[str, Any] = {name: entry for name, entry in entries.items() if name != "__metadata__"}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        entry = self._entries[name]
        if entry["dtype"] not in _TYPES:
            raise BundleError(f"{self._path}: {name} is of type {entry['dtype']}, which is not read here")
        offset = self._begin + entry["data_offsets"][0]
        return np.memmap(self._path, _TYPES[entry["dtype"]], "r", offset, tuple(entry["shape"]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
