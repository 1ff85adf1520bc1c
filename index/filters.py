r"""Filters on metadata, compiled to SQL over its JSON.

A filter is an object; all of its entries must hold.

| entry | holds where |
|---|---|
| `{"field": value}`, `{"field": {"$eq": value}}` | the field is there and equals the value |
| `{"field": {"$in": [...]}}` | it equals one of the values; of none, it never holds |
| `{"field": {"$ne": value}}` | `$eq` does not: also where the field is missing |
| `{"field": {"$gt": value}}`, `$gte`, `$lt`, `$lte` | the field is there, of the value's type, and on that side of it |
| `{"field": {"$exists": true}}`, `false` | the field is there, be it null · it is not |
| `{"$and": [...]}`, `{"$or": [...]}`, `{"$not": {...}}` | all · at least one · not, each of a filter |

Values are strings, numbers, booleans and null; only strings and numbers are ordered. Types never mix: "1", 1 and true are
three different values, but 1 equals 1.0. Null equals null alone, and not a field that is missing. A list or an object equals
nothing and stands on no side of anything; it exists. Strings are compared by code point, and distinguish case. Integers
beyond 64 bits are compared as doubles, and doubles as SQLite reads them.

A field is a path of names joined by dots, each into an object: "a.b" is `b` in the object `a`. Elements of lists cannot
be named, nor names that are empty or hold a dot, a quotation mark, a backslash or a control character. A name at the beginning
that starts with `$` is an operator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from rankone.index.errors import InvalidFilter

MAX_DEPTH: Final = 16
MAX_TERMS: Final = 256
MAX_VALUES: Final = 10_000
_NAME: Final = re.compile(r'[^".\\\x00-\x1f\x7f]+')
_ORDER: Final = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_CONSTANTS: Final = {None: "null", True: "true", False: "false"}
_SCALARS: Final = "('text', 'integer', 'real', 'true', 'false', 'null')"


@dataclass(frozen=True)
class Filter:
    """A condition on a row of `items`, and its parameters. Always true or false, never SQL's null."""

    sql: str
    parameters: tuple[str, ...] = ()

    def __and__(self, other: Filter) -> Filter:
        return _joined("AND", (self, other))

    def __invert__(self) -> Filter:
        return Filter(f"NOT {self.sql}", self.parameters)


def compiled(source: object) -> Filter:
    """The filter as SQL.

    Raises:
        InvalidFilter: it is not in the language, or larger than is accepted.
    """
    return _Compiler().filter(source, 0)


def path_of(field: str) -> str:
    """A dotted field as SQLite's path.

    Raises:
        InvalidFilter: a name that cannot be looked up.
    """
    names = field.split(".")
    if not all(_NAME.fullmatch(name) for name in names):
        raise InvalidFilter(f"{field!r} is no field: names joined by dots, without quotation marks and backslashes")
    return "$" + "".join(f'."{name}"' for name in names)


def has_scalar(path: str) -> Filter:
    """The field is there, and neither list nor object."""
    return Filter(f"(coalesce(json_type(metadata, ?), '') IN {_SCALARS})", (path,))


class _Compiler:
    """Counts what it compiles, so that no filter costs more than it may."""

    def __init__(self) -> None:
        self._terms = 0

    def filter(self, source: object, depth: int) -> Filter:
        self._terms += 1
        if depth > MAX_DEPTH or self._terms > MAX_TERMS:
            raise InvalidFilter(f"a filter has at most {MAX_DEPTH} levels and {MAX_TERMS} terms")
        if not isinstance(source, dict) or not source:
            raise InvalidFilter(f"a filter is an object with at least one entry, not {_shown(source)}")
        return _joined("AND", [self._entry(name, value, depth) for name, value in source.items()])

    def _entry(self, name: str, value: object, depth: int) -> Filter:
        if name in ("$and", "$or"):
            if not isinstance(value, list) or not value:
                raise InvalidFilter(f"{name} takes a list of at least one filter, not {_shown(value)}")
            return _joined(name[1:].upper(), [self.filter(part, depth + 1) for part in value])
        if name == "$not":
            return ~self.filter(value, depth + 1)
        if name.startswith("$"):
            raise InvalidFilter(f"there is no operator {name!r} of filters; there are $and, $or and $not")
        return self._field(path_of(name), value)

    def _field(self, path: str, value: object) -> Filter:
        if not isinstance(value, dict):
            return _equal(path, value)
        if not value:
            raise InvalidFilter("a field is compared with a value or by operators, and {} is neither")
        self._terms += len(value)
        return _joined("AND", [_operation(path, name, operand) for name, operand in value.items()])


