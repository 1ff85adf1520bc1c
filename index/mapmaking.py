"""Making the map of an index, beside the services that use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import numpy as np
import orjson

from rankone.index.backend import AnyReader
from rankone.index.backup import Tell, require_intact
from rankone.index.errors import IndexProblem, IndexPublished, InvalidFilter
from rankone.index.filters import path_of
from rankone.index.map import Map, write_map
from rankone.index.principal import principal_components
from rankone.index.source import InLance, Source, keep_map, reading

MOST: Final = 20_000
"""Points of a map; of more items, so many are drawn."""
_SEED: Final = 0
_MOST_FIELDS: Final = 50
_TILE: Final = 512
_DIGITS: Final = 5


def make_map(source: Source, tell: Tell, most: int = MOST) -> Map:
    """Computes the map of an index from the vectors on disk, and keeps it with the index.

    Of more than `most` items, as many are drawn, always the same ones. Works beside a running service.

    Raises:
        IndexDamaged: an item is damaged.
        IndexProblem: the index is empty, or the map cannot be written.
        IndexPublished: it is a published version.
    """
    if isinstance(source, InLance):
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
    found = principal_components(tiles)
    names = sorted(fields, key=lambda name: (-fields[name], name))[:_MOST_FIELDS]
    x, y = (np.array([float(f"{value:.{_DIGITS}g}") for value in axis]).tolist() for axis in found.points.T)
    made = Map(spec.fingerprint, sequence, count, found.shares, names, ids, x, y)
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
