"""Makes the map of an index, beside the services that use it: the two principal components of its long vectors.

They are found by block Lanczos, in a few passes over the vectors and without a matrix (d, d): Golub and Van Loan, Matrix
Computations, 4th edition, 10.3.6; each basis is orthogonalized against all before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from rankone.index.backend import AnyReader
from rankone.index.backup import Tell, require_intact
from rankone.index.errors import IndexProblem, IndexPublished, InvalidFilter
from rankone.index.filters import path_of
from rankone.index.map import Map, write_map
from rankone.index.source import Remote, Source, is_lance, keep_map, reading

Doubles = npt.NDArray[np.float64]

MOST: Final = 20_000
"""Points of a map; of more items, so many are drawn."""
_SEED: Final = 0
_MOST_FIELDS: Final = 50
_TILE: Final = 512
_DIGITS: Final = 5
_WIDTH: Final = 32
"""Vectors of a block; more of them need fewer passes."""
_PASSES: Final = 40
_RESIDUAL: Final = 1e-6
"""Of an axis, as a part of the largest variance."""


def make_map(source: Source, tell: Tell, most: int = MOST) -> Map:
    """Computes the map of an index from the vectors on disk, and keeps it with the index.

    Of more than `most` items, as many are drawn, always the same ones. Works beside a running service.

    Raises:
        IndexDamaged: an item is damaged.
        IndexProblem: the index is empty, or the map cannot be written.
        IndexPublished: it is a published version.
    """
    if isinstance(source, Remote) and is_lance(source.place):
        raise IndexPublished
    with reading(source) as (reader, spec):
        sequence, drawn = reader.about().sequence, _drawn(reader, most)
        if not drawn:
            raise IndexProblem(f"{source} holds no items, so there is nothing to map")
        count, ids, fields, tiles = reader.count(), list[str](), Counter[str](), list[Any]()
        for place in range(0, len(drawn), _TILE):
            records = [require_intact(record) for _, record in reader.at(drawn[place : place + _TILE])]
            ids += [record.id for record in records]
            tiles.append(np.frombuffer(b"".join(r.vector for r in records), spec.stored).reshape(-1, spec.dim))
            for record in records:
                fields.update(_fields(record.metadata))
            tell(len(records))
    points, shares = principal_components(tiles)
    names = sorted(fields, key=lambda name: (-fields[name], name))[:_MOST_FIELDS]
    x, y = (np.array([float(f"{value:.{_DIGITS}g}") for value in axis]).tolist() for axis in points.T)
    made = Map(spec.fingerprint, sequence, count, shares, names, ids, x, y)
    keep_map(source, write_map(made))
    return made


def _drawn(reader: AnyReader, most: int) -> list[int]:
    """The sequence numbers of the items to map, in order."""
    sequences = [item.sequence for item in reader.summaries()]
    if len(sequences) <= most:
        return sequences
    chosen = np.random.default_rng(_SEED).choice(len(sequences), most, replace=False)
    return [sequences[place] for place in sorted(chosen.tolist())]


def _fields(metadata: str) -> Iterator[str]:
    """The names of the fields with a value that a point can be coloured by, quoted where filters need it."""
    for name, value in orjson.loads(metadata).items():
        if isinstance(value, str | int | float):
            field = "`" + name.replace("`", "``") + "`" if {".", "`"} & {*name} or name.startswith("$") else name
            with suppress(InvalidFilter):
                path_of(field)
                yield field


def principal_components(tiles: Sequence[npt.NDArray[np.floating[Any]]]) -> tuple[Doubles, tuple[float, float]]:
    """Points (n, 2) in the plane of the largest variance, and the share of the variance along each axis.

    `tiles` are arrays (m, d) of any floating type, computed with in float64, one at a time. The sign of an axis is such that
    its loading of largest magnitude is positive, so that equal vectors give equal points.

    Raises:
        ValueError: there are no rows, or numbers that are not finite.
    """
    count = sum(len(tile) for tile in tiles)
    if not count:
        raise ValueError("there are no vectors")
    mean = np.sum([tile.sum(0, dtype=np.float64) for tile in tiles], axis=0) / count
    if not np.isfinite(mean).all():
        raise ValueError("some vectors hold numbers that are not finite")

    def centred() -> Iterator[Doubles]:
        return (tile.astype(np.float64) - mean for tile in tiles)

    def scatter(block: Doubles) -> Doubles:
        product = np.zeros_like(block)
        for rows in centred():
            product += rows.T @ (rows @ block)
        return product

    total = sum(float(np.vdot(rows, rows)) for rows in centred())
    if total <= count * np.finfo(np.float64).eps:  # all vectors are the same
        return np.zeros((count, 2)), (0.0, 0.0)
    axes, variances = _largest(scatter, len(mean))
    axes *= np.where(np.take_along_axis(axes, np.abs(axes).argmax(0)[None], 0) < 0, -1, 1)
    first, second = np.clip(variances / total, 0, 1).tolist()
    return np.concatenate([rows @ axes for rows in centred()]), (first, second)


def _largest(scatter: Callable[[Doubles], Doubles], dim: int) -> tuple[Doubles, Doubles]:
    """The two eigenvectors (d, 2) of a matrix with the largest eigenvalues (2,), given its product with blocks (d, w).

    Where d is 1, the second vector is zero.
    """
    basis, image = np.empty((dim, 0)), np.empty((dim, 0))
    block = np.linalg.qr(np.random.default_rng(_SEED).standard_normal((dim, min(_WIDTH, dim))))[0]
    for _ in range(_PASSES):
        product = scatter(block)
        basis, image = np.hstack([basis, block]), np.hstack([image, product])
        small = basis.T @ image
        values, rotation = np.linalg.eigh((small + small.T) / 2)
        values, rotation = values[:-3:-1], rotation[:, :-3:-1]
        axes = basis @ rotation
        residuals = np.linalg.norm(image @ rotation - axes * values, axis=0)
        num_left = dim - basis.shape[1]
        if residuals.max() <= _RESIDUAL * values[0] or not num_left:
            break
        for _ in range(2):  # once leaves parts of the basis in columns that are nearly within it
            product = np.linalg.qr(product - basis @ (basis.T @ product))[0]
        block = product[:, :num_left]
    missing = 2 - axes.shape[1]
    return np.pad(axes, ((0, 0), (0, missing))), np.pad(values, (0, missing))