def _operation(path: str, name: str, operand: object) -> Filter:
    if name in _ORDER:
        return _ordered(path, _ORDER[name], operand)
    if name not in _OPERATORS:
        known = ", ".join((*_OPERATORS, *_ORDER))
        raise InvalidFilter(
            f"there is no operator {name!r} of fields; there are {known} (a field in an object is 'a.b')"
        )
    return _OPERATORS[name](path, operand)


def _equal(path: str, value: object) -> Filter:
    return _among(path, [value])


def _among(path: str, values: object) -> Filter:
    """Of each type those values that have it; `IN` a list of JSON, as a chain of OR would be too deep for SQLite."""
    if not isinstance(values, list) or len(values) > MAX_VALUES:
        raise InvalidFilter(f"$in takes a list of at most {MAX_VALUES:,} values, not {_shown(values)}")
    constants = [_CONSTANTS[value] for value in values if value is None or isinstance(value, bool)]
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(constants) + len(texts) + len(numbers) < len(values):
        raise InvalidFilter(f"fields are compared with strings, numbers, booleans and null, not {_shown(values)}")
    terms = [
        _member(path, types, found) for types, found in (("('text')", texts), ("('integer', 'real')", numbers)) if found
    ]
    if constants:
        listed = ", ".join(f"'{constant}'" for constant in constants)
        terms.append(Filter(f"(coalesce(json_type(metadata, ?), '') IN ({listed}))", (path,)))
    return _joined("OR", terms) if terms else Filter("(0)")


def _member(path: str, types: str, values: list[Any]) -> Filter:
    """The type is looked at first, so that what is extracted is never null."""
    has_type = f"coalesce(json_type(metadata, ?), '') IN {types}"
    return Filter(
        f"({has_type} AND json_extract(metadata, ?) IN (SELECT value FROM json_each(?)))",  # noqa: S608 - parameters
        (path, path, _json(values)),
    )


def _ordered(path: str, operator: str, operand: object) -> Filter:
    if isinstance(operand, bool) or not isinstance(operand, str | int | float):
        raise InvalidFilter(f"only strings and numbers are ordered, not {_shown(operand)}")
    types = "('text')" if isinstance(operand, str) else "('integer', 'real')"
    sql = (
        f"(coalesce(json_type(metadata, ?), '') IN {types} "
        f"AND json_extract(metadata, ?) {operator} json_extract(?, '$[0]'))"
    )
    return Filter(sql, (path, path, _json([operand])))


def _exists(path: str, operand: object) -> Filter:
    if not isinstance(operand, bool):
        raise InvalidFilter(f"$exists takes true or false, not {_shown(operand)}")
    found = Filter("(json_type(metadata, ?) IS NOT NULL)", (path,))
    return found if operand else ~found


_OPERATORS: Final[dict[str, Callable[[str, object], Filter]]] = {
    "$eq": _equal,
    "$in": _among,
    "$ne": lambda path, operand: ~_equal(path, operand),
    "$exists": _exists,
}


def _joined(word: str, filters: Iterable[Filter]) -> Filter:
    parts = list(filters)
    return Filter(
        f"({f' {word} '.join(part.sql for part in parts)})",
        tuple(parameter for part in parts for parameter in part.parameters),
    )


def _json(values: list[Any]) -> str:
    """Values reach SQLite in the form of what they are compared with, so that it reads a number the same on both sides."""
    try:
        return orjson.dumps(values).decode()
    except TypeError as error:
        raise InvalidFilter(f"a value of the filter cannot be compared: {error}") from error


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
