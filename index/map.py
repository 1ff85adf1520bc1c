"""A map of an index: a point for each item. Similar items lie close together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import orjson

from rankone.index.errors import UnknownMap
from rankone.index.spec import About

SCHEMA: Final = 1


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
    """A map beside the index as it is now."""

    map: Map
    is_current: bool
    """Whether nothing has changed in the index since."""
    values: list[str | None] | None
    """Of the metadata field that was asked for, as JSON, for each point; None where it is missing, a list or an object."""


def write_map(made: Map) -> bytes:
    """The map as it is kept."""
    return orjson.dumps(asdict(made))


def view_of(
    kept: bytes | None, name: str, make: str, about: About, look_up: Callable[[Sequence[str]], Mapping[str, str]] | None
) -> MapView:
    """The map that is kept of an index as it is now.

    Args:
        kept: what `write_map` made, if it is there.
        name: of the index.
        make: the command that makes a map.
        about: the index.
        look_up: the values of a field by id, if one is wanted.

    Raises:
        UnknownMap: there is none, or one of another index or version; the message says how to make one.
    """
    if kept is None:
        raise UnknownMap(f"there is no map of the index {name!r}: {make} makes one")
    try:
        fields = orjson.loads(kept)
        made = Map(**{**fields, "shares": tuple(fields["shares"])})
        is_whole = made.schema == SCHEMA and len(made.ids) == len(made.x) == len(made.y)
    except (ValueError, TypeError, KeyError) as error:
        raise UnknownMap(f"the map of the index {name!r} cannot be read ({error}): {make} makes it again") from error
    if not is_whole or made.fingerprint != about.spec.fingerprint or made.sequence > about.sequence:
        raise UnknownMap(f"the map of the index {name!r} is of another index or version: {make} makes one")
    found = None if look_up is None else look_up(made.ids)
    values = None if found is None else [found.get(item_id) for item_id in made.ids]
    return MapView(made, is_current=made.sequence == about.sequence, values=values)
