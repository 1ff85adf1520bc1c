"""A map of an index: a point for each item, near those that resemble it, in a file beside the index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from rankone.index.backup import Tell, reading, require_intact
from rankone.index.database import Spec, map_file, publish_bytes
from rankone.index.errors import IndexProblem, InvalidFilter, UnknownMap
from rankone.index.filters import path_of
from rankone.index.items import Reader
from rankone.index.principal import principal_components

MOST: Final = 20_000
"""Points of a map; of more items, so many are drawn."""
SCHEMA: Final = 1
_SEED: Final = 0
_MOST_FIELDS: Final = 50
_TILE: Final = 512
_DIGITS: Final = 5


@dataclass(frozen=True)
class Map:
    """Points `x`, `y` of the items `ids`, of the state of the index that its last change, `sequence`, left.

    `shares` are the parts of the variance along both axes; `fields` are names of metadata fields, as filters write them, in
    which items have a text, a number or a boolean, the most frequent first.
    """

    fingerprint: str
    sequence: int
    count: int
    """Items of the index; there are fewer points where they were drawn."""
    shares: tuple[float, float]
    fields: list[str]
    ids: list[str]
    x: list[float]
    y: list[float]
    schema: int = SCHEMA


@dataclass(frozen=True)
class MapView:
    """A map as it is read beside its index."""

    map: Map
    is_current: bool
    """Whether nothing has changed in the index since."""
    values: list[str | None] | None
    """Of the metadata field that was asked for, as JSON, for each point; see `values_of`."""


def make_map(path: Path, tell: Tell, most: int = MOST) -> Map:
    """Computes the map of the index in `path` from the vectors on disk, and writes it beside the index.

    Of more than `most` items, as many are drawn, always the same ones. Works beside a running service.

    Raises:
        IndexDamaged: an item is damaged.
        IndexProblem: the index is empty, or the map cannot be written.
    """
    with reading(path) as (reader, spec):
        sequence, drawn = reader.about().sequence, _drawn(reader, most)
        if not drawn:
            raise IndexProblem(f"{path} holds no items, so there is nothing to map")
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
    _write(made, map_file(path))
    return made


def values_of(reader: Reader, made: Map, field: str) -> list[str | None]:
    """The value of a metadata field as JSON, as it is now, for every point; None where it is missing, a list or an object.

    Raises:
        InvalidFilter: the field cannot be looked up.
    """
    found = reader.values(path_of(field), made.ids)
    return [found.get(item_id) for item_id in made.ids]


def read_map(path: Path, spec: Spec, sequence: int) -> Map:
    """The map beside the index in `path`, of which `spec` and `sequence`, the last change, are known.

    Raises:
        UnknownMap: there is none, or one of another index or version; the message says how to make one.
    """
    name = path.stem
    make = f"`rankone index map FOLDER {name}`, where FOLDER is the service's --data, makes one"
    try:
        fields = orjson.loads(map_file(path).read_bytes())
        made = Map(**{**fields, "shares": tuple(fields["shares"])})
        is_whole = made.schema == SCHEMA and len(made.ids) == len(made.x) == len(made.y)
    except FileNotFoundError:
        raise UnknownMap(f"there is no map of the index {name!r}: {make}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UnknownMap(f"the map of the index {name!r} cannot be read ({error}): {make} again") from error
    if not is_whole or made.fingerprint != spec.fingerprint or made.sequence > sequence:
        raise UnknownMap(f"the map beside the index {name!r} is of another index or version: {make}")
    return made


def _drawn(reader: Reader, most: int) -> list[int]:
    """The sequence numbers of the items to map, in order."""
    sequences = reader.every_sequence()
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


def _write(made: Map, path: Path) -> None:
    try:
        publish_bytes(path, orjson.dumps(asdict(made)))
    except OSError as error:
        raise IndexProblem(f"{path} cannot be written: {error}") from error
