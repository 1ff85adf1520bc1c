r"""Filters on metadata: their language, checked. Each backend makes its own SQL of them.

A filter is an object, and all of its entries must hold.

| entry | holds if |
|---|---|
| `{"field": value}`, `{"field": {"$eq": value}}` | the field exists and equals the value |
| `{"field": {"$in": [...]}}` | it equals one of the values; never, if there are none |
| `{"field": {"$ne": value}}`, `{"field": {"$nin": [...]}}` | `$eq` or `$in` does not hold; so also if the field is missing |
| `{"field": {"$contains": value}}` | it is a list with an element that equals the value, or a string of which it is a part |
| `{"field": {"$gt": value}}`, `$gte`, `$lt`, `$lte` | the field exists, has the value's type, and compares like that |
| `{"field": {"$exists": true}}`, `false` | the field exists, even if it is null · it does not exist |
| `{"$and": [...]}`, `{"$or": [...]}`, `{"$not": {...}}` | all · at least one · not, each of a filter |

Values are strings, numbers, booleans and null; only strings and numbers are ordered. Types never mix: "1", 1 and true are
three different values, but 1 equals 1.0. Null equals null, but not a missing field. A list or an object equals nothing and
compares with nothing; it exists. Strings are compared by code point, and case matters. Integers beyond 64 bits are refused.

A field is a path of names joined by dots: "a.b" is `b` in the object `a`. A name between backticks may contain dots and begin
with `$`: "`a.b`.c" is `c` in the object `a.b`, and a backtick in it is doubled. Otherwise, what starts with `$` is an operator.
A field cannot name elements of lists, nor names that are empty or contain a quotation mark, a backslash or a control character.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, cast

import orjson

from rankone.index.errors import InvalidFilter

MAX_DEPTH: Final = 16
MAX_TERMS: Final = 256
MAX_VALUES: Final = 10_000
_NAME: Final = re.compile(r'`((?:[^`"\\\x00-\x1f\x7f]|``)+)`|([^`".\\\x00-\x1f\x7f]+)')
_FIELD: Final = re.compile(rf"(?:{_NAME.pattern})(?:\.(?:{_NAME.pattern}))*")
_INT64: Final = range(-(2**63), 2**63)

Field = tuple[str, ...]
"""The names of a metadata field, from the outside in."""
Ordered = str | int | float
Scalar = Ordered | bool | None
Sign = Literal[">", ">=", "<", "<="]

_ORDER: Final[dict[str, Sign]] = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS: Final = ("$eq", "$in", "$ne", "$nin", "$contains", "$exists", *_ORDER)


@dataclass(frozen=True)
class Joined:
    """All of the parts hold, or at least one."""

    word: Literal["AND", "OR"]
    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    """The part does not hold."""

    part: Condition


@dataclass(frozen=True)
class In:
    """The field equals one of the values; never, if there are none."""

    field: Field
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Compare:
    """The field has the type of the value, and compares with it."""

    field: Field
    sign: Sign
    value: Ordered


@dataclass(frozen=True)
class Contains:
    """The field is a list with an element that equals the value, or a string of which it is a part."""

    field: Field
    value: Scalar


@dataclass(frozen=True)
class Exists:
    """The field exists."""

    field: Field


Condition = Joined | Not | In | Compare | Contains | Exists


@dataclass(frozen=True)
class Filter:
    """A checked filter. Two are equal if they were written alike: for Python, conditions on 1, 1.0 and true would be equal."""

    source: bytes
    """As JSON."""
    condition: Condition = field(compare=False, repr=False)


class Sql(NamedTuple):
    """A condition on a row of items, and its parameters."""

    text: str
    parameters: tuple[Any, ...] = ()


def joined(word: str, terms: Iterable[Sql]) -> Sql:
    """A condition that joins others with AND or OR."""
    parts = list(terms)
    text = f"({f' {word} '.join(part.text for part in parts)})"
    return Sql(text, tuple(parameter for part in parts for parameter in part.parameters))


def compiled(source: object) -> Filter:
    """The filter, checked.

    Raises:
        InvalidFilter: it is not in the language, or too large.
    """
    condition = _Compiler().condition(source, 0)
    return Filter(orjson.dumps(source), condition)


def path_of(name: str) -> Field:
    """The names of a dotted field.

    Raises:
        InvalidFilter: a name that cannot be looked up.
    """
    if not _FIELD.fullmatch(name):
        raise InvalidFilter(
            f"{name!r} is no field: names joined by dots, without quotation marks and backslashes; a name with a dot or a "
            "backtick in it, or a $ before it, stands between backticks: `a.b`"
        )
    return tuple(quoted.replace("``", "`") or bare for quoted, bare in _NAME.findall(name))


class _Compiler:
    """Counts the terms of a filter, to limit what it can cost."""

    def __init__(self) -> None:
        self._num_terms = 0

    def condition(self, source: object, depth: int) -> Condition:
        self._num_terms += 1
        if depth > MAX_DEPTH or self._num_terms > MAX_TERMS:
            raise InvalidFilter(f"a filter has at most {MAX_DEPTH} levels and {MAX_TERMS} terms")
        if not isinstance(source, dict) or not source:
            raise InvalidFilter(f"a filter is an object with at least one entry, not {_shown(source)}")
        return _all([self._entry(name, value, depth) for name, value in source.items()])

    def _entry(self, name: str, value: object, depth: int) -> Condition:
        if name in ("$and", "$or"):
            if not isinstance(value, list) or not value:
                raise InvalidFilter(f"{name} takes a list of at least one filter, not {_shown(value)}")
            parts = tuple(self.condition(part, depth + 1) for part in value)
            return Joined("AND" if name == "$and" else "OR", parts)
        if name == "$not":
            return Not(self.condition(value, depth + 1))
        if name.startswith("$"):
            raise InvalidFilter(
                f"there is no operator {name!r} of filters; there are $and, $or and $not (a field of that name is '`{name}`')"
            )
        path = path_of(name)
        if not isinstance(value, dict):
            return In(path, _scalars([value]))
        if not value:
            raise InvalidFilter("a field is compared with a value or by operators, and {} is neither")
        self._num_terms += len(value)
        return _all([_operation(path, operator, operand) for operator, operand in value.items()])


def _all(parts: list[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else Joined("AND", tuple(parts))


def _operation(path: Field, name: str, operand: object) -> Condition:
    if name in _ORDER:
        if isinstance(operand, bool) or not isinstance(operand, str | int | float):
            raise InvalidFilter(f"only strings and numbers are ordered, not {_shown(operand)}")
        (value,) = _scalars([operand])
        return Compare(path, _ORDER[name], cast("Ordered", value))
    if name in ("$in", "$nin"):
        if not isinstance(operand, list) or len(operand) > MAX_VALUES:
            raise InvalidFilter(f"{name} takes a list of at most {MAX_VALUES:,} values, not {_shown(operand)}")
        among = In(path, _scalars(operand))
        return among if name == "$in" else Not(among)
    if name in ("$eq", "$ne"):
        equals = In(path, _scalars([operand]))
        return equals if name == "$eq" else Not(equals)
    if name == "$contains":
        if operand is not None and not isinstance(operand, str | int | float):
            raise InvalidFilter(f"$contains takes a string, a number, a boolean or null, not {_shown(operand)}")
        return Contains(path, *_scalars([operand]))
    if name == "$exists":
        if not isinstance(operand, bool):
            raise InvalidFilter(f"$exists takes true or false, not {_shown(operand)}")
        return Exists(path) if operand else Not(Exists(path))
    known = ", ".join(_OPERATORS)
    raise InvalidFilter(f"there is no operator {name!r} of fields; there are {known} (a field in an object is 'a.b')")


def _scalars(values: list[Any]) -> tuple[Scalar, ...]:
    """The same values, each of which can be stored and compared."""
    for value in values:
        if value is not None and not isinstance(value, str | int | float):
            raise InvalidFilter(f"fields are compared with strings, numbers, booleans and null, not {_shown(values)}")
        if isinstance(value, int) and value not in _INT64:
            raise InvalidFilter(
                f"the integer {_shown(value)} is beyond 64 bits (-2^63 to 2^63 - 1) and cannot be compared"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidFilter(f"the number {value} is not finite and cannot be compared")
        if isinstance(value, str) and "\0" in value:
            raise InvalidFilter(f"{_shown(value)} holds the character U+0000, which no metadata holds")
    try:
        orjson.dumps(values)
    except TypeError as error:
        raise InvalidFilter(f"a value of the filter cannot be compared: {error}") from error
    return tuple(values)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
