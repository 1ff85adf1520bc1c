"""Short embeddings: a linear map, learned from images, that makes vectors of some hundred numbers of embeddings.

    short(e) = l2( A (e - |e| mu) ),      A (m, d), mu (d,)

Embeddings have length 1 or are zero, so |e| only keeps the zero embedding of a black image zero. The map is nested: the
first k numbers of a short embedding, divided by their length, are the short embedding of length k.

With classes, A whitens what varies within a class and then takes the directions in which most varies: Mikolajczyk and
Matas, Improving Descriptors for Fast Tree Matching by Optimal Linear Projection, 2007; Radenovic, Tolias and Chum,
Fine-tuning CNN Image Retrieval with No Human Annotation, 2018. Without classes, A whitens all that varies: Jegou and Chum,
Negative Evidences and Co-occurrences in Image Retrieval, 2012.

Everything is computed on p principal components, p x p, in float64; nothing is ever d x d for d = 10,000. Hazard: images
that trained the network vary too little within their classes, so that A amplifies noise. Learn from others, or shrink more.

Shapes: n images, d numbers of an embedding, p components, m numbers of the longest short embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from rankone.model.errors import RankoneError
from rankone.model.training_record import Record

LENGTHS: Final = (16, 32, 64, 128, 256, 512)
"""The lengths that are measured; the last is the longest that is learned."""
MAX_COMPONENTS: Final = 1024
_SMALLEST: Final = 1e-10
"""Components with a smaller share of the largest variance are rounding errors of float32 embeddings."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


class ReductionError(RankoneError, ValueError):
    """Short embeddings cannot be learned from these images; the message says what is missing."""


@dataclass(frozen=True, eq=False)
class Reduction:
    """The learned map: `matrix` A (m, d) and `mean` mu (d,), float32."""

    matrix: Floats
    mean: Floats

    @property
    def dim(self) -> int:
        """Numbers of the longest short embedding."""
        return len(self.matrix)

    def __call__(self, embeddings: npt.NDArray[np.floating]) -> Floats:
        """Embeddings (n, d) to short ones (n, m), of length 1; zero stays zero."""
        moved = embeddings - np.linalg.norm(embeddings, axis=1, keepdims=True) * self.mean
        return _scaled(moved @ self.matrix.T)


@dataclass(frozen=True, eq=False)
class Components:
    """Embeddings on their principal components: `rows` (n, p) are `(embeddings - mean) @ axes`, `axes` (d, p)."""

    mean: Doubles
    axes: Doubles
    rows: Doubles

    def project(self, embeddings: npt.NDArray[np.floating]) -> Doubles:
        """Other embeddings (k, d) on the same components, (k, p)."""
        return np.asarray((embeddings - np.linalg.norm(embeddings, axis=1, keepdims=True) * self.mean) @ self.axes)

    def reduction(self, whitening: Doubles) -> Reduction:
        """The map that applies `whitening` (p, m) to the components."""
        matrix = (self.axes @ whitening).T
        return Reduction(np.ascontiguousarray(matrix, np.float32), self.mean.astype(np.float32))


def lengths_up_to(dim: int) -> tuple[int, ...]:
    """The lengths that are measured of a map to `dim` numbers, which is the last."""
    return (*(length for length in LENGTHS if length < dim), dim)


class ReductionRecord(Record):
    """The map to short embeddings, and how it was learned, as the manifest of a bundle has it."""

    dim: int
    """Numbers of the output `short`; its first k, divided by their length, are the short embedding of length k."""
    lengths: tuple[int, ...]
    """Those that were measured; any other up to `dim` can be asked for, too."""
    recommended: int | None
    """The shortest whose recall@1 is within 0.01 of the best; None if it was not measured."""
    method: Literal["within-class", "pca"]
    shrinkage: float
    source: str
    """Which images it was learned from, in words."""
    num_images: int
    num_classes: int | None

    @property
    def summary(self) -> str:
        """In a few words."""
        advice = f"; {self.recommended} recommended" if self.recommended else ""
        return f"up to {self.dim:,} dimensions{advice}"


def shorten(short: Floats, dim: int) -> Floats:
    """The short embeddings of length `dim` from longer ones, (n, m) -> (n, dim)."""
    return short if dim == short.shape[1] else _scaled(short[:, :dim])


def components(embeddings: Floats, max_components: int = MAX_COMPONENTS) -> Components:
    """The leading principal components of embeddings (n, d), at most n - 1; by the smaller of the two Gram matrices.

    Raises:
        ReductionError: the embeddings do not vary.
    """
    mean = embeddings.mean(axis=0, dtype=np.float64)
    centred = embeddings - mean
    is_wide = len(centred) <= centred.shape[1]
    values, vectors = np.linalg.eigh(centred @ centred.T if is_wide else centred.T @ centred)
    values, vectors = values[::-1], vectors[:, ::-1]
    count = min(int((values > _SMALLEST * max(values[0], 0)).sum()), len(centred) - 1, max_components)
    if count < 1:
        raise ReductionError(f"the embeddings of the {len(embeddings)} images are all alike: nothing can be learned")
    roots, vectors = np.sqrt(values[:count]), vectors[:, :count]
    if is_wide:
        return Components(mean, centred.T @ (vectors / roots), vectors * roots)
    return Components(mean, vectors, centred @ vectors)


def within_class(rows: Doubles, labels: Ints, shrinkage: float, dim: int = LENGTHS[-1]) -> Doubles:
    """Whitening (p, at most dim) of components (n, p) by what varies within the classes, `W` after `L^-1` with `C = L L^T`.

    `C` is the covariance of the rows around the means of their classes, plus `shrinkage` times its mean variance in every
    direction; `W` holds the leading right singular vectors of the whitened rows.

    Raises:
        ReductionError: no class has two images that differ.
    """
    _, places = np.unique(labels, return_inverse=True)
    counts = np.bincount(places)
    sums = np.zeros((len(counts), rows.shape[1]))
    np.add.at(sums, places, rows)
    inner = rows - (sums / counts[:, None])[places]
    covariance = inner.T @ inner / len(rows)
    spread = float(np.trace(covariance)) / len(covariance)
    if not spread > 0:
        raise ReductionError("within-class whitening needs a class with two images that differ")
    lower = np.linalg.cholesky(covariance + shrinkage * spread * np.eye(len(covariance)))
    whitened = np.linalg.solve(lower, rows.T)
    _, directions = np.linalg.eigh(whitened @ whitened.T)
    return np.asarray(np.linalg.solve(lower.T, directions[:, ::-1][:, :dim]))


def whitening(rows: Doubles, shrinkage: float, dim: int = LENGTHS[-1]) -> Doubles:
    """PCA whitening (p, at most dim) of components (n, p): `diag(s^2 + shrinkage * mean(s^2))^(-1/2)`, s^2 their variances."""
    variances = np.square(rows).mean(axis=0)
    return np.diag((variances + shrinkage * variances.mean()) ** -0.5)[:, :dim]


def _scaled(rows: npt.NDArray[np.floating]) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)
